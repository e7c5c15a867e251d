"""Opens a PyTorch file, in the torch child."""

from __future__ import annotations

from pathlib import Path

from graphkit.capture import torch_archive, torch_load
from graphkit.capture.request import CaptureRequest
from graphkit.capture.torch_module import TorchSource
from graphkit.errors import UnknownFormat
from graphkit.model import file_sha256

_KINDS = {
    "torchscript": "TorchScript archive",
    "pt2": "torch.export archive",
    "pickle": "torch.save file",
    "pickle legacy": "torch.save file",
    "safetensors": "safetensors file",
}


def open_file(spec: dict[str, str], name: str, request: CaptureRequest) -> TorchSource:
    """The source for the file that `spec` names.

    Raises:
        UntrustedSource, ArchitectureMissing, CorruptFile, WeightsMismatch, BadOption: as `torch_load.load`.
    """
    path = Path(spec["file"])
    with path.open("rb") as file:
        archive = torch_archive.recognise(path, file.read(1024))
    if archive is None:
        raise UnknownFormat(f"{path.name} changed while it was read")
    target = torch_load.load(archive, trust=request.trust, architecture=request.architecture)
    return TorchSource(target, name=name, kind=_KINDS[archive.kind], sha256=file_sha256(path))
