"""Pieces of tensors: Slices in a row, a Split put together again, Concats in a row, sequences that are only pieces."""

from __future__ import annotations

from typing import TYPE_CHECKING

from graphkit.rewrite.rule import Rule
from graphkit.rewrite.rules.identities import take_out
from graphkit.rewrite.rules.shapes import unsqueeze

if TYPE_CHECKING:
    import onnx_ir as ir

    from graphkit.rewrite.editor import Editor

_END = (1 << 63) - 1
_MOST_PIECES = 256


def _bounds(editor: Editor, node: ir.Node) -> dict[int, tuple[int, int, int]] | None:
    """Start, end and step by axis, not negative; None where one depends on data, or counts from an unknown end."""
    parts = [editor.integers(editor.input(node, index)) for index in (1, 2, 3, 4)]
    starts, ends, axes, steps = parts
    shape = editor.shape(node.inputs[0])
    if starts is None or ends is None or shape is None:
        return None
    if (axes is None and editor.input(node, 3)) or (steps is None and editor.input(node, 4)):
        return None
    found: dict[int, tuple[int, int, int]] = {}
    for index, (start, end) in enumerate(zip(starts, ends, strict=True)):
        axis = (axes[index] if axes is not None else index) % len(shape)
        step = steps[index] if steps is not None else 1
        size = shape[axis]
        if step < 1 or axis in found:
            return None
        if isinstance(size, int):
            start, end = (max(0, bound + size if bound < 0 else bound) for bound in (start, end))
        if start < 0 or end < 0:
            return None
        found[axis] = (start, end, step)
    return found


def _slice_slice(editor: Editor, node: ir.Node) -> bool:
    inner = editor.sole(node.inputs[0], "Slice")
    if inner is None or inner.graph is not node.graph:
        return False
    first, second = _bounds(editor, inner), _bounds(editor, node)
    if first is None or second is None:
        return editor.miss(node, "a bound is not known, or counts from an end that is not known")
    joined = dict(first)
    for axis, (start, end, step) in second.items():
        if axis not in first:
            joined[axis] = (start, end, step)
            continue
        begin, stop, stride = first[axis]
        joined[axis] = (begin + start * stride, min(stop, begin + end * stride, _END), stride * step)
    if any(begin >= _END for begin, _, _ in joined.values()):
        return False
    axes = sorted(joined)
    begins, stops, strides = ([joined[axis][part] for axis in axes] for part in (0, 1, 2))
    inputs = [inner.inputs[0], *(editor.ints_value(row) for row in (begins, stops, axes))]
    if any(stride != 1 for stride in strides):
        inputs.append(editor.ints_value(strides))
    editor.replace(node.outputs[0], editor.op("Slice", inputs, like=node.outputs[0]))
    return True


def _split_concat(editor: Editor, node: ir.Node) -> bool:
    """All the pieces of a Split, in order."""
    split = editor.producer(node.inputs[0], "Split")
    if split is None or list(node.inputs) != list(split.outputs) or split.inputs[0] is None:
        return False
    rank = editor.rank(split.inputs[0])
    axes = [int(editor.attribute(each, "axis")) for each in (split, node)]
    if axes[0] != axes[1] and (rank is None or axes[0] % rank != axes[1] % rank):
        return False
    return take_out(editor, node, split.inputs[0])


def _concat_concat(editor: Editor, node: ir.Node) -> bool:
    axis, rank = int(editor.attribute(node, "axis")), editor.rank(node.outputs[0])
    inputs: list[ir.Value | None] = []
    for value in node.inputs:
        inner = editor.sole(value, "Concat")
        if inner is not None and inner.graph is node.graph:
            other = int(editor.attribute(inner, "axis"))
            if other == axis or (rank and other % rank == axis % rank):
                inputs.extend(inner.inputs)
                continue
        inputs.append(value)
    if len(inputs) == len(node.inputs) or len(inputs) > _MOST_PIECES:
        return False
    editor.replace(node.outputs[0], editor.op("Concat", inputs, {"axis": axis}, like=node.outputs[0]))
    return True


# --- sequences --------------------------------------------------------------------------------------------------------


