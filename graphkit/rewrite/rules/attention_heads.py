"""`Attention` takes in what stands around it: repeated heads of keys and values (Ainslie et al., "GQA", 2023), and the
Reshapes and Transposes that split heads and join them, for which it has a form with three axes."""

from __future__ import annotations

from typing import TYPE_CHECKING

from graphkit.analyze.tensors import Tensor
from graphkit.rewrite.rule import Rule
from graphkit.rewrite.rules.attention_parts import permutation

if TYPE_CHECKING:
    import onnx_ir as ir

    from graphkit.rewrite.editor import Editor


def _plain(editor: Editor, node: ir.Node) -> bool:
    """Whether it has four axes, one output and no cache."""
    past = any(editor.input(node, index) is not None for index in (4, 5, 6))
    return editor.rank(node.inputs[0]) == 4 and not past and not _read(node, 1)


def _read(node: ir.Node, first: int) -> bool:
    """Whether one of its outputs from there on is read."""
    return any(output.uses() or output.is_graph_output() for output in node.outputs[first:])


def _repeated(editor: Editor, node: ir.Node) -> bool:
    keys, values = node.inputs[1], node.inputs[2]
    if keys is None or values is None or not _plain(editor, node):
        return False
    few_keys, few_values = _once(editor, keys), _once(editor, values)
    if few_keys is None or few_values is None:
        return False
    a, b, q = editor.shape(few_keys), editor.shape(few_values), editor.shape(node.inputs[0])
    if a is None or b is None or q is None or a[1] != b[1]:
        return editor.miss(node, "keys and values are repeated differently")
    heads, fewer = q[1], a[1]
    if not isinstance(heads, int) or not isinstance(fewer, int) or fewer < 1 or heads % fewer:
        return editor.miss(node, "the heads of the queries are no multiple of those of the keys")
    inputs = [node.inputs[0], few_keys, few_values, *node.inputs[3:]]
    made = editor.op("Attention", inputs, dict(node.attributes), like=node.outputs[0])
    editor.replace(node.outputs[0], made)
    return True


def _once(editor: Editor, value: ir.Value) -> ir.Value | None:
    """Heads before each was repeated: Unsqueeze behind their axis, Expand or Tile, Reshape."""
    joined = editor.producer(value, "Reshape")
    wide = editor.producer(joined.inputs[0], "Expand", "Tile") if joined is not None else None
    split = editor.producer(wide.inputs[0], "Unsqueeze", "Reshape") if wide is not None else None
    source = split.inputs[0] if split is not None else None
    if wide is None or split is None or source is None:
        return None
    before, one = editor.shape(source), editor.shape(split.outputs[0])
    many, after = editor.shape(wide.outputs[0]), editor.shape(value)
    if before is None or one is None or many is None or after is None or None in before or len(before) != 4:
        return None
    batch, heads, length, depth = before
    if one != (batch, heads, 1, length, depth) or len(many) != 5 or many[2] is None or heads is None:
        return None
    times = many[2]
    if many != (batch, heads, times, length, depth) or after != (batch, heads * times, length, depth):
        return None
    return source


