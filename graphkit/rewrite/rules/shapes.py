"""Reshapes, and what amounts to one: targets become constants, chains become one node.

A size that is only known by name is written as 0 where it is the size that the input has in the same place, and once
as -1. Such a target says the same for every size but one: with a size of 0 beside a -1, runtimes refuse to run.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from graphkit.rewrite.rule import Rule
from graphkit.rewrite.rules.identities import take_out

if TYPE_CHECKING:
    import onnx_ir as ir

    from graphkit.analyze.tensors import Shape
    from graphkit.rewrite.editor import Editor

_PURE = ("Reshape", "Squeeze", "Unsqueeze", "Flatten")
"""Operators that only give their first input another shape."""

_BROADCASTING = [
    "Add",
    "Sub",
    "Mul",
    "Div",
    "Pow",
    "Mod",
    "Max",
    "Min",
    "Sum",
    "Mean",
    "And",
    "Or",
    "Xor",
    "Equal",
    "Greater",
    "GreaterOrEqual",
    "Less",
    "LessOrEqual",
    "Where",
    "PRelu",
    "BitwiseAnd",
    "BitwiseOr",
    "BitwiseXor",
]


def target(source: Shape | None, result: Shape | None) -> list[int] | None:
    """What a Reshape is told to make `result` of `source`, on every run; None if there is nothing to tell it."""
    if result is None:
        return None
    written: list[int] = []
    for axis, size in enumerate(result):
        if isinstance(size, int):
            if size <= 0:
                return None
            written.append(size)
        elif size is not None and source is not None and axis < len(source) and source[axis] == size:
            written.append(0)
        elif -1 not in written:
            written.append(-1)
        else:
            return None
    return written


def reshape(editor: Editor, source: ir.Value, like: ir.Value) -> ir.Value | None:
    """`source` in the shape of `like`, of which it has the elements; None if that cannot be written."""
    sizes = target(editor.shape(source), editor.shape(like))
    return None if sizes is None else editor.op("Reshape", [source, editor.ints_value(sizes)], like=like)


def _constant_target(editor: Editor, node: ir.Node) -> bool:
    source, sizes, result = node.inputs[0], node.inputs[1], node.outputs[0]
    if source is None or editor.is_constant(sizes):
        return False
    shape = editor.shape(result)
    if shape is None or (0 in shape and editor.attribute(node, "allowzero")):
        return False
    made = reshape(editor, source, result)
    if made is None:
        return editor.miss(node, "more than one of its sizes depends on what is fed")
    editor.replace(result, made)
    return True


def _chain(editor: Editor, node: ir.Node) -> bool:
    inner = editor.producer(node.inputs[0], *_PURE)
    if inner is None or inner.graph is not node.graph:
        return False
    source, result = inner.inputs[0], node.outputs[0]
    if source is None:
        return False
    if editor.same_shape(source, result) or _undone(editor, inner, node):
        return take_out(editor, node, source)
    if node.op_type == "Unsqueeze" and inner.op_type == "Unsqueeze":
        return _unsqueeze_once(editor, node, inner)
    if node.op_type == "Reshape" and not editor.attribute(node, "allowzero"):
        sizes = editor.integers(node.inputs[1])
        if sizes is not None and 0 not in sizes and editor.is_constant(node.inputs[1]):
            editor.replace(result, editor.op("Reshape", [source, node.inputs[1]], like=result))
            return True
    if len(editor.users(node.inputs[0])) > 1:  # type: ignore[arg-type]
        return False  # no node would be saved
    made = reshape(editor, source, result)
    if made is None:
        return editor.miss(node, "more than one of its sizes depends on what is fed")
    editor.replace(result, made)
    return True


def _undone(editor: Editor, inner: ir.Node, node: ir.Node) -> bool:
    """Whether Unsqueeze and Squeeze are of the same axes, in either order."""
    if {inner.op_type, node.op_type} != {"Squeeze", "Unsqueeze"}:
        return False
    first, second = editor.axes(inner), editor.axes(node)
    return first is not None and second is not None and sorted(first) == sorted(second)


def _unsqueeze_once(editor: Editor, node: ir.Node, inner: ir.Node) -> bool:
    rank = editor.rank(inner.inputs[0])
    first, second = editor.axes(inner), editor.axes(node)
    if first is None or second is None or rank is None or editor.sole(inner.outputs[0]) is None:
        return False
    kept = [axis for axis in range(rank + len(first) + len(second)) if axis not in second]
    axes = sorted([*second, *(kept[axis] for axis in first)])
    editor.replace(node.outputs[0], unsqueeze(editor, inner.inputs[0], axes, like=node.outputs[0]))
    return True


def unsqueeze(editor: Editor, source: ir.Value | None, axes: list[int], *, like: ir.Value | None = None) -> ir.Value:
    """An Unsqueeze as the model's opset writes it."""
    if editor.opset < 13:
        return editor.op("Unsqueeze", [source], {"axes": axes}, like=like)
    return editor.op("Unsqueeze", [source, editor.ints_value(axes)], like=like)


