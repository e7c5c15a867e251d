"""The Gaussian error linear unit, exact and with tanh, from arithmetic.

Hendrycks and Gimpel, "Gaussian Error Linear Units", 2016: 0.5 x (1 + erf(x / sqrt 2)), or nearly
0.5 x (1 + tanh(sqrt(2/pi) (x + 0.044715 x^3))). For x = -inf both give NaN as arithmetic; kernels of Gelu may give 0.
"""

from __future__ import annotations

import math
from typing import TYPE_CHECKING

from graphkit.rewrite.rule import Rule
from graphkit.rewrite.rules.activation_product import close, fits, pair, plus, product, scaled

if TYPE_CHECKING:
    import onnx_ir as ir

    from graphkit.rewrite.editor import Editor


def _gelu(editor: Editor, node: ir.Node) -> bool:
    result = node.outputs[0]
    found = product(editor, node)
    for x, gate in pair(found):
        assert found is not None
        inner = _gate(editor, gate, found.number)
        if inner is None:
            continue
        approximate = _argument(editor, inner, x)
        if approximate is None:
            return editor.miss(node, "what is inside erf or tanh is not the Gelu of the other factor")
        if not fits(editor, x, result):
            return editor.miss(node, "its constants give the result another rank than x has")
        editor.replace(result, editor.op("Gelu", [x], {"approximate": approximate}, like=result))
        return True
    return False


def _gate(editor: Editor, gate: ir.Value, number: float) -> ir.Node | None:
    """The Erf or Tanh of `number * gate` = 0.5 (1 + f(...)), which may also be written 0.5 f(...) + 0.5."""
    sum_ = plus(editor, gate)
    if sum_ is None:
        return None
    inner, one = sum_
    inner, factor = scaled(editor, inner)
    if not (close(editor, number * factor, 0.5, gate) and close(editor, number * one, 0.5, gate)):
        return None
    return editor.producer(inner, "Erf", "Tanh")


def _argument(editor: Editor, node: ir.Node, x: ir.Value) -> str | None:
    """`none` or `tanh`, by what the function is applied to."""
    value = node.inputs[0]
    assert value is not None
    if node.op_type == "Erf":
        inner, factor = scaled(editor, value)
        return "none" if inner is x and close(editor, factor, math.sqrt(0.5), x) else None
    inner, factor = scaled(editor, value)
    if close(editor, factor, math.sqrt(2 / math.pi), x):
        return "tanh" if _cubic(editor, inner, x) else None
    return "tanh" if _factored(editor, value, x) else None


def _cubic(editor: Editor, value: ir.Value, x: ir.Value) -> bool:
    """Whether it is x + 0.044715 x^3, or x (1 + 0.044715 x^2)."""
    node = editor.producer(value, "Add")
    if node is not None:
        return any(a is x and _power(editor, b, x, 3) for a, b in editor.operands(node))
    found = editor.producer(value, "Mul")
    if found is None:
        return False
    for a, b in editor.operands(found):
        sum_ = plus(editor, b) if a is x else None
        if sum_ is not None and close(editor, sum_[1], 1.0, x) and _power(editor, sum_[0], x, 2):
            return True
    return False


def _factored(editor: Editor, value: ir.Value, x: ir.Value) -> bool:
    """Whether it is sqrt(2/pi) x (1 + 0.044715 x^2), the number anywhere."""
    node = editor.producer(value, "Mul")
    found = product(editor, node) if node is not None else None
    if found is None or not close(editor, found.number, math.sqrt(2 / math.pi), x):
        return False
    for a, b in pair(found):
        sum_ = plus(editor, b) if a is x else None
        if sum_ is not None and close(editor, sum_[1], 1.0, x) and _power(editor, sum_[0], x, 2):
            return True
    return False


def _power(editor: Editor, value: ir.Value, x: ir.Value, exponent: int) -> bool:
    """Whether it is 0.044715 x to this power, as Pow or as products."""
    node = editor.producer(value, "Mul", "Div")
    if node is None:
        return False
    found = product(editor, node)
    if found is None or not close(editor, found.number, 0.044715, x):
        return False
    count = 0
    for factor in found.factors:
        power = degree(editor, factor, x)
        if power is None:
            return False
        count += power
    return count == exponent


def degree(editor: Editor, value: ir.Value, x: ir.Value) -> int | None:
    """The power of `x` that a value is: 1 to 3; None where it is none."""
    if value is x:
        return 1
    node = editor.producer(value, "Pow", "Mul")
    if node is None:
        return None
    if node.op_type == "Pow":
        exponent = editor.scalar(node.inputs[1])
        return int(exponent) if node.inputs[0] is x and exponent in (2.0, 3.0) else None
    powers = [degree(editor, v, x) if v is not None and v is not value else None for v in node.inputs]
    total = sum(p for p in powers if p is not None)
    return total if None not in powers and total <= 3 else None


RULES = (
    Rule(
        "gelu",
        "transformer",
        ("Mul", "Div"),
        _gelu,
        "0.5 x (1 + erf(x / sqrt 2)) and its form with tanh become Gelu; it may give 0 for -inf where arithmetic "
        "gives NaN",
        exact=False,
        since=20,
    ),
)
