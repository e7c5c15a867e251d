"""Nodes that return what they are given."""

from __future__ import annotations

from typing import TYPE_CHECKING

from graphkit.rewrite.rule import Rule

if TYPE_CHECKING:
    import onnx_ir as ir

    from graphkit.rewrite.editor import Editor


def take_out(editor: Editor, node: ir.Node, source: ir.Value | None) -> bool:
    """Let `source` stand for the one used output of a node; not where an output of the graph would be left without a
    node that makes it."""
    result = node.outputs[0]
    if source is None:
        return False
    if not result.is_graph_output():
        editor.replace(result, source)
        return True
    maker = source.producer()
    if maker is None or maker.graph is not node.graph or source.is_graph_output():
        return False
    editor.make_output(source, result)
    return True


def _identity(editor: Editor, node: ir.Node) -> bool:
    return take_out(editor, node, node.inputs[0])


def _cast(editor: Editor, node: ir.Node) -> bool:
    source = node.inputs[0]
    to = editor.dtype(node.outputs[0])
    return to is not None and editor.dtype(source) == to and take_out(editor, node, source)


def _dropout(editor: Editor, node: ir.Node) -> bool:
    """Dropout outside of training; where the mask is read it stays."""
    training = editor.input(node, 2)
    if training is not None and editor.scalar(training) != 0:
        return False
    if any(output.uses() or output.is_graph_output() for output in node.outputs[1:]):
        return False
    return take_out(editor, node, node.inputs[0])


def _same_shape(editor: Editor, node: ir.Node) -> bool:
    """The order of elements is kept, and so is the shape."""
    source = node.inputs[0]
    return source is not None and editor.same_shape(source, node.outputs[0]) and take_out(editor, node, source)


def _slice(editor: Editor, node: ir.Node) -> bool:
    """All of it, forwards."""
    if len(node.inputs) > 4 and any(step < 1 for step in editor.integers(node.inputs[4]) or (0,)):
        return False
    return _same_shape(editor, node)


def _expand(editor: Editor, node: ir.Node) -> bool:
    sizes = editor.integers(node.inputs[1])
    rank = editor.rank(node.inputs[0])
    if sizes is not None and rank is not None and len(sizes) <= rank and all(size == 1 for size in sizes):
        return take_out(editor, node, node.inputs[0])
    return _same_shape(editor, node)


def _pad(editor: Editor, node: ir.Node) -> bool:
    widths = editor.attribute(node, "pads") if editor.opset < 11 else editor.integers(node.inputs[1])
    return widths is not None and not any(widths) and take_out(editor, node, node.inputs[0])


def _transpose(editor: Editor, node: ir.Node) -> bool:
    order = editor.attribute(node, "perm")
    if order is None:
        rank = editor.rank(node.inputs[0])
        return rank is not None and rank < 2 and take_out(editor, node, node.inputs[0])
    return list(order) == sorted(order) and take_out(editor, node, node.inputs[0])


def _single(editor: Editor, node: ir.Node) -> bool:
    """Concat, Sum, Max, Min or Mean of one."""
    return len(node.inputs) == 1 and take_out(editor, node, node.inputs[0])


RULES = (
    Rule("identity", "structure", ("Identity",), _identity, "Identity is taken out"),
    Rule("cast-to-same", "structure", ("Cast",), _cast, "a Cast to the dtype that a value has already is taken out"),
    Rule("dropout", "structure", ("Dropout",), _dropout, "Dropout outside of training is taken out"),
    Rule(
        "reshape-to-same",
        "structure",
        ("Reshape", "Flatten", "Squeeze", "Unsqueeze", "Tile"),
        _same_shape,
        "what gives a value the shape that it has already is taken out",
    ),
    Rule("slice-of-all", "structure", ("Slice",), _slice, "a Slice of everything is taken out"),
    Rule("expand-to-same", "structure", ("Expand",), _expand, "an Expand to the shape of its input is taken out"),
    Rule("pad-by-nothing", "structure", ("Pad",), _pad, "a Pad by nothing is taken out"),
    Rule("transpose-to-same", "structure", ("Transpose",), _transpose, "a Transpose that moves nothing is taken out"),
    Rule("only-input", "structure", ("Concat", "Sum", "Max", "Min", "Mean"), _single, "a Concat of one is taken out"),
)
