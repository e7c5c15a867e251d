"""QuantizeLinear of constant weights is done once: what follows it, DequantizeLinear, stays."""

from __future__ import annotations

from typing import TYPE_CHECKING

from graphkit.rewrite.rule import Rule

if TYPE_CHECKING:
    import onnx_ir as ir

    from graphkit.rewrite.editor import Editor

_INTEGERS = ("int8", "uint8", "int16", "uint16")


def _fold(editor: Editor, node: ir.Node) -> bool:
    """`saturate(round_half_to_even(x / scale) + zero_point)`, in float32 as the standard has it."""
    import numpy as np

    weight, result = node.inputs[0], node.outputs[0]
    if not editor.is_constant(weight) or weight is None or editor.dtype(weight) != "float32":
        return False
    if result.is_graph_output():
        return False
    scale, zero = editor.weight(node.inputs[1]), editor.input(node, 2)
    point = editor.weight(zero)
    if scale is None or scale.dtype != np.float32 or (zero is not None and point is None):
        return editor.miss(node, "its scale or zero point is no constant")
    asked = editor.attribute(node, "output_dtype")
    if (point is None and asked) or (point is not None and point.dtype.name not in _INTEGERS):
        return editor.miss(node, "only 8 and 16 bit integers are quantised beforehand")
    if editor.attribute(node, "block_size") or editor.attribute(node, "precision") not in (None, 0, 1):
        return editor.miss(node, "weights quantised in blocks are left as they are")
    tensor = weight.const_value
    if len(editor.users(weight)) > 1:
        size = 0 if tensor is None else tensor.nbytes // 4
        if size > editor.growth:
            return editor.miss(node, "the float weights are used elsewhere, and a copy would make the model grow")
        editor.growth -= size
    array = editor.weight(weight)
    assert array is not None
    kind = np.dtype(np.uint8) if point is None else point.dtype
    shape = [1] * array.ndim
    if scale.size > 1:
        axis = int(editor.attribute(node, "axis"))
        if scale.ndim != 1 or not -array.ndim <= axis < array.ndim or array.shape[axis] != scale.size:
            return False
        shape[axis] = scale.size
    shift = np.zeros(1) if point is None else point.astype(np.float64)
    if shift.size not in (1, scale.size) or not np.isfinite(array).all():
        return False
    with np.errstate(all="ignore"):
        steps = np.rint(array / scale.reshape(shape if scale.size > 1 else ()))
    if not np.isfinite(steps).all():
        return editor.miss(node, "a scale is zero")
    limits = np.iinfo(kind)
    moved = steps.astype(np.float64) + shift.reshape(shape if shift.size > 1 else ())
    made = np.clip(moved, limits.min, limits.max).astype(kind)
    editor.replace(result, editor.initializer(made.reshape(array.shape), weight.name or "quantised"))
    return True


RULES = (
    Rule(
        "quantise-weights",
        "folding",
        ("QuantizeLinear",),
        _fold,
        "QuantizeLinear of constant weights is computed once; the DequantizeLinear after it stays",
    ),
)
