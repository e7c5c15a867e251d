"""Einsum that is a MatMul with Transposes around it.

Of two operands, with labels written out: one label is summed over, the labels that all three have are batches, and
every operand has one more (the left one any number of them, where there are no batches and the right one is a matrix).
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from graphkit.rewrite.rule import Rule
from graphkit.rewrite.rules.identities import take_out

if TYPE_CHECKING:
    import onnx_ir as ir

    from graphkit.rewrite.editor import Editor


def _einsum(editor: Editor, node: ir.Node) -> bool:
    equation = str(editor.attribute(node, "equation")).replace(" ", "")
    if "." in equation or "->" not in equation:
        return False
    left, result = equation.split("->")
    terms = left.split(",")
    if len(terms) != len(node.inputs) or any(len(set(term)) != len(term) for term in (*terms, result)):
        return False
    if len(terms) == 1:
        return sorted(terms[0]) == sorted(result) and _moved(editor, node, terms[0], result)
    return len(terms) == 2 and _product(editor, node, terms[0], terms[1], result)


def _moved(editor: Editor, node: ir.Node, term: str, result: str) -> bool:
    source = node.inputs[0]
    if term == result:
        return take_out(editor, node, source)
    editor.replace(node.outputs[0], _transpose(editor, source, term, result, like=node.outputs[0]))
    return True


def _product(editor: Editor, node: ir.Node, first: str, second: str, result: str) -> bool:
    a, b = node.inputs[0], node.inputs[1]
    summed = [x for x in first if x in second and x not in result]
    batch = [x for x in result if x in first and x in second]
    rows = [x for x in first if x not in second]
    columns = [x for x in second if x not in first]
    if len(summed) != 1 or any(x not in result for x in (*rows, *columns)) or len(result) != len({*first, *second}) - 1:
        return editor.miss(node, "it sums over more, or less, than one label")
    if len(columns) != 1 or (len(rows) != 1 and (batch or len(rows) < 1)):
        return editor.miss(node, "an operand has more, or less, than one label of its own")
    if editor.rank(a) != len(first) or editor.rank(b) != len(second):
        return False
    if editor.dtype(a) not in ("float16", "bfloat16", "float32", "float64"):
        return False
    wanted = "".join([*batch, *rows, *columns])
    left = _transpose(editor, a, first, "".join([*batch, *rows, *summed]))
    right = _transpose(editor, b, second, "".join([*batch, *summed, *columns]))
    shape = editor.shape(node.outputs[0])
    made = editor.op(
        "MatMul",
        [left, right],
        like=node.outputs[0],
        shape=None if shape is None else tuple(shape[result.index(x)] for x in wanted),
    )
    editor.replace(node.outputs[0], _transpose(editor, made, wanted, result, like=node.outputs[0]))
    return True


def _transpose(
    editor: Editor, value: ir.Value | None, term: str, wanted: str, *, like: ir.Value | None = None
) -> ir.Value:
    assert value is not None
    if term == wanted:
        return value
    order = [term.index(x) for x in wanted]
    shape = editor.shape(value)
    moved = None if shape is None else tuple(shape[axis] for axis in order)
    return editor.op("Transpose", [value], {"perm": order}, like=like or value, shape=moved)


RULES = (Rule("einsum", "structure", ("Einsum",), _einsum, "Einsum becomes MatMul or Transpose", exact=False, since=9),)
