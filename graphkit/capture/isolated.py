"""A source that lives in the child process of its framework: loaded, captured and run there.

The parent never imports a framework; a file that crashes one is one clear error.
"""

from __future__ import annotations

import shutil
import tempfile
import weakref
from pathlib import Path
from typing import TYPE_CHECKING, Any

from graphkit import isolate
from graphkit.capture.request import Arrays, CaptureRequest
from graphkit.model import Model, load
from graphkit.shapes import TensorSpec

if TYPE_CHECKING:
    import numpy as np


class IsolatedSource:
    """A source in a child process.

    Args:
        name: What to call it in reports.
        spec: What the opener needs to find it: `{"file": ...}` or `{"callable": ...}`.
        opener: `module:function` that the child calls with `(spec, name, request)`; returns a `RunnableSource`.
        worker: The child.

    Attributes:
        file: The captured model as a file in a private folder, once it is captured.
    """

    def __init__(self, name: str, spec: dict[str, str], *, opener: str, worker: isolate.Worker) -> None:
        self.name = name
        self.label = worker.name
        self.file: Path | None = None
        self._folder = Path(tempfile.mkdtemp(prefix="graphkit-"))
        # Not a TemporaryDirectory: a source has no end of its own, and that one warns when it is merely collected.
        weakref.finalize(self, shutil.rmtree, self._folder, ignore_errors=True)
        self._worker = worker
        self._handle = self._folder.name  # what the child knows this source by; it may hold several
        self._opening = {"handle": self._handle, "opener": opener, "spec": spec, "name": name}
        worker.start()  # so that it imports its framework meanwhile

    def capture(self, request: CaptureRequest) -> Model:
        """Capture in the child; see `Source.capture`."""
        target = self._folder / "captured.onnx"
        reply = self._call("capture", **self._opening, request=request.to_json(), target=str(target))
        self.label = reply["label"]
        self.file = target
        return load(target)

    def prepare(self, request: CaptureRequest) -> tuple[TensorSpec, ...]:
        """Load in the child; see `RunnableSource.prepare`."""
        reply = self._call("prepare", **self._opening, request=request.to_json())
        self.label = reply["label"]
        return tuple(TensorSpec(n, t, None if s is None else tuple(s)) for n, t, s in reply["inputs"])

    def run(self, inputs: Arrays) -> dict[str, np.ndarray[Any, Any]]:
        """Run in the child; see `RunnableSource.run`."""
        from graphkit.tensor_files import read_tensors, write_tensors

        given, made = (Path(tempfile.mkdtemp(dir=self._folder)) for _ in range(2))
        try:
            entries = write_tensors(inputs, given)
            return read_tensors(self._call("run", handle=self._handle, inputs=entries, folder=str(made)))
        finally:
            shutil.rmtree(given)
            shutil.rmtree(made)

    def _call(self, function: str, **arguments: Any) -> Any:
        return self._worker.call(f"graphkit.capture.isolated_child:{function}", **arguments)
