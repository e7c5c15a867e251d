"""PyTorch files, in a child process that imports torch."""

from __future__ import annotations

import importlib.util
from pathlib import Path

from graphkit import isolate
from graphkit.capture import torch_archive
from graphkit.capture.isolated import IsolatedSource
from graphkit.capture.options import TORCH
from graphkit.capture.request import CaptureRequest, Source
from graphkit.errors import ExtraMissing


def recognise(path: Path, head: bytes, request: CaptureRequest) -> Source | None:
    """The source for a PyTorch file, or None.

    Raises:
        CorruptFile, UntrustedSource, ArchitectureMissing: seen from the file's bytes.
        ExtraMissing: PyTorch is not installed.
    """
    archive = torch_archive.recognise(path, head)
    if archive is None:
        return None
    if importlib.util.find_spec("torch") is None or importlib.util.find_spec("onnxscript") is None:
        raise ExtraMissing("PyTorch models need PyTorch", remedy="pip install 'graphkit-onnx[torch]'")
    worker = isolate.worker("PyTorch", preload=("torch", "torch.onnx", "onnxscript"))
    spec = {"file": str(path.resolve())}
    opener = "graphkit.capture.torch_child:open_file"
    return IsolatedSource(path.name, spec, opener=opener, worker=worker, options=TORCH)
