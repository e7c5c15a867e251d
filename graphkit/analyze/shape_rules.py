"""Types of a node's outputs from those of its inputs: operators that compute. Others are in
`shape_layout` and `shape_selection`.

Source: the ONNX operator specification (https://onnx.ai/onnx/operators/), opsets 1 to 25; contributed operators as in
ONNX Runtime's ContribOperators.md.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from typing import TYPE_CHECKING, TypeAlias

from graphkit.analyze import shape_layout, shape_selection
from graphkit.analyze.node import Node
from graphkit.analyze.polynomial import Size, TooLong, floor
from graphkit.analyze.tensors import UNKNOWN, Shape, Tensor
from graphkit.view.dtypes import name_of

if TYPE_CHECKING:
    from graphkit.analyze.inference import Table

Outputs: TypeAlias = Sequence[Tensor]

BY_VALUE = shape_layout.BY_VALUE | shape_selection.BY_VALUE
"""Operators whose output's shape depends on elements of inputs, not on their types alone."""


def outputs(table: Table, index: int) -> tuple[Tensor, ...]:
    """Types of a node's outputs; empty, or `UNKNOWN`, where there is no rule or it does not know."""
    node = Node(table, index)
    rule = _RULES.get(node.op) if node.domain in ("", "com.microsoft") else None
    if rule is None:
        return ()
    try:
        return tuple(rule(node))
    except (TooLong, ZeroDivisionError, IndexError, TypeError):
        return ()  # sizes that fit no rule: the node is not valid ONNX, or too involved; either way unknown


def broadcast(shapes: Iterable[Shape | None]) -> Shape | None:
    """Multidirectional broadcasting; a size stays unknown where two names meet that may or may not be 1."""
    result: Shape | None = None
    for shape in shapes:
        if shape is None:
            return None
        if result is None or result == shape:
            result = shape
            continue
        many = max(len(result), len(shape))
        left = (1,) * (many - len(result)) + result
        right = (1,) * (many - len(shape)) + shape
        result = tuple(map(_together, left, right))
    return result


def _together(a: Size | None, b: Size | None) -> Size | None:
    if a == b or b == 1:
        return a
    if a == 1:
        return b
    if isinstance(a, int):  # above 1 or 0: the other has to be 1 or the same
        return a
    return b if isinstance(b, int) else None


# --- one shape in, the same out ----------------------------------------------------------------------------------


def _same(node: Node) -> Outputs:
    return (node.tensor(0),) * len(node.makes)


def _first_only(node: Node) -> Outputs:
    return (node.tensor(0),)


def _elementwise(node: Node) -> Outputs:
    shapes = [node.shape(slot) for slot in range(len(node.reads)) if node.given(slot)]
    dtype = next((node.dtype(slot) for slot in range(len(node.reads)) if node.given(slot)), None)
    return (Tensor(broadcast(shapes), dtype),)


def _compared(node: Node) -> Outputs:
    return (Tensor(broadcast(node.shape(slot) for slot in range(len(node.reads))), "bool"),)


def _where(node: Node) -> Outputs:
    return (Tensor(broadcast(node.shape(slot) for slot in range(3)), node.dtype(1) or node.dtype(2)),)


def _to_bool(node: Node) -> Outputs:
    return (Tensor(node.shape(0), "bool"),)


def _cast(node: Node) -> Outputs:
    to = node.attribute("to")
    return (Tensor(node.shape(0), name_of(to) if isinstance(to, int) else None),)


def _cast_like(node: Node) -> Outputs:
    return (Tensor(node.shape(0), node.dtype(1)),)


def _quantized(node: Node) -> Outputs:
    wanted = node.attribute("output_dtype")
    dtype = node.dtype(2) if node.given(2) else name_of(wanted) if wanted else "uint8"
    return (Tensor(node.shape(0), dtype),)


def _dequantized(node: Node) -> Outputs:
    wanted = node.attribute("output_dtype")
    return (Tensor(node.shape(0), name_of(wanted) if wanted else node.dtype(1)),)


def _dynamically_quantized(node: Node) -> Outputs:
    return (Tensor(node.shape(0), "uint8"), Tensor((), "float32"), Tensor((), "uint8"))


def _dropout(node: Node) -> Outputs:
    return (node.tensor(0), Tensor(node.shape(0), "bool"))


