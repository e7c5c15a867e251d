"""Ops on shapes and indices, most of them from the gradients of broadcasting, slicing and gathering."""

from __future__ import annotations

from collections.abc import Mapping

from graphkit.capture.tf_handlers.emitter import Emit, Emitter, Refusal, run_builtin


def handlers() -> Mapping[str, Emit]:
    return {
        "BroadcastGradientArgs": _broadcast_gradient_args,
        "BroadcastArgs": _broadcast_args,
        "BiasAddGrad": _bias_add_grad,
        "ConcatOffset": _concat_offset,
        "DynamicStitch": _dynamic_stitch,
        "ParallelDynamicStitch": _dynamic_stitch,
        "ShapeN": _shape_n,
        "InvertPermutation": _invert_permutation,
        "StridedSliceGrad": _strided_slice_grad,
        "Select": _select,
        "SelectV2": _select,
    }


def _broadcast_gradient_args(e: Emitter) -> list[str]:
    """The axes over which the gradient of each of two broadcast arguments is summed: where the argument has size 1
    and the result has not, and the leading axes that it lacks; in TensorFlow also where both have size 1, which sums
    over one element."""
    shapes = [e.int64(t) for t in e.node.input]
    ranks = [e.op("Shape", s) for s in shapes]
    rank = e.op("Max", *ranks)
    ones = [_padded_with_ones(e, s, e.op("Sub", rank, r)) for s, r in zip(shapes, ranks, strict=True)]
    axes = e.op("Range", e.const(_int64(0)), e.op("Squeeze", rank, e.ints(0)), e.const(_int64(1)))
    one = e.ints(1)
    return [
        e.cast(e.op("Compress", axes, e.op("Equal", s, one), axis=0), out)
        for s, out in zip(ones, e.node.output, strict=True)
    ]


def _int64(value: int) -> object:
    import numpy as np

    return np.asarray(value, np.int64)


def _padded_with_ones(e: Emitter, shape: str, missing: str) -> str:
    """The shape with that many ones in front."""
    return e.op("Concat", e.op("Expand", e.ints(1), missing), shape, axis=0)


def _broadcast_args(e: Emitter) -> list[str]:
    shapes = [e.int64(t) for t in e.node.input]
    ranks = [e.op("Shape", s) for s in shapes]
    rank = e.op("Max", *ranks)
    left, right = (_padded_with_ones(e, s, e.op("Sub", rank, r)) for s, r in zip(shapes, ranks, strict=True))
    return [e.cast(e.op("Where", e.op("Equal", left, e.ints(1)), right, left), e.node.output[0])]


def _bias_add_grad(e: Emitter) -> list[str]:
    gradient = e.node.input[0]
    rank = e.rank(gradient)
    layout = e.node.get_attr_value("data_format", "NHWC")
    layout = layout.decode() if isinstance(layout, bytes) else str(layout)
    channel = 1 if layout == "NCHW" else rank - 1
    return [e.reduce("ReduceSum", gradient, [a for a in range(rank) if a != channel])]


def _concat_offset(e: Emitter) -> list[str]:
    """Where each argument of a concatenation begins: the sums of the sizes before it, zero on the other axes."""
    import numpy as np

    axis, *shapes = e.node.input
    shapes = [e.int64(s) for s in shapes]
    rank = (e.shape(shapes[0]) or [-1])[0]
    known = e.value(axis)
    if known is None or rank < 0:
        raise Refusal("the axis or the rank of the concatenation is not known")
    along = e.const(np.eye(rank, dtype=np.int64)[int(known)])
    offsets = [e.const(np.zeros(rank, np.int64))]
    for shape in shapes[:-1]:
        offsets.append(e.op("Add", offsets[-1], e.op("Mul", shape, along)))
    return [e.cast(t, out) for t, out in zip(offsets, e.node.output, strict=True)]