def _no_expand(editor: Editor, node: ir.Node) -> bool:
    """An operator that broadcasts needs no Expand before it; PRelu broadcasts only its slope."""
    done = False
    for index, value in enumerate(node.inputs):
        if node.op_type == "PRelu" and index == 0:
            continue
        expand = editor.producer(value, "Expand")
        if expand is None or value is None or expand.inputs[0] is None:
            continue
        others = [v for at, v in enumerate(node.inputs) if at != index and v is not None]
        shapes = [editor.shape(v) for v in (expand.inputs[0], *others)]
        if broadcast(shapes) == editor.shape(node.outputs[0]) is not None:
            editor.set_input(node, index, expand.inputs[0])
            done = True
    return done


def broadcast(shapes: list[Shape | None]) -> Shape | None:
    """Shape of values of these shapes together; None where that is not known on every run."""
    known = [shape for shape in shapes if shape is not None]
    if len(known) != len(shapes) or any(None in shape for shape in known):
        return None
    rank = max((len(shape) for shape in known), default=0)
    found: Shape = ()
    for axis in range(rank):
        at = [shape[axis - rank + len(shape)] for shape in known if axis - rank + len(shape) >= 0]
        sizes = list(dict.fromkeys(size for size in at if size != 1))
        if len(sizes) > 1:
            return None
        found += (sizes[0] if sizes else 1,)
    return found


def _reduce_squeeze(editor: Editor, node: ir.Node) -> bool:
    reduce = editor.sole(node.inputs[0], *_REDUCTIONS)
    if reduce is None or reduce.graph is not node.graph or not editor.attribute(reduce, "keepdims"):
        return False
    squeezed, reduced = editor.axes(node), _reduced(editor, reduce)
    if squeezed is None or reduced is None or sorted(squeezed) != sorted(reduced):
        return False
    return _with_keepdims(editor, node, reduce, 0)


def _reduce_unsqueeze(editor: Editor, node: ir.Node) -> bool:
    reduce = editor.sole(node.inputs[0], *_REDUCTIONS)
    if reduce is None or reduce.graph is not node.graph or editor.attribute(reduce, "keepdims"):
        return False
    added, reduced = editor.axes(node), _reduced(editor, reduce)
    if added is None or reduced is None or sorted(added) != sorted(reduced):
        return False
    return _with_keepdims(editor, node, reduce, 1)


def _reduced(editor: Editor, reduce: ir.Node) -> tuple[int, ...] | None:
    if not reduce.op_type.startswith("Arg"):
        return editor.axes(reduce)
    rank = editor.rank(reduce.inputs[0])
    return None if rank is None else (int(editor.attribute(reduce, "axis")) % rank,)


def _with_keepdims(editor: Editor, node: ir.Node, reduce: ir.Node, keepdims: int) -> bool:
    attributes = {**reduce.attributes, "keepdims": keepdims}
    editor.replace(node.outputs[0], editor.op(reduce.op_type, reduce.inputs, attributes, like=node.outputs[0]))
    return True


_REDUCTIONS = [
    "ReduceSum",
    "ReduceMean",
    "ReduceMax",
    "ReduceMin",
    "ReduceProd",
    "ReduceL1",
    "ReduceL2",
    "ReduceLogSum",
    "ReduceLogSumExp",
    "ReduceSumSquare",
    "ArgMax",
    "ArgMin",
]

RULES = (
    Rule(
        "reshape-target",
        "folding",
        ("Reshape",),
        _constant_target,
        "computed targets of Reshape become constants",
        since=5,
    ),
    Rule("reshape-chain", "structure", _PURE, _chain, "Reshape, Squeeze, Unsqueeze and Flatten in a row become one"),
    Rule("expand-needless", "structure", tuple(_BROADCASTING), _no_expand, "no Expand before what broadcasts"),
    Rule("reduce-squeeze", "structure", ("Squeeze",), _reduce_squeeze, "a reduction drops its axes itself"),
    Rule("reduce-unsqueeze", "structure", ("Unsqueeze",), _reduce_unsqueeze, "a reduction keeps its axes itself"),
)
