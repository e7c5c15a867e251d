"""MatMul and Gemm: one node instead of two or three, where the operands are matrices.

Longer runs of [batch, length, features] stay MatMul and Add: as Gemm each would need a Reshape before and after it,
which are nodes, and layers of TensorRT.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from graphkit.analyze.tensors import Shape
from graphkit.rewrite.rule import Rule
from graphkit.rewrite.rules.conv_layers import affordable
from graphkit.rewrite.rules.scale_steps import FLOATS

if TYPE_CHECKING:
    import onnx_ir as ir

    from graphkit.rewrite.editor import Editor


def _from_add(editor: Editor, node: ir.Node) -> bool:
    result = node.outputs[0]
    shape = editor.shape(result)
    if editor.dtype(result) not in FLOATS or shape is None or len(shape) != 2:
        return False
    for product, added in editor.operands(node):
        matmul = editor.sole(product, "MatMul")
        if matmul is None or matmul.graph is not node.graph:
            continue
        a, b = matmul.inputs
        if editor.rank(a) != 2 or editor.rank(b) != 2 or not _broadcasts(editor.shape(added), editor.shape(product)):
            continue
        editor.replace(result, editor.op("Gemm", [a, b, added], like=result))
        return True
    return False


def _broadcasts(given: Shape | None, wanted: Shape | None) -> bool:
    """Whether a shape broadcasts to another on every run, without changing it."""
    if given is None or wanted is None or len(given) > len(wanted):
        return False
    pairs = zip(given, wanted[len(wanted) - len(given) :], strict=True)
    return all(a == 1 or (a is not None and a == b) for a, b in pairs)


def _take_transposes(editor: Editor, node: ir.Node) -> bool:
    """`Gemm(Transpose(a), b)` is `Gemm(a, b, transA=1)`; likewise for b."""
    for index, flag in ((0, "transA"), (1, "transB")):
        turned = editor.producer(node.inputs[index], "Transpose")
        if turned is None or turned.inputs[0] is None or not _swaps(editor, turned):
            continue
        editor.set_attribute(node, flag, 0 if editor.attribute(node, flag) else 1)
        editor.set_input(node, index, turned.inputs[0])
        return True
    return False


def _swaps(editor: Editor, node: ir.Node) -> bool:
    perm = editor.attribute(node, "perm")
    return [int(a) for a in perm] == [1, 0] if perm is not None else editor.rank(node.inputs[0]) == 2


def _tied(editor: Editor, node: ir.Node) -> bool:
    """A product of two matrices, the second transposed, is a Gemm: the weights need no second copy."""
    a, b = node.inputs
    turned = editor.sole(b, "Transpose")
    if turned is None or editor.rank(a) != 2 or editor.dtype(a) not in FLOATS or not _swaps(editor, turned):
        return False
    made = editor.op("Gemm", [a, turned.inputs[0]], {"transB": 1}, like=node.outputs[0])
    editor.replace(node.outputs[0], made)
    return True


def _unflatten(editor: Editor, node: ir.Node) -> bool:
    """Reshape to a matrix, Gemm, Reshape back: MatMul and Add on the tensor as it is."""
    result = node.outputs[0]
    gemm = editor.sole(node.inputs[0], "Gemm")
    flat = editor.producer(gemm.inputs[0], "Reshape", "Flatten") if gemm is not None else None
    if gemm is None or flat is None or flat.inputs[0] is None or gemm.graph is not node.graph:
        return False
    source = flat.inputs[0]
    before, after, matrix = editor.shape(source), editor.shape(result), editor.shape(flat.outputs[0])
    if before is None or after is None or matrix is None or len(before) < 3:
        return False
    if len(before) != len(after) or None in before or before[:-1] != after[:-1] or matrix[-1] != before[-1]:
        return editor.miss(node, "it is not known to restore the axes that the Reshape before the Gemm merged")
    if editor.attribute(gemm, "transA") or editor.attribute(gemm, "alpha") != 1 or editor.attribute(gemm, "beta") != 1:
        return False
    weight, bias = gemm.inputs[1], editor.input(gemm, 2)
    wide = editor.shape(weight)
    if weight is None or wide is None or wide[0 if editor.attribute(gemm, "transB") else 1] != after[-1]:
        return False
    bias_shape = None if bias is None else editor.shape(bias)
    if bias is not None and bias_shape not in ((), (1,), (after[-1],), (1, 1), (1, after[-1])):
        return editor.miss(node, "the bias of the Gemm differs from row to row")
    if editor.attribute(gemm, "transB"):
        if not editor.is_constant(weight) or not affordable(editor, weight):
            return editor.miss(node, "the weights of the Gemm are transposed, and used elsewhere")
        array = editor.weight(weight)
        assert array is not None
        weight = editor.initializer(array.T, weight.name or "weight")
    product = editor.op("MatMul", [source, weight], like=result)
    if bias is not None:
        product = editor.op("Add", [product, bias], like=result)
    editor.replace(result, product)
    return True


RULES = (
    Rule(
        "gemm-transpose",
        "convolution",
        ("Gemm",),
        _take_transposes,
        "a Transpose before a Gemm becomes its transA or transB",
        exact=False,
    ),
    Rule(
        "reshape-gemm",
        "convolution",
        ("Reshape",),
        _unflatten,
        "Reshape, Gemm, Reshape back are a MatMul and an Add",
        exact=False,
        since=7,
    ),
    Rule(
        "matmul-add",
        "convolution",
        ("Add",),
        _from_add,
        "MatMul and Add of matrices are a Gemm",
        exact=False,
        since=7,
        late=True,
    ),
    Rule(
        "matmul-transpose",
        "convolution",
        ("MatMul",),
        _tied,
        "MatMul of a matrix with a transposed one is a Gemm",
        exact=False,
        since=11,
        late=True,
    ),
)
