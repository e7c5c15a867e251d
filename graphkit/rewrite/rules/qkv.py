"""Products of one value with several weights (queries, keys and values) become one product and a Split."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from graphkit.rewrite.rule import Rule

if TYPE_CHECKING:
    import numpy as np
    import onnx_ir as ir

    from graphkit.rewrite.editor import Editor

_MOST_USERS = 64
_LAZY = 1 << 20
"""Bytes above which joined weights are made only when the model is written."""


@dataclass(frozen=True, slots=True)
class _Branch:
    """One product, with its bias where it has one, and what comes out of both."""

    weight: ir.Value
    bias: ir.Value | None
    result: ir.Value
    width: int


def _merge(editor: Editor, node: ir.Node) -> bool:
    x = node.inputs[0]
    shape = editor.shape(x)
    if x is None or shape is None or len(shape) < 2:
        return False
    users = editor.users(x)
    if len(users) > _MOST_USERS:
        return False
    branches = [found for user in users if (found := _branch(editor, node, user, x)) is not None]
    if len(branches) < 2 or not any(b.weight is node.inputs[1] for b in branches):
        return False
    biased = sum(b.bias is not None for b in branches)
    if len(branches) + biased <= 2 + (biased > 0):
        return False
    import numpy as np

    from graphkit.rewrite.onnx_forms import dtype_of

    widths = [b.width for b in branches]
    dtype = editor.dtype(node.outputs[0])
    known = (*shape[:-1], sum(widths))
    made = editor.op("MatMul", [x, joined(editor, [b.weight for b in branches])], shape=known, dtype=dtype)
    if biased:
        array = dtype_of(dtype or "float32").numpy()
        parts = [np.zeros(b.width, array) if b.bias is None else _bias(editor, b.bias, b.width) for b in branches]
        made = editor.op("Add", [made, editor.initializer(np.concatenate(parts), "bias")], shape=known, dtype=dtype)
    outputs = editor.ops("Split", [made, editor.ints_value(widths)], {"axis": -1}, outputs=len(branches))
    editor.replace_all({b.result: part for b, part in zip(branches, outputs, strict=True)})
    return True


def _branch(editor: Editor, first: ir.Node, node: ir.Node, x: ir.Value) -> _Branch | None:
    """A product of x with a weight that nothing else reads, of the dtype of the first."""
    if node.op_type != "MatMul" or node.domain or node.inputs[0] is not x or node.graph is not first.graph:
        return None
    weight, result = node.inputs[1], node.outputs[0]
    if weight is None or not editor.is_constant(weight) or len(weight.uses()) != 1:
        return None
    shape = editor.shape(weight)
    if shape is None or len(shape) != 2 or editor.dtype(weight) != editor.dtype(first.inputs[1]):
        return None
    width = shape[1]
    if not isinstance(width, int):
        return None
    add = editor.only_user(result, "Add")
    if add is not None and add.graph is node.graph and len(result.uses()) == 1:
        bias = add.inputs[1] if add.inputs[0] is result else add.inputs[0]
        if bias is not None and editor.is_constant(bias) and editor.shape(bias) in ((width,), (1,), ()):
            return _Branch(weight, bias, add.outputs[0], width)
    return _Branch(weight, None, result, width)


def _bias(editor: Editor, value: ir.Value, width: int) -> np.ndarray[Any, Any]:
    import numpy as np

    array = editor.weight(value)
    assert array is not None
    return np.broadcast_to(array.reshape(-1), (width,))


def joined(editor: Editor, weights: Sequence[ir.Value]) -> ir.Value:
    """Weights beside one another, [K, N1 + N2 ...]; big ones are read when the model is written."""
    import numpy as np
    import onnx_ir as ir

    tensors = [tensor for value in weights if (tensor := editor.tensor(value)) is not None]

    def join() -> ir.TensorProtocol:
        return ir.tensor(np.concatenate([t.numpy() for t in tensors], axis=1))

    if sum(t.nbytes for t in tensors) < _LAZY:
        return editor.initializer(join().numpy(), "weight")
    shape = ir.Shape([tensors[0].shape.numpy()[0], sum(t.shape.numpy()[1] for t in tensors)])
    return editor.hold(ir.LazyTensor(join, dtype=tensors[0].dtype, shape=shape), "weight")


RULES = (
    Rule(
        "matmul-merge",
        "transformer",
        ("MatMul",),
        _merge,
        "products of one value with several weights become one product and a Split, where that is fewer nodes",
        exact=False,
        targets=("onnx", "ort"),  # TensorRT merges them itself, and its parser makes six layers of each part of a Split
        since=13,
    ),
)
