"""Scaled dot product attention, softmax(Q K^T s + mask) V, becomes `Attention` (opset 23).

Vaswani et al., "Attention Is All You Need", 2017. The scale may stand on Q, on K, on both, or behind the product; the
mask may be added, or chosen by Where; torch guards the softmax against NaN.

A row whose keys are all masked out (the queries of padding) differs by design: Attention gives 0 there; arithmetic
with a big negative number takes the mean of all values, and with -inf gives NaN or, with torch's guard, 0. ONNX Runtime
1.32 gives 0 for big negative numbers too. Results are the same on every row that has a key.

In float16 the products stay, unless they are for TensorRT, whose kernels are made for it: ONNX Runtime's own kernel
rounds every score, and is up to six times as far from the exact result as the products are.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from graphkit.rewrite.legalize import TARGETS
from graphkit.rewrite.rule import Rule
from graphkit.rewrite.rules.activation_product import scaled
from graphkit.rewrite.rules.attention_masks import CLOSED, Sizes, mask_of
from graphkit.rewrite.rules.attention_parts import shared, untransposed

if TYPE_CHECKING:
    import onnx_ir as ir

    from graphkit.rewrite.editor import Editor

_DTYPES = ("float32", "float16", "bfloat16", "float64")


@dataclass(slots=True)
class _Scores:
    """What the softmax is taken of, on the way up to the product of queries and keys."""

    value: ir.Value
    scale: float = 1.0
    added: list[ir.Value] = field(default_factory=list)
    allowed: list[ir.Value] = field(default_factory=list)


def _attention(editor: Editor, node: ir.Node) -> bool:
    values = node.inputs[1]
    softmax, precision = _softmax(editor, node)
    if softmax is None or values is None or softmax.inputs[0] is None:
        return False
    rank = editor.rank(softmax.outputs[0])
    if editor.attribute(softmax, "axis") not in (-1, None if rank is None else rank - 1):
        return False
    scores = _Scores(softmax.inputs[0])
    if precision:
        cast = editor.producer(scores.value, "Cast")
        if cast is None or cast.inputs[0] is None:
            return editor.miss(node, "its softmax is cast back, but not cast before")
        scores.value = cast.inputs[0]
    product = _climb(editor, node, scores)
    if product is None:
        return False
    return _fuse(editor, node, product, scores, values, precision)


def _softmax(editor: Editor, node: ir.Node) -> tuple[ir.Node | None, bool]:
    """The Softmax that gives the weights, and whether it is computed in float32 between two casts."""
    weights = node.inputs[0]
    guard = editor.sole(weights, "Where")
    if guard is not None:
        test = editor.producer(guard.inputs[0], "IsNaN")
        weights = guard.inputs[2]
        if test is None or test.inputs[0] is not weights or editor.scalar(guard.inputs[1]) != 0.0 or weights is None:
            return None, False
        if weights.is_graph_output() or {id(u) for u in editor.users(weights)} != {id(test), id(guard)}:
            return None, False
        softmax = editor.producer(weights, "Softmax")
        return (softmax if softmax is not None and softmax.graph is node.graph else None), False
    cast = editor.sole(weights, "Cast")
    softmax = editor.sole(cast.inputs[0] if cast is not None else weights, "Softmax")
    if softmax is None and editor.producer(weights, "Softmax") is not None:
        editor.miss(node, "its weights are read by something else too")
    if softmax is None or softmax.graph is not node.graph:
        return None, False
    return softmax, cast is not None


def _climb(editor: Editor, node: ir.Node, scores: _Scores) -> ir.Node | None:
    """Up through masks and scales to the MatMul of queries and keys."""
    for _ in range(8):
        at = editor.sole(scores.value, "MatMul", "Add", "Mul", "Div", "Where")
        if at is None or at.graph is not node.graph:
            editor.miss(node, "the softmax is not of a product of queries and keys that nothing else reads")
            return None
        if at.op_type == "MatMul":
            return at
        inner = _through(editor, at, scores)
        if inner is None:
            editor.miss(node, f"{at.op_type} between the product and the softmax is neither a scale nor a mask")
            return None
        scores.value = inner
    return None


def _through(editor: Editor, at: ir.Node, scores: _Scores) -> ir.Value | None:
    if at.op_type in ("Mul", "Div"):
        inner, number = scaled(editor, at.outputs[0])
        scores.scale *= number
        return inner if inner is not at.outputs[0] else None
    if at.op_type == "Add":
        for inner, other in editor.operands(at):
            if scores.scale == 1.0 and _leads(editor, inner):
                scores.added.append(other)
                return inner
        return None
    return _chosen(editor, at, scores)


def _chosen(editor: Editor, at: ir.Node, scores: _Scores) -> ir.Value | None:
    """Where(mask, scores, -inf), or the other way round."""
    test, yes, no = at.inputs
    if test is None or yes is None or no is None:
        return None
    low, high = editor.scalar(no), editor.scalar(yes)
    if low is not None and low <= CLOSED:
        scores.allowed.append(test)
        return yes
    if high is not None and high <= CLOSED:
        scores.allowed.append(_negated(editor, at, test))
        return no
    return None


def _negated(editor: Editor, at: ir.Node, test: ir.Value) -> ir.Value:
    inner = editor.producer(test, "Not")
    if inner is not None and inner.inputs[0] is not None:
        return inner.inputs[0]
    return shared(editor, at, "Not", [test], shape=editor.shape(test), dtype="bool")


def _leads(editor: Editor, value: ir.Value, depth: int = 6) -> bool:
    """Whether a value is a product of two tensors behind scales and masks."""
    node = editor.sole(value, "MatMul", "Add", "Mul", "Div", "Where")
    if node is None or depth == 0:
        return False
    if node.op_type == "MatMul":
        return not any(editor.is_constant(v) for v in node.inputs)
    return any(_leads(editor, v, depth - 1) for v in node.inputs if v is not None)


def _fuse(editor: Editor, node: ir.Node, product: ir.Node, scores: _Scores, values: ir.Value, precision: bool) -> bool:
    query, turned = product.inputs[0], product.inputs[1]
    assert query is not None
    assert turned is not None
    query, on_query = scaled(editor, query)
    turned, on_key = scaled(editor, turned)
    shape = editor.shape(turned)
    keys = untransposed(editor, turned)
    if keys is None and shape is not None and len(shape) == 4:
        known = (*shape[:-2], shape[-1], shape[-2])
        keys = editor.op("Transpose", [turned], {"perm": [0, 1, 3, 2]}, shape=known, dtype=editor.dtype(turned))
    if keys is None:
        return editor.miss(node, "its keys are not known to be transposed")
    keys, under = scaled(editor, keys)
    scale = scores.scale * on_query * on_key * under
    if scale <= 0.0:
        return editor.miss(node, "its scale is not positive")
    sizes = _sizes(editor, query, keys, values)
    if isinstance(sizes, str):
        return editor.miss(node, sizes)
    if editor.dtype(query) == "float16" and editor.target not in TARGETS:
        return editor.miss(node, "in float16 ONNX Runtime's Attention is less exact than products; --target rtx fuses")
    mask = mask_of(editor, node, scores.added, scores.allowed, sizes)
    if isinstance(mask, str):
        return editor.miss(node, mask)
    dtype = editor.dtype(query)
    if mask.value is not None and editor.dtype(mask.value) not in ("bool", dtype):
        return editor.miss(node, "its mask has another dtype than its queries")
    attributes = {"scale": scale, "is_causal": int(mask.causal), "softmax_precision": 1 if precision else None}
    attended = mask.value
    if editor.rank(query) == 3:
        attributes |= {"q_num_heads": 1, "kv_num_heads": 1}
        if attended is not None and editor.rank(attended) == 3:
            between = editor.shape(attended)
            assert between is not None
            attended = editor.op(
                "Unsqueeze",
                [attended, editor.ints_value([1])],
                shape=(between[0], 1, *between[1:]),
                dtype=editor.dtype(attended),
            )
    result = node.outputs[0]
    editor.replace(result, editor.op("Attention", [query, keys, values, attended], attributes, like=result))
    return True


def _sizes(editor: Editor, query: ir.Value, keys: ir.Value, values: ir.Value) -> Sizes | str:
    """Sizes of the scores, where the shapes are those of an attention; else why not."""
    q, k, v = editor.shape(query), editor.shape(keys), editor.shape(values)
    if q is None or k is None or v is None or not len(q) == len(k) == len(v) in (3, 4):
        return "the shapes of queries, keys and values are not known, or not of rank 3 or 4"
    if editor.dtype(query) not in _DTYPES or not editor.dtype(query) == editor.dtype(keys) == editor.dtype(values):
        return "queries, keys and values have different dtypes"
    if len(q) == 3:
        q, k, v = (q[0], 1, *q[1:]), (k[0], 1, *k[1:]), (v[0], 1, *v[1:])
    if None in (*q, *k, *v[:3]):
        return "the sizes of queries, keys and values are not all known"
    if not (q[0] == k[0] == v[0] and k[1:3] == v[1:3] and q[3] == k[3]):
        return "queries, keys and values are broadcast against one another"
    if k[1] not in (1, q[1]):
        return "queries and keys have different numbers of heads"
    batch, heads, queries, many = q[0], q[1], q[2], k[2]
    assert batch is not None
    assert heads is not None
    assert queries is not None
    assert many is not None
    return Sizes((batch, heads, queries, many), query)


def _slim(editor: Editor, node: ir.Node) -> bool:
    """The boolean mask of an Attention that is there already, without what is always true."""
    mask, query, keys, values = editor.input(node, 3), *node.inputs[:3]
    if mask is None or query is None or keys is None or values is None or editor.dtype(mask) != "bool":
        return False
    if any(editor.input(node, index) is not None for index in (4, 5, 6)) or editor.attribute(node, "is_causal"):
        return False
    q, k = editor.shape(query), editor.shape(keys)
    if q is None or k is None or len(q) != 4 or len(k) != 4 or None in (*q, *k):
        return False
    found = mask_of(editor, node, [], [mask], Sizes((q[0], q[1], q[2], k[2]), query))  # type: ignore[arg-type]
    if isinstance(found, str) or found.value is mask:
        return False
    attributes = dict(node.attributes) | {"is_causal": int(found.causal)}
    inputs = [query, keys, values, found.value]
    editor.replace(node.outputs[0], editor.op("Attention", inputs, attributes, like=node.outputs[0]))
    return True


RULES = (
    Rule(
        "attention",
        "transformer",
        ("MatMul",),
        _attention,
        "softmax(Q K^T s + mask) V becomes Attention; it differs on rows whose keys are all masked out",
        exact=False,
        since=23,
    ),
    Rule(
        "attention-mask",
        "transformer",
        ("Attention",),
        _slim,
        "parts of a mask that are always true go, and a mask that is only causal becomes is_causal",
        since=23,
    ),
)
