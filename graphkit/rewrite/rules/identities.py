"""Nodes that return what they are given."""

from __future__ import annotations

from typing import TYPE_CHECKING

from graphkit.rewrite.rule import Rule

if TYPE_CHECKING:
    import onnx_ir as ir

    from graphkit.rewrite.editor import Editor


def _identity(editor: Editor, node: ir.Node) -> bool:
    source, result = node.inputs[0], node.outputs[0]
    if source is None or (result.is_graph_output() and not _may_be_renamed(editor, source)):
        return False
    if result.is_graph_output():
        return _take_its_name(editor, node)
    editor.replace(result, source)
    return True


def _may_be_renamed(editor: Editor, value: ir.Value) -> bool:
    """Whether a value can carry the name of an output of the graph."""
    source = value.producer()
    return source is not None and not value.is_graph_output()


def _take_its_name(editor: Editor, node: ir.Node) -> bool:
    """The node before an Identity makes the graph's output itself."""
    source, result = node.inputs[0], node.outputs[0]
    assert source is not None
    maker = source.producer()
    if maker is None or maker.graph is not node.graph:
        return False
    editor.make_output(source, result)
    return True


def _cast(editor: Editor, node: ir.Node) -> bool:
    source = node.inputs[0]
    to = editor.dtype(node.outputs[0])
    if source is None or to is None or editor.dtype(source) != to or node.outputs[0].is_graph_output():
        return False
    editor.replace(node.outputs[0], source)
    return True


RULES = (
    Rule("identity", "structure", ("Identity",), _identity, "Identity is taken out"),
    Rule("cast-to-same", "structure", ("Cast",), _cast, "a Cast to the dtype that a value has already is taken out"),
)
