"""An engine under the clock: CUDA events around the run, with inputs and outputs in the GPU's memory."""

from __future__ import annotations

import ctypes
import hashlib
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from graphkit.engine.trt_session import Session, open_session
from graphkit.errors import BadSample, CorruptFile
from graphkit.tensor_files import read_tensors, write_tensors
from graphkit.timing import memory


@dataclass(slots=True)
class _Open:
    """An engine in this process, and what runs it on the last inputs."""

    session: Session
    engine: Any
    free: int | None
    runner: Any = None


_open: dict[str, _Open] = {}


def load(engine_path: str, rtx: bool, sha256: str) -> dict[str, Any]:
    """Deserialise an engine; `seconds` that it took.

    Raises:
        CorruptFile: the file is not the engine that was built. Loading an engine can run code in it.
        BadSample: the library refuses it; its lines are given.
    """
    from polygraphy.backend.trt import engine_from_bytes
    from polygraphy.exception import PolygraphyException

    session = open_session(rtx)
    data = Path(engine_path).read_bytes()
    if hashlib.sha256(data).hexdigest() != sha256:
        raise CorruptFile(f"{Path(engine_path).name} is not the engine that was built: its sha256 differs")
    free = memory.gpu_free()
    before, started = memory.resident()["now"], time.perf_counter()
    try:
        _open[engine_path] = _Open(session, engine_from_bytes(data), free)
    except PolygraphyException as error:
        raise _failed(session, error) from error
    return {"seconds": time.perf_counter() - started, "threads": None, "before": before}


def put(engine_path: str, inputs: list[dict[str, str]], folder: str, profile: int) -> dict[str, Any]:
    """Run the engine on a set of inputs for the first time; they and the outputs' memory stay on the GPU.

    Args:
        profile: Number of the optimization profile, from 0.

    Returns:
        `seconds` of that run, copies included; `outputs` as tensor files in `folder`.

    Raises:
        BadSample: the engine does not take these inputs.
    """
    import numpy as np
    from polygraphy.backend.trt import TrtRunner
    from polygraphy.exception import PolygraphyException

    mine = _open[engine_path]
    if mine.runner is not None:
        mine.runner.deactivate()
    runner = mine.runner = TrtRunner(mine.engine, optimization_profile=profile)
    try:
        runner.activate()
        started = time.perf_counter()
        outputs = runner.infer(read_tensors(inputs))
        seconds = time.perf_counter() - started
    except PolygraphyException as error:
        raise _failed(mine.session, error) from error
    arrays = {name: np.asarray(value) for name, value in outputs.items()}
    return {"seconds": seconds, "outputs": write_tensors(arrays, Path(folder))}


def block(engine_path: str, runs: int, seconds: float) -> list[int]:
    """Nanoseconds of each run between two CUDA events on the engine's stream; copies are outside.

    Polygraphy's runner has set shapes and addresses in the context, which keeps them: what is enqueued here is the
    engine's own work.

    Raises:
        BadSample: the engine could not be enqueued.
    """
    mine = _open[engine_path]
    context, stream = mine.runner.context, mine.runner.stream.ptr
    start, stop, found = _event(), _event(), list[int]()
    end = time.perf_counter() + seconds
    try:
        while len(found) < runs or (seconds and time.perf_counter() < end):
            _cuda("cudaEventRecord", start, ctypes.c_void_p(stream))
            if not context.execute_async_v3(stream):
                raise _failed(mine.session, None)
            _cuda("cudaEventRecord", stop, ctypes.c_void_p(stream))
            _cuda("cudaEventSynchronize", stop)
            milliseconds = ctypes.c_float()
            _cuda("cudaEventElapsedTime", ctypes.byref(milliseconds), start, stop)
            found.append(round(milliseconds.value * 1e6))
    finally:
        for event in (start, stop):
            _cuda("cudaEventDestroy", event)
    return found


def used(engine_path: str) -> dict[str, int | None]:
    """Most bytes of this process so far, and of the GPU since before the engine was loaded."""
    free, now = _open[engine_path].free, memory.gpu_free()
    return {"peak": memory.resident()["peak"], "gpu": free - now if free is not None and now is not None else None}


def _event() -> ctypes.c_void_p:
    event = ctypes.c_void_p()
    _cuda("cudaEventCreate", ctypes.byref(event))
    return event


def _cuda(function: str, *arguments: Any) -> None:
    from polygraphy import cuda

    library = cuda.wrapper()
    library.check(getattr(library.handle, function)(*arguments))


def _failed(session: Session, error: Exception | None) -> BadSample:
    said = str(error).splitlines()[0] if error is not None else "TensorRT did not enqueue it"
    return BadSample(f"the engine could not run: {said}", details=tuple(session.log.errors[:8]))
