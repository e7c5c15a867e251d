"""Rotary position embedding, x cos + rotate_half(x) sin, becomes `RotaryEmbedding` (opset 23).

Su et al., "RoFormer", 2021, in the form of Hugging Face's models: rotate_half(x) = (-x[d/2:], x[:d/2]), and tables of
which both halves are equal. The operator wants tables of half the width, [batch, length, d/2], with the batch of x: a
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
                if _is_rotated(editor, rotated, x):
                    return _fuse(editor, node, x, cos, sin)
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
    rank = editor.rank(x)
    node = editor.producer(value, "Slice", "Split")
    if node is None or node.inputs[0] is not x or rank is None or value is None:
        return False
    if node.op_type == "Split":
        shape = editor.shape(value)
        last = editor.attribute(node, "axis") in (-1, rank - 1) and shape is not None and shape[-1] == half
        return last and len(node.outputs) == 2 and node.outputs[index] is value
    starts, ends = editor.integers(editor.input(node, 1)), editor.integers(editor.input(node, 2))
    axes, steps = editor.integers(editor.input(node, 3)), editor.input(node, 4)
    if starts is None or ends is None or axes is None or len(axes) != 1 or axes[0] not in (-1, rank - 1):
        return False
    if steps is not None and editor.integers(steps) != [1]:
        return False
    size = 2 * half
    start = starts[0] + size if starts[0] < 0 else starts[0]
    end = min(ends[0] + size if ends[0] < 0 else ends[0], size)
    return (start, end) == (index * half, (index + 1) * half)


def _fuse(editor: Editor, node: ir.Node, x: ir.Value, cos: ir.Value, sin: ir.Value) -> bool:
    shape, result = editor.shape(x), node.outputs[0]
    if shape is None or len(shape) != 4 or shape[0] is None or shape[2] is None or not editor.same_shape(x, result):
        return editor.miss(node, "what is rotated has not four axes, or its batch and length are not known")
    if editor.dtype(x) == "float64":
        return editor.miss(node, "RotaryEmbedding takes no float64")
    tables = [_table(editor, node, value, x) for value in (cos, sin)]
    if None in tables:
        return editor.miss(node, "its tables of cos and sin are not known to have two equal halves")
    editor.replace(result, editor.op("RotaryEmbedding", [x, *tables], {"interleaved": 0}, like=result))
    return True


def _table(editor: Editor, at: ir.Node, value: ir.Value, x: ir.Value) -> ir.Value | None:
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
    half = _half(editor, at, flat)
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


def _half(editor: Editor, at: ir.Node, value: ir.Value, depth: int = 8) -> ir.Value | None:
    """The first half along the last axis, where the second is the same; computed from halves, not cut off."""
    shape = editor.shape(value)
    if shape is None or depth == 0 or not isinstance(shape[-1], int):
        return None
    array = editor.weight(value) if editor.is_constant(value) else None
    if array is not None:
        width = array.shape[-1] // 2
        same = array.shape[-1] % 2 == 0 and bool((array[..., :width] == array[..., width:]).all())
        return editor.initializer(array[..., :width], "table") if same else None
    node = editor.producer(value)
    known = (*shape[:-1], shape[-1] // 2)
    if node is None or node.graph is not at.graph:
        return None
    if node.op_type == "Concat":
        twice = len(node.inputs) == 2 and node.inputs[0] is node.inputs[1]
        return node.inputs[0] if twice and editor.attribute(node, "axis") in (-1, len(shape) - 1) else None
    if node.op_type in ("Gather", "Unsqueeze", "Squeeze"):
        return _half_of_gathered(editor, at, node, known, depth)
    if node.op_type in _UNARY and node.inputs[0] is not None:
        inner = _half(editor, at, node.inputs[0], depth - 1)
        return inner and _again(editor, at, node, [inner], known)
    if node.op_type in ("Mul", "Add", "Div"):
        for index in (0, 1):
            inner_value, other = node.inputs[index], node.inputs[1 - index]
            if inner_value is None or other is None or editor.scalar(other) is None:
                continue
            inner = _half(editor, at, inner_value, depth - 1)
            return inner and _again(editor, at, node, [inner, other] if index == 0 else [other, inner], known)
    return None


def _half_of_gathered(
    editor: Editor, at: ir.Node, node: ir.Node, known: tuple[object, ...], depth: int
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
    inner = _half(editor, at, source, depth - 1)
    return inner and _again(editor, at, node, [inner, node.inputs[1]], known)


def _again(editor: Editor, at: ir.Node, node: ir.Node, inputs: list[ir.Value], shape: tuple[object, ...]) -> ir.Value:
    """The same node over other inputs."""
    attributes = {name: attribute.value for name, attribute in node.attributes.items()}
    dtype = editor.dtype(node.outputs[0])
    return shared(editor, at, node.op_type, inputs, attributes, shape=shape, dtype=dtype)  # type: ignore[arg-type]


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
        "rope-batch",
        "transformer",
        ("RotaryEmbedding",),
        broadcast_tables,
        "cos and sin of RotaryEmbedding are broadcast to the batch of x, which the operator asks for",
        since=23,
    ),
)
