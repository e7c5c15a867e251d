"""A TFLite file as a Source, in the TensorFlow child: captured by tf2onnx, run by TFLite's own interpreter."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

from graphkit.capture import tflite_operators, tflite_schema, tflite_to_onnx
from graphkit.capture.audit import output_shapes
from graphkit.capture.options import TFLITE, refuse_others
from graphkit.capture.request import Arrays, CaptureRequest, check_dims
from graphkit.capture.tflite_entry import Entry, entry_of
from graphkit.capture.tflite_interpreter import Interpreter
from graphkit.model import Finding, Model, Origin, Rung, file_sha256
from graphkit.shapes import TensorSpec, evaluate, symbols_of

if TYPE_CHECKING:
    import numpy as np


def open_file(spec: dict[str, str], name: str, request: CaptureRequest) -> TFLiteSource:
    """The source for the file that `spec` names.

    Raises:
        CorruptFile: it is damaged.
    """
    return TFLiteSource(Path(spec["file"]), name)


class TFLiteSource:
    """A TFLite file.

    Args:
        path: The file.
        name: What to call it in reports.
    """

    options = TFLITE

    def __init__(self, path: Path, name: str) -> None:
        self.name = name
        self._path = path
        self._file = tflite_schema.read(path)
        self._interpreter: Interpreter | None = None

    @property
    def label(self) -> str:
        """`tflite 2.21.0 (cpu)`: its own kernels, without XNNPACK."""
        import tensorflow as tf

        return f"tflite {tf.__version__} (cpu)"

    def capture(self, request: CaptureRequest) -> Model:
        """Capture the file; see `Source.capture`."""
        entry = self._enter(request, whole=True)
        sizes = _sizes(entry, request, 2)
        graph = tflite_to_onnx.to_onnx(self._path, self._file, entry, request.opset)
        declared = {spec.name: spec.shape for spec in entry.outputs}
        tflite_to_onnx.set_shapes(graph, entry.inputs, output_shapes(declared, list(self._observe(entry, request))))
        import tensorflow as tf
        import tf2onnx

        origin = Origin(
            kind="TFLite file",
            name=self.name,
            sha256=file_sha256(self._path),
            versions={"tensorflow": tf.__version__, "tf2onnx": tf2onnx.__version__},
            rungs=(Rung("tf2onnx"),),
            findings=tuple(_findings(self._file, entry)),
            sizes=sizes,
        )
        return Model(graph, origin, request.dims)

    def prepare(self, request: CaptureRequest) -> tuple[TensorSpec, ...]:
        """Make the interpreter ready; see `RunnableSource.prepare`."""
        return self._enter(request, whole=False).inputs

    def run(self, inputs: Arrays) -> dict[str, np.ndarray[Any, Any]]:
        """Run the file; see `RunnableSource.run`."""
        assert self._interpreter is not None
        return self._interpreter.run(inputs)

    def _enter(self, request: CaptureRequest, *, whole: bool) -> Entry:
        refuse_others(request, self.options, "a TFLite file")
        entry = entry_of(self._file, request, self.name)
        tflite_operators.check(self._file, entry, custom_only=not whole)
        check_dims(request.dims, entry.inputs)
        self._interpreter = Interpreter(self._path, entry, flex=tflite_operators.has_flex(self._file))
        return entry

    def _observe(self, entry: Entry, request: CaptureRequest) -> Iterator[tuple[dict[str, int], dict[str, Any]]]:
        """Shapes of the outputs at three sizes, on zeros: they are inside every table and every range."""
        import numpy as np

        if any(spec.dtype == "string" for spec in entry.inputs):
            return
        assert self._interpreter is not None
        for point in range(3) if symbols_of(entry.inputs) else range(1):
            sizes = _sizes(entry, request, point)
            zeros = {s.name: np.zeros([evaluate(d, sizes) or 1 for d in s.shape or ()], s.dtype) for s in entry.inputs}
            found = self._interpreter.run(zeros)
            yield sizes, {name: value.shape for name, value in found.items()}


def _sizes(entry: Entry, request: CaptureRequest, point: int) -> dict[str, int]:
    """Sizes of the symbols at one of three points, different for each symbol where no range says otherwise."""
    ranges = {d.symbol: (d.min, d.max, d.opt) for d in request.dims}
    symbols = symbols_of(entry.inputs)
    return {s: ranges[s][point] if s in ranges else (1, 5, 2)[point] + 2 * i for i, s in enumerate(symbols)}


def _findings(file: tflite_schema.TFLiteFile, entry: Entry) -> Iterator[Finding]:
    kept = [t.name for t in file.subgraphs[entry.subgraph].tensors if t.variable]
    if kept:
        yield Finding(
            "state",
            f"{len(kept)} tensors keep their values between two calls of TFLite's interpreter (`{kept[0]}`); in ONNX "
            "every run begins with zeros, as after reset_all_variables()",
        )
    if any(t.scales and t.dtype == "int8" for t in file.subgraphs[entry.subgraph].tensors):
        yield Finding(
            "int8",
            "on x64 processors without VNNI, ONNX Runtime's int8 kernels saturate: the graph is right, but results may "
            "be far off there",
            remedy="SessionOptions.add_session_config_entry('session.disable_quant_qdq', '1') on such machines",
        )