def _normalized(node: Node) -> Outputs:
    """LayerNormalization and its kin: mean and deviation keep the axes before `axis`."""
    shape = node.shape(0)
    small: Tensor = UNKNOWN
    if shape is not None:
        axis = node.attribute("axis", -1) % max(len(shape), 1)
        small = Tensor(shape[:axis] + (1,) * (len(shape) - axis), "float32")
    rest = (node.tensor(0),) if node.op.startswith("Skip") else ()
    return (node.tensor(0), small, small, *rest)


# --- products ----------------------------------------------------------------------------------------------------


def matmul_shape(a: Shape | None, b: Shape | None) -> Shape | None:
    """Shape of numpy's matmul."""
    if a is None or b is None or not a or not b:
        return None
    left = a if len(a) > 1 else (1, *a)
    right = b if len(b) > 1 else (*b, 1)
    batch = broadcast((left[:-2], right[:-2]))
    if batch is None:
        return None
    return (*batch, *((left[-2],) if len(a) > 1 else ()), *((right[-1],) if len(b) > 1 else ()))


def _transposed(shape: Shape | None, swapped: bool) -> Shape | None:
    return (*shape[:-2], shape[-1], shape[-2]) if shape is not None and swapped and len(shape) > 1 else shape


def _matmul(node: Node) -> Outputs:
    second, dtype = 1, node.dtype(0)
    if node.op == "QLinearMatMul":
        second, dtype = 3, node.dtype(7)
    elif node.op == "MatMulInteger":
        dtype = "int32"
    elif node.op in ("MatMulIntegerToFloat", "DynamicQuantizeMatMul"):
        dtype = "float32"
    a = _transposed(node.shape(0), bool(node.attribute("transA", 0)))
    b = _transposed(node.shape(second), bool(node.attribute("transB", 0)))
    return (Tensor(matmul_shape(a, b), dtype),)


def _matmul_nbits(node: Node) -> Outputs:
    shape = node.shape(0)
    return (Tensor((*shape[:-1], node.attribute("N")) if shape else None, node.dtype(0)),)


def _gemm(node: Node) -> Outputs:
    quantized = node.op == "QGemm"
    a = _transposed(node.shape(0), bool(node.attribute("transA", 0)))
    b = _transposed(node.shape(3 if quantized else 1), bool(node.attribute("transB", 0)))
    shape = (a[0], b[1]) if a is not None and b is not None and len(a) == len(b) == 2 else None
    dtype = (node.dtype(8) if node.given(8) else "float32") if quantized else node.dtype(0)
    return (Tensor(shape, dtype),)


def _einsum(node: Node) -> Outputs:
    sizes = einsum_sizes(node)
    if sizes is None:
        return (Tensor(None, node.dtype(0)),)
    _, result, found = sizes
    return (Tensor(tuple(found.get(label) for label in result), node.dtype(0)),)


def einsum_sizes(node: Node) -> tuple[list[list[str]], list[str], dict[str, Size | None]] | None:
    """Labels of each input and of the output, and the size of each label; an ellipsis becomes labels of its own."""
    left, arrow, right = node.text("equation").replace(" ", "").partition("->")
    terms = left.split(",")
    shapes = [node.shape(slot) for slot in range(len(terms))]
    if len(terms) != len(node.reads):
        return None
    sizes: dict[str, Size | None] = {}
    rows: list[list[str]] = []
    widest = 0
    for term, shape in zip(terms, shapes, strict=True):
        if shape is None:
            return None
        hidden = len(shape) - len(term.replace("...", ""))
        if hidden < 0 or (hidden and "..." not in term):
            return None
        widest = max(widest, hidden)
        row: list[str] = []
        before, dots, after = term.partition("...")
        row += [*before, *([f".{i}" for i in range(hidden, 0, -1)] if dots else ()), *after]
        for label, size in zip(row, shape, strict=True):
            sizes[label] = _together(sizes[label], size) if label in sizes else size
        rows.append(row)
    dotted = [f".{i}" for i in range(widest, 0, -1)]
    if not arrow:
        flat = [label for row in rows for label in row]
        return rows, [*dotted, *sorted(n for n in set(flat) if flat.count(n) == 1 and "." not in n)], sizes
    before, dots, after = right.partition("...")
    return rows, [*before, *(dotted if dots else ()), *after], sizes


