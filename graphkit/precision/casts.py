"""Brings a graph to a low type where it was decided: types of tensors, weights, and a Cast at each border."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import TYPE_CHECKING

from graphkit.model import provenance, set_provenance
from graphkit.precision.half_cut import HIGH, LOW, Sides
from graphkit.precision.half_types import JUNCTIONS, Slots, bodies, is_float, set_dtype

if TYPE_CHECKING:
    import onnx_ir as ir


def give_bodies_their_outputs(graph: ir.Graph) -> None:
    """An output of a body that no node of its own makes is given one: a tensor from outside can then have another
    type there."""
    import onnx_ir as ir

    for node in list(graph.all_nodes()):
        for body in bodies(node):
            seen: set[int] = set()
            for position, value in enumerate(body.outputs):
                producer = value.producer()
                if producer is not None and producer.graph is body and id(value) not in seen:
                    seen.add(id(value))
                    continue
                name = f"{body.name or 'body'}.{position}.{value.name}"
                identity = ir.node("Identity", [value], name=f"{name}.identity")
                made = identity.outputs[0]
                made.name, made.type, made.shape = f"{name}.out", value.type, value.shape
                body.append(identity)
                body.outputs[position] = made


def apply(model: ir.Model, slots: Mapping[int, Slots], sides: Sides, dtype: ir.DataType) -> None:
    """Change a graph in place: the low side of it is of `dtype` afterwards, with casts at the borders."""
    _Application(model, slots, sides, dtype).run()


class _Application:
    def __init__(self, model: ir.Model, slots: Mapping[int, Slots], sides: Sides, dtype: ir.DataType) -> None:
        self._slots, self._sides, self._low = slots, sides, dtype
        self._graphs = [model.graph, *model.graph.subgraphs()]
        self._nodes = list(model.graph.all_nodes())
        self._names = set(_names(self._graphs, self._nodes))

    def run(self) -> None:
        # What is float32 is asked before any type changes.
        values = [v for v in self._values() if is_float(v)]
        weights = [v for g in self._graphs for v in g.initializers.values() if is_float(v)]
        for weight in weights:
            self._weight(weight)
        for value in values:
            self._border(value)
        for value in values:
            if self._sides.made.get(id(value), HIGH) == LOW:
                set_dtype(value, self._low)
        for node in self._nodes:
            if self._sides.node.get(id(node)) == LOW:
                self._attributes(node)
        _remove_idle_casts(self._graphs)

    def _values(self) -> Iterator[ir.Value]:
        for graph in self._graphs:
            yield from (v for v in graph.inputs if not v.is_initializer())
        for node in self._nodes:
            yield from node.outputs

    def _side(self, node: ir.Node, position: int) -> int:
        """On which side a node reads one of its inputs."""
        if node.op_type in JUNCTIONS and not node.domain:
            return self._sides.read.get((id(node), position), HIGH)
        return self._sides.node.get(id(node), HIGH) if position in self._slots[id(node)].inputs else HIGH

    # --- weights -------------------------------------------------------------------------------------------------

    def _weight(self, weight: ir.Value) -> None:
        low = [(use.node, use.idx) for use in weight.uses() if self._side(use.node, use.idx) == LOW]
        if not low or weight.const_value is None:
            return
        tensor = lowered(weight.const_value, self._low)
        if len(low) == len(list(weight.uses())) and not weight.is_graph_output():
            weight.const_value = tensor
            set_dtype(weight, self._low)
            return
        import onnx_ir as ir

        name = self._free(f"{weight.name}_as_{self._low.name.lower()}")
        twin = ir.Value(name=name, shape=weight.shape, type=ir.TensorType(self._low), const_value=tensor)
        tensor.name = name
        assert weight.graph is not None
        weight.graph.register_initializer(twin)
        for node, position in low:
            node.replace_input_with(position, twin)

    # --- borders -------------------------------------------------------------------------------------------------

    def _border(self, value: ir.Value) -> None:
        made = self._sides.made.get(id(value), HIGH)
        uses = [(u.node, u.idx) for u in value.uses() if self._side(u.node, u.idx) != made]
        outputs = [
            (graph, position)
            for graph in self._graphs
            if value.is_graph_output()
            for position, output in enumerate(graph.outputs)
            if output is value and self._sides.read.get((id(graph), position), HIGH) != made
        ]
        if not uses and not outputs:
            return
        import onnx_ir as ir

        to = ir.DataType.FLOAT if made == LOW else self._low
        cast = self._cast(value, to)
        for node, position in uses:
            node.replace_input_with(position, cast)
        if outputs:
            own = self._low if made == LOW else ir.DataType.FLOAT
            name, other = value.name, self._free(f"{value.name}_as_{own.name.lower()}")
            value.name = other
            cast.name = name
        for graph, position in outputs:
            graph.outputs[position] = cast

    def _cast(self, value: ir.Value, to: ir.DataType) -> ir.Value:
        import onnx_ir as ir

        name = self._free(f"{value.name}_as_{to.name.lower()}")
        node = ir.node("Cast", [value], {"to": to.value}, name=f"Cast.{name}")
        made = node.outputs[0]
        made.name, made.type, made.shape = name, ir.TensorType(to), value.shape
        producer, graph = value.producer(), value.graph
        assert graph is not None
        if producer is not None:
            graph.insert_after(producer, node)
        elif len(graph):
            graph.insert_before(graph[0], node)
        else:
            graph.append(node)
        nearest = producer or next((u.node for u in value.uses() if u.node is not node), None)
        set_provenance(node, provenance(nearest) if nearest is not None else ())
        return made

    def _free(self, name: str) -> str:
        unique, count = name, 1
        while unique in self._names:
            count += 1
            unique = f"{name}_{count}"
        self._names.add(unique)
        return unique

    # --- operators that name their type ----------------------------------------------------------------------------

    def _attributes(self, node: ir.Node) -> None:
        import onnx_ir as ir

        if node.op_type == "Cast" and self._slots[id(node)].outputs:
            node.attributes["to"] = ir.AttrInt64("to", self._low.value)
        elif node.op_type == "ConstantOfShape":
            value = node.attributes.get("value")
            tensor = value.as_tensor() if value is not None else ir.tensor([0.0], dtype=ir.DataType.FLOAT)
            node.attributes["value"] = ir.AttrTensor("value", lowered(tensor, self._low))


def lowered(tensor: ir.TensorProtocol, dtype: ir.DataType) -> ir.LazyTensor:
    """A tensor in another float type, converted each time that it is asked for: it is never there twice."""
    import onnx_ir as ir

    def make() -> ir.TensorProtocol:
        import numpy as np

        with np.errstate(over="ignore", under="ignore"):
            return ir.Tensor(tensor.numpy().astype(dtype.numpy()), dtype, name=tensor.name)

    shape = ir.Shape(tensor.shape.numpy())
    return ir.LazyTensor(make, dtype, shape, name=tensor.name or None)


def _remove_idle_casts(graphs: list[ir.Graph]) -> None:
    """Casts to the type that is there already: those of the model's own whose input or output was lowered."""
    for graph in graphs:
        for node in list(graph):
            if node.op_type != "Cast" or node.domain:
                continue
            given, made = node.inputs[0], node.outputs[0]
            if given is None or given.dtype is None or given.dtype.value != node.attributes["to"].as_int():
                continue
            if made.is_graph_output():
                node.op_type = "Identity"
                node.attributes.clear()
                continue
            made.replace_all_uses_with(given)
            graph.remove(node, safe=True)


def _names(graphs: list[ir.Graph], nodes: list[ir.Node]) -> Iterator[str]:
    for graph in graphs:
        yield from (v.name or "" for v in graph.inputs)
        yield from graph.initializers
    for node in nodes:
        yield node.name or ""
        yield from (v.name or "" for v in node.outputs)