def _joined(editor: Editor, node: ir.Node) -> bool:
    """Four axes to three; a cache keeps its four."""
    cached = editor.input(node, 4) is not None and editor.input(node, 5) is not None and not _read(node, 3)
    if not _plain(editor, node) and not (cached and editor.rank(node.inputs[0]) == 4):
        return False
    transpose = editor.only_user(node.outputs[0], "Transpose")
    if transpose is None or permutation(editor, transpose) != (0, 2, 1, 3):
        return False
    turned = transpose.outputs[0]
    behind = editor.users(turned)
    if turned.is_graph_output() or not all(_is_reshape(node, user, turned) for user in behind):
        return editor.miss(node, "its heads are not joined behind it")
    apart = [editor.shape(v) for v in node.inputs[:3]]
    parts = [_flat(editor, v) for v in node.inputs[:3] if v is not None]
    if len(parts) != 3 or None in parts:
        return editor.miss(node, "its heads are not split from a last axis before it")
    q, k, v = apart
    assert q is not None
    assert k is not None
    assert v is not None
    if not all(isinstance(size, int) for size in (q[1], k[1], v[3])) or q[1] is None or v[3] is None:
        return False
    shape = (q[0], q[2], q[1] * v[3])
    attributes = dict(node.attributes) | {"q_num_heads": q[1], "kv_num_heads": k[1]}
    inputs = [*parts, *node.inputs[3:]]
    made, *present = editor.ops("Attention", inputs, attributes, outputs=len(node.outputs) if cached else 1)
    editor.describe(made, Tensor(shape, editor.dtype(turned)))
    kept = {
        old: new for old, new in zip(node.outputs[1:], present, strict=False) if old.uses() or old.is_graph_output()
    }
    for old, new in zip(node.outputs[1:], present, strict=False):
        editor.describe(new, Tensor(editor.shape(old), editor.dtype(old)))
    pairs: dict[ir.Value, ir.Value] = {}
    for user in behind:
        result = user.outputs[0]
        if editor.shape(result) == shape and not result.is_graph_output():
            pairs[result] = made
        elif editor.shape(result) == shape or _same_target(editor, user):
            pairs[result] = editor.op("Reshape", [made, user.inputs[1]], dict(user.attributes), like=result)
    if len(pairs) != len(behind):
        return editor.miss(node, "the Reshape behind it copies sizes of the four axes")
    if len(behind) == 1 and editor.shape(behind[0].outputs[0]) == shape:
        pairs = {behind[0].outputs[0]: made}
    editor.replace_all(pairs | kept)
    return True


def _is_reshape(node: ir.Node, user: ir.Node, value: ir.Value) -> bool:
    plain = user.op_type == "Reshape" and not user.domain and user.graph is node.graph
    return plain and user.inputs[0] is value and user.inputs[1] is not value


def _same_target(editor: Editor, reshape: ir.Node) -> bool:
    """Whether a Reshape gives the same for three axes as for four: no 0 in its shape but for the first two."""
    wanted = editor.integers(reshape.inputs[1])
    return wanted is not None and 0 not in wanted[2:]


def _flat(editor: Editor, value: ir.Value) -> ir.Value | None:
    """What heads [batch, heads, length, depth] were split from: [batch, length, heads * depth]."""
    node = editor.producer(value, "Transpose", "RotaryEmbedding")
    shape = editor.shape(value)
    if node is None or shape is None or len(shape) != 4 or None in shape:
        return None
    batch, heads, length, depth = shape
    assert heads is not None
    assert depth is not None
    if node.op_type == "RotaryEmbedding":
        inner = _flat(editor, node.inputs[0]) if node.inputs[0] is not None else None
        if inner is None or not isinstance(heads, int):
            return None
        attributes = dict(node.attributes) | {"num_heads": heads}
        return editor.op("RotaryEmbedding", [inner, *node.inputs[1:]], attributes, like=inner)
    if permutation(editor, node) != (0, 2, 1, 3):
        return None
    split = editor.producer(node.inputs[0], "Reshape")
    if split is None or split.inputs[0] is None:
        return None
    return split.inputs[0] if editor.shape(split.inputs[0]) == (batch, length, heads * depth) else None


RULES = (
    Rule(
        "attention-repeat",
        "transformer",
        ("Attention",),
        _repeated,
        "keys and values repeated for groups of heads go into Attention as they are (grouped queries)",
        exact=False,
        since=23,
    ),
    Rule(
        "attention-heads",
        "transformer",
        ("Attention",),
        _joined,
        "Attention splits and joins the heads itself: the Reshapes and Transposes around it go",
        exact=False,
        since=23,
    ),
)
