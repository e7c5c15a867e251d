"""The parent's hold on one side that is timed, whatever runs it."""

from __future__ import annotations

import contextlib
import tempfile
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple, Protocol

from graphkit import isolate
from graphkit.capture.isolated import IsolatedSource
from graphkit.capture.request import RunnableSource
from graphkit.engine.builder import Engine, Library
from graphkit.engine.running import profile_for
from graphkit.tensor_files import read_tensors, write_tensors

if TYPE_CHECKING:
    import numpy as np

    Tensors = Mapping[str, np.ndarray[Any, Any]]

_ROOM = "graphkit.timing"


class Loaded(NamedTuple):
    """A side that is ready.

    Attributes:
        seconds: Time it took, in a process whose imports were done; None where it was loaded before.
        threads: That one operator may use; None where it does not say.
        before: Bytes of its process without the model; None where that is not known.
        note: What else a reader has to know.
    """

    seconds: float | None
    threads: int | None = None
    before: int | None = None
    note: str | None = None


class Used(NamedTuple):
    """Memory in bytes: the most of its process so far, and of the GPU. None where it cannot be measured."""

    peak: int | None
    gpu: int | None = None


class Stopwatch(Protocol):
    """One side that can be timed."""

    @property
    def label(self) -> str:
        """What runs it: `onnxruntime 1.32.0 (cpu)`."""

    def load(self) -> Loaded:
        """Make it ready. Raises: `GraphkitError`: it cannot be."""

    def put(self, inputs: Tensors) -> tuple[float, dict[str, np.ndarray[Any, Any]]]:
        """Take a set of inputs, and run for the first time: seconds, and outputs. Raises: `GraphkitError`."""

    def block(self, runs: int, seconds: float) -> list[int]:
        """Nanoseconds of each of at least `runs` runs, until `seconds` have passed. Raises: `GraphkitError`."""

    def used(self) -> Used:
        """Memory so far."""

    def close(self) -> None:
        """End what it holds."""


class OrtStopwatch:
    """An ONNX file in ONNX Runtime, in a child of its own.

    Args:
        path: The file.
        provider: `cpu` or `cuda`.
        threads: That one operator may use.
    """

    def __init__(self, path: Path, provider: str, threads: int) -> None:
        self._path, self._provider, self._threads = path, provider, threads
        preload = ("numpy", "onnxruntime", "onnx_ir", "polygraphy.backend.onnxrt", f"{_ROOM}.ort_child")
        self._worker = isolate.Worker("ONNX Runtime", preload=preload, without=isolate.FRAMEWORKS)
        self._worker.start()

    @property
    def label(self) -> str:
        from importlib.metadata import PackageNotFoundError, version

        for name in ("onnxruntime-gpu", "onnxruntime"):
            with contextlib.suppress(PackageNotFoundError):
                return f"onnxruntime {version(name)} ({self._provider})"
        return f"onnxruntime ({self._provider})"

    def load(self) -> Loaded:
        path = str(self._path)
        return Loaded(**self._call("load", path=path, provider=self._provider, threads=self._threads))

    def put(self, inputs: Tensors) -> tuple[float, dict[str, np.ndarray[Any, Any]]]:
        with _as_files(inputs) as (entries, folder):
            done = self._call("put", inputs=entries, folder=folder)
            return done["seconds"], read_tensors(done["outputs"])

    def block(self, runs: int, seconds: float) -> list[int]:
        return list(self._call("block", runs=runs, seconds=seconds))

    def used(self) -> Used:
        return Used(**self._call("used"))

    def close(self) -> None:
        self._worker.close()

    def _call(self, function: str, **arguments: Any) -> Any:
        return self._worker.call(f"{_ROOM}.ort_child:{function}", **arguments)


class FrameworkStopwatch:
    """What its own framework runs, where it lives: in a child, or in this process for an object of the caller's.

    Args:
        source: The source, prepared.
    """

    def __init__(self, source: RunnableSource) -> None:
        self._source = source

    @property
    def label(self) -> str:
        return self._source.label

    @property
    def process(self) -> str | None:
        """The child that it lives in, by its name; None for this process."""
        return self._source.process if isinstance(self._source, IsolatedSource) else None

    def load(self) -> Loaded:
        said = self._call("used")
        seconds = self._source.seconds if isinstance(self._source, IsolatedSource) else None
        note = None if said["alone"] else "copying inputs and outputs is timed too"
        return Loaded(seconds, said["threads"], None, note)

    def put(self, inputs: Tensors) -> tuple[float, dict[str, np.ndarray[Any, Any]]]:
        with _as_files(inputs) as (entries, folder):
            done = self._call("put", inputs=entries, folder=folder)
            return done["seconds"], read_tensors(done["outputs"])

    def block(self, runs: int, seconds: float) -> list[int]:
        return list(self._call("block", runs=runs, seconds=seconds))

    def used(self) -> Used:
        return Used(self._call("used")["peak"])

    def close(self) -> None:
        """The child ends with the workers of the measurement."""

    def _call(self, function: str, **arguments: Any) -> Any:
        if isinstance(self._source, IsolatedSource):
            return self._source.apply(f"{_ROOM}.framework_child:{function}", **arguments)
        from graphkit.timing import framework_child

        return getattr(framework_child, function)(self._source, **arguments)


class EngineStopwatch:
    """An engine on this machine's GPU, timed by CUDA events.

    Args:
        library: Its library.
        engine: The engine.
        label: What runs it.
    """

    def __init__(self, library: Library, engine: Engine, label: str) -> None:
        self._library, self._engine, self.label = library, engine, label

    def load(self) -> Loaded:
        said = self._call("load", rtx=self._library.rtx, sha256=self._engine.sha256)
        return Loaded(**said, note="timed by CUDA events")

    def put(self, inputs: Tensors) -> tuple[float, dict[str, np.ndarray[Any, Any]]]:
        profile = profile_for(self._engine, {name: value.shape for name, value in inputs.items()})
        with _as_files(inputs) as (entries, folder):
            done = self._call("put", inputs=entries, folder=folder, profile=profile)
            return done["seconds"], read_tensors(done["outputs"])

    def block(self, runs: int, seconds: float) -> list[int]:
        return list(self._call("block", runs=runs, seconds=seconds))

    def used(self) -> Used:
        return Used(**self._call("used"))

    def close(self) -> None:
        """The child ends with the workers of the measurement."""

    def _call(self, function: str, **arguments: Any) -> Any:
        path = str(self._engine.path)
        return self._library.worker.call(f"{_ROOM}.trt_child:{function}", engine_path=path, **arguments)


@contextlib.contextmanager
def _as_files(inputs: Tensors) -> Iterator[tuple[list[dict[str, str]], str]]:
    """Inputs in files, and a folder for outputs; both are gone after the block."""
    with tempfile.TemporaryDirectory(prefix="graphkit-bench-") as folder:
        given, made = Path(folder, "in"), Path(folder, "out")
        given.mkdir()
        made.mkdir()
        yield write_tensors(inputs, given), str(made)
