"""What can be run: anything with a label that turns named inputs into named outputs; and ONNX Runtime."""

from __future__ import annotations

import contextlib
import shutil
import tempfile
import weakref
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol

from graphkit import isolate, marks
from graphkit.errors import GraphkitError, InvalidExport

if TYPE_CHECKING:
    import numpy as np

    from graphkit.model import Model

_CHILD = "graphkit.parity.ort_child"
_PRELOAD = (
    "numpy",
    "onnxruntime",
    "polygraphy.backend.onnxrt",
    "ml_dtypes",
    "graphkit.parity.ort_child",
    "graphkit.tensor_files",
)
# DivMulFusion drops an edge, so that 1 / x * Identity(y) loads at no level but "off" (ORT 1.23 to 1.32, also #32416).
_OPTIMISER_BUG = "https://github.com/microsoft/onnxruntime/issues/32413"


class Runner(Protocol):
    """One side of a comparison."""

    @property
    def label(self) -> str:
        """What runs, with its version and device: `torch 2.13.0 (cpu)`."""

    def run(self, inputs: Mapping[str, np.ndarray[Any, Any]]) -> dict[str, np.ndarray[Any, Any]]:
        """Outputs by name.

        Raises:
            GraphkitError: it could not run.
        """


@dataclass(frozen=True)
class WithValues:
    """A runner some of whose inputs always have the same values: what a model with frozen inputs is compared with."""

    runner: Runner
    values: Mapping[str, np.ndarray[Any, Any]]

    @property
    def label(self) -> str:
        return f"{self.runner.label} with {', '.join(self.values)} fixed"

    def run(self, inputs: Mapping[str, np.ndarray[Any, Any]]) -> dict[str, np.ndarray[Any, Any]]:
        """Outputs by name; see `Runner.run`."""
        return self.runner.run({**self.values, **inputs})

    def release(self) -> None:
        """Free what the runner holds between runs, if it can be had again."""
        release = getattr(self.runner, "release", None)
        if release is not None:
            release()


class OrtRunner:
    """ONNX Runtime on the CPU, in a child process that survives neither its crashes nor yours.

    Two threads on every machine, so that sums are added in the same order everywhere.

    Args:
        model: A model, or the path of an `.onnx` file.
        optimize: Whether ONNX Runtime may rewrite the graph (all levels) or runs it as it stands.
        as_is: Refuse what ONNX Runtime refuses. Else marks for TensorRT, which change nothing that is computed
            (`graphkit.marks`), are taken off a copy of the file.
        name: What is run, where a label needs it: `optimised model`.
        timeout: Seconds that one run may take.
    """

    def __init__(
        self,
        model: Model | Path | str,
        *,
        optimize: bool,
        name: str | None = None,
        timeout: float | None = None,
        as_is: bool = False,
    ) -> None:
        self.optimize = optimize
        self._model = model
        self._name = name
        self._timeout = timeout
        self._as_is = as_is
        self._folder = Path(tempfile.mkdtemp(prefix="graphkit-ort-"))
        self._remove = weakref.finalize(self, shutil.rmtree, self._folder, ignore_errors=True)
        self._path: Path | None = None
        self._loaded = False

    @property
    def label(self) -> str:
        """`onnxruntime 1.32.0 (cpu, optimisations off)`."""
        from importlib.metadata import version

        how = f"onnxruntime {version('onnxruntime')} (cpu, optimisations {'all' if self.optimize else 'off'})"
        return f"{self._name}: {how}" if self._name else how

    def run(self, inputs: Mapping[str, np.ndarray[Any, Any]]) -> dict[str, np.ndarray[Any, Any]]:
        """Outputs by name.

        Raises:
            InvalidExport: ONNX Runtime cannot load the model; or its own optimiser breaks it, which is then said.
            BadSample: it refuses the inputs. ParityFailed: it fails while it runs.
            NativeCrash, OutOfMemory, TimedOut: the child died; the next call starts a new one.
        """
        from graphkit.tensor_files import read_tensors, write_tensors

        self.load()
        folder = Path(tempfile.mkdtemp(dir=self._folder))
        try:
            (folder / "out").mkdir()
            entries = write_tensors(inputs, folder)
            done = self._call("run", inputs=entries, folder=str(folder / "out"))
            return read_tensors(done)
        finally:
            shutil.rmtree(folder, ignore_errors=True)

    def load(self) -> None:
        """Load the model into the child, once.

        Raises: as `run`.
        """
        if self._loaded:
            return
        self.file()
        try:
            self._load_unmarked()
        except InvalidExport as error:
            if self.optimize and self._loads_unoptimised():
                raise _optimiser_bug(error) from error
            raise
        self._loaded = True

    def file(self) -> Path:
        """The model as a file, which `close` removes if it was written for this."""
        if self._path is None:
            self._path = self._file()
        return self._path

    def release(self) -> None:
        """Free the child's copy of the model; the next run loads it again."""
        if self._loaded:
            self._loaded = False
            with contextlib.suppress(GraphkitError):  # a child that is dead holds no memory
                ort_worker().call(f"{_CHILD}:forget", path=str(self._path))

    def close(self) -> None:
        """Free the child's copy of the model and remove the temporary files."""
        self.release()
        self._remove()

    def __enter__(self) -> OrtRunner:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def _file(self) -> Path:
        if isinstance(self._model, str | Path):
            return Path(self._model).resolve()
        path = self._folder / "model.onnx"
        self._model.save(path, durable=False)
        return path

    def _load_unmarked(self) -> None:
        try:
            self._call("load")
        except InvalidExport as error:
            if self._as_is or marks.DECOMPOSABLE not in str(error.message):
                raise
            from graphkit.model import load

            model = self._model if not isinstance(self._model, str | Path) else load(self._model)
            graph = model.ir.clone()
            if not marks.take_off(graph):
                raise
            self._path = self._folder / "unmarked.onnx"
            model.with_step("marks for TensorRT taken off", graph).save(self._path, durable=False)
            self._call("load")

    def _call(self, function: str, **arguments: Any) -> Any:
        return ort_worker().call(
            f"{_CHILD}:{function}", timeout=self._timeout, path=str(self._path), optimize=self.optimize, **arguments
        )

    def _loads_unoptimised(self) -> bool:
        try:
            ort_worker().call(f"{_CHILD}:load", timeout=self._timeout, path=str(self._path), optimize=False)
        except GraphkitError:
            return False
        return True


def warm_up() -> None:
    """Start the child and its imports now, while something else is done."""
    ort_worker().start()


def ort_worker() -> isolate.Worker:
    """The child that runs ONNX Runtime."""
    # Polygraphy imports torch where it finds it, at the first run: 3 s and 100 MB.
    return isolate.worker("ONNX Runtime", preload=_PRELOAD, without=isolate.FRAMEWORKS)


def _optimiser_bug(error: InvalidExport) -> InvalidExport:
    return InvalidExport(
        f"ONNX Runtime's optimiser breaks this model, which loads without it: {error.message.partition(': ')[2]}",
        details=(f"this is a bug of ONNX Runtime, not of the conversion; a known case: {_OPTIMISER_BUG}",),
        remedy="run the model with SessionOptions.graph_optimization_level = ORT_DISABLE_ALL",
        data={"known_bug": _OPTIMISER_BUG},
    )
