"""Outlier channels moved from activations into weights, so that one int8 scale can hold the tensor.

SmoothQuant (Xiao et al., ICML 2023): x W = (x / s) (s W), with a factor for each channel that is summed over,
s = max|x|^a / max|W|^(1 - a). The division is one Mul before QuantizeLinear, which TensorRT fuses with the arithmetic
before it; the factor goes into the weight. It is done only where a channel is an outlier, in front of MatMul and Gemm;
a = 0.75 is what the authors take for models with strong outliers. fp8 needs none: its steps grow with the values.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

from graphkit.precision.qdq_spots import Spots
from graphkit.precision.quant_numbers import amax_per_channel
from graphkit.precision.quant_select import Candidate, constant

if TYPE_CHECKING:
    import numpy as np

    Array = np.ndarray[Any, Any]

_SHARE = 0.75
_OUTLIER = 6.0
"""How many times the median channel the largest has to be. A sentence encoder's lie between 6 and 22."""

_LEAST = 1e-5


def eligible(found: Sequence[Candidate], spots: Spots) -> tuple[str, ...]:
    """Tensors whose every quantised reader is a MatMul or Gemm that sums over the last axis, and whose scale is shared
    with no other tensor."""
    grouped = {name for group in spots.groups for name in group}
    readers: dict[str, int] = {}
    for each in found:
        value = each.activation
        plain = each.node.attributes.get_int("transA", 0) == 0
        if each.k_axis is not None and plain and value.name and value.shape is not None and len(value.shape) > 1:
            readers[value.name] = readers.get(value.name, 0) + 1
    return tuple(n for n, count in readers.items() if count == len(spots.readers[n]) and n not in grouped)


def factors(found: Sequence[Candidate], channels: Mapping[str, Sequence[float]]) -> dict[str, Array]:
    """The factor of each channel of the tensors that have outliers; by all layers that read one, kept or not.

    Args:
        channels: The largest |x| of each channel, by tensor.
    """
    import numpy as np

    made: dict[str, Array] = {}
    for name, seen in channels.items():
        largest = np.maximum(np.asarray(seen, np.float64), _LEAST)
        if largest.max() < _OUTLIER * np.median(largest):
            continue
        weights = [_per_input(each) for each in found if each.activation.name == name]
        weight = np.maximum(np.maximum.reduce(weights), _LEAST)
        factor = largest**_SHARE / weight ** (1 - _SHARE)
        if np.isfinite(factor).all():
            made[name] = factor.astype(np.float32)
    return made


def _per_input(each: Candidate) -> Array:
    tensor = constant(each.weight)
    assert tensor is not None
    assert each.k_axis is not None
    return amax_per_channel(tensor.numpy(), each.k_axis)
