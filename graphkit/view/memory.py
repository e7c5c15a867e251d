"""The view of a model in memory: its graph is written as protobuf without weights, and read like a file.

One reader makes both views, so the two cannot differ; the weights' places are filled in on the way.
"""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

from graphkit.view import reader
from graphkit.view.fields import HELD, Context
from graphkit.view.sources import BytesSource, ExternalSource, TensorSource
from graphkit.view.views import ModelView
from graphkit.view.weights import WeightView

if TYPE_CHECKING:
    import onnx_ir as ir

    from graphkit.model import Model


def of(model: Model) -> ModelView:
    """The view of a model in memory. No weight is read or copied: the `storage` of one is `memory`, or `external`.

    Raises:
        CorruptFile: the graph is nested deeper than a file may be.
    """
    with reader.collector_paused():
        graph = model.ir.clone()
        taken = _take_out_weights(graph)
        message = model._serialise(graph).SerializeToString()
    context = Context(message, BytesSource(message), Path(), reader.read_graph)
    context.external = lambda name, dtype, dims, said: _put_back(taken[int(dict(said)["offset"])], name, dtype, dims)
    return reader.parse(context, model.origin.name, len(message))


def _take_out_weights(graph: ir.Model) -> list[ir.TensorProtocol]:
    """Put a reference into the list that is returned in the place of every weight but strings and small ones."""
    import onnx_ir as ir

    taken: list[ir.TensorProtocol] = []

    def reference(tensor: ir.TensorProtocol) -> ir.TensorProtocol:
        if tensor.dtype == ir.DataType.STRING or (tensor.nbytes <= HELD and not isinstance(tensor, ir.ExternalTensor)):
            return tensor
        taken.append(tensor)
        shape = ir.Shape(tensor.shape.numpy())
        return ir.ExternalTensor("taken", len(taken) - 1, 0, tensor.dtype, shape=shape, name=tensor.name or "")

    holders: list[ir.Graph | ir.Function] = [graph.graph, *graph.functions.values()]
    for holder in holders:
        for each in (holder, *holder.subgraphs()):
            for value in each.initializers.values() if isinstance(each, ir.Graph) else ():
                if value.const_value is not None:
                    value.const_value = reference(value.const_value)
        for node in holder.all_nodes():
            for attribute in list(node.attributes.values()):
                if attribute.type == ir.AttributeType.TENSOR and attribute.value is not None:
                    node.attributes[attribute.name] = ir.AttrTensor(attribute.name, reference(attribute.value))
                elif attribute.type == ir.AttributeType.TENSORS and attribute.value is not None:
                    new = [reference(tensor) for tensor in attribute.value]
                    node.attributes[attribute.name] = ir.AttrTensors(attribute.name, new)
    return taken


def _put_back(tensor: ir.TensorProtocol, name: str, dtype: str, dims: tuple[int, ...]) -> WeightView:
    import onnx_ir as ir

    if isinstance(tensor, ir.ExternalTensor):
        location = str(tensor.location)
        source = ExternalSource(Path(tensor.base_dir), location, name)
        length = tensor.nbytes if tensor.length is None else tensor.length
        return WeightView(name, dtype, dims, "external", tensor.offset or 0, length, location, source)
    return WeightView(name, dtype, dims, "memory", 0, tensor.nbytes, None, TensorSource(tensor))
