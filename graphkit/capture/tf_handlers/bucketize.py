"""Bucketize, behind the Discretization layer of Keras."""

from __future__ import annotations

from collections.abc import Mapping

from graphkit.capture.tf_handlers.emitter import Emit, Emitter


def handlers() -> Mapping[str, Emit]:
    return {"Bucketize": _bucketize}


def _bucketize(e: Emitter) -> list[str]:
    """The number of boundaries at or below each value."""
    import numpy as np
    import onnx

    x = e.node.input[0]
    boundaries = np.asarray(e.node.get_attr_value("boundaries") or [], np.float32)
    if np.dtype(e.numpy_dtype(x)) == np.int32:
        boundaries = boundaries.astype(np.float64)  # float32 does not hold every int32
        x = e.op("Cast", x, to=onnx.TensorProto.DOUBLE)
    elif np.dtype(e.numpy_dtype(x)) in (np.dtype(np.int64),):
        boundaries = boundaries.astype(np.float64)
        x = e.op("Cast", x, to=onnx.TensorProto.DOUBLE)
    limits = e.const(boundaries.astype(e.numpy_dtype(x)))
    reached = e.op("GreaterOrEqual", e.op("Unsqueeze", x, e.ints(-1)), limits)
    counts = e.reduce("ReduceSum", e.op("Cast", reached, to=onnx.TensorProto.INT32), [-1])
    return [counts]
