"""A source that lives in the child process of its framework: loaded, captured and run there.

The parent never imports a framework; a file that crashes one is one clear error.
"""

from __future__ import annotations

import importlib
import shutil
import tempfile
import threading
import weakref
from pathlib import Path
from typing import TYPE_CHECKING, Any

from graphkit import isolate
from graphkit.capture.options import ANY
from graphkit.capture.request import Arrays, CaptureRequest
from graphkit.capture.taps import Tape
from graphkit.model import Model, load
from graphkit.shapes import DimRange, TensorSpec

if TYPE_CHECKING:
    import numpy as np


class IsolatedSource:
    """A source in a child process.

    Args:
        name: What to call it in reports.
        spec: What the opener needs to find it: `{"file": ...}` or `{"callable": ...}`.
        opener: `module:function` that the child calls with `(spec, name, request)`; returns a `RunnableSource`.
        worker: The child.
        options: Options of the request that it knows; the child refuses the others.

    Attributes:
        file: The captured model as a file in a private folder, once it is captured.
        dims: Ranges that were asked for or that the source itself declares, once it is prepared.
        seconds: Time that preparing it took in the child, whose imports were done.
    """

    def __init__(
        self, name: str, spec: dict[str, str], *, opener: str, worker: isolate.Worker, options: frozenset[str] = ANY
    ) -> None:
        self.name = name
        self.options = options
        self.label = worker.name
        self.file: Path | None = None
        self.dims: tuple[DimRange, ...] = ()
        self.seconds: float | None = None
        self._folder = Path(tempfile.mkdtemp(prefix="graphkit-"))
        # Not a TemporaryDirectory: a source has no end of its own, and that one warns when it is merely collected.
        weakref.finalize(self, shutil.rmtree, self._folder, ignore_errors=True)
        self._worker = worker
        self._handle = self._folder.name  # what the child knows this source by; it may hold several
        self._opening = {"handle": self._handle, "opener": opener, "spec": spec, "name": name}
        worker.start()  # so that it imports its framework meanwhile

    @property
    def process(self) -> str:
        """The name of the child, which other sources may live in too."""
        return self._worker.name

    def capture(self, request: CaptureRequest) -> Model:
        """Capture in the child; see `Source.capture`."""
        target = self._folder / "captured.onnx"
        # Needed to load the result; its import takes 0.6 s, in which this process would only wait.
        threading.Thread(target=importlib.import_module, args=("onnx_ir",)).start()
        reply = self._call("capture", **self._opening, request=request.to_json(), target=str(target))
        self.label = reply["label"]
        self.file = target
        return load(target)

    def prepare(self, request: CaptureRequest) -> tuple[TensorSpec, ...]:
        """Load in the child; see `RunnableSource.prepare`."""
        reply = self._call("prepare", **self._opening, request=request.to_json())
        self.label, self.dims = reply["label"], tuple(DimRange(*d) for d in reply["dims"])
        self.seconds = reply["seconds"]
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

    def tap(self, inputs: Arrays, folder: Path) -> Tape | None:
        """Run and record in the child; see `TappedSource.tap`."""
        from graphkit.tensor_files import write_tensors

        given = Path(tempfile.mkdtemp(dir=self._folder))
        try:
            entries = write_tensors(inputs, given)
            tape = self._call("tap", handle=self._handle, inputs=entries, folder=str(folder))
        finally:
            shutil.rmtree(given)
        return Tape.from_json(tape) if tape is not None else None

    def apply(self, function: str, **arguments: Any) -> Any:
        """Run `function` (`module:function`) in the child on the live source, which is captured or prepared.

        Args:
            function: Takes the source and the arguments.
            arguments: JSON values, as is what it returns.
        """
        return self._call("apply", handle=self._handle, target=function, arguments=arguments)

    def _call(self, function: str, **arguments: Any) -> Any:
        return self._worker.call(f"graphkit.capture.isolated_child:{function}", **arguments)
