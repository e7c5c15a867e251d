"""What runs in the TensorFlow child: open a file or folder as a source."""

from __future__ import annotations

import hashlib
from pathlib import Path

from graphkit.capture.options import GRAPH_DEF, SAVED_MODEL
from graphkit.capture.request import CaptureRequest
from graphkit.capture.tf_quiet import quiet
from graphkit.capture.tf_source import TfSource
from graphkit.model import file_sha256


def open_source(spec: dict[str, str], name: str, request: CaptureRequest) -> TfSource:
    """The source for the `file` that `spec` names; it is of its `kind`.

    Raises:
        CorruptFile, FileMissing, UntrustedSource, ArchitectureMissing, NotAModel, BadOption, UnknownName
    """
    path = Path(spec["file"])
    with quiet():
        match spec["kind"]:
            case "saved_model":
                return _saved_model(path, name, request)
            case "graph_def":
                return _graph_def(path, name, request)
            case kind:
                return _keras(path, name, request, zipped=kind == "keras")


def _saved_model(path: Path, name: str, request: CaptureRequest) -> TfSource:
    from graphkit.capture.tf_saved_model import load

    callee, folder, findings = load(path, request)
    return TfSource(callee, name=name, sha256=_folder_sha256(folder), findings=findings, options=SAVED_MODEL)


def _graph_def(path: Path, name: str, request: CaptureRequest) -> TfSource:
    from graphkit.capture.tf_graph_def import load

    graph = load(path, request)
    return TfSource(
        graph.callee,
        name=name,
        sha256=file_sha256(path),
        findings=graph.findings,
        options=GRAPH_DEF,
        frozen=graph.freeze,
    )


def _keras(path: Path, name: str, request: CaptureRequest, *, zipped: bool) -> TfSource:
    from dataclasses import replace

    from graphkit.capture import tf_keras, tf_keras_callee

    model = tf_keras.load(path, zipped=zipped, trust=request.trust)
    callee = replace(tf_keras_callee.callee_of(model), kind=".keras file" if zipped else "Keras .h5 file")
    return TfSource(callee, name=name, sha256=file_sha256(path))


def _folder_sha256(folder: Path) -> str:
    """Digest of the names and contents of all files in a folder."""
    lines = [
        f"{file_sha256(file)}  {file.relative_to(folder).as_posix()}\n"
        for file in sorted(folder.rglob("*"))
        if file.is_file()
    ]
    return hashlib.sha256("".join(lines).encode()).hexdigest()
