"""Shapes at the interface: the source's symbols on the inputs, what follows from them on the outputs.

tf2onnx gives every unknown dimension a name of its own, `unk__14`, from a counter; none of them survives.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from graphkit.capture.tf_frozen import Frozen, FrozenTensor
from graphkit.shapes import Shape, free_symbols, symbols_of

if TYPE_CHECKING:
    import onnx
    import onnx_ir as ir

_INVENTED = "unk__"


def with_placeholder_shapes(frozen: Frozen) -> Frozen:
    """The graph with what the input specs know about shapes on its placeholders, for TensorFlow's inference to use."""
    known = {t.tensor.partition(":")[0]: t.spec.shape for t in frozen.inputs if t.spec.shape is not None}
    vague = [n for n in frozen.graph.node if n.op == "Placeholder" and n.name in known and _differs(n, known[n.name])]
    if not vague:
        return frozen
    from dataclasses import replace

    graph = type(frozen.graph)()
    graph.CopyFrom(frozen.graph)
    names = {node.name for node in vague}
    for node in graph.node:
        if node.name in names:
            shape = node.attr["shape"].shape
            shape.Clear()
            for dim in known[node.name] or ():
                shape.dim.add(size=_size(dim))
            node.attr.pop("_output_shapes", None)
    return replace(frozen, graph=graph)


def set_shapes(model: ir.Model, frozen: Frozen, inferred: dict[str, Shape]) -> None:
    """Give inputs and outputs their shapes, and take invented names from every other value.

    Args:
        inferred: Shapes of outputs that follow from those of the inputs, by the outputs' names.
    """
    import onnx_ir as ir

    symbols = set(symbols_of(tensor.spec for tensor in frozen.inputs))
    for value in _values(model):
        if value.shape is not None:
            value.shape = ir.Shape([None if _invented(d) else d for d in value.shape])
    for value, tensor in zip(model.graph.inputs, frozen.inputs, strict=False):  # weights may follow
        value.shape = None if tensor.spec.shape is None else ir.Shape(tensor.spec.shape)
    for value, tensor in zip(model.graph.outputs, frozen.outputs, strict=True):
        shape = _output_shape(_dims(value), tensor, inferred.get(value.name or ""), symbols)
        value.shape = None if shape is None else ir.Shape(shape)


def inferred_outputs(proto: onnx.ModelProto, frozen: Frozen) -> dict[str, Shape]:
    """Shapes of the outputs by ONNX's own inference, with the inputs' symbols carried through.

    Args:
        proto: The model with its final names, without large weights. Its inputs' shapes are changed.
    """
    import onnx

    specs = {tensor.spec.name: tensor.spec.shape for tensor in frozen.inputs}
    for value in proto.graph.input:
        shape = specs.get(value.name)
        if value.name in specs:
            value.type.tensor_type.ClearField("shape")
        if shape is not None:
            value.type.tensor_type.shape.SetInParent()
            for dim in shape:
                entry = value.type.tensor_type.shape.dim.add()
                if isinstance(dim, int):
                    entry.dim_value = dim
                elif dim is not None:
                    entry.dim_param = dim
    for value in proto.graph.output:
        value.type.tensor_type.ClearField("shape")
    made = onnx.shape_inference.infer_shapes(proto, data_prop=True)
    return {v.name: shape for v in made.graph.output if (shape := _proto_shape(v)) is not None}


def _output_shape(made: Shape | None, tensor: FrozenTensor, inferred: Shape | None, symbols: set[str]) -> Shape | None:
    """The source's own word first, then a size that tf2onnx knows, then a symbol that follows from the inputs."""
    if made == () and tensor.spec.shape is None and inferred != ():
        made = None  # tf2onnx writes an unknown rank as a scalar
    candidates = [shape for shape in (tensor.spec.shape, made, inferred) if shape is not None]
    if not candidates:
        return None
    rank = len(candidates[0])
    candidates = [shape for shape in candidates if len(shape) == rank]

    def dim(axis: int) -> Any:
        for shape in candidates:
            found = shape[axis]
            if isinstance(found, int) or (found is not None and set(free_symbols(found)) <= symbols):
                return found
        return tensor.spec.shape[axis] if tensor.spec.shape is not None else None

    return tuple(dim(axis) for axis in range(rank))


def _differs(node: Any, shape: Shape | None) -> bool:
    own = node.attr["shape"].shape
    if own.unknown_rank or "shape" not in node.attr:
        return True
    return [d.size for d in own.dim] != [_size(d) for d in shape or ()]


def _size(dim: int | str | None) -> int:
    return dim if isinstance(dim, int) else -1


def _invented(dim: Any) -> bool:
    return not isinstance(dim, int) and (dim.value is None or str(dim.value).startswith(_INVENTED))


def _dims(value: ir.Value) -> Shape | None:
    return None if value.shape is None else tuple(d if isinstance(d, int) else d.value for d in value.shape)


def _proto_shape(value: Any) -> Shape | None:
    if not value.type.tensor_type.HasField("shape"):
        return None
    dims = value.type.tensor_type.shape.dim
    return tuple(d.dim_value if d.HasField("dim_value") else (d.dim_param or None) for d in dims)


def _values(model: ir.Model) -> list[ir.Value]:
    values = [*model.graph.inputs]
    values.extend(output for node in model.graph.all_nodes() for output in node.outputs)
    for inner in model.graph.subgraphs():
        values.extend(inner.inputs)
    return values
