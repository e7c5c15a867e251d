"""A frozen TensorFlow graph as ONNX: translated by tf2onnx, then named, shaped, placed and checked here."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from typing import TYPE_CHECKING, Any

from graphkit.capture import tf_dims, tf_opset, tf_paths, tf_unsupported
from graphkit.capture.io_names import rename_io
from graphkit.capture.tf_absorbed import absorbed
from graphkit.capture.tf_canonical import canonical
from graphkit.capture.tf_frozen import Frozen, FrozenTensor
from graphkit.capture.tf_layout import as_nchw
from graphkit.capture.tf_run import run
from graphkit.errors import InvalidExport, ShapeMissing

if TYPE_CHECKING:
    import onnx
    import onnx_ir as ir


def to_onnx(frozen: Frozen, *, opset: int | None, layout: tuple[str, ...] = ()) -> ir.Model:
    """The frozen graph as an ONNX graph that computes the same.

    Inputs and outputs have the names, order and dtypes of the frozen graph's; an input that nothing reads is still
    one. Every node knows its layer. Two conversions of the same graph give the same bytes.

    Args:
        frozen: The graph.
        opset: Opset of the default domain, exactly; None for 18.
        layout: Inputs and outputs, by name or position (`in0`, `out0`), that become NCHW.

    Raises:
        UnsupportedOperator: operators without a translation; all of them are listed.
        OpsetNotHonoured: the model cannot be had at this opset.
        InvalidExport: the result is no valid ONNX. `CaptureFailed`: tf2onnx gave up.
        ShapeMissing: an input of unknown rank.
        UnknownName, BadOption: `layout` names nothing, or nothing of rank 4.
    """
    import onnx_ir as ir

    native = tf_opset.translated_at(opset)
    _require_ranks(frozen)
    frozen = _prepared(frozen)
    frozen = tf_dims.with_placeholder_shapes(as_nchw(frozen, layout))
    proto, log = run(frozen, native)
    _standardise(proto)
    layers = tf_paths.Layers.of(frozen.graph, frozen.layers, (node.name for node in log.graph.node))
    left = [*log.unconverted, *tf_unsupported.unknown_ops(proto)]
    tf_unsupported.refuse(left, _operations(frozen.graph, log.graph), layers, frozen.lines, native)
    proto = tf_opset.at_opset(proto, opset)
    _drop_unused_domains(proto)
    model = ir.from_proto(tf_opset.without_weights(proto))
    weights = _weights(model, proto)
    operations = absorbed(model, layers, (frozen.graph, log.graph))  # while the values have tf2onnx's names
    canonical(model, layers)
    _restore_interface(model, frozen, weights)
    tf_paths.mark(model, layers, frozen.lines, operations)
    tf_dims.set_shapes(model, frozen, tf_dims.inferred_outputs(ir.to_proto(model), frozen))
    _check(ir.to_proto(model))
    _attach(model, weights)
    return model


def _require_ranks(frozen: Frozen) -> None:
    """An ONNX input has a rank."""
    for tensor in frozen.inputs:
        if tensor.spec.shape is None:
            raise ShapeMissing(
                f"input `{tensor.spec.name}` has no known number of dimensions",
                where=f"tensor `{tensor.tensor}`",
                remedy=f"--shape {tensor.spec.name}=batch,... (a number or a name for each dimension)",
            )


def _prepared(frozen: Frozen) -> Frozen:
    from graphkit.capture.tf_handlers import prepare_graph

    return replace(frozen, graph=prepare_graph(frozen.graph))


def _operations(*graphs: Any) -> dict[str, str]:
    """The op of each operation, by name, in functions too."""
    found: dict[str, str] = {}
    for graph_def in graphs:
        for nodes in (*(function.node_def for function in graph_def.library.function), graph_def.node):
            found |= {tf_paths.plain(node.name): node.op for node in nodes}
    return found


def _standardise(proto: onnx.ModelProto) -> None:
    """tf2onnx writes one Range of MatrixSetDiag in ONNX Runtime's own domain, where it means what it does in ONNX."""
    for node in _all_nodes(proto):
        if (node.domain, node.op_type, len(node.input)) == ("com.microsoft", "Range", 3):
            node.domain = ""


