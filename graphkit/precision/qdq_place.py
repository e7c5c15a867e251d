"""Writes Q/DQ pairs into a graph: activations by calibrated scales, weights stored quantised, one scale a channel."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

from graphkit.errors import PrecisionRefused
from graphkit.model import SourceLine, provenance, set_provenance
from graphkit.precision.qdq_spots import Spots
from graphkit.precision.quant_numbers import Kind, amax_per_channel, quantised, scale_of
from graphkit.precision.quant_select import Candidate, constant

if TYPE_CHECKING:
    import numpy as np
    import onnx_ir as ir

    from graphkit.precision.quant_smooth import Smoothing

    Array = np.ndarray[Any, Any]

_STEPS = "_QuantizeLinear", "_DequantizeLinear"
_MOVES = {"Sub": "shift", "Mul": "smooth"}

_Key = tuple[str, "int | None", str]
WeightCache = dict[_Key, tuple["ir.TensorProtocol", "ir.TensorProtocol", "Array | None"]]
"""A weight's name, the axis of its scales, and the tensor whose factors it carries -> the quantised weight, its scales,
and what the tensor's shift makes of it (float32 [outputs]). A search quantises the same weights many times."""


def place(
    model: ir.Model,
    chosen: Sequence[Candidate],
    spots: Spots,
    amax: Mapping[str, float],
    kind: Kind,
    cache: WeightCache,
    smoothing: Mapping[str, Smoothing] | None = None,
) -> ir.Model:
    """A copy of a graph with Q/DQ pairs at `spots` and quantised weights in the chosen nodes.

    Nothing is renamed; a tensor `t` gets `t_quantized`, `t_dequantized`, `t_scale` and `t_zero_point`.

    Args:
        model: Its operator set is 13 or newer, for fp8 19.
        amax: The largest |x| of each tensor of `spots`; of one that is smoothed, after that.
        smoothing: By tensor, what is done to its channels first (see `quant_smooth`).

    Raises:
        PrecisionRefused: a weight holds NaN or infinity.
    """
    import onnx_ir as ir

    smoothing = smoothing or {}
    copy = model.clone()
    nodes = list(copy.graph)
    copy.ir_version = max(copy.ir_version, 9) if kind == "fp8" else copy.ir_version
    shared = {name: max(amax[n] for n in group) for group in spots.groups for name in group}
    pen = Pen(copy, ir.DataType.INT8 if kind == "int8" else ir.DataType.FLOAT8E4M3FN)
    values = {v.name: v for v in (*copy.graph.inputs, *(o for n in nodes for o in n.outputs))}
    for name, readers in spots.readers.items():
        reading = [(nodes[i], slot) for i, slot in readers]
        value = values[name]
        if name in smoothing:
            value = pen.smoothed(value, reading, smoothing[name])
        pen.activation(value, reading, ir.tensor(scale_of(shared.get(name, amax[name]), kind)))
    places = {id(node): index for index, node in enumerate(model.graph)}
    written: dict[_Key, ir.Value] = {}
    for each in chosen:
        node = nodes[places[id(each.node)]]
        weight = node.inputs[1]
        assert weight is not None
        read = each.activation.name or ""
        key = weight.name or "", each.axis, read if read in smoothing else ""
        if key not in written:
            if key not in cache:
                cache[key] = _quantise(each, kind, smoothing.get(key[2]))
            attributes = {"axis": each.axis} if each.axis is not None else {}
            written[key] = pen.weight(weight, node, *cache[key][:2], attributes)
        node.replace_input_with(1, written[key])
        drop(copy.graph, weight)
        offset = cache[key][2]
        if offset is not None:
            pen.added(node, offset)
    return copy


