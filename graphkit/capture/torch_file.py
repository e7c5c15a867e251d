"""PyTorch files, and `package.module:callable`: loaded, captured and run in a child process.

The parent never imports torch; a file that crashes the framework is one clear error.
"""

from __future__ import annotations

import importlib.util
import shutil
import tempfile
import weakref
from pathlib import Path
from typing import TYPE_CHECKING, Any

from graphkit import isolate
from graphkit.capture import torch_archive
from graphkit.capture.request import Arrays, CaptureRequest, Source
from graphkit.errors import ExtraMissing
from graphkit.model import Model, load
from graphkit.shapes import TensorSpec

if TYPE_CHECKING:
    import numpy as np


def recognise(path: Path, head: bytes, request: CaptureRequest) -> Source | None:
    """The source for a PyTorch file, or None. Starts the child, so that it imports torch meanwhile.

    Raises:
        CorruptFile, UntrustedSource, ArchitectureMissing: seen from the file's bytes.
    """
    archive = torch_archive.recognise(path, head)
    if archive is None:
        return None
    _torch_worker()
    return IsolatedSource(path.name, {"file": str(path.resolve())})


class IsolatedSource:
    """A source that lives in the torch child.

    Attributes:
        file: The captured model as a file in a private folder, once it is captured.
    """

    def __init__(self, name: str, spec: dict[str, str]) -> None:
        self.name = name
        self.label = "torch"
        self.file: Path | None = None
        self._spec = spec
        self._folder = Path(tempfile.mkdtemp(prefix="graphkit-"))
        # Not a TemporaryDirectory: a source has no end of its own, and that one warns when it is merely collected.
        weakref.finalize(self, shutil.rmtree, self._folder, ignore_errors=True)
        self._worker = _torch_worker()
        self._handle = self._folder.name  # what the child knows this source by; it may hold several

    def capture(self, request: CaptureRequest) -> Model:
        """Capture in the child; see `Source.capture`."""
        target = self._folder / "captured.onnx"
        reply = self._worker.call(
            "graphkit.capture.torch_child:capture",
            handle=self._handle,
            spec=self._spec,
            name=self.name,
            request=request.to_json(),
            target=str(target),
        )
        self.label = reply["label"]
        self.file = target
        return load(target)

    def prepare(self, request: CaptureRequest) -> tuple[TensorSpec, ...]:
        """Load in the child; see `RunnableSource.prepare`."""
        reply = self._worker.call(
            "graphkit.capture.torch_child:prepare",
            handle=self._handle,
            spec=self._spec,
            name=self.name,
            request=request.to_json(),
        )
        self.label = reply["label"]
        return tuple(TensorSpec(n, t, None if s is None else tuple(s)) for n, t, s in reply["inputs"])

    def run(self, inputs: Arrays) -> dict[str, np.ndarray[Any, Any]]:
        """Run in the child; see `Source.run`."""
        from graphkit.tensor_files import read_tensors, write_tensors

        given, made = (Path(tempfile.mkdtemp(dir=self._folder)) for _ in range(2))
        try:
            entries = write_tensors(inputs, given)
            done = self._worker.call(
                "graphkit.capture.torch_child:run", handle=self._handle, inputs=entries, folder=str(made)
            )
            return read_tensors(done)
        finally:
            shutil.rmtree(given)
            shutil.rmtree(made)


class CallableSource(IsolatedSource):
    """`package.module:callable`."""

    def __init__(self, spec: str) -> None:
        super().__init__(spec, {"callable": spec})


def _torch_worker() -> isolate.Worker:
    if importlib.util.find_spec("torch") is None or importlib.util.find_spec("onnxscript") is None:
        raise ExtraMissing("PyTorch models need PyTorch", remedy="pip install 'graphkit-onnx[torch]'")
    worker = isolate.worker("PyTorch", preload=("torch", "torch.onnx", "onnxscript"))
    worker.start()
    return worker
