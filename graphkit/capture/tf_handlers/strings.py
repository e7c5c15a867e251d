"""Equality of strings, which ONNX's `Equal` has from opset 19 on only.

tf2onnx 1.17 compares the numbers that the strings spell: `"01"` equals `"1"`, and `"a"` fails in ONNX Runtime.
"""

from __future__ import annotations

from collections.abc import Mapping

from graphkit.capture.tf_handlers.emitter import Emit, Emitter, run_builtin


def handlers() -> Mapping[str, Emit]:
    return {"Equal": _equal, "NotEqual": lambda e: _equal(e, negated=True)}


def _equal(e: Emitter, *, negated: bool = False) -> list[str] | None:
    """Strings are equal where they are the same one among all the distinct ones of both tensors."""
    import onnx

    if e.graph.get_dtype(e.node.input[0]) != onnx.TensorProto.STRING:
        run_builtin(e)
        return None
    flat = [e.op("Reshape", tensor, e.ints(-1)) for tensor in e.node.input]
    numbers = e.ops("Unique", [e.op("Concat", *flat, axis=0)], 4)[2]
    border = e.op("Shape", flat[0])
    parts = (
        e.op("Slice", numbers, e.ints(0), border),
        e.op("Slice", numbers, border, e.ints(2**31 - 1)),
    )
    left, right = (
        e.op("Reshape", part, e.op("Shape", tensor)) for part, tensor in zip(parts, e.node.input, strict=True)
    )
    same = e.op("Equal", left, right)
    return [e.op("Not", same) if negated else same]