def _dynamic_stitch(e: Emitter) -> list[str]:
    """Rows put where their indices say; a later list wins. The gradient of a reduction makes its shape so."""
    given = e.node.input
    indices = [e.int64(t) for t in given[: len(given) // 2]]
    rows = given[len(given) // 2 :]
    flat = [e.op("Reshape", t, e.ints(-1)) for t in indices]
    last = e.op("ReduceMax", e.op("Concat", *flat, axis=0), keepdims=1)
    count = e.op("Add", last, e.ints(1))
    spread = e.rank(indices[0])
    row = e.op("Slice", e.op("Shape", rows[0]), e.ints(spread), e.ints(2**31 - 1))
    made = e.op("Expand", e.const(0, like=rows[0]), e.op("Concat", count, row, axis=0))
    for places, values in zip(flat, rows, strict=True):
        updates = e.op("Reshape", values, e.op("Concat", e.ints(-1), row, axis=0))
        made = e.op("ScatterND", made, e.op("Unsqueeze", places, e.ints(-1)), updates)
    return [made]


def _shape_n(e: Emitter) -> list[str]:
    return [e.cast(e.op("Shape", t), out) for t, out in zip(e.node.input, e.node.output, strict=True)]


def _invert_permutation(e: Emitter) -> list[str]:
    """Scatter 0..n-1 to the places that the permutation names."""
    order = e.int64(e.node.input[0])
    count = e.op("Squeeze", e.op("Shape", order), e.ints(0))
    places = e.op("Range", e.const(_int64(0)), count, e.const(_int64(1)))
    return [e.cast(e.op("ScatterElements", order, order, places, axis=0), e.node.output[0])]


def _strided_slice_grad(e: Emitter) -> list[str]:
    """The forward slice of the flat indices says where each gradient belongs; a slice reads no element twice."""
    from tf2onnx import utils

    shape, begin, end, strides, gradient = e.node.input
    shape = e.int64(shape)
    count = e.op("ReduceProd", shape, keepdims=0)
    flat = e.op("Range", e.const(_int64(0)), count, e.const(_int64(1)))
    places = e.op("Reshape", flat, shape)
    out = e.shape(e.node.output[0])
    if out is None:
        raise Refusal("the rank of the sliced tensor is not known")
    e.graph.set_shape(places, out)
    masks = {m: e.node.get_attr_value(m, 0) for m in _MASKS}
    forward = e.graph.make_node(
        "StridedSlice", [places, begin, end, strides], attr=masks, name=utils.make_name(f"{e.node.name}_forward"),
        shapes=[e.shape(gradient)], dtypes=[e.graph.get_dtype(places)], infer_shape_dtype=False,
    )  # fmt: skip
    taken = forward.output[0]
    run_builtin(Emitter(e.graph, forward))
    zeros = e.op("Expand", e.const(0.0, like=gradient), e.op("Unsqueeze", count, e.ints(0)))
    updates = [e.op("Reshape", t, e.ints(-1)) for t in (taken, gradient)]
    return [e.op("Reshape", e.op("ScatterElements", zeros, *updates, axis=0), shape)]


_MASKS = ("begin_mask", "end_mask", "ellipsis_mask", "new_axis_mask", "shrink_axis_mask")


def _select(e: Emitter) -> list[str]:
    """`Where`, always: tf2onnx multiplies by the condition, which makes NaN of an infinity that is not chosen.
    Between truth values it is written in logic: ONNX Runtime (1.32) has no `Where` of bool."""
    import onnx

    condition, chosen, otherwise = e.node.input
    if e.node.type == "Select" and e.rank(condition) == 1:
        rank = e.rank(chosen)
        if rank > 1:
            condition = e.op("Reshape", condition, e.ints(-1, *[1] * (rank - 1)))
    if e.graph.get_dtype(chosen) == onnx.TensorProto.BOOL:
        left = e.op("And", condition, chosen)
        return [e.op("Or", left, e.op("And", e.op("Not", condition), otherwise))]
    return [e.op("Where", condition, chosen, otherwise)]
