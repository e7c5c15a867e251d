"""The bias before a residual sum goes into the normalisation that the residual comes from (post-norm transformers).

With y = LN(x), y W1 + b1 on one way and y + (z + b2) on the other: y' = y + b2 is the same LN with another bias, the
sum is y' + z, and the way through W1 is put right by its own bias, b1 - b2 W1. One Add less; nothing else changes.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from graphkit.rewrite.rule import Rule

if TYPE_CHECKING:
    import numpy as np
    import onnx_ir as ir

    from graphkit.rewrite.editor import Editor

_MOST = 4.0
"""How many times the largest scale of the normalisation a bias may be: larger ones would cost digits."""


@dataclass(frozen=True, slots=True)
class _Linear:
    """A product with a weight, and the Add of its bias."""

    weight: ir.Value
    add: ir.Node
    product: ir.Value
    bias: ir.Value


def _residual(editor: Editor, node: ir.Node) -> bool:
    y, width = node.outputs[0], editor.shape(node.inputs[1])
    if y.is_graph_output() or len(node.outputs) > 1 or editor.dtype(y) != "float32" or width is None or len(width) != 1:
        return False
    sums: list[tuple[ir.Node, ir.Value, ir.Value]] = []
    linear: list[_Linear] = []
    for user in editor.users(y):
        found = _linear(editor, node, user, y)
        through = None if found is not None else _sum(editor, node, user, y)
        if found is not None:
            linear.append(found)
        elif through is not None:
            sums.append(through)
        else:
            return False
    if len(sums) != 1 or not linear:
        return False
    return _shift(editor, node, sums[0], linear)


def _linear(editor: Editor, norm: ir.Node, user: ir.Node, y: ir.Value) -> _Linear | None:
    if user.op_type != "MatMul" or user.domain or user.graph is not norm.graph or user.inputs[0] is not y:
        return None
    product = user.outputs[0]
    add = editor.only_user(product, "Add")
    weight, size = user.inputs[1], editor.shape(user.inputs[1])
    if add is None or weight is None or size is None or len(size) != 2 or not editor.is_constant(weight):
        return None
    bias = add.inputs[1] if add.inputs[0] is product else add.inputs[0]
    if bias is None or not editor.is_constant(bias) or editor.shape(bias) != size[1:]:
        return None
    return _Linear(weight, add, product, bias)


def _sum(editor: Editor, norm: ir.Node, user: ir.Node, y: ir.Value) -> tuple[ir.Node, ir.Value, ir.Value] | None:
    """The residual sum, what is added but for its bias, and the bias."""
    if (
        user.op_type != "Add"
        or user.domain
        or user.graph is not norm.graph
        or not editor.same_shape(y, user.outputs[0])
    ):
        return None
    for mine, other in editor.operands(user):
        inner = editor.sole(other, "Add") if mine is y else None
        if inner is None or inner.graph is not norm.graph:
            continue
        for z, bias in editor.operands(inner):
            if editor.is_constant(bias) and editor.shape(bias) == editor.shape(norm.inputs[1]):
                return user, z, bias
    return None


def _shift(editor: Editor, node: ir.Node, through: tuple[ir.Node, ir.Value, ir.Value], linear: list[_Linear]) -> bool:
    import numpy as np

    user, z, moved = through
    scale, old = editor.weight(node.inputs[1]), editor.input(node, 2)
    shift, before = _wide(editor, moved), _wide(editor, old) if old is not None else 0.0
    if scale is None or shift is None or before is None or np.abs(shift).max(initial=0) > _MOST * np.abs(scale).max():
        return editor.miss(node, "the bias is far larger than what is normalised, or no constant")
    inputs = [node.inputs[0], node.inputs[1], _constant(editor, before + shift)]
    y = node.outputs[0]
    shifted = editor.op("LayerNormalization", inputs, dict(node.attributes), like=y)
    pairs = {y: shifted}
    for each in linear:
        weight, bias = _wide(editor, each.weight), _wide(editor, each.bias)
        assert weight is not None
        assert bias is not None
        result = each.add.outputs[0]
        pairs[result] = editor.op("Add", [each.product, _constant(editor, bias - shift @ weight)], like=result)
    pairs[user.outputs[0]] = editor.op("Add", [shifted, z], like=user.outputs[0])
    editor.replace_all(pairs)
    return True


def _wide(editor: Editor, value: ir.Value) -> np.ndarray[Any, Any] | None:
    import numpy as np

    array = editor.weight(value)
    return None if array is None else array.astype(np.float64)


def _constant(editor: Editor, array: np.ndarray[Any, Any]) -> ir.Value:
    import numpy as np

    return editor.initializer(array.astype(np.float32), "bias")


RULES = (
    Rule(
        "norm-residual-bias",
        "transformer",
        ("LayerNormalization",),
        _residual,
        "the bias before a residual sum goes into the normalisation that the residual comes from",
        exact=False,
        targets=("onnx", "ort"),  # in 16 bits, as TensorRT may compute, the shift could cost digits
        since=17,
        late=True,
    ),
)