# --- windows -----------------------------------------------------------------------------------------------------


def _windows(
    node: Node, spatial: Shape, kernel: Sequence[Size | None], *, ceil: bool = False
) -> tuple[Size | None, ...]:
    """Sizes after a window has moved over the spatial axes."""
    rank = len(spatial)
    strides = node.attribute("strides", (1,) * rank)
    dilations = node.attribute("dilations", (1,) * rank)
    pads = node.attribute("pads", (0,) * (2 * rank))
    auto = node.text("auto_pad", "NOTSET")
    found: list[Size | None] = []
    for axis, size in enumerate(spatial):
        window, stride = kernel[axis], strides[axis]
        if size is None or window is None:
            found.append(None)
        elif auto in ("SAME_UPPER", "SAME_LOWER"):
            found.append(floor(size + (stride - 1), stride))
        else:
            padded = size + (0 if auto == "VALID" else pads[axis] + pads[axis + rank])
            reach = (window - 1) * dilations[axis] + 1
            found.append(floor(padded - reach + (stride - 1 if ceil else 0), stride) + 1)
    return tuple(found)


def _conv(node: Node) -> Outputs:
    weight = 3 if node.op == "QLinearConv" else 1
    shape, kernel = node.shape(0), node.shape(weight)
    dtype = {"ConvInteger": "int32", "QLinearConv": node.dtype(7)}.get(node.op, node.dtype(0))
    if kernel is None or shape is None:
        return (Tensor(None, dtype),)
    return (Tensor((shape[0], kernel[0], *_windows(node, shape[2:], kernel[2:])), dtype),)


def _conv_transpose(node: Node) -> Outputs:
    shape, kernel = node.shape(0), node.shape(1)
    if shape is None or kernel is None:
        return (Tensor(None, node.dtype(0)),)
    rank = len(shape) - 2
    strides, dilations = node.attribute("strides", (1,) * rank), node.attribute("dilations", (1,) * rank)
    pads, extra = node.attribute("pads", (0,) * (2 * rank)), node.attribute("output_padding", (0,) * rank)
    fixed, auto = node.attribute("output_shape"), node.text("auto_pad", "NOTSET")
    found: list[Size | None] = []
    for axis, size in enumerate(shape[2:]):
        window = kernel[2 + axis]
        if fixed is not None:
            found.append(fixed[-rank:][axis])
        elif size is None or window is None:
            found.append(None)
        elif auto in ("SAME_UPPER", "SAME_LOWER"):
            found.append(size * strides[axis])
        else:
            away = 0 if auto == "VALID" else pads[axis] + pads[axis + rank]
            found.append((size - 1) * strides[axis] + extra[axis] + (window - 1) * dilations[axis] + 1 - away)
    channels = kernel[1] * node.attribute("group", 1) if kernel[1] is not None else None
    return (Tensor((shape[0], channels, *found), node.dtype(0)),)


def _pool(node: Node) -> Outputs:
    shape, kernel = node.shape(0), node.attribute("kernel_shape")
    if shape is None or kernel is None:
        return (Tensor(None, node.dtype(0)),)
    found = (*shape[:2], *_windows(node, shape[2:], kernel, ceil=bool(node.attribute("ceil_mode", 0))))
    return (Tensor(found, node.dtype(0)), Tensor(found, "int64"))


def _global_pool(node: Node) -> Outputs:
    shape = node.shape(0)
    return (Tensor((*shape[:2], *((1,) * (len(shape) - 2))) if shape is not None else None, node.dtype(0)),)


# --- recurrent layers and attention ------------------------------------------------------------------------------


def _recurrent(node: Node) -> Outputs:
    x, recurrence = node.shape(0), node.shape(2)
    if x is None or recurrence is None:
        return (Tensor(None, node.dtype(0)),) * 3
    directions, hidden = recurrence[0], recurrence[2]
    if node.attribute("layout", 0):
        batch, steps = x[0], x[1]
        every, last = (batch, steps, directions, hidden), (batch, directions, hidden)
    else:
        steps, batch = x[0], x[1]
        every, last = (steps, directions, batch, hidden), (directions, batch, hidden)
    return Tensor(every, node.dtype(0)), Tensor(last, node.dtype(0)), Tensor(last, node.dtype(0))


