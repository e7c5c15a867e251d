"""Rows that are put together by number: scatter_nd and the segment reductions.

tf2onnx overwrites where TensorFlow adds up, gives a negative number a segment from the end, and fills segments without
rows with what its reduction starts from.
"""

from __future__ import annotations

from collections.abc import Mapping
from functools import partial
from typing import Any

from graphkit.capture.tf_handlers.emitter import Emit, Emitter, Refusal, run_builtin


def handlers() -> Mapping[str, Emit]:
    kinds = ("Sum", "Prod", "Max", "Min")
    unsorted = {f"UnsortedSegment{k}": partial(_unsorted, kind=k) for k in kinds}
    ordered = {f"Segment{k}": partial(_sorted, kind=k) for k in (*kinds, "Mean")}
    return {"ScatterNd": _scatter_nd, **unsorted, **ordered}


_REDUCTIONS = {"Sum": ("add", 16), "Prod": ("mul", 16), "Max": ("max", 18), "Min": ("min", 18)}


def _scatter_nd(e: Emitter) -> list[str] | None:
    """Updates of the same place are added up."""
    import numpy as np

    indices, updates, shape = e.node.input
    known = e.value(indices)
    once = known is not None and len(np.unique(rows := known.reshape(-1, known.shape[-1]), axis=0)) == len(rows)
    if once or not np.issubdtype(e.numpy_dtype(updates), np.number):
        run_builtin(e)
        return None
    if e.opset < 16:
        raise Refusal("updates of the same place can only be added up from opset 16 on")
    zeros = e.op("Expand", e.const(0, like=updates), e.int64(shape))
    return [e.op("ScatterND", zeros, e.int64(indices), updates, reduction="add")]


def _unsorted(e: Emitter, kind: str) -> list[str]:
    data, segments, count = e.node.input
    return [_reduced(e, data, segments, e.op("Reshape", e.int64(count), e.ints(1)), kind)]


def _sorted(e: Emitter, kind: str) -> list[str]:
    """The numbers are sorted, and the last says how many segments there are; one without rows is 0, or 1 for Prod."""
    import numpy as np

    data, segments = e.node.input
    count = e.op("Add", e.op("ReduceMax", e.int64(segments), keepdims=1), e.ints(1))
    if kind in ("Sum", "Prod"):
        return [_reduced(e, data, segments, count, kind)]
    ones = e.op("Expand", e.const(1, like=data), e.op("Shape", segments))
    rows = e.op("Reshape", _reduced(e, ones, segments, count, "Sum"), _as_column(e, data))
    if kind == "Mean":
        total = _reduced(e, data, segments, count, "Sum")
        return [e.op("Div", total, e.op("Max", rows, e.const(np.ones(()), like=data)))]
    made = _reduced(e, data, segments, count, kind)
    zero = e.const(0, like=data)
    return [e.op("Where", e.op("Equal", rows, zero), zero, made)]


def _as_column(e: Emitter, data: str) -> str:
    """The shape in which a vector goes down the first axis of `data`: -1, 1, 1..."""
    shape = e.shape(data)
    if shape is not None:
        return e.ints(-1, *[1] * (len(shape) - 1))
    others = e.op("Sub", e.op("Shape", e.op("Shape", data)), e.ints(1))
    return e.op("Concat", e.ints(-1), e.op("Expand", e.ints(1), others), axis=0)


def _reduced(e: Emitter, data: str, segments: str, count: str, kind: str) -> str:
    """Rows of `data` reduced by number; a negative number belongs nowhere."""
    reduction, since = _REDUCTIONS[kind]
    if e.opset < since and kind != "Sum":
        raise Refusal(f"rows can only be put together by {reduction} from opset {since} on")
    row = e.op("Slice", e.op("Shape", data), e.ints(e.rank(segments)), e.ints(2**31 - 1))
    flat = e.op("Reshape", e.int64(segments), e.ints(-1))
    if e.opset < since:
        return _summed_by_product(e, data, flat, count, row)
    rows = e.op("Reshape", data, e.op("Concat", e.op("Shape", flat), row, axis=0))
    kept = e.op("Where", e.op("Less", flat, e.ints(0)), count, flat)  # a row more, cut off below
    shape = e.op("Concat", e.op("Add", count, e.ints(1)), row, axis=0)
    start = e.op("Expand", e.const(_start(e, data, kind), like=data), shape)
    made = e.op("ScatterND", start, e.op("Unsqueeze", kept, e.ints(-1)), rows, reduction=reduction)
    return e.op("Slice", made, e.ints(0), count, e.ints(0))


def _summed_by_product(e: Emitter, data: str, flat: str, count: str, row: str) -> str:
    """The rows times the matrix that says which of them belongs to which segment."""
    import numpy as np

    bounds = [e.const(np.asarray(0, np.int64)), e.op("Squeeze", count, e.ints(0)), e.const(np.asarray(1, np.int64))]
    numbers = e.op("Unsqueeze", e.op("Range", *bounds), e.ints(1))
    belongs = e.op("Equal", numbers, e.op("Unsqueeze", flat, e.ints(0)))
    width = e.op("ReduceProd", row, keepdims=1)
    rows = e.op("Reshape", data, e.op("Concat", e.op("Shape", flat), width, axis=0))
    total = e.op("MatMul", e.op("Cast", belongs, to=e.graph.get_dtype(data)), rows)
    return e.op("Reshape", total, e.op("Concat", count, row, axis=0))


def _start(e: Emitter, data: str, kind: str) -> Any:
    """What TensorFlow gives a segment without rows."""
    import numpy as np

    dtype = np.dtype(e.numpy_dtype(data))
    limits = np.finfo(dtype) if np.issubdtype(dtype, np.floating) else np.iinfo(dtype)
    return {"Sum": 0, "Prod": 1, "Max": limits.min, "Min": limits.max}[kind]
