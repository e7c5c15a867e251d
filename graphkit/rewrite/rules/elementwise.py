"""Arithmetic that changes nothing, and bounds that are bounds already.

A number is left out only where the other operand has the shape and the dtype of the result: it may have broadcast.
"""

from __future__ import annotations

import math
from typing import TYPE_CHECKING

from graphkit.rewrite.rule import Rule
from graphkit.rewrite.rules.identities import take_out

if TYPE_CHECKING:
    import onnx_ir as ir

    from graphkit.rewrite.editor import Editor


def _neutral(editor: Editor, node: ir.Node) -> bool:
    """x * 1, x / 1, x - 0, x ** 1; and with whole numbers, x + 0."""
    number = {"Mul": 1, "Div": 1, "Sub": 0, "Add": 0, "Pow": 1}[node.op_type]
    if node.op_type == "Add" and (editor.dtype(node.outputs[0]) or "float").startswith(("float", "bfloat", "complex")):
        return False
    return _without(editor, node, number)


def _add_zero(editor: Editor, node: ir.Node) -> bool:
    """-0.0 + 0 is +0.0: the sign of a zero may change."""
    return _without(editor, node, 0)


def _without(editor: Editor, node: ir.Node, number: int) -> bool:
    a, b = node.inputs[0], node.inputs[1]
    if a is None or b is None:
        return False
    orders = ((a, b), (b, a)) if node.op_type in ("Mul", "Add") else ((a, b),)
    for kept, constant in orders:
        if editor.uniform(constant) == number:
            result = node.outputs[0]
            if not editor.same_shape(kept, result) or editor.dtype(kept) != editor.dtype(result):
                return editor.miss(node, "the number gives the result its shape, or shapes are not known")
            return take_out(editor, node, kept)
    return False


def _twice(editor: Editor, node: ir.Node) -> bool:
    """Not(Not(x)), Neg(Neg(x)), Reciprocal is no such thing: it rounds."""
    inner = editor.producer(node.inputs[0], node.op_type)
    return inner is not None and take_out(editor, node, inner.inputs[0])


def _again(editor: Editor, node: ir.Node) -> bool:
    """What has the same effect once as twice."""
    inner = editor.producer(node.inputs[0], node.op_type)
    return inner is not None and take_out(editor, node, node.inputs[0])


def _where(editor: Editor, node: ir.Node) -> bool:
    condition = editor.uniform(node.inputs[0])
    if condition is None or not editor.is_constant(node.inputs[0]):
        return False
    kept = node.inputs[1] if condition else node.inputs[2]
    if kept is None or not editor.same_shape(kept, node.outputs[0]):
        return editor.miss(node, "the other operands give the result its shape, or shapes are not known")
    return take_out(editor, node, kept)


def _where_not(editor: Editor, node: ir.Node) -> bool:
    inner = editor.producer(node.inputs[0], "Not")
    if inner is None:
        return False
    inputs = [inner.inputs[0], node.inputs[2], node.inputs[1]]
    editor.replace(node.outputs[0], editor.op("Where", inputs, like=node.outputs[0]))
    return True


# --- casts ------------------------------------------------------------------------------------------------------------

_WIDER: dict[str, tuple[str, ...]] = {
    "bool": (
        "int8",
        "uint8",
        "int16",
        "uint16",
        "int32",
        "uint32",
        "int64",
        "uint64",
        "float16",
        "bfloat16",
        "float32",
        "float64",
    ),
    "int8": ("int16", "int32", "int64", "float16", "float32", "float64"),
    "uint8": ("int16", "uint16", "int32", "uint32", "int64", "uint64", "float16", "float32", "float64"),
    "int16": ("int32", "int64", "float32", "float64"),
    "uint16": ("int32", "uint32", "int64", "uint64", "float32", "float64"),
    "int32": ("int64", "float64"),
    "uint32": ("int64", "uint64", "float64"),
    "float16": ("float32", "float64"),
    "bfloat16": ("float32", "float64"),
    "float32": ("float64",),
}
"""Dtypes that hold every value of another."""


def _cast_cast(editor: Editor, node: ir.Node) -> bool:
    inner = editor.producer(node.inputs[0], "Cast")
    if inner is None or inner.graph is not node.graph or inner.inputs[0] is None:
        return False
    source, result = inner.inputs[0], node.outputs[0]
    first, middle, last = (editor.dtype(value) for value in (source, inner.outputs[0], result))
    if first is None or middle not in _WIDER.get(first, ()) or last in (None, "string"):
        return False  # float32 -> float16 -> float32 rounds, and a string says which dtype it was
    if first == last:
        return take_out(editor, node, source)
    editor.replace(result, editor.op("Cast", [source], dict(node.attributes), like=result))
    return True