def _attention(node: Node) -> Outputs:
    """Attention of opset 23: queries, keys and values of rank 3 or 4."""
    q, v = node.shape(0), node.shape(2)
    if node.domain or q is None:
        return _contributed_attention(node)
    if len(q) == 4:
        return (Tensor((*q[:3], v[3] if v is not None else None), node.dtype(0)),)
    heads, groups = node.attribute("q_num_heads"), node.attribute("kv_num_heads")
    width = floor(v[2], groups) * heads if v is not None and v[2] is not None and heads and groups else None
    return (Tensor((q[0], q[1], width), node.dtype(0)),)


def _contributed_attention(node: Node) -> Outputs:
    """ONNX Runtime's: the width of the output is that of the values."""
    x = node.shape(0)
    if x is None or len(x) != 3 or node.op != "Attention" or not node.domain:
        return (Tensor(None, node.dtype(0)),)
    weight, widths = node.shape(1), node.attribute("qkv_hidden_sizes")
    size = weight[1] if weight is not None else None
    width = widths[2] if widths else floor(size, 3) if size is not None else None
    return (Tensor((x[0], x[1], width), node.dtype(0)),)


_UNARY = (
    "Abs Acos Acosh Asin Asinh Atan Atanh BitwiseNot Ceil Celu Clip Cos Cosh CumSum Elu Erf Exp Floor Gelu HardSigmoid "
    "HardSwish Hardmax Identity LeakyRelu Log LogSoftmax LpNormalization MeanVarianceNormalization Mish Neg Reciprocal "
    "Relu Round ScatterElements ScatterND Scatter Selu Shrink Sigmoid Sign Sin Sinh Softmax Softplus Softsign Sqrt "
    "Swish Tan Tanh ThresholdedRelu Trilu InstanceNormalization GroupNormalization LRN RMSNormalization Not "
    "RotaryEmbedding FastGelu QuickGelu BiasGelu BiasSplitGelu TensorScatter ReverseSequence"
    "GroupNorm RandomNormalLike RandomUniformLike Bernoulli"
)
_BINARY = "Add And BitShift BitwiseAnd BitwiseOr BitwiseXor Div Max Mean Min Mod Mul Or PRelu Pow Sub Sum Xor"
_COMPARED = "Equal Greater GreaterOrEqual Less LessOrEqual"
_NORMALIZED = "LayerNormalization SimplifiedLayerNormalization SkipLayerNormalization SkipSimplifiedLayerNormalization"

_RULES: dict[str, Callable[[Node], Outputs]] = {
    **dict.fromkeys(_UNARY.split(), _first_only),
    **dict.fromkeys(_BINARY.split(), _elementwise),
    **dict.fromkeys(_COMPARED.split(), _compared),
    **dict.fromkeys(("IsNaN", "IsInf"), _to_bool),
    **dict.fromkeys(_NORMALIZED.split(), _normalized),
    "Where": _where,
    "Cast": _cast,
    "CastLike": _cast_like,
    "QuantizeLinear": _quantized,
    "DequantizeLinear": _dequantized,
    "DynamicQuantizeLinear": _dynamically_quantized,
    "Dropout": _dropout,
    "BatchNormalization": _first_only,
    **dict.fromkeys(
        ("MatMul", "MatMulInteger", "QLinearMatMul", "FusedMatMul", "MatMulIntegerToFloat", "DynamicQuantizeMatMul"),
        _matmul,
    ),
    **dict.fromkeys(("MatMulNBits", "MatMulBnb4"), _matmul_nbits),
    **dict.fromkeys(("Gemm", "FusedGemm", "QGemm"), _gemm),
    "Einsum": _einsum,
    **dict.fromkeys(("Conv", "ConvInteger", "QLinearConv", "FusedConv", "DeformConv"), _conv),
    "ConvTranspose": _conv_transpose,
    **dict.fromkeys(("MaxPool", "AveragePool", "LpPool"), _pool),
    **dict.fromkeys(("GlobalAveragePool", "GlobalMaxPool", "GlobalLpPool"), _global_pool),
    **dict.fromkeys(("LSTM", "GRU", "RNN"), _recurrent),
    "Attention": _attention,
    "MultiHeadAttention": _first_only,
    **shape_layout.RULES,
    **shape_selection.RULES,
}
