"""Multiply-accumulates of one node, from the types of its inputs and outputs.

One MAC is one multiplication whose product is added to a sum. A convolution's window counts in full where it hangs
over the edge; biases, scales and activations are not MACs. Recurrent layers count their two products (input and
recurrence), not their gates. This is how torch.utils.flop_counter counts, which gives twice as many FLOPs.
"""

from __future__ import annotations

from collections.abc import Callable

from graphkit.analyze.node import Node
from graphkit.analyze.polynomial import Size, product
from graphkit.analyze.shape_rules import einsum_sizes
from graphkit.analyze.tensors import Shape, elements


def has_macs(op: str, domain: str) -> bool:
    """Whether an operator is one that multiplies and accumulates."""
    return op in _RULES and domain in ("", "com.microsoft")


def macs(node: Node) -> Size | None:
    """MACs of a node of an operator that `has_macs`; None if a size that they depend on is unknown."""
    try:
        return _RULES[node.op](node)
    except (IndexError, TypeError, ZeroDivisionError):  # shapes that do not fit the operator
        return None


def operands(op: str) -> tuple[int, ...]:
    """Slots of the inputs that are multiplied with one another."""
    if op in ("QLinearConv", "QLinearMatMul", "QGemm"):
        return 0, 3
    if op in ("LSTM", "GRU", "RNN", "MultiHeadAttention"):
        return 0, 1, 2
    return 0, 1


def _times(*sizes: Size | None) -> Size | None:
    known = [size for size in sizes if size is not None]
    return product(known) if len(known) == len(sizes) else None


def _made(node: Node) -> Size | None:
    return node.table.tensors[node.makes[0]].elements


def _conv(node: Node) -> Size | None:
    kernel = node.shape(3 if node.op == "QLinearConv" else 1)
    return _times(_made(node), elements(kernel[1:] if kernel is not None else None))


def _conv_transpose(node: Node) -> Size | None:
    kernel = node.shape(1)
    return _times(elements(node.shape(0)), elements(kernel[1:] if kernel is not None else None))


def _matmul(node: Node) -> Size | None:
    """Rows, columns and batch are those of the output; what is summed over is the last axis of the first operand."""
    shape, second = node.shape(0), node.shape(3 if node.op in ("QLinearMatMul", "QGemm") else 1)
    return _times(
        _made(node), _summed(shape, second, bool(node.attribute("transA", 0)), bool(node.attribute("transB", 0)))
    )


def _summed(a: Shape | None, b: Shape | None, swap_a: bool, swap_b: bool) -> Size | None:
    size = a[-2 if swap_a and len(a) > 1 else -1] if a else None
    if size is None and b:
        size = b[-1 if swap_b or len(b) == 1 else -2]
    return size


def _matmul_nbits(node: Node) -> Size | None:
    return _times(_made(node), node.attribute("K"))


def _einsum(node: Node) -> Size | None:
    """Contracted from left to right, two operands at a time."""
    found = einsum_sizes(node)
    if found is None:
        return None
    rows, result, sizes = found
    if len(rows) == 1:
        return 0
    total: Size = 0
    done = rows[0]
    for at, row in enumerate(rows[1:], 1):
        both = dict.fromkeys((*done, *row))
        step = _times(*(sizes[label] for label in both))
        if step is None:
            return None
        total = total + step
        later = {label for rest in rows[at + 1 :] for label in rest} | set(result)
        done = [label for label in both if label in later]
    return total


def _recurrent(node: Node) -> Size | None:
    x, weight, recurrence = node.shape(0), node.shape(1), node.shape(2)
    if x is None or weight is None or recurrence is None:
        return None
    per_step = _times(elements(weight)), _times(elements(recurrence))
    if None in per_step:
        return None
    return _times(x[0], x[1], sum(size for size in per_step if size is not None))


def _attention(node: Node) -> Size | None:
    """The two products, queries with keys and weights with values; all of them, also under a causal mask."""
    if node.domain:
        return _contributed_attention(node)
    q, k, v = (node.shape(slot) for slot in range(3))
    past = node.shape(4)
    if q is None or k is None or v is None or (node.given(4) and past is None):
        return None
    earlier = past[2] if past is not None else 0
    if len(q) == 4:
        length = _plus(k[2], earlier)
        return _plus(_times(q[0], q[1], q[2], length, q[3]), _times(q[0], q[1], q[2], length, v[3]))
    heads, groups = node.attribute("q_num_heads"), node.attribute("kv_num_heads")
    length = _plus(k[1], earlier)
    scores = _times(q[0], q[1], length, q[2])
    if v[2] is None or not isinstance(v[2], int) or v[2] % groups:
        return None
    return _plus(scores, _times(q[0], q[1], length, v[2] // groups * heads))


def _plus(a: Size | None, b: Size | None) -> Size | None:
    return None if a is None or b is None else a + b


def _contributed_attention(node: Node) -> Size | None:
    """ONNX Runtime's Attention: the projection of its input, then the two products; without a past."""
    x, weight = node.shape(0), node.shape(1)
    if x is None or weight is None or node.given(4) or node.attribute("qkv_hidden_sizes") is not None:
        return None
    width = weight[1]
    if not isinstance(width, int) or width % 3:
        return None
    return _plus(_times(x[0], x[1], *weight), _times(x[0], x[1], x[1], 2 * width // 3))


def _multi_head(node: Node) -> Size | None:
    q, k, v = (node.shape(slot) for slot in range(3))
    if q is None or k is None or v is None or not len(q) == len(k) == len(v) == 3 or node.given(6):
        return None
    return _plus(_times(q[0], q[1], k[1], q[2]), _times(q[0], q[1], k[1], v[2]))


_RULES: dict[str, Callable[[Node], Size | None]] = {
    **dict.fromkeys(("Conv", "ConvInteger", "QLinearConv", "FusedConv", "DeformConv"), _conv),
    "ConvTranspose": _conv_transpose,
    **dict.fromkeys(
        (
            "MatMul", "MatMulInteger", "QLinearMatMul", "FusedMatMul", "MatMulIntegerToFloat", "DynamicQuantizeMatMul",
            "Gemm", "FusedGemm", "QGemm",
        ),
        _matmul,
    ),
    **dict.fromkeys(("MatMulNBits", "MatMulBnb4"), _matmul_nbits),
    "Einsum": _einsum,
    **dict.fromkeys(("LSTM", "GRU", "RNN"), _recurrent),
    "Attention": _attention,
    "MultiHeadAttention": _multi_head,
}  # fmt: skip
