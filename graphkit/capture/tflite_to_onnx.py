"""A TFLite graph as ONNX: translated by tf2onnx, then named, shaped, placed and checked here."""

from __future__ import annotations

import contextlib
import re
import tempfile
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from graphkit.capture import tf_opset, tf_paths, tf_run, tf_unsupported, tflite_operators
from graphkit.capture.io_names import rename_io
from graphkit.capture.tflite_entry import Entry
from graphkit.capture.tflite_rewrite import needs_rewriting, rewritten
from graphkit.capture.tflite_schema import TFLiteFile
from graphkit.errors import CaptureFailed, InvalidExport
from graphkit.shapes import Shape, TensorSpec

if TYPE_CHECKING:
    import onnx
    import onnx_ir as ir

_SIDE = re.compile(r"(_dequant|_prequant|_quantize)?(__\d+)?(:\d+)?$")
"""What tf2onnx appends to the name of a tensor for the nodes that it makes around it."""


def to_onnx(path: Path, file: TFLiteFile, entry: Entry, opset: int | None) -> ir.Model:
    """The graph of a TFLite file as an ONNX graph; quantised tensors are QuantizeLinear and DequantizeLinear pairs.

    Args:
        path: The file.
        file: What it holds.
        entry: What of it to convert; names and order of inputs and outputs are its.
        opset: Opset of the default domain, exactly; None for 18.

    Raises:
        UnsupportedOperator: operators without a translation; all of them are listed.
        OpsetNotHonoured: the model cannot be had at this opset.
        InvalidExport: the result is no valid ONNX. `CaptureFailed`: tf2onnx gave up.
    """
    import onnx_ir as ir

    native = tf_opset.translated_at(opset)
    with _readable(path, file, entry) as readable:
        proto = _translated(readable, native, file, entry)
    proto = tf_opset.at_opset(proto, opset)
    _check(proto)
    model = ir.from_proto(proto)
    rename_io(model.graph, [s.name for s in entry.inputs], [s.name for s in entry.outputs])
    _mark(model, file, entry)
    _drop_unused_domains(model)
    model.graph.name, model.graph.doc_string = "graph", None
    model.producer_name, model.producer_version = "graphkit", None
    return model


def set_shapes(model: ir.Model, inputs: Sequence[TensorSpec], outputs: Mapping[str, Shape]) -> None:
    """Give inputs and outputs their shapes, and take the names that tf2onnx invents (`unk__14`) from all others."""
    import onnx_ir as ir

    for node in model.graph.all_nodes():
        for value in node.outputs:
            if value.shape is not None:
                value.shape = ir.Shape([d if isinstance(d, int) else None for d in value.shape])
    for value, spec in zip(model.graph.inputs, inputs, strict=True):
        value.shape = ir.Shape(spec.shape or ())
    for value in model.graph.outputs:
        shape = outputs.get(value.name or "")
        if shape is not None:
            value.shape = ir.Shape(shape)


@contextlib.contextmanager
def _readable(path: Path, file: TFLiteFile, entry: Entry) -> Any:
    """The file, or a copy of it that tf2onnx reads rightly."""
    if not needs_rewriting(file, entry):
        yield path
        return
    with tempfile.TemporaryDirectory(prefix="graphkit-") as folder:
        copy = Path(folder, "model.tflite")
        copy.write_bytes(rewritten(path.read_bytes(), entry))
        yield copy


def _translated(path: Path, opset: int, file: TFLiteFile, entry: Entry) -> onnx.ModelProto:
    from tf2onnx import optimizer, tfonnx

    with tf_run.working() as log:
        try:
            graph = tfonnx.process_tf_graph(None, continue_on_error=True, opset=opset, tflite_path=str(path))
            tflite_operators.refuse(log.unconverted, file, entry, opset)
            made: onnx.ModelProto = optimizer.optimize_graph(graph).make_model("graph", graph_name="graph")
        except Exception as error:  # tf2onnx raises anything
            if log.unconverted:
                tflite_operators.refuse(log.unconverted, file, entry, opset)
            raise CaptureFailed(
                f"tf2onnx cannot translate the graph: {type(error).__name__}: {str(error).partition(chr(10))[0][:300]}",
                details=tuple(log.lines[-3:]),
                remedy="convert the model that the file was made from",
            ) from error
    tflite_operators.refuse(tf_unsupported.unknown_ops(made), file, entry, opset)
    return made


def _check(proto: onnx.ModelProto) -> None:
    import onnx

    try:
        onnx.checker.check_model(tf_opset.without_weights(proto))
    except onnx.checker.ValidationError as error:
        raise InvalidExport(
            f"the translated graph is not valid ONNX: {str(error).strip().splitlines()[0][:300]}",
            remedy="this is a fault of the translation; please report the model",
        ) from error


def _mark(model: ir.Model, file: TFLiteFile, entry: Entry) -> None:
    """Name each node after its first operation, and record its layer.

    A fused TFLite operator is called `a/conv/Relu;a/conv/convolution`.
    """
    names = {_operation(t.name) for graph in file.subgraphs for t in graph.tensors}
    layers = tf_paths.Layers.of_names(names)
    used: dict[str, int] = {}
    for node in model.graph.all_nodes():
        name = _operation(node.name or "")
        used[name] = used.get(name, 0) + 1
        node.name = name if used[name] == 1 else f"{name}__{used[name]}"
    tf_paths.mark(model, layers, {})


def _operation(name: str) -> str:
    first = name.partition(";")[0]
    return _SIDE.sub("", first if first else name)


def _drop_unused_domains(model: ir.Model) -> None:
    """tf2onnx imports ai.onnx.ml into every model."""
    used = {"", *(node.domain for node in model.graph.all_nodes())}
    for domain in [d for d in model.opset_imports if d not in used]:
        del model.opset_imports[domain]