def _quantise(
    each: Candidate, kind: Kind, smoothing: Smoothing | None
) -> tuple[ir.TensorProtocol, ir.TensorProtocol, Array | None]:
    import numpy as np
    import onnx_ir as ir

    tensor = constant(each.weight)
    assert tensor is not None
    values = tensor.numpy()
    factor, shift = (smoothing.factor, smoothing.shift) if smoothing is not None else (None, None)
    if factor is not None:
        values = values * _along(factor, each.k_axis, values.ndim)
    largest = amax_per_channel(values, each.axis)
    if not np.isfinite(largest).all():
        lines = provenance(each.node)
        raise PrecisionRefused(
            f"the weight `{each.weight.name}` of `{each.name}` holds NaN or infinity: it has no scale",
            where=str(lines[0]) if lines else None,
            remedy="train or export the model again; graphkit inspect --weights shows where they are",
        )
    scale = scale_of(largest, kind)
    stored = quantised(values, scale, each.axis, kind)
    offset = None
    if shift is not None and each.k_axis is not None:
        # Of the weights as they are stored, so that the bias takes back exactly what the shift took away.
        real = stored.astype(np.float64) * _along(scale, each.axis, stored.ndim)
        moved = shift / factor if factor is not None else shift
        offset = (real * _along(moved, each.k_axis, real.ndim)).sum(each.k_axis).reshape(-1).astype(np.float32)
    return ir.tensor(stored), ir.tensor(scale), offset


def _along(values: Array, axis: int | None, rank: int) -> Array:
    """A vector that lies along one axis of a tensor; one number for all of it without an axis."""
    return values.reshape([-1 if at == axis else 1 for at in range(rank)])


def drop(graph: ir.Graph, value: ir.Value) -> None:
    """Remove a weight, or the Constant that makes it, that nothing reads any more."""
    if value.uses() or value.is_graph_output():
        return
    maker = value.producer()
    if maker is not None:
        graph.remove(maker, safe=True)
    elif value.name and value.name in graph.initializers and not value.is_graph_input():
        del graph.initializers[value.name]