def _drop_unused_domains(proto: onnx.ModelProto) -> None:
    """tf2onnx imports ai.onnx.ml into every model."""
    used = {"", "ai.onnx", *(node.domain for node in _all_nodes(proto))}
    kept = [each for each in proto.opset_import if each.domain in used]
    del proto.opset_import[:]
    proto.opset_import.extend(kept)


def _all_nodes(proto: onnx.ModelProto) -> Iterator[onnx.NodeProto]:
    """Every node, those inside If and Loop too."""
    pending = [*proto.graph.node]
    while pending:
        node = pending.pop()
        yield node
        for attribute in node.attribute:
            pending.extend(attribute.g.node)


def _weights(model: ir.Model, proto: onnx.ModelProto) -> dict[ir.Value, ir.TensorProtocol]:
    """The weights that stand in `model` as inputs: native code sees the graph without them."""
    import onnx_ir as ir

    inputs = {value.name: value for value in model.graph.inputs}
    tensors = (tensor for tensor in proto.graph.initializer if tensor.name in inputs)
    return {inputs[tensor.name]: ir.serde.TensorProtoTensor(tensor) for tensor in tensors}


def _attach(model: ir.Model, weights: dict[ir.Value, ir.TensorProtocol]) -> None:
    """Make these inputs initialisers, in the order in which they are read."""
    kept = [value for value in model.graph.inputs if value not in weights]
    model.graph.inputs.clear()
    model.graph.inputs.extend(kept)
    read = [value for node in model.graph.all_nodes() for value in node.inputs if value in weights]
    for value in dict.fromkeys([*(v for v in read if v is not None), *weights]):
        tensor = weights[value]
        tensor.name = value.name
        value.const_value = tensor
        model.graph.register_initializer(value)


def _restore_interface(model: ir.Model, frozen: Frozen, weights: dict[ir.Value, ir.TensorProtocol]) -> None:
    """The frozen graph's inputs and outputs, in its order and by its names, whatever tf2onnx merged or dropped."""
    graph = model.graph
    inputs = {value.name: value for value in graph.inputs}
    outputs = {value.name: value for value in graph.outputs}
    wanted = [inputs.get(tensor.tensor) or _unread(tensor) for tensor in frozen.inputs]
    graph.inputs.clear()
    graph.inputs.extend([*wanted, *weights])
    graph.outputs[:] = [outputs[tensor.tensor] for tensor in frozen.outputs]
    names = [t.spec.name for t in frozen.inputs]
    results = [t.spec.name for t in frozen.outputs]
    taken = {*names, *results}
    held = [f"{value.name}__weight" if value.name in taken else str(value.name) for value in weights]
    rename_io(graph, [*names, *held], results)
    model.producer_name, model.producer_version = "graphkit", None
    graph.doc_string = None


def _unread(tensor: FrozenTensor) -> ir.Value:
    """An input that the graph does not read: the caller passes it all the same."""
    import numpy as np
    import onnx_ir as ir

    dtype = ir.DataType.STRING if tensor.spec.dtype == "string" else ir.DataType.from_numpy(np.dtype(tensor.spec.dtype))
    shape = None if tensor.spec.shape is None else ir.Shape(tensor.spec.shape)
    return ir.Value(name=tensor.tensor, type=ir.TensorType(dtype), shape=shape)


def _check(bare: onnx.ModelProto) -> None:
    """Hold the model, without its weights, against ONNX's rules.

    Raises:
        InvalidExport
    """
    import onnx

    for value in bare.graph.output:  # the checker asks for a shape where ONNX's own text makes it optional
        value.type.tensor_type.shape.SetInParent()
    try:
        onnx.checker.check_model(bare)
    except onnx.checker.ValidationError as error:
        lines = [line.strip() for line in str(error).splitlines() if line.strip()]
        where = next((line for line in lines if line.startswith("==> Context")), None)
        raise InvalidExport(
            f"the translated graph is not valid ONNX: {lines[0][:300]}",
            where=where,
            details=tuple(lines[1:4]),
            remedy="this is a fault of the translation; please report the model",
        ) from error
