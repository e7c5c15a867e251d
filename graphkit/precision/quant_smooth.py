"""Channels of an activation brought to one centre and one size before they share an int8 scale.

Three moves in front of MatMul and Gemm, the first two of which leave the product as it was:

- shift: x W = (x - z) W + z W, with z in the middle of what a channel holds. Both halves of the int8 range are used
  then: what ReLU and GELU leave lies on one side of zero, and so do outlier channels of normalisations. It is a zero
  point that TensorRT takes, since the scale stays symmetric: z W is a constant and goes into the bias. (Wei et al.,
  Outlier Suppression+, EMNLP 2023, section 4.1.)
- factor: x W = (x / s) (s W), s = max|x|^a / max|W|^(1 - a) for each channel that is summed over (SmoothQuant, Xiao et
  al., ICML 2023).
- headroom: a scale for values larger than any that was seen.

What is done to a tensor, and with which a, is what loses least on samples that it was not made from: the ranges of one
half of the samples are tried on rows of the other. A channel that was quiet in one half and is not in the other is
clipped hard where it was given a range of its own, so few or uneven samples lead to less being moved, and to headroom;
of one sample alone nothing is moved.

All are elementwise before QuantizeLinear, which TensorRT fuses with the arithmetic around it. fp8 needs none: its steps
grow with the values.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from graphkit.precision.qdq_spots import Spots
from graphkit.precision.quant_numbers import LARGEST
from graphkit.precision.quant_select import Candidate, constant

if TYPE_CHECKING:
    import numpy as np

    from graphkit.precision.quant_channels import Half

    Array = np.ndarray[Any, Any]

_SHARES = (0.4, 0.5, 0.6, 0.7, 0.8)
"""Of a, those that are tried; none at all, too."""

_HEADROOM = (1.0, 1.1, 1.25, 1.5)
_WORTH = 0.8
"""Moves are made where they take the error to less than this share: each costs an operation on every element."""

_NARROW = 0.02
"""The least reach of a channel, as a share of its own size: one that hardly varied may do so in other data."""

_LEAST = 1e-5
_LEVELS = LARGEST["int8"]


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


@dataclass(frozen=True, slots=True)
class Smoothing:
    """What is done to the channels of a tensor: (x - shift) / factor.

    Attributes:
        factor: float32 [channels], positive; None for 1.
        shift: float32 [channels]; None for 0.
        amax: The largest |x| afterwards, over all channels.
    """

    factor: Array | None
    shift: Array | None
    amax: float


def smoothings(found: Sequence[Candidate], channels: Mapping[str, Sequence[Half]]) -> dict[str, Smoothing]:
    """What to do to each tensor that gains by it; by all layers that read one, kept or not.

    Args:
        channels: What was seen of each tensor.
    """
    import numpy as np

    made = {}
    for name, seen in channels.items():
        weight = np.concatenate([_matrix(each) for each in found if each.activation.name == name], axis=1)
        if len(seen) == 2 and np.isfinite(weight).all():
            best = _best(seen, weight)
            if best is not None:
                made[name] = best
    return made


def _best(seen: Sequence[Half], weight: Array) -> Smoothing | None:
    """The moves with the least error of all that are tried; None where leaving the tensor alone is as good."""
    import numpy as np

    pairs = [(seen[0], seen[1].rows), (seen[1], seen[0].rows)]
    per_input = np.maximum(np.abs(weight).max(1), _LEAST)
    power = np.square(weight).sum(1, dtype=np.float64)
    errors: dict[tuple[bool, float | None], Array] = {}
    for shift in (False, True):
        for share in (None, *_SHARES):
            total = np.zeros(len(_HEADROOM))
            for half, rows in pairs:
                middle, reach = _reach(half.low, half.high, shift)
                factor = _factor(reach, per_input, share)
                total += _errors(rows, middle, reach, factor, weight, power)
            errors[shift, share] = total
    alone = errors[False, None]
    chosen = min(errors, key=lambda moves: float(errors[moves].min()))
    if errors[chosen].min() > _WORTH * alone.min():
        chosen = False, None
    room = _HEADROOM[int(errors[chosen].argmin())]
    if chosen == (False, None) and room == 1:
        return None
    shift, share = chosen
    low, high = np.minimum.reduce([h.low for h in seen]), np.maximum.reduce([h.high for h in seen])
    middle, reach = _reach(low, high, shift)
    factor = _factor(reach, per_input, share)
    return Smoothing(
        factor.astype(np.float32) if share is not None else None,
        middle.astype(np.float32) if shift else None,
        float((reach / factor).max()) * room,
    )


def _reach(low: Array, high: Array, shift: bool) -> tuple[Array, Array]:
    """The middle of each channel, or 0, and the largest distance from it."""
    import numpy as np

    low, high = low.astype(np.float64), high.astype(np.float64)
    middle = (low + high) / 2 if shift else np.zeros_like(low)
    seen = np.maximum(np.abs(low), np.abs(high))
    return middle, np.maximum.reduce([high - middle, middle - low, _NARROW * seen, np.full_like(low, _LEAST)])


def _factor(reach: Array, weight: Array, share: float | None) -> Array:
    import numpy as np

    return np.ones_like(reach) if share is None else np.asarray(reach**share / weight ** (1 - share))


def _errors(rows: Array, middle: Array, reach: Array, factor: Array, weight: Array, power: Array) -> Array:
    """Squared error of the product for a row, for each headroom: rounding of x and of W, with a variance of step^2 / 12
    each, and what is clipped off x. Errors of channels are taken to be independent.

    Args:
        rows: [rows, K] to try on. `weight`: [K, N]. `power`: [K], the sum of squares of each row of it.
    """
    import numpy as np

    amax = float((reach / factor).max())
    strength = power * factor**2
    steps = np.abs(weight * factor[:, None].astype(np.float32)).max(0).astype(np.float64) / _LEVELS
    of_weight = np.square(rows / factor).sum(1).mean() * np.square(steps).sum() / 12
    distance = np.abs(rows - middle) / factor
    found = []
    for room in _HEADROOM:
        over = np.flatnonzero(distance.max(0) > amax * room)
        clipped = np.square(np.maximum(distance[:, over] - amax * room, 0)).mean(0) @ strength[over]
        found.append((amax * room / _LEVELS) ** 2 / 12 * strength.sum() + clipped + of_weight)
    return np.array(found)


def _matrix(each: Candidate) -> Array:
    """The weight as [K, N]."""
    import numpy as np

    tensor = constant(each.weight)
    assert tensor is not None
    assert each.k_axis is not None
    moved = np.moveaxis(tensor.numpy(), each.k_axis, 0)
    return moved.reshape(len(moved), -1)
