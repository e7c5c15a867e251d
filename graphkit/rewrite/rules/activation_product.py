"""A product as its factors, in whatever order and nesting an exporter wrote it."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import onnx_ir as ir

    from graphkit.rewrite.editor import Editor

FLOATS = ("float32", "float16", "bfloat16", "float64")
_TOLERANCE = {"float16": 1e-3, "bfloat16": 8e-3}
_MOST_FACTORS = 5


@dataclass(frozen=True, slots=True)
class Product:
    """What a Mul computes.

    Attributes:
        factors: The values that are multiplied, constants of one element apart.
        number: The product of those constants.
    """

    factors: tuple[ir.Value, ...]
    number: float


def product(editor: Editor, node: ir.Node) -> Product | None:
    """The product that ends at a Mul or a Div by a number; None where it has more than a few factors.

    Inner products that something else reads too count as one factor. Each rule about a product asks for it anew.
    """
    key = ("product", id(node))
    if key not in editor.kept:
        editor.kept[key] = _product(editor, node)
    found: Product | None = editor.kept[key]
    return found


def _product(editor: Editor, node: ir.Node) -> Product | None:
    factors: list[ir.Value] = []
    number = 1.0
    pending: list[tuple[ir.Value | None, bool]] = [
        (v, node.op_type == "Div" and i == 1) for i, v in enumerate(node.inputs)
    ]
    while pending:
        value, below = pending.pop(0)
        if value is None:
            return None
        scalar = editor.scalar(value)
        if scalar is not None:
            if below and scalar == 0.0:
                return None
            number = number / scalar if below else number * scalar
            continue
        if below:
            return None
        inner = editor.sole(value, "Mul", "Div")
        if inner is not None and inner.graph is node.graph and _numbers(editor, inner):
            pending.extend((v, inner.op_type == "Div" and i == 1) for i, v in enumerate(inner.inputs))
        else:
            factors.append(value)
        if len(factors) > _MOST_FACTORS:
            return None
    return Product(tuple(factors), number)


def _numbers(editor: Editor, node: ir.Node) -> bool:
    return node.op_type == "Mul" or editor.scalar(node.inputs[1]) is not None


def scaled(editor: Editor, value: ir.Value) -> tuple[ir.Value, float]:
    """A value without the number that it is multiplied with, or divided by, and that number."""
    node = editor.producer(value, "Mul", "Div", "Neg")
    if node is None:
        return value, 1.0
    if node.op_type == "Neg":
        assert node.inputs[0] is not None
        inner, number = scaled(editor, node.inputs[0])
        return inner, -number
    if node.op_type == "Div":
        number = editor.scalar(node.inputs[1]) or 0.0
        return (node.inputs[0], 1.0 / number) if number and node.inputs[0] is not None else (value, 1.0)
    return editor.with_scalar(node) or (value, 1.0)


def plus(editor: Editor, value: ir.Value) -> tuple[ir.Value, float] | None:
    """The other addend of an Add (or Sub) with a number, and that number."""
    node = editor.producer(value, "Add", "Sub")
    if node is None:
        return None
    if node.op_type == "Add":
        return editor.with_scalar(node)
    number = editor.scalar(node.inputs[1])
    return None if number is None or node.inputs[0] is None else (node.inputs[0], -number)


def close(editor: Editor, number: float, expected: float, value: ir.Value) -> bool:
    """Whether a number is the expected one, as well as the dtype of a value can tell."""
    return math.isclose(number, expected, rel_tol=_TOLERANCE.get(editor.dtype(value) or "", 3e-5))


def fits(editor: Editor, x: ir.Value, result: ir.Value) -> bool:
    """Whether a result of elementwise arithmetic on `x` and numbers has the dtype and the rank of `x`: a number of
    shape [1, 1] gives it another."""
    if editor.dtype(x) not in FLOATS or editor.dtype(result) not in (None, editor.dtype(x)):
        return False
    return editor.rank(x) is not None and editor.rank(x) == editor.rank(result)


def pair(found: Product | None) -> tuple[tuple[ir.Value, ir.Value], ...]:
    """Two factors in both orders; nothing where there are not two."""
    if found is None or len(found.factors) != 2:
        return ()
    a, b = found.factors
    return ((a, b), (b, a))
