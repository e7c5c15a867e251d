"""Activations that the standard has an operator for, from arithmetic: Swish, HardSwish, HardSigmoid, Mish, Softplus.

For x = -inf the products with a gate that is 0 there are NaN as arithmetic; kernels may give 0.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from graphkit.rewrite.rule import Rule
from graphkit.rewrite.rules.activation_product import FLOATS, close, fits, pair, plus, product, scaled

if TYPE_CHECKING:
    import onnx_ir as ir

    from graphkit.rewrite.editor import Editor


_SWISH = 24
"""ONNX Runtime 1.32 has no kernel for Swish; it inlines the function, where the model is of the function's opset."""


def _swish(editor: Editor, node: ir.Node) -> bool:
    """x sigmoid(a x): SiLU (a = 1), or the quick Gelu (a = 1.702)."""
    result = node.outputs[0]
    found = product(editor, node)
    for x, gate in pair(found):
        assert found is not None
        sigmoid = editor.producer(gate, "Sigmoid")
        if sigmoid is None or sigmoid.inputs[0] is None:
            continue
        inner, alpha = (x, 1.0) if sigmoid.inputs[0] is x else scaled(editor, sigmoid.inputs[0])
        if inner is not x or found.number != 1.0:
            continue
        if editor.opset != _SWISH:
            return editor.miss(node, f"ONNX Runtime has Swish in models of opset {_SWISH} only")
        if not fits(editor, x, result) or editor.dtype(x) == "float64":
            return editor.miss(node, "Swish takes no float64, and its constants must not give it another rank")
        editor.replace(result, editor.op("Swish", [x], {"alpha": alpha}, like=result))
        return True
    return False


def _hard_swish(editor: Editor, node: ir.Node) -> bool:
    """x clip(x + 3, 0, 6) / 6."""
    result = node.outputs[0]
    found = product(editor, node)
    for x, gate in pair(found):
        assert found is not None
        hard = editor.producer(gate, "HardSigmoid")
        if hard is not None and hard.inputs[0] is x:
            alpha, beta = editor.attribute(hard, "alpha"), editor.attribute(hard, "beta")
            right = close(editor, alpha, 1 / 6, x) and beta == 0.5 and found.number == 1.0
        else:
            right = close(editor, found.number, 1 / 6, x) and _clipped(editor, gate, x) == 3.0
        if not right:
            continue
        if not fits(editor, x, result) or not _typed(editor, x):
            return editor.miss(node, "HardSwish takes no such dtype, or its constants give it another rank")
        editor.replace(result, editor.op("HardSwish", [x], like=result))
        return True
    return False


def _hard_sigmoid(editor: Editor, node: ir.Node) -> bool:
    """clip(x + 3, 0, 6) / 6, unless it is the gate of a HardSwish."""
    result = node.outputs[0]
    found = product(editor, node)
    if found is None or len(found.factors) != 1:
        return False
    clip = editor.producer(found.factors[0], "Clip")
    sum_ = plus(editor, clip.inputs[0]) if clip is not None and clip.inputs[0] is not None else None
    if sum_ is None or _clipped(editor, found.factors[0], sum_[0]) != 3.0:
        return False
    x = sum_[0]
    if not close(editor, found.number, 1 / 6, x) or not fits(editor, x, result) or not _typed(editor, x):
        return False
    if any(user.op_type == "Mul" and x in user.inputs for user in editor.users(result)):
        return False
    editor.replace(result, editor.op("HardSigmoid", [x], {"alpha": 1 / 6, "beta": 0.5}, like=result))
    return True


def _clipped(editor: Editor, value: ir.Value, x: ir.Value) -> float | None:
    """The number c of clip(x + c, 0, 6), as Clip, or as Min and Max."""
    clip = editor.producer(value, "Clip")
    if clip is not None:
        low, high = editor.scalar(editor.input(clip, 1)), editor.scalar(editor.input(clip, 2))
        inner = clip.inputs[0]
    else:
        low, high, inner = _min_max(editor, value)
    sum_ = plus(editor, inner) if inner is not None else None
    return sum_[1] if sum_ is not None and sum_[0] is x and (low, high) == (0.0, 6.0) else None


def _min_max(editor: Editor, value: ir.Value) -> tuple[float | None, float | None, ir.Value | None]:
    outer = editor.producer(value, "Min", "Max")
    first = editor.with_scalar(outer)
    inner = editor.producer(first[0], "Max" if outer.op_type == "Min" else "Min", "Relu") if first and outer else None
    if outer is None or first is None or inner is None:
        return None, None, None
    if inner.op_type == "Relu":
        return (0.0, first[1], inner.inputs[0]) if outer.op_type == "Min" else (None, None, None)
    second = editor.with_scalar(inner)
    if second is None:
        return None, None, None
    return (second[1], first[1], second[0]) if outer.op_type == "Min" else (first[1], second[1], second[0])


