"""What runs in the torch child: load or build the source, capture it, run it."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from graphkit.capture import torch_archive, torch_load
from graphkit.capture.python_callable import build
from graphkit.capture.request import CaptureRequest
from graphkit.capture.torch_module import TorchSource
from graphkit.errors import UnknownFormat
from graphkit.model import file_sha256
from graphkit.tensor_files import read_tensors, write_tensors

_sources: dict[str, TorchSource] = {}


def capture(handle: str, spec: dict[str, str], name: str, request: dict[str, Any], target: str) -> dict[str, str]:
    """Capture the source that `spec` names (`file` or `callable`), and write the model to `target`.

    The source is kept under `handle` for `run`.
    """
    asked = CaptureRequest.from_json(request)
    source = _open(spec, name, asked)
    model = source.capture(asked)
    model.save(target, durable=False)
    _sources[handle] = source
    return {"label": source.label}


def prepare(handle: str, spec: dict[str, str], name: str, request: dict[str, Any]) -> dict[str, Any]:
    """Make the source that `spec` names ready for `run`, without capturing it; returns its inputs."""
    asked = CaptureRequest.from_json(request)
    source = _open(spec, name, asked)
    inputs = source.prepare(asked)
    _sources[handle] = source
    return {"label": source.label, "inputs": [[t.name, t.dtype, t.shape] for t in inputs]}


def run(handle: str, inputs: list[dict[str, str]], folder: str) -> list[dict[str, str]]:
    """Run the source kept under `handle` on tensor files; returns those it wrote to `folder`."""
    return write_tensors(_sources[handle].run(read_tensors(inputs)), Path(folder))


_KINDS = {
    "torchscript": "TorchScript archive",
    "pt2": "torch.export archive",
    "pickle": "torch.save file",
    "pickle legacy": "torch.save file",
    "safetensors": "safetensors file",
}


def _open(spec: dict[str, str], name: str, request: CaptureRequest) -> TorchSource:
    if "callable" in spec:
        return TorchSource(build(spec["callable"]), name=name)
    path = Path(spec["file"])
    with path.open("rb") as file:
        archive = torch_archive.recognise(path, file.read(1024))
    if archive is None:
        raise UnknownFormat(f"{path.name} changed while it was read")
    target = torch_load.load(archive, trust=request.trust, architecture=request.architecture)
    return TorchSource(target, name=name, kind=_KINDS[archive.kind], sha256=file_sha256(path))
