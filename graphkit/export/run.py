"""`convert --to saved_model|tflite`: written by TensorFlow, run back from disk, compared with the source, published."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import TYPE_CHECKING, Any

from graphkit import __version__, atomic
from graphkit.capture.isolated import IsolatedSource
from graphkit.capture.registry import recognise
from graphkit.capture.request import CaptureRequest, RunnableSource, Source
from graphkit.capture.tf_worker import tensorflow_worker
from graphkit.conversion import Conversion, stage
from graphkit.errors import ExtraMissing, UnknownTarget
from graphkit.export import folder
from graphkit.parity.check import check
from graphkit.parity.inputs import fixed_sizes, plan_specs
from graphkit.parity.sizes import choose_sizes
from graphkit.parity.verdict import ParityReport
from graphkit.proof import require_parity, write_report
from graphkit.request import ConvertRequest
from graphkit.shapes import Signature, TensorSpec

if TYPE_CHECKING:
    import numpy as np

_NAMES = {"saved_model": "SavedModel", "tflite": "TFLite"}


def check_writable(output: Path, to: str) -> None:
    """Refuse early an output that cannot be written.

    Raises:
        CannotWrite
    """
    (folder if to == "saved_model" else atomic).check_writable(output)


def export(source: Source, request: ConvertRequest, state: Conversion) -> None:
    """Write the source, hold what was written against it, and give it its name.

    Raises:
        UnknownTarget: the source is none of TensorFlow's. `TargetUnsupported`: TensorFlow cannot write it.
        ParityFailed: what was written computes something else; it is removed, the report is not.
    """
    output = state.output
    assert output is not None
    if not isinstance(source, RunnableSource):
        raise UnknownTarget(
            f"--to {request.to}: TensorFlow's exporters write what TensorFlow runs; {source.name} is none of it",
            remedy="--to onnx or --to trt; or name a Keras model, a tf.function, a SavedModel or a GraphDef",
        )
    asked = request.for_capture()
    with contextlib.suppress(ExtraMissing):
        tensorflow_worker()  # what was written is run back there; a callable has a child of its own
    with _replacing(output, request.to) as made:
        with stage(state, "export") as notes:
            inputs = source.prepare(asked)
            renamed = _write(source, asked, request.to, made)
            notes.detail = f"{_NAMES[request.to]} by {source.label}"
            notes.size = sum(f.stat().st_size for f in _files(made))
        with stage(state, "validate") as notes:
            written = _Written(recognise(made, CaptureRequest()), _NAMES[request.to], **renamed)
            notes.detail = _compare(source, written, inputs, state)
    state.files.extend([output] if output.is_file() else sorted(_files(output)))
    write_report(state, output, None)


def _replacing(output: Path, to: str) -> contextlib.AbstractContextManager[Path]:
    return folder.replacing(output) if to == "saved_model" else atomic.replacing(output)


def _write(source: RunnableSource, asked: CaptureRequest, to: str, made: Path) -> dict[str, dict[str, str]]:
    arguments: dict[str, Any] = {"request": asked.to_json(), "to": to, "path": str(made.absolute())}
    if isinstance(source, IsolatedSource):
        renamed: dict[str, dict[str, str]] = source.apply("graphkit.export.write:write", **arguments)
        return renamed
    from graphkit.export.write import write

    return write(source, **arguments)


def _compare(source: RunnableSource, written: _Written, inputs: tuple[TensorSpec, ...], state: Conversion) -> str:
    request = state.request
    written.source.prepare(CaptureRequest())
    plans = plan_specs(inputs)
    names = {spec.name for spec in inputs}
    given = {s.name: s.value for s in request.samples if s.name in names}
    points = choose_sizes(Signature(inputs, ()), request.dims, fixed=fixed_sizes(plans, given))
    comparisons = check(source, [written], plans, points, given, request.seed)
    state.parity = ParityReport(
        comparisons=comparisons,
        engine="not run",
        engine_reason="no engine was asked for",
        inputs={p.spec.name: p.how for p in plans},
        versions=_versions(),
    )
    require_parity(state)
    return f"{len(comparisons)} comparisons at {len(points)} shapes, all equal"


def _versions() -> dict[str, str]:
    found = {"graphkit": __version__}
    for name in ("tensorflow", "tensorflow-cpu", "keras", "numpy"):
        with contextlib.suppress(PackageNotFoundError):
            found[name] = version(name)
    return found


@dataclass(slots=True)
class _Written:
    """What was written, run from disk by the names of the source."""

    source: Any
    kind: str
    inputs: Mapping[str, str]
    outputs: Mapping[str, str]

    @property
    def label(self) -> str:
        return f"{self.kind}: {self.source.label}"

    def run(self, inputs: Mapping[str, np.ndarray[Any, Any]]) -> dict[str, np.ndarray[Any, Any]]:
        found = self.source.run({self.inputs.get(name, name): value for name, value in inputs.items()})
        ours = {theirs: name for name, theirs in self.outputs.items()}
        return {ours.get(name, name): value for name, value in found.items()}


def _files(path: Path) -> Iterator[Path]:
    return (f for f in path.rglob("*") if f.is_file()) if path.is_dir() else iter([path])
