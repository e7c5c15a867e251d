"""Transposes that meet one another, a constant, or a Reshape."""

from __future__ import annotations

from typing import TYPE_CHECKING

from graphkit.rewrite.rule import Rule
from graphkit.rewrite.rules.conv_layers import affordable
from graphkit.rewrite.rules.transpose_perms import composed, is_identity, moves_nothing, perm_of

if TYPE_CHECKING:
    import onnx_ir as ir

    from graphkit.rewrite.editor import Editor


def _pair(editor: Editor, node: ir.Node) -> bool:
    perm = perm_of(editor, node)
    before = editor.producer(node.inputs[0], "Transpose")
    result = node.outputs[0]
    if perm is None:
        return False
    if before is None:
        if not is_identity(perm) or node.inputs[0] is None or _must_stay(node.inputs[0], result):
            return False
        editor.replace(result, node.inputs[0])
        return True
    first = perm_of(editor, before)
    source = before.inputs[0]
    if first is None or source is None or len(first) != len(perm):
        return False
    both = composed(first, perm)
    if is_identity(both):
        if result.is_graph_output() and len(before.outputs[0].uses()) > 1:
            return False  # a Transpose would become an Identity, and the other one stay
        editor.replace(result, source)
        return True
    editor.replace(result, editor.op("Transpose", [source], {"perm": list(both)}, like=result))
    return True


def _must_stay(source: ir.Value, result: ir.Value) -> bool:
    """Whether the node would only become an Identity: an output of the graph has a name of its own."""
    return result.is_graph_output() and source.producer() is None


def _constant(editor: Editor, node: ir.Node) -> bool:
    source, perm, result = node.inputs[0], perm_of(editor, node), node.outputs[0]
    if source is None or perm is None or not editor.is_constant(source) or result.is_graph_output():
        return False
    shape = editor.shape(source)
    if shape is None or len(shape) != len(perm):
        return False
    if not affordable(editor, source):
        return editor.miss(node, "the constant is used elsewhere, and a copy would make the model grow")
    array = editor.weight(source)
    if array is None:
        return False
    editor.replace(result, editor.initializer(array.transpose(perm), source.name or "transposed"))
    return True


def _reshapes(editor: Editor, node: ir.Node) -> bool:
    """Only beside a Reshape, with which it becomes one: elsewhere a Transpose says more than a Reshape."""
    source, perm, result = node.inputs[0], perm_of(editor, node), node.outputs[0]
    shape = editor.shape(source)
    if source is None or shape is None or perm is None or not moves_nothing(shape, perm):
        return False
    beside = ("Reshape", "Squeeze", "Unsqueeze", "Flatten")
    if editor.sole(source, *beside) is None and editor.only_user(result, *beside) is None:
        return False
    sizes: list[int] = []
    for index, axis in enumerate(perm):
        size = shape[axis]
        sizes.append(size if isinstance(size, int) else 0 if axis == index else -1)
    if sizes.count(-1) > 1 or any(shape[axis] == 0 for axis in perm):
        return False
    editor.replace(result, editor.op("Reshape", [source, editor.ints_value(sizes)], like=result))
    return True


RULES = (
    Rule("transpose-pair", "transpose", ("Transpose",), _pair, "two Transposes in a row are one, or none"),
    Rule("transpose-constant", "transpose", ("Transpose",), _constant, "a Transpose of a constant is done once"),
    Rule(
        "transpose-reshape",
        "transpose",
        ("Transpose",),
        _reshapes,
        "a Transpose that moves only axes of size 1 joins the Reshape beside it",
        since=5,
        late=True,
    ),
)
