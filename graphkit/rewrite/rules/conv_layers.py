"""Convolutions, products with weights, and normalizations as layers that a scale and a shift fold into."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, TypeAlias

from graphkit.rewrite.rules.scale_steps import FLOATS, cast, is_float, is_inference, is_known, known
from graphkit.traversal import read_count

if TYPE_CHECKING:
    import numpy as np
    import onnx_ir as ir

    from graphkit.rewrite.editor import Editor

Array: TypeAlias = "np.ndarray[Any, Any]"

LAYERS = ("Conv", "ConvTranspose", "Gemm", "MatMul", "BatchNormalization")


@dataclass(frozen=True, slots=True)
class Layer:
    """A node with weights, and what is added to its result.

    Attributes:
        node: The layer: one of `LAYERS`.
        result: The value that ends it: its own, or, of a MatMul, that of the Add behind it.
        rank: Rank of the result; None where it is not known.
        axis: Where its channels are; -1 where the rank is not known.
        channels: How many there are.
        added: Of a MatMul: the constant that the Add behind it adds.
    """

    node: ir.Node
    result: ir.Value
    rank: int | None
    axis: int
    channels: int
    added: ir.Value | None = None


def layer_of(editor: Editor, value: ir.Value | None, graph: ir.Graph | None) -> Layer | None:
    """The layer that makes a value which nothing else reads, in this graph; None where there is none."""
    node = editor.sole(value, *LAYERS, "Add")
    if node is None or value is None or node.graph is not graph or editor.dtype(value) not in (None, *FLOATS):
        return None
    if node.op_type == "Add":
        return _with_bias(editor, node, value)
    shape = editor.shape(editor.input(node, 1))
    if shape is None or any(not isinstance(size, int) for size in shape):
        return None
    sizes = [size for size in shape if isinstance(size, int)]
    if node.op_type == "Conv" and len(sizes) > 2:
        return Layer(node, value, len(sizes), 1, sizes[0])
    if node.op_type == "ConvTranspose" and len(sizes) > 2:
        return Layer(node, value, len(sizes), 1, sizes[1] * int(editor.attribute(node, "group")))
    if node.op_type == "Gemm" and len(sizes) == 2:
        return Layer(node, value, 2, 1, sizes[0] if editor.attribute(node, "transB") else sizes[1])
    if node.op_type == "MatMul" and len(sizes) == 2:
        rank = editor.rank(value)
        return Layer(node, value, rank, -1 if rank is None else rank - 1, sizes[1])
    rank = editor.rank(value)
    if node.op_type == "BatchNormalization" and rank is not None and rank >= 2 and is_inference(editor, node):
        return Layer(node, value, rank, 1, sizes[0])
    return None


def _with_bias(editor: Editor, node: ir.Node, value: ir.Value) -> Layer | None:
    """MatMul and the Add behind it."""
    for data, constant in editor.operands(node):
        inner = layer_of(editor, data, node.graph) if is_known(editor, constant) else None
        if inner is None or inner.node.op_type != "MatMul" or inner.added is not None:
            continue
        shape = editor.shape(constant)
        if shape is not None and len(shape) <= 1 and shape in ((), (1,), (inner.channels,)):
            return Layer(inner.node, value, inner.rank, inner.axis, inner.channels, constant)
    return None


def rescaled(editor: Editor, layer: Layer, scale: Array, shift: Array) -> ir.Value | str:
    """A layer whose result is `scale * result + shift`, as a new value; or why there is none.

    Args:
        layer: The old one, which goes.
        scale, shift: float64, one element or one per channel.
    """
    kind = layer.node.op_type
    if kind == "BatchNormalization":
        return _normalization(editor, layer, scale, shift)
    weight = _weight(editor, layer, scale)
    if isinstance(weight, str):
        return weight
    dtype = weight_dtype(editor, layer.node.inputs[1])
    if dtype is None:
        return "the weights are no floating point numbers"
    bias = _bias(editor, layer, scale, shift, dtype)
    if isinstance(bias, str):
        return bias
    node, result = layer.node, layer.result
    if kind == "Gemm":
        attributes = {**node.attributes, "beta": 1.0}
        return editor.op("Gemm", [node.inputs[0], weight, bias], attributes, like=result)
    if kind == "MatMul":
        product = editor.op("MatMul", [node.inputs[0], weight], like=result)
        return product if bias is None else editor.op("Add", [product, bias], like=result)
    return editor.op(kind, [node.inputs[0], weight, bias], node.attributes, like=result)


def weight_dtype(editor: Editor, value: ir.Value | None) -> Any:
    """numpy's dtype of weights; None where they are no floating point numbers. Reads no weights."""
    import onnx_ir as ir

    name = editor.dtype(value)
    names = {"float32": "FLOAT", "float64": "DOUBLE", "float16": "FLOAT16", "bfloat16": "BFLOAT16"}
    return ir.DataType[names[name]].numpy() if name in names else None