def _split_sequence(editor: Editor, node: ir.Node) -> bool:
    """SplitToSequence of which every piece is taken by a constant number."""
    import numpy as np

    source = node.inputs[0]
    users = editor.users(node.outputs[0])
    if source is None or node.outputs[0].is_graph_output() or any(user.op_type != "SequenceAt" for user in users):
        return False
    at = [editor.integers(user.inputs[1]) for user in users]
    shape = editor.shape(source)
    lengths = _pieces(editor, node)
    if lengths is None or shape is None or any(user.graph is not node.graph for user in users):
        return editor.miss(node, "how many pieces there are is not known")
    if any(index is None or not -len(lengths) <= index[0] < len(lengths) for index in at):
        return False
    axis = int(editor.attribute(node, "axis")) % len(shape)
    pieces = (
        editor.ops(
            "Split", [source, editor.initializer(np.asarray(lengths, np.int64))], {"axis": axis}, outputs=len(lengths)
        )
        if len(lengths) > 1
        else (source,)
    )
    keep = len(node.inputs) > 1 or editor.attribute(node, "keepdims")
    for piece, length in zip(pieces, lengths, strict=True):
        if piece is not source:
            sizes = tuple(length if place == axis else size for place, size in enumerate(shape))
            editor.describe(piece, editor.facts.tensor(source)._replace(shape=sizes))
    pairs: dict[ir.Value, ir.Value] = {}
    for user, index in zip(users, at, strict=True):
        assert index is not None
        piece = pieces[index[0]]
        result = user.outputs[0]
        if keep and result.is_graph_output() and piece in pairs.values():
            piece = editor.op("Identity", [piece], like=result)  # two outputs are two values
        pairs[result] = piece if keep else editor.op("Squeeze", [piece, editor.ints_value([axis])], like=result)
    editor.replace_all(pairs)
    return True


def _pieces(editor: Editor, node: ir.Node) -> list[int] | None:
    """Lengths of the pieces of a SplitToSequence; None where they are not known."""
    shape = editor.shape(node.inputs[0])
    given = editor.input(node, 1)
    size = shape[int(editor.attribute(node, "axis")) % len(shape)] if shape else None
    if given is None:
        return [1] * size if isinstance(size, int) and 0 < size <= _MOST_PIECES else None
    lengths = editor.integers(given)
    if lengths is None or editor.rank(given) is None:
        return None
    if editor.rank(given) == 1:
        return lengths if lengths and 0 not in lengths else None
    step = lengths[0]
    if not isinstance(size, int) or step < 1 or not 0 < size <= _MOST_PIECES * step:
        return None
    return [min(step, size - start) for start in range(0, size, step)]


def _sequence_at(editor: Editor, node: ir.Node) -> bool:
    made = editor.producer(node.inputs[0], "SequenceConstruct")
    index = editor.integers(node.inputs[1])
    if made is None or index is None or not -len(made.inputs) <= index[0] < len(made.inputs):
        return False
    return take_out(editor, node, made.inputs[index[0]])


def _concat_sequence(editor: Editor, node: ir.Node) -> bool:
    made = editor.producer(node.inputs[0], "SequenceConstruct")
    if made is None or made.graph is not node.graph:
        return False
    axis, result = int(editor.attribute(node, "axis")), node.outputs[0]
    inputs = list(made.inputs)
    if editor.attribute(node, "new_axis"):
        rank = editor.rank(result)
        if axis < 0 and rank is None:
            return False
        axis = axis % rank if rank else axis
        inputs = [unsqueeze(editor, value, [axis]) for value in inputs]
    editor.replace(result, editor.op("Concat", inputs, {"axis": axis}, like=result))
    return True


RULES = (
    Rule("slice-slice", "structure", ("Slice",), _slice_slice, "Slices in a row become one", since=10),
    Rule("split-concat", "structure", ("Concat",), _split_concat, "a Split that is put together again is taken out"),
    Rule("concat-concat", "structure", ("Concat",), _concat_concat, "Concats along one axis become one"),
    Rule(
        "split-sequence",
        "structure",
        ("SplitToSequence",),
        _split_sequence,
        "a sequence of pieces becomes a Split",
        since=13,
    ),
    Rule("sequence-at", "structure", ("SequenceAt",), _sequence_at, "an element of a known sequence is taken directly"),
    Rule(
        "sequence-concat",
        "structure",
        ("ConcatFromSequence",),
        _concat_sequence,
        "a sequence of known values becomes a Concat",
        since=11,
    ),
)
