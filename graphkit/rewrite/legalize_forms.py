"""Operators that TensorRT's parser takes in one form only: one output, axes that are constants."""

from __future__ import annotations

from typing import TYPE_CHECKING

from graphkit.rewrite.legalize import TARGETS
from graphkit.rewrite.rule import Rule
from graphkit.rewrite.rules.rope import broadcast_tables

if TYPE_CHECKING:
    import onnx_ir as ir

    from graphkit.rewrite.editor import Editor

_REDUCTIONS = (
    *("ReduceL1", "ReduceL2", "ReduceLogSum", "ReduceLogSumExp", "ReduceMax", "ReduceMean", "ReduceMin"),
    *("ReduceProd", "ReduceSum", "ReduceSumSquare", "Squeeze", "Unsqueeze"),
)


def _axes(editor: Editor, node: ir.Node) -> bool:
    """Axes that shape arithmetic always makes the same."""
    given = editor.input(node, 1)
    if given is None or (given.is_initializer() and not given.is_graph_input()):
        return False
    known = editor.integers(given)
    if known is None:
        return editor.miss(node, "its axes depend on data: TensorRT needs constants")
    editor.set_input(node, 1, editor.ints_value(known))
    return True


def _statistics(editor: Editor, node: ir.Node) -> bool:
    """Mean and inverse deviation of LayerNormalization, computed beside it."""
    if len(node.outputs) < 2:
        return False
    x, normalised = node.inputs[0], node.outputs[0]
    rank = editor.rank(x)
    if x is None or rank is None:
        return editor.miss(node, "the rank of what is normalised is not known")
    attributes = dict(node.attributes)
    pairs = {normalised: editor.op("LayerNormalization", list(node.inputs), attributes, like=normalised)}
    axis = editor.attribute(node, "axis")
    axes = editor.ints_value(list(range(axis % rank, rank)))
    used = [output for output in node.outputs[1:] if output.uses() or output.is_graph_output()]
    if used:
        pairs |= _moments(editor, node, x, axes)
    editor.replace_all({old: new for old, new in pairs.items() if old is normalised or old in used})
    return True


def _moments(editor: Editor, node: ir.Node, x: ir.Value, axes: ir.Value) -> dict[ir.Value, ir.Value]:
    import numpy as np
    import onnx_ir as ir

    wide = ir.DataType.FLOAT
    if editor.dtype(x) != "float32":
        x = editor.op("Cast", [x], {"to": int(wide)}, like=x, dtype="float32")
    mean_like = node.outputs[1]
    mean = editor.op("ReduceMean", [x, axes], {"keepdims": 1}, like=mean_like, dtype="float32")
    centred = editor.op("Sub", [x, mean], like=x)
    square = editor.op("Mul", [centred, centred], like=x)
    variance = editor.op("ReduceMean", [square, axes], {"keepdims": 1}, like=mean)
    epsilon = editor.initializer(np.asarray(editor.attribute(node, "epsilon"), dtype=np.float32), "epsilon")
    root = editor.op("Sqrt", [editor.op("Add", [variance, epsilon], like=mean)], like=mean)
    found = {node.outputs[1]: mean}
    if len(node.outputs) > 2:
        found[node.outputs[2]] = editor.op("Reciprocal", [root], like=mean)
    return found


def _tables(editor: Editor, node: ir.Node) -> bool:
    return broadcast_tables(editor, node)


RULES = (
    Rule(
        "legal-axes",
        "target",
        _REDUCTIONS,
        _axes,
        "axes that are always the same become constants",
        targets=TARGETS,
        since=13,
    ),
    Rule(
        "legal-statistics",
        "target",
        ("LayerNormalization",),
        _statistics,
        "LayerNormalization keeps one output; mean and deviation are computed beside it, where they are read",
        exact=False,
        targets=TARGETS,
        since=18,
    ),
    Rule(
        "legal-rope",
        "target",
        ("RotaryEmbedding",),
        _tables,
        "cos and sin of RotaryEmbedding are broadcast to the batch",
        targets=TARGETS,
        since=23,
    ),
)