# --- bounds -----------------------------------------------------------------------------------------------------------

_Bounds = tuple[float, float]


def _bounds(editor: Editor, node: ir.Node | None) -> tuple[ir.Value, _Bounds] | None:
    """What a node bounds, and between what, where it does nothing else.

    A bound that a Clip leaves out is the largest finite number, by the standard; that of Relu, Min and Max is infinite.
    """
    if node is None or node.inputs[0] is None or len(node.inputs) > (3 if node.op_type == "Clip" else 2):
        return None
    if node.op_type == "Relu":
        return node.inputs[0], (0.0, math.inf)
    if node.op_type == "Clip":
        largest = _largest(editor, node.inputs[0])
        if largest is None:
            return None
        limits = [-largest, largest]
        for index in (0, 1):
            value = editor.input(node, index + 1)
            number = editor.scalar(value)
            if value is not None and number is None:
                return None
            limits[index] = limits[index] if number is None else number
        return node.inputs[0], (limits[0], limits[1])
    found = editor.with_scalar(node)
    if found is None or not editor.same_shape(found[0], node.outputs[0]):
        return None
    return found[0], ((-math.inf, found[1]) if node.op_type == "Min" else (found[1], math.inf))


def _largest(editor: Editor, value: ir.Value | None) -> float | None:
    """The largest finite number of a dtype; infinity for whole numbers, which have no other."""
    import numpy as np

    dtype = editor.dtype(value)
    if dtype in ("float16", "float32", "float64"):
        return float(np.finfo(dtype).max)
    return math.inf if dtype in ("int32", "int64") else None


def _clip(editor: Editor, node: ir.Node) -> bool:
    """Relu, Clip, Min and Max with numbers, two in a row: the outer bounds hold within the inner ones."""
    outer = _bounds(editor, node)
    if outer is None or (node.op_type == "Relu" and editor.producer(node.inputs[0], "Relu")):
        return False
    inner_node = editor.sole(outer[0], "Relu", "Clip", "Min", "Max")
    inner = _bounds(editor, inner_node)
    if inner is None or inner_node is None or inner_node.graph is not node.graph:
        return False
    (low, high), (lower, upper) = inner[1], outer[1]
    if any(math.isnan(number) for number in (low, high, lower, upper)) or low > high or lower > upper:
        return False
    bottom, top = min(max(low, lower), upper), min(max(high, lower), upper)
    result = node.outputs[0]
    dtype = editor.dtype(result)
    largest = _largest(editor, result)
    if dtype is None or largest is None or (editor.opset < 12 and "int" in dtype):
        return False
    if dtype == "int64" and any(1 << 53 < abs(number) < math.inf for number in (bottom, top)):
        return False  # numbers were read as floats
    editor.replace(result, _bounded(editor, inner[0], bottom, top, largest, result))
    return True


def _bounded(editor: Editor, source: ir.Value, bottom: float, top: float, largest: float, like: ir.Value) -> ir.Value:
    """A Clip; where it is to let an infinity pass, a Max or Min, since Clip has no bound that does."""
    import numpy as np

    def held(number: float) -> ir.Value:
        return editor.initializer(np.asarray(number, dtype=editor.dtype(like)), "bound")

    whole = math.isinf(largest)
    if not whole and top == math.inf and bottom != -math.inf:
        return editor.op("Max", [source, held(bottom)], like=like)
    if not whole and bottom == -math.inf and top != math.inf:
        return editor.op("Min", [source, held(top)], like=like)
    limits = [None if abs(number) == largest else held(number) for number in (bottom, top)]
    return editor.op("Clip", [source, *limits], like=like)


RULES = (
    Rule("neutral-number", "structure", ("Mul", "Div", "Sub", "Add", "Pow"), _neutral, "x * 1, x - 0 and so on are x"),
    Rule("add-zero", "structure", ("Add",), _add_zero, "x + 0 is x", exact=False),
    Rule("twice-is-not", "structure", ("Not", "Neg"), _twice, "Not(Not(x)) is x"),
    Rule(
        "twice-is-once",
        "structure",
        ("Relu", "Abs", "Floor", "Ceil", "Round", "Sign"),
        _again,
        "Relu of Relu is one Relu",
    ),
    Rule("where-constant", "structure", ("Where",), _where, "a choice that is always the same is made"),
    Rule("where-not", "structure", ("Where",), _where_not, "Where(Not(c), a, b) is Where(c, b, a)"),
    Rule("cast-cast", "structure", ("Cast",), _cast_cast, "a Cast to a dtype that holds every value is left out"),
    Rule("clip-clip", "structure", ("Relu", "Clip", "Min", "Max"), _clip, "bounds in a row become one Clip", since=11),
)