def affordable(editor: Editor, value: ir.Value, others: int = 1) -> bool:
    """Whether a changed copy of a weight may be made: it takes the place of the old one, or growth allows it.

    Args:
        others: Uses of the old weight that go with the change.
    """
    if read_count(value) <= others and not value.is_graph_output():
        return True
    tensor = value.const_value
    size = 0 if tensor is None else tensor.nbytes
    if size > editor.growth:
        return False
    editor.growth -= size
    return True


def _weight(editor: Editor, layer: Layer, scale: Array) -> ir.Value | str:
    import numpy as np

    value = layer.node.inputs[1]
    assert value is not None
    if (scale == 1).all():
        return value
    if not editor.is_constant(value):
        made_of_one = _uniform(editor, layer, value, scale)
        return "the weights are no constant" if made_of_one is None else made_of_one
    if not affordable(editor, value):
        return "the weights are used elsewhere, and a copy would make the model grow"
    old = editor.weight(value)
    if old is None or not is_float(old):
        return "the weights are no floating point numbers"
    made = cast(old.astype(np.float64) * _spread(editor, layer, old, scale), old.dtype)
    if made is None:
        return "a scaled weight does not fit its dtype"
    return editor.initializer(made, value.name or "weight")


def _uniform(editor: Editor, layer: Layer, value: ir.Value, scale: Array) -> ir.Value | None:
    """Weights that are one number in a shape: they stay that where all channels are scaled alike, and are written out
    where they are not and growth allows it."""
    import numpy as np
    import onnx_ir as ir

    node = editor.producer(value, "ConstantOfShape")
    written = node.attributes.get("value") if node is not None else None
    number = written.as_tensor().numpy() if written is not None else None
    if node is None or number is None or not is_float(number):
        return None
    if (scale == scale.flat[0]).all():
        same = cast(number.astype(np.float64) * scale.flat[0], number.dtype)
        return (
            None if same is None else editor.op("ConstantOfShape", node.inputs, {"value": ir.tensor(same)}, like=value)
        )
    sizes = [size for size in editor.shape(value) or () if isinstance(size, int)]
    size = math.prod(sizes) * number.itemsize
    if size > editor.growth:
        return None
    old = np.full(sizes, number.item(), np.float64)
    made = cast(old * _spread(editor, layer, old, scale), number.dtype)
    if made is None:
        return None
    editor.growth -= size
    return editor.initializer(made, value.name or "weight")


def _spread(editor: Editor, layer: Layer, weight: Array, scale: Array) -> Array:
    """Factors of the output channels in the layout of the weights."""
    import numpy as np

    if scale.size == 1:
        return scale.reshape(())
    kind = layer.node.op_type
    if kind == "ConvTranspose":
        group = int(editor.attribute(layer.node, "group"))
        rows = np.repeat(scale.reshape(group, -1), weight.shape[0] // group, axis=0)
        return rows.reshape(*rows.shape, *(1,) * (weight.ndim - 2))
    leading = kind == "Conv" or (kind == "Gemm" and editor.attribute(layer.node, "transB"))
    return scale.reshape(-1, *(1,) * (weight.ndim - 1)) if leading else scale.reshape(1, -1)


def _bias(editor: Editor, layer: Layer, scale: Array, shift: Array, dtype: Any) -> ir.Value | str | None:
    import numpy as np

    given = layer.added if layer.node.op_type == "MatMul" else editor.input(layer.node, 2)
    if given is None:
        if not shift.any():
            return None
        old = np.zeros(1)
    else:
        found = known(editor, given, layer.channels)
        if found is None:
            return "the bias is no constant"
        if found.shape not in ((), (1,), (layer.channels,), (1, layer.channels)):
            return "the bias differs from row to row"
        old = found.reshape(-1).astype(np.float64)
        if layer.node.op_type == "Gemm":
            old = old * float(editor.attribute(layer.node, "beta"))
    made = cast(np.broadcast_to(old * scale + shift, (layer.channels,)), dtype)
    if made is None:
        return "the new bias does not fit its dtype"
    name = given.name if given is not None and given.name else "bias"
    return editor.initializer(made, name)


def _normalization(editor: Editor, layer: Layer, scale: Array, shift: Array) -> ir.Value | str:
    import numpy as np

    node = layer.node
    factor, bias = (known(editor, value, layer.channels) for value in node.inputs[1:3])
    if factor is None or bias is None:
        return "the normalization's parameters are no constants"
    wide = np.broadcast_to(scale, (layer.channels,))
    made = cast(factor.astype(np.float64) * wide, factor.dtype)
    moved = cast(bias.astype(np.float64) * wide + shift, bias.dtype)
    if made is None or moved is None:
        return "a scaled parameter does not fit its dtype"
    parameters = [editor.initializer(made, "scale"), editor.initializer(moved, "bias")]
    return editor.op(
        "BatchNormalization", [node.inputs[0], *parameters, *node.inputs[3:5]], node.attributes, like=layer.result
    )