class Pen:
    """Writes nodes and initializers with names that are free."""

    def __init__(self, model: ir.Model, dtype: ir.DataType) -> None:
        self._graph = model.graph
        self._dtype = dtype
        self._taken = {v.name for n in model.graph.all_nodes() for v in n.outputs} | set(model.graph.initializers)
        self._taken |= {v.name for v in model.graph.inputs}
        self._names = {n.name for n in model.graph.all_nodes()}

    def activation(self, value: ir.Value, readers: Sequence[tuple[ir.Node, int]], scales: ir.TensorProtocol) -> None:
        """Give the readers a value quantised and dequantised."""
        import onnx_ir as ir

        scale = self._initializer(f"{value.name}_scale", scales)
        zero = self._initializer(f"{value.name}_zero_point", self._zeros(()))
        quantize = ir.node("QuantizeLinear", [value, scale, zero], name=self._free(f"{value.name}{_STEPS[0]}", True))
        self._type(quantize.outputs[0], f"{value.name}_quantized", self._dtype, value)
        dequantize = ir.node(
            "DequantizeLinear",
            [quantize.outputs[0], scale, zero],
            name=self._free(f"{value.name}{_STEPS[1]}", True),
        )
        self._type(dequantize.outputs[0], f"{value.name}_dequantized", ir.DataType.FLOAT, value)
        lines = [line for node, _ in readers for line in provenance(node)]
        self._insert(value, quantize, dequantize)
        for made in (quantize, dequantize):
            set_provenance(made, lines)
        for node, slot in readers:
            node.replace_input_with(slot, dequantize.outputs[0])

    def smoothed(self, value: ir.Value, readers: Sequence[tuple[ir.Node, int]], how: Smoothing) -> ir.Value:
        """The value, its channels shifted and divided."""
        import onnx_ir as ir

        steps = []
        made = value
        for op, numbers in (("Sub", how.shift), ("Mul", None if how.factor is None else 1 / how.factor)):
            if numbers is None:
                continue
            given = self._initializer(f"{value.name}_{_MOVES[op]}", ir.tensor(numbers))
            steps.append(ir.node(op, [made, given], name=self._free(f"{value.name}_{_MOVES[op].title()}", True)))
            made = steps[-1].outputs[0]
            self._type(made, f"{value.name}_{_MOVES[op]}ed", ir.DataType.FLOAT, value)
        self._insert(value, *steps)
        for step in steps:
            set_provenance(step, [line for node, _ in readers for line in provenance(node)])
        return made

    def added(self, node: ir.Node, offset: Array) -> None:
        """Add a number per output channel to what a MatMul or Gemm makes: to its bias where it has one."""
        import onnx_ir as ir

        reader, slot = _bias(node)
        if reader is not None:
            old = reader.inputs[slot]
            assert old is not None
            tensor = constant(old)
            assert tensor is not None
            reader.replace_input_with(
                slot, self._initializer(f"{old.name}_shifted", ir.tensor(tensor.numpy() + offset))
            )
            drop(self._graph, old)
            return
        output = node.outputs[0]
        given = self._initializer(f"{output.name}_shift", ir.tensor(offset))
        step = ir.node("Add", [output, given], name=self._free(f"{output.name}_Shift", True))
        self._type(step.outputs[0], f"{output.name}_shifted", ir.DataType.FLOAT, output)
        name = output.name
        if output.is_graph_output():  # the graph's interface stays
            output.name, step.outputs[0].name = step.outputs[0].name, name
        ir.convenience.replace_all_uses_with(output, step.outputs[0], replace_graph_outputs=True)
        step.replace_input_with(0, output)
        self._graph.insert_after(node, step)
        set_provenance(step, provenance(node))

    def weight(
        self,
        value: ir.Value,
        reader: ir.Node,
        stored: ir.TensorProtocol,
        scales: ir.TensorProtocol,
        attributes: Mapping[str, int],
    ) -> ir.Value:
        """The dequantised value of a weight that is stored quantised."""
        import onnx_ir as ir

        weight = self._initializer(f"{value.name}_quantized", stored)
        scale = self._initializer(f"{value.name}_scale", scales)
        zero = self._initializer(f"{value.name}_zero_point", self._zeros(scales.shape.numpy()))
        dequantize = ir.node(
            "DequantizeLinear",
            [weight, scale, zero],
            attributes,
            name=self._free(f"{value.name}{_STEPS[1]}", True),
        )
        self._type(dequantize.outputs[0], f"{value.name}_dequantized", ir.DataType.FLOAT, value)
        self._graph.insert_before(reader, dequantize)
        set_provenance(dequantize, provenance(reader) or _lines_of(value))
        return dequantize.outputs[0]

    def _insert(self, behind: ir.Value, *nodes: ir.Node) -> None:
        producer = behind.producer()
        if producer is not None:
            self._graph.insert_after(producer, list(nodes))
        else:
            self._graph.insert_before(self._graph[0], list(nodes))

    def _zeros(self, shape: Sequence[int]) -> ir.TensorProtocol:
        import numpy as np
        import onnx_ir as ir

        return ir.tensor(np.zeros(shape, self._dtype.numpy()))

    def _initializer(self, name: str, tensor: ir.TensorProtocol) -> ir.Value:
        import onnx_ir as ir

        value = ir.Value(name=self._free(name), shape=tensor.shape, type=ir.TensorType(tensor.dtype))  # type: ignore[arg-type]
        tensor.name = value.name
        value.const_value = tensor
        self._graph.register_initializer(value)
        return value

    def _type(self, value: ir.Value, name: str, dtype: ir.DataType, like: ir.Value) -> None:
        import onnx_ir as ir

        value.name = self._free(name)
        value.type = ir.TensorType(dtype)
        value.shape = like.shape

    def _free(self, name: str, node: bool = False) -> str:
        taken = self._names if node else self._taken
        free, number = name, 1
        while free in taken:
            number += 1
            free = f"{name}_{number}"
        taken.add(free)
        return free


def _bias(node: ir.Node) -> tuple[ir.Node | None, int]:
    """The node and slot of the constant float32 bias, a number per output channel, that a product is followed by."""
    import onnx_ir as ir

    places: list[tuple[ir.Node, int]] = []
    if node.op_type == "Gemm":
        plain = node.attributes.get_float("beta", 1.0) == 1.0 == node.attributes.get_float("alpha", 1.0)
        places = [(node, 2)] if plain and len(node.inputs) > 2 else []
    else:
        output = node.outputs[0]
        uses = [] if output.is_graph_output() else list(output.uses())
        if len(uses) == 1 and uses[0].node.op_type == "Add" and uses[0].node.graph is node.graph:
            places = [(uses[0].node, 1 - uses[0].idx)]
    for reader, slot in places:
        value = reader.inputs[slot]
        tensor = constant(value) if value is not None else None
        if tensor is not None and tensor.dtype == ir.DataType.FLOAT and len(tensor.shape) == 1:
            return reader, slot
    return None, 0


def _lines_of(value: ir.Value) -> tuple[SourceLine, ...]:
    producer = value.producer()
    return provenance(producer) if producer is not None else ()
