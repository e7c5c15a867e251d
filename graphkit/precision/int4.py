"""int4 weights in blocks: MatMul and Gemm read DequantizeLinear of a packed int4 weight, activations stay float32.

Round to nearest with one scale for each block of weights along the summed axis (RTN, the baseline of Frantar et al.,
GPTQ, ICLR 2023, and Lin et al., AWQ, MLSys 2024). Per block the scale with the least squared error of the weights is
taken, out of the plain one (largest |w| on 7) and smaller ones that clip it, as in AWQ's clipping, but without data.
"""

from __future__ import annotations

from collections.abc import Set as AbstractSet
from typing import TYPE_CHECKING, Any

from graphkit.errors import BadOption, PrecisionRefused
from graphkit.lowering import Kept, Lowering
from graphkit.model import Model, provenance
from graphkit.precision.qdq_place import Pen, drop
from graphkit.precision.quant_opset import lifted
from graphkit.precision.quant_result import result
from graphkit.precision.quant_select import (
    Candidate,
    candidates,
    choose,
    constant,
    kept_for,
    nothing_left,
    refuse_quantised,
)

if TYPE_CHECKING:
    import numpy as np
    import onnx_ir as ir

    Array = np.ndarray[Any, Any]

BLOCKS = (16, 32, 64, 128, 256)
DEFAULT_BLOCK = 32
LEAST_OPSET = 21
_SHRUNK = (1.0, 0.95, 0.9, 0.875, 0.85, 0.8, 0.75, 0.7, 0.65)
"""Shares of the plain scale that are tried; at 7/8 a largest weight that is negative becomes -8."""


def lower(
    model: Model, *, block: int = DEFAULT_BLOCK, keep: AbstractSet[str] = frozenset(), clip: bool = True
) -> Lowering:
    """A model whose MatMul and Gemm weights are int4.

    Args:
        block: Weights along the summed axis that share a scale.
        keep: Names of nodes to leave as they are.
        clip: Whether to look for the scale with the least squared error, or take the largest |w| on 7.

    Raises:
        PrecisionRefused: the model is quantised already, nothing in it can be, or a weight is not finite.
        BadOption: there is no such block size. `UnknownName`: `keep` names no such node.
    """
    import onnx_ir as ir

    if block not in BLOCKS:
        raise BadOption(f"blocks of {block} weights", remedy=f"one of {', '.join(map(str, BLOCKS))}")
    refuse_quantised(model)
    model = lifted(model, LEAST_OPSET, "int4")
    found, left = fitting(model, block)
    chosen, kept = choose(model, found, left, keep)
    if not chosen:
        raise nothing_left("int4", kept)
    copy = model.ir.clone()
    copy.ir_version = max(copy.ir_version, 10)
    nodes, places = list(copy.graph), {id(node): i for i, node in enumerate(model.ir.graph)}
    pen = Pen(copy, ir.DataType.INT4)
    written: dict[tuple[str, int], ir.Value] = {}
    for each in chosen:
        node = nodes[places[id(each.node)]]
        weight = node.inputs[1]
        assert weight is not None
        assert each.k_axis is not None
        key = weight.name or "", each.k_axis
        if key not in written:
            stored, scale = _quantised(each, block, clip)
            attributes = {"axis": each.k_axis, "block_size": block}
            written[key] = pen.weight(weight, node, stored, scale, attributes)
        node.replace_input_with(1, written[key])
        drop(copy.graph, weight)
    return result(model.with_step(f"int4 (blocks of {block})", copy), "int4", kept)


def quantise(weight: Array, axis: int, block: int, *, clip: bool = True) -> tuple[Array, Array]:
    """A float32 matrix as whole numbers in [-8, 7], int8, and its scales.

    Args:
        weight: [K, N] or [N, K], finite; ones may lead.
        axis: The axis of K, which `block` divides.

    Returns:
        The numbers in the weight's shape, and float32 scales of that shape with K / block in place of K.
    """
    import numpy as np

    moved = np.moveaxis(weight, axis, 0)
    blocks = np.ascontiguousarray(moved, np.float32).reshape(moved.shape[0] // block, block, -1)
    plain = np.abs(blocks).max(1) / 7.0
    plain = np.where(plain < 2.0**-126, 1.0, plain).astype(np.float32)
    scale, error = plain, np.full(plain.shape, np.inf, np.float32)
    for share in _SHRUNK if clip else _SHRUNK[:1]:
        tried = (plain * np.float32(share))[:, None]
        lost = np.square(np.clip(np.rint(blocks / tried), -8, 7) * tried - blocks).sum(1)
        better = lost < error
        scale, error = np.where(better, tried[:, 0], scale), np.where(better, lost, error)
    numbers = np.clip(np.rint(blocks / scale[:, None]), -8, 7).astype(np.int8).reshape(moved.shape)
    scale = scale.astype(np.float32).reshape(-1, *moved.shape[1:])
    return np.moveaxis(numbers, 0, axis), np.moveaxis(scale, 0, axis)


def fitting(model: Model, block: int) -> tuple[list[Candidate], list[Kept]]:
    found, left = candidates(model, ("Gemm", "MatMul"))
    good = []
    for each in found:
        tensor = constant(each.weight)
        assert tensor is not None
        assert each.k_axis is not None
        length = tensor.shape[each.k_axis]
        if isinstance(length, int) and length % block == 0:
            good.append(each)
        else:
            left.append(kept_for(each.node, f"it sums over {length} weights, which blocks of {block} do not divide"))
    return good, left


def _quantised(each: Candidate, block: int, clip: bool) -> tuple[ir.TensorProtocol, ir.TensorProtocol]:
    import ml_dtypes
    import numpy as np
    import onnx_ir as ir

    tensor = constant(each.weight)
    assert tensor is not None
    assert each.k_axis is not None
    values = tensor.numpy()
    if not np.isfinite(values).all():
        lines = provenance(each.node)
        raise PrecisionRefused(
            f"the weight `{each.weight.name}` of `{each.name}` holds NaN or infinity: it has no scale",
            where=str(lines[0]) if lines else None,
            remedy="train or export the model again; graphkit inspect --weights shows where they are",
        )
    numbers, scale = quantise(values, each.k_axis, block, clip=clip)
    return ir.tensor(np.ascontiguousarray(numbers).astype(ml_dtypes.int4)), ir.tensor(np.ascontiguousarray(scale))
