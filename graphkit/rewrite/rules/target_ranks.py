"""TensorRT's parser gives a constant the rank of what it is broadcast against, by a layer of its own (a shuffle): with
that rank from the start there is none."""

from __future__ import annotations

from math import prod
from typing import TYPE_CHECKING

from graphkit.rewrite.rule import Rule

if TYPE_CHECKING:
    import onnx_ir as ir

    from graphkit.rewrite.editor import Editor

_ELEMENTWISE = ("Add", "Sub", "Mul", "Div", "Pow")
_SMALL = 64


def _ranked(editor: Editor, node: ir.Node) -> bool:
    ranks = [editor.rank(value) for value in node.inputs]
    result = editor.rank(node.outputs[0])
    changed = False
    for index, value in enumerate(node.inputs):
        rank, other = ranks[index], ranks[1 - index]
        if value is None or rank is None or other is None or other != result or not 0 <= rank < other:
            continue
        if not value.is_initializer() or value.is_graph_input() or value.const_value is None or other > 8:
            continue
        if node.op_type == "MatMul" and (rank != 2 or index != 1):
            continue
        if value.const_value.size > _SMALL and len(value.uses()) != 1:
            continue  # one weight for many stays one
        editor.set_input(node, index, _reshaped(editor, value, other))
        changed = True
    return changed


def _reshaped(editor: Editor, value: ir.Value, rank: int) -> ir.Value:
    """The same elements under sizes of 1 in front; they are not read now."""
    import onnx_ir as ir

    tensor = value.const_value
    assert tensor is not None
    sizes = tuple(tensor.shape.numpy())
    shape = (1,) * (rank - len(sizes)) + sizes
    if tensor.size <= _SMALL:
        return editor.initializer(tensor.numpy().reshape(shape), "ranked")
    lazy = ir.LazyTensor(
        lambda: ir.tensor(tensor.numpy().reshape(shape)), dtype=tensor.dtype, shape=ir.Shape(shape), name=tensor.name
    )
    return editor.hold(lazy, value.name or "ranked")


def _flatten(editor: Editor, node: ir.Node) -> bool:
    shape = editor.shape(node.inputs[0])
    axis = editor.attribute(node, "axis")
    if shape is None or axis not in (1, 1 - len(shape)) or len(shape) < 2:
        return False
    sizes = [size for size in shape[1:] if isinstance(size, int) and size > 0]
    if len(sizes) != len(shape) - 1:
        return False  # -1 stands for the first size, and can say one size only
    target = editor.ints_value([-1, prod(sizes)])
    editor.replace(node.outputs[0], editor.op("Reshape", [node.inputs[0], target], like=node.outputs[0]))
    return True


RULES = (
    Rule(
        "flatten-reshape",
        "target",
        ("Flatten",),
        _flatten,
        "a Flatten of known sizes becomes a Reshape: TensorRT's parser needs six layers less",
        targets=("trt", "rtx"),
        late=True,
    ),
    Rule(
        "constant-rank",
        "target",
        _ELEMENTWISE,
        _ranked,
        "constants get the rank of what they are broadcast against: TensorRT's parser needs no layer for it",
        targets=("trt", "rtx"),
        late=True,
    ),
    Rule(
        "weight-rank",
        "target",
        ("MatMul",),
        _ranked,
        "weights get the rank of what they are multiplied with: TensorRT's parser needs no layer for it",
        exact=False,  # a runtime may take another kernel, which adds up in another order
        targets=("trt", "rtx"),
        late=True,
    ),
)
