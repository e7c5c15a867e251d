"""Rotary position embedding, x cos + rotate_half(x) sin, becomes `RotaryEmbedding` (opset 23).

Su et al., "RoFormer", 2021, in the form of Hugging Face's models: rotate_half(x) = (-x[d/2:], x[:d/2]), and tables of
which both halves are equal; or in the paper's own, interleaved: (-x1, x0, -x3, x2 ...), and tables in which each number
stands twice. The operator wants tables of half the width, [batch, length, d/2], with the batch of x: a
table of batch 1 is broadcast first (torch 2.13 and onnxsim 0.8.1 leave that out, and their graphs run with batch 1
only).
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from graphkit.rewrite.rule import Rule
from graphkit.rewrite.rules.attention_parts import expanded, shared, size_vector

if TYPE_CHECKING:
    import onnx_ir as ir

    from graphkit.rewrite.editor import Editor

_UNARY = ("Cos", "Sin", "Cast", "Neg", "Identity")


def _rope(editor: Editor, node: ir.Node) -> bool:
    for straight, turned in editor.operands(node):
        right = editor.sole(turned, "Mul")
        left = editor.sole(straight, "Mul")
        if left is None or right is None or left.graph is not node.graph or right.graph is not node.graph:
            continue
        for x, cos in editor.operands(left):
            for rotated, sin in editor.operands(right):
                for interleaved, is_rotated in enumerate((_is_rotated, _is_interleaved)):
                    if is_rotated(editor, rotated, x):
                        return _fuse(editor, node, x, cos, sin, interleaved=bool(interleaved))
    return False


def _is_rotated(editor: Editor, value: ir.Value, x: ir.Value) -> bool:
    """Whether it is (-x[d/2:], x[:d/2]) along the last axis."""
    joined = editor.sole(value, "Concat")
    shape = editor.shape(x)
    if joined is None or shape is None or len(joined.inputs) != 2 or not isinstance(shape[-1], int):
        return False
    if editor.attribute(joined, "axis") not in (-1, len(shape) - 1) or shape[-1] % 2:
        return False
    negated = editor.producer(joined.inputs[0], "Neg")
    half = shape[-1] // 2
    return negated is not None and (
        _part(editor, negated.inputs[0], x, half, 1) and _part(editor, joined.inputs[1], x, half, 0)
    )


def _part(editor: Editor, value: ir.Value | None, x: ir.Value, half: int, index: int) -> bool:
    """Whether it is the first or the second half of x along its last axis."""
    return _between(editor, value, x, index * half, (index + 1) * half)


def _between(editor: Editor, value: ir.Value | None, x: ir.Value, first: int, behind: int) -> bool:
    """Whether it is what stands at `first` up to `behind` along the last axis of x."""
    shape = editor.shape(x)
    node = editor.producer(value, "Slice", "Split")
    if node is None or node.inputs[0] is not x or shape is None or value is None or not isinstance(shape[-1], int):
        return False
    size, last = shape[-1], (-1, len(shape) - 1)
    if node.op_type == "Split":
        widths = [(editor.shape(output) or (None,))[-1] for output in node.outputs]
        before = widths[: list(node.outputs).index(value)]
        own = widths[len(before)]
        if editor.attribute(node, "axis") not in last or not all(isinstance(w, int) for w in (*before, own)):
            return False
        return sum(w for w in before if isinstance(w, int)) == first and own == behind - first
    starts, ends = editor.integers(editor.input(node, 1)), editor.integers(editor.input(node, 2))
    axes, steps = editor.integers(editor.input(node, 3)), editor.input(node, 4)
    if starts is None or ends is None or axes is None or len(axes) != 1 or axes[0] not in last:
        return False
    if steps is not None and editor.integers(steps) != [1]:
        return False
    start = starts[0] + size if starts[0] < 0 else starts[0]
    return (start, min(ends[0] + size if ends[0] < 0 else ends[0], size)) == (first, behind)


def _is_interleaved(editor: Editor, value: ir.Value, x: ir.Value) -> bool:
    """Whether it is (-x1, x0, -x3, x2 ...) along the last axis: two slices in steps of 2, stacked behind it."""
    flat, shape = editor.sole(value, "Reshape"), editor.shape(x)
    joined = editor.producer(flat.inputs[0], "Concat") if flat is not None else None
    if joined is None or shape is None or not editor.same_shape(value, x) or not isinstance(shape[-1], int):
        return False
    if shape[-1] % 2 or editor.shape(joined.outputs[0]) != (*shape[:-1], shape[-1] // 2, 2):
        return False
    if editor.attribute(joined, "axis") not in (-1, len(shape)) or len(joined.inputs) != 2:
        return False
    parts = [editor.producer(part, "Unsqueeze") for part in joined.inputs]
    odd, even = (part.inputs[0] if part is not None else None for part in parts)
    negated = editor.producer(odd, "Neg")
    return (
        all(part is not None and editor.axes(part) == (len(shape),) for part in parts)
        and negated is not None
        and _every_second(editor, negated.inputs[0], x, 1)
        and _every_second(editor, even, x, 0)
    )


def _every_second(editor: Editor, value: ir.Value | None, x: ir.Value, first: int) -> bool:
    node, rank = editor.producer(value, "Slice"), editor.rank(x)
    if node is None or rank is None or node.inputs[0] is not x:
        return False
    starts, ends, axes, steps = (editor.integers(editor.input(node, index)) for index in range(1, 5))
    width = (editor.shape(x) or (None,))[-1]
    if starts != [first] or steps != [2] or ends is None or not isinstance(width, int):
        return False
    return axes in ([-1], [rank - 1]) and ends[0] >= width - 1 + first  # the last one is even


def _fuse(editor: Editor, node: ir.Node, x: ir.Value, cos: ir.Value, sin: ir.Value, *, interleaved: bool) -> bool:
    shape, result = editor.shape(x), node.outputs[0]
    if shape is None or len(shape) != 4 or shape[0] is None or shape[2] is None or not editor.same_shape(x, result):
        return editor.miss(node, "what is rotated has not four axes, or its batch and length are not known")
    if editor.dtype(x) == "float64":
        return editor.miss(node, "RotaryEmbedding takes no float64")
    tables = [_table(editor, node, value, x, interleaved=interleaved) for value in (cos, sin)]
    if None in tables:
        what = "each number twice" if interleaved else "two equal halves"
        return editor.miss(node, f"its tables of cos and sin are not known to have {what}")
    attributes = {"interleaved": int(interleaved)}
    editor.replace(result, editor.op("RotaryEmbedding", [x, *tables], attributes, like=result))
    return True


def _table(editor: Editor, at: ir.Node, value: ir.Value, x: ir.Value, *, interleaved: bool) -> ir.Value | None:
    """The table [batch, length, d/2] of a factor that is broadcast over the heads."""
    shape = editor.shape(x)
    assert shape is not None
    batch, _, length, width = shape
    flat = _without_heads(editor, at, value)
    given = editor.shape(flat)
    if flat is None or given is None or given[-2:] != (length, width) or editor.dtype(flat) != editor.dtype(x):
        return None
    if len(given) not in (2, 3) or (len(given) == 3 and given[0] not in (1, batch)):
        return None
    half = _half(editor, at, flat, interleaved)
    assert isinstance(width, int)
    if half is None:
        return None
    if len(given) == 3 and given[0] == batch:
        return half
    sizes: list[ir.Value | int] = [size_vector(editor, at, x, 0), 1, 1]
    return expanded(editor, at, half, sizes, (batch, length, width // 2))


def _without_heads(editor: Editor, at: ir.Node, value: ir.Value) -> ir.Value | None:
    """[batch, length, d] of [batch, 1, length, d], or [length, d]."""
    shape = editor.shape(value)
    if shape is None or len(shape) < 2 or len(shape) == 3:
        return None
    if len(shape) == 2:
        return value
    if shape[1] != 1:
        return None
    node = editor.producer(value, "Unsqueeze")
    if node is not None and editor.axes(node) == (1,):
        return node.inputs[0]
    axes = editor.ints_value([1])
    return shared(editor, at, "Squeeze", [value, axes], shape=(shape[0], *shape[2:]), dtype=editor.dtype(value))


def _half(editor: Editor, at: ir.Node, value: ir.Value, interleaved: bool, depth: int = 8) -> ir.Value | None:
    """The first half along the last axis, where the second is the same; or, interleaved, each number once where it
    stands twice. It is computed from halves, not cut off."""
    shape = editor.shape(value)
    if shape is None or depth == 0 or not isinstance(shape[-1], int):
        return None
    array = editor.weight(value) if editor.is_constant(value) else None
    if array is not None:
        width = array.shape[-1] // 2
        if array.shape[-1] % 2:
            return None
        once, again = (array[..., ::2], array[..., 1::2]) if interleaved else (array[..., :width], array[..., width:])
        return editor.initializer(once, "table") if bool((once == again).all()) else None
    node = editor.producer(value)
    known = (*shape[:-1], shape[-1] // 2)
    if node is None or node.graph is not at.graph:
        return None
    if node.op_type == "Reshape" and interleaved:
        return _repeated(editor, node, known)
    if node.op_type == "Concat" and not interleaved:
        twice = len(node.inputs) == 2 and node.inputs[0] is node.inputs[1]
        return node.inputs[0] if twice and editor.attribute(node, "axis") in (-1, len(shape) - 1) else None
    if node.op_type in ("Gather", "Unsqueeze", "Squeeze"):
        return _half_of_gathered(editor, at, node, known, interleaved, depth)
    if node.op_type in _UNARY and node.inputs[0] is not None:
        inner = _half(editor, at, node.inputs[0], interleaved, depth - 1)
        return inner and _again(editor, at, node, [inner], known)
    if node.op_type in ("Mul", "Add", "Div"):
        for index in (0, 1):
            inner_value, other = node.inputs[index], node.inputs[1 - index]
            if inner_value is None or other is None or editor.scalar(other) is None:
                continue
            inner = _half(editor, at, inner_value, interleaved, depth - 1)
            return inner and _again(editor, at, node, [inner, other] if index == 0 else [other, inner], known)
    return None


def _repeated(editor: Editor, node: ir.Node, known: tuple[object, ...]) -> ir.Value | None:
    """What was stacked with itself behind the last axis, and joined to it."""
    wide = editor.producer(node.inputs[0], "Expand", "Tile", "Concat")
    split = editor.producer(wide.inputs[0], "Unsqueeze", "Reshape") if wide is not None else None
    if wide is None or split is None or split.inputs[0] is None:
        return None
    if wide.op_type == "Concat" and (len(wide.inputs) != 2 or wide.inputs[0] is not wide.inputs[1]):
        return None
    shapes = [editor.shape(value) for value in (split.inputs[0], split.outputs[0], wide.outputs[0])]
    return split.inputs[0] if None not in known and shapes == [known, (*known, 1), (*known, 2)] else None


def _half_of_gathered(
    editor: Editor, at: ir.Node, node: ir.Node, known: tuple[object, ...], interleaved: bool, depth: int
) -> ir.Value | None:
    """Rows of a table by position, or another number of leading axes."""
    source = node.inputs[0]
    rank = editor.rank(source)
    if source is None or rank is None or rank < 2 or node.inputs[1] is None:
        return None
    if node.op_type == "Gather":
        if editor.attribute(node, "axis") % rank == rank - 1:
            return None
    else:
        axes = editor.axes(node)
        last = (rank + len(axes) if node.op_type == "Unsqueeze" else rank) - 1 if axes is not None else 0
        if axes is None or last in axes:
            return None
    inner = _half(editor, at, source, interleaved, depth - 1)
    return inner and _again(editor, at, node, [inner, node.inputs[1]], known)


def _again(editor: Editor, at: ir.Node, node: ir.Node, inputs: list[ir.Value], shape: tuple[object, ...]) -> ir.Value:
    """The same node over other inputs."""
    attributes = {name: attribute.value for name, attribute in node.attributes.items()}
    dtype = editor.dtype(node.outputs[0])
    return shared(editor, at, node.op_type, inputs, attributes, shape=shape, dtype=dtype)  # type: ignore[arg-type]


def _partial(editor: Editor, node: ir.Node) -> bool:
    """Concat of the first numbers, rotated, and of the others, as they are: `rotary_embedding_dim`."""
    rank = editor.rank(node.outputs[0])
    if len(node.inputs) != 2 or rank != 4 or editor.attribute(node, "axis") not in (-1, 3):
        return False
    rotary = editor.sole(node.inputs[0], "RotaryEmbedding")
    part = rotary.inputs[0] if rotary is not None else None
    source = editor.producer(part, "Slice", "Split")
    x = source.inputs[0] if source is not None else None
    if rotary is None or part is None or x is None or rotary.graph is not node.graph:
        return False
    whole, some = editor.shape(x), editor.shape(part)
    if whole is None or some is None or not isinstance(whole[-1], int) or not isinstance(some[-1], int):
        return False
    if not editor.same_shape(x, node.outputs[0]) or editor.attribute(rotary, "rotary_embedding_dim"):
        return False
    if not (_between(editor, part, x, 0, some[-1]) and _between(editor, node.inputs[1], x, some[-1], whole[-1])):
        return editor.miss(node, "what is rotated and what is not are not the two parts of one tensor")
    attributes = dict(rotary.attributes) | {"rotary_embedding_dim": some[-1]}
    made = editor.op("RotaryEmbedding", [x, *rotary.inputs[1:]], attributes, like=node.outputs[0])
    editor.replace(node.outputs[0], made)
    return True


def broadcast_tables(editor: Editor, node: ir.Node) -> bool:
    """Tables of batch 1 for an x of any batch."""
    x, cos, sin = node.inputs[0], editor.input(node, 1), editor.input(node, 2)
    if x is None or cos is None or sin is None or editor.input(node, 3) is not None:
        return False
    shape, a, b = editor.shape(x), editor.shape(cos), editor.shape(sin)
    if shape is None or a is None or b is None or len(a) != 3 or len(b) != 3:
        return False
    if a[0] != 1 or b[0] != 1 or shape[0] == 1:
        return False
    sizes: list[ir.Value | int] = [size_vector(editor, node, x, 0), 1, 1]
    inputs = [x, *(expanded(editor, node, v, sizes, (shape[0], *t[1:])) for v, t in ((cos, a), (sin, b)))]
    result = node.outputs[0]
    editor.replace(result, editor.op("RotaryEmbedding", inputs, dict(node.attributes), like=result))
    return True


RULES = (
    Rule(
        "rope",
        "transformer",
        ("Add",),
        _rope,
        "x cos + rotate_half(x) sin becomes RotaryEmbedding, with tables of half the width",
        exact=False,
        since=23,
    ),
    Rule(
        "rope-partial",
        "transformer",
        ("Concat",),
        _partial,
        "RotaryEmbedding of the first numbers, joined to the others, becomes its rotary_embedding_dim",
        exact=False,
        since=23,
    ),
    Rule(
        "rope-batch",
        "transformer",
        ("RotaryEmbedding",),
        broadcast_tables,
        "cos and sin of RotaryEmbedding are broadcast to the batch of x, which the operator asks for",
        since=23,
    ),
)