def _mish(editor: Editor, node: ir.Node) -> bool:
    """x tanh(softplus(x))."""
    result = node.outputs[0]
    found = product(editor, node)
    for x, gate in pair(found):
        assert found is not None
        tanh = editor.producer(gate, "Tanh")
        soft = editor.producer(tanh.inputs[0], "Softplus") if tanh is not None else None
        if soft is None or soft.inputs[0] is not x or found.number != 1.0:
            continue
        if not fits(editor, x, result) or not _typed(editor, x):
            return editor.miss(node, "Mish takes no such dtype")
        editor.replace(result, editor.op("Mish", [x], like=result))
        return True
    return False


def _softplus(editor: Editor, node: ir.Node) -> bool:
    """log(exp(x) + 1): Softplus does not overflow where exp does, so it is finite where the arithmetic is inf."""
    source, result = node.inputs[0], node.outputs[0]
    sum_ = plus(editor, source) if source is not None else None
    exp = editor.producer(sum_[0], "Exp") if sum_ is not None else None
    if sum_ is None or exp is None or sum_[1] != 1.0 or exp.inputs[0] is None:
        return False
    x = exp.inputs[0]
    if editor.rank(x) is None or editor.rank(x) != editor.rank(result) or not _typed(editor, x):
        return editor.miss(node, "Softplus takes no such dtype, or its constant gives it another rank")
    editor.replace(result, editor.op("Softplus", [x], like=result))
    return True


def _leaky(editor: Editor, node: ir.Node) -> bool:
    """max(x, a x) with 0 < a < 1; Where(x > 0, x, a x)."""
    result = node.outputs[0]
    if len(node.inputs) != (3 if node.op_type == "Where" else 2):
        return False
    if node.op_type == "Where":
        test = editor.producer(node.inputs[0], "Greater", "GreaterOrEqual")
        x, below = node.inputs[1], node.inputs[2]
        if test is None or test.inputs[0] is not x or editor.scalar(test.inputs[1]) != 0.0:
            return False
        orders = [(x, below)]
    else:
        orders = list(editor.operands(node))
    for x, below in orders:
        if x is None or below is None:
            continue
        inner, alpha = scaled(editor, below)
        if inner is not x or below is x or (node.op_type == "Max" and not 0.0 < alpha < 1.0):
            continue
        if not _typed(editor, x) or editor.rank(x) is None or editor.rank(x) != editor.rank(result):
            return False
        editor.replace(result, editor.op("LeakyRelu", [x], {"alpha": alpha}, like=result))
        return True
    return False


def _typed(editor: Editor, x: ir.Value) -> bool:
    """Whether the operators of opset 22 take its dtype, before which none took bfloat16, and ONNX Runtime has them: on
    the CPU it has none of these for float64."""
    dtype = editor.dtype(x)
    return dtype in FLOATS and dtype != "float64" and (dtype != "bfloat16" or editor.opset >= 22)


RULES = (
    Rule(
        "swish",
        "transformer",
        ("Mul",),
        _swish,
        "x sigmoid(a x) becomes Swish (SiLU, quick Gelu)",
        exact=False,
        targets=("onnx", "ort"),  # TensorRT's parser makes six layers of Swish, and two of Sigmoid and Mul
        since=24,
    ),
    Rule(
        "hard-swish",
        "transformer",
        ("Mul", "Div"),
        _hard_swish,
        "x clip(x + 3, 0, 6) / 6 becomes HardSwish",
        exact=False,
        since=14,
    ),
    Rule(
        "hard-sigmoid",
        "transformer",
        ("Mul", "Div"),
        _hard_sigmoid,
        "clip(x + 3, 0, 6) / 6 becomes HardSigmoid",
        exact=False,
        since=11,
    ),
    Rule("mish", "transformer", ("Mul",), _mish, "x tanh(softplus(x)) becomes Mish", exact=False, since=18),
    Rule(
        "softplus",
        "transformer",
        ("Log",),
        _softplus,
        "log(exp(x) + 1) becomes Softplus, which is finite where exp(x) overflows",
        exact=False,
    ),
    Rule(
        "leaky-relu",
        "transformer",
        ("Max", "Where"),
        _leaky,
        "max(x, a x) and Where(x > 0, x, a x) become LeakyRelu",
        exact=False,
        since=16,
    ),
)
