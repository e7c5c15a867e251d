"""A cache of fixed length that new keys or values are written into becomes `TensorScatter` (opset 24).

torch writes `cache[:, :, position] = new` as ScatterND between Transposes that bring the length to the front, and
`index_copy_` as ScatterElements with the position at every place. Both are recognised where the rows follow one
another: one row, constant positions n, n + 1 ..., or a Range. A negative position counts from the end in the old form,
which no cache does; ONNX Runtime refuses it in the new one, as it refuses what is behind the end in both.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from graphkit.rewrite.rule import Rule
from graphkit.rewrite.rules.attention_parts import counted, expanded, permutation, shared, size_vector

if TYPE_CHECKING:
    import onnx_ir as ir

    from graphkit.rewrite.editor import Editor


def _by_rows(editor: Editor, node: ir.Node) -> bool:
    """Transpose(ScatterND(Transpose(cache), positions, Transpose(new)))."""
    scatter, back = editor.sole(node.inputs[0], "ScatterND"), permutation(editor, node)
    if scatter is None or len(scatter.inputs) != 3 or editor.attribute(scatter, "reduction") not in (None, "none"):
        return False
    turned = [editor.producer(scatter.inputs[index], "Transpose") for index in (0, 2)]
    before = [permutation(editor, t) if t is not None else () for t in turned]
    cache, new = (t.inputs[0] if t is not None else None for t in turned)
    if cache is None or new is None or not before[0] or before[0] != before[1]:
        return False
    if tuple(before[0][axis] for axis in back) != tuple(range(len(back))):
        return False
    places = editor.producer(scatter.inputs[1], "Unsqueeze", "Reshape")
    shape = editor.shape(scatter.inputs[1])
    if shape is None or len(shape) != 2 or shape[1] != 1:
        return False
    positions = scatter.inputs[1]
    if places is not None and editor.rank(places.inputs[0]) == 1:
        positions = places.inputs[0]
    return _write(editor, node, cache, positions, new, before[0][0])


def _by_elements(editor: Editor, node: ir.Node) -> bool:
    """ScatterElements(cache, positions at every place, new)."""
    cache, wide, new = node.inputs
    spread = editor.producer(wide, "Expand")
    inner = spread.inputs[0] if spread is not None else None
    rank, shape = editor.rank(cache), editor.shape(inner)
    if cache is None or new is None or wide is None or rank is None or inner is None or shape is None:
        return False
    if editor.attribute(node, "reduction") not in (None, "none") or not (
        editor.same_shape(wide, new) or (spread is not None and editor.sizes(spread.inputs[1]) == editor.shape(new))
    ):
        return False
    axis = editor.attribute(node, "axis") % rank
    if len(shape) != rank or any(size != 1 for at, size in enumerate(shape) if at != axis):
        return False
    flat = editor.producer(inner, "Unsqueeze")
    positions = flat.inputs[0] if flat is not None and editor.rank(flat.inputs[0]) == 1 else inner
    return _write(editor, node, cache, positions, new, axis)


def _write(
    editor: Editor, node: ir.Node, cache: ir.Value, positions: ir.Value | None, new: ir.Value, axis: int
) -> bool:
    whole, some = editor.shape(cache), editor.shape(new)
    if whole is None or some is None or len(whole) < 2 or len(whole) != len(some) or axis == 0 or positions is None:
        return False
    if None in whole or any(a != b for at, (a, b) in enumerate(zip(whole, some, strict=True)) if at != axis):
        return editor.miss(node, "what is written has not the sizes of the cache but for its length")
    if not editor.is_input(cache) and not node.outputs[0].is_graph_output():
        return False
    first = _first(editor, node, positions, some[axis])
    if first is None:
        return editor.miss(node, "its positions are not known to follow one another")
    starts = expanded(editor, node, first, [size_vector(editor, node, cache, 0)], whole[:1])
    result = node.outputs[0]
    made = editor.op("TensorScatter", [cache, new, starts], {"axis": axis, "mode": "linear"}, like=result, shape=whole)
    editor.replace(result, made)
    return True


def _first(editor: Editor, at: ir.Node, positions: ir.Value, many: object) -> ir.Value | None:
    """The first position as a vector of one element, where the others follow it."""
    if editor.dtype(positions) not in ("int64", "int32") or not isinstance(many, int) or many < 1:
        return None
    numbers = editor.integers(positions)
    if numbers is not None:
        follow = numbers == list(range(numbers[0], numbers[0] + many)) and numbers[0] >= 0
        return editor.ints_value(numbers[:1]) if follow else None
    if editor.shape(positions) == (1,) and many == 1:
        return positions
    count = counted(editor, positions)
    if count is None or editor.shape(positions) != (many,):
        return None
    bounds = [editor.ints_value([number]) for number in (0, 1)]
    return shared(editor, at, "Slice", [positions, *bounds], shape=(1,), dtype=editor.dtype(positions))


RULES = (
    Rule(
        "cache-write",
        "transformer",
        ("Transpose",),
        _by_rows,
        "ScatterND that writes rows in order into a cache, between Transposes, becomes TensorScatter; it takes no "
        "negative position",
        targets=("onnx", "ort"),
        since=24,
    ),
    Rule(
        "cache-write-elements",
        "transformer",
        ("ScatterElements",),
        _by_elements,
        "ScatterElements that writes rows in order into a cache becomes TensorScatter; it takes no negative position",
        targets=("onnx", "ort"),
        since=24,
    ),
)
