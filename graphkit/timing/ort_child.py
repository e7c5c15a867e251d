"""ONNX Runtime under the clock: one model in a child of its own, set up as a program that serves would."""

from __future__ import annotations

import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

from graphkit.errors import ExtraMissing, GpuRequired, InvalidExport
from graphkit.parity.ort_child import infer, ort_value, reason, run_error
from graphkit.timing import memory
from graphkit.timing.clock import timed

PROVIDERS = {"cpu": "CPUExecutionProvider", "cuda": "CUDAExecutionProvider"}

_state: dict[str, Any] = {}


def load(path: str, provider: str, threads: int) -> dict[str, Any]:
    """Load a model with all optimisations.

    Returns:
        `seconds` that it took, `threads`, and `before`: bytes of this process without it.

    Raises:
        ExtraMissing: this ONNX Runtime has no such provider. `GpuRequired`: it has, but cannot use it here.
        InvalidExport: it cannot load the model.
    """
    import onnxruntime as ort

    wanted = PROVIDERS[provider]
    if wanted not in ort.get_available_providers():
        raise ExtraMissing(
            f"the installed onnxruntime has no {wanted}",
            remedy="pip uninstall onnxruntime && pip install onnxruntime-gpu",
        )
    if provider == "cuda":
        ort.preload_dlls()
        _state["free"] = memory.gpu_free()
    before = memory.resident()["now"]
    started = time.perf_counter()
    try:
        session = ort.InferenceSession(path, _options(ort, threads), providers=[wanted])
    except MemoryError:
        raise
    except Exception as error:  # ORT's errors share no base class
        raise InvalidExport(
            f"ONNX Runtime cannot load the model: {reason(error)}",
            remedy="an opset or operator that ONNX Runtime knows, or a valid ONNX file",
        ) from error
    seconds = time.perf_counter() - started
    if wanted not in session.get_providers():  # it falls back to the CPU with a line in a log
        raise GpuRequired(
            f"ONNX Runtime cannot use its {wanted} here and would run on the CPU",
            remedy="`graphkit doctor` says what is missing here",
        )
    _state.update(session=session, device="cuda" if provider == "cuda" else "cpu")
    return {"seconds": seconds, "threads": threads, "before": before}


def put(inputs: list[dict[str, str]], folder: str) -> dict[str, Any]:
    """Bind a set of inputs, which stays on the device, and run it for the first time.

    Returns:
        `seconds` of that run, and `outputs` as tensor files in `folder`.

    Raises:
        BadSample, ParityFailed, OutOfMemory: as `parity.ort_child.run`.
    """
    from graphkit.tensor_files import read_tensors, write_tensors

    session, feeds = _state["session"], read_tensors(inputs)
    wanted = {i.name for i in session.get_inputs()}
    feeds = {name: value for name, value in feeds.items() if name in wanted}
    try:
        _state["call"] = call = _bound(session, feeds)
        started = time.perf_counter()
        call()
        seconds = time.perf_counter() - started
    except MemoryError:
        raise
    except Exception as error:  # as above
        raise run_error(error) from error
    return {"seconds": seconds, "outputs": write_tensors(infer(session, feeds), Path(folder))}


def block(runs: int, seconds: float) -> list[int]:
    """Nanoseconds of each run; see `clock.timed`."""
    return timed(_state["call"], runs=runs, seconds=seconds)


def used() -> dict[str, int | None]:
    """Most bytes of this process so far, and of the GPU since before the model was loaded."""
    free, now = _state.get("free"), memory.gpu_free() if _state.get("free") is not None else None
    return {"peak": memory.resident()["peak"], "gpu": free - now if free is not None and now is not None else None}


def _options(ort: Any, threads: int) -> Any:
    options = ort.SessionOptions()
    options.graph_optimization_level = ort.GraphOptimizationLevel.ORT_ENABLE_ALL
    options.intra_op_num_threads = threads
    options.inter_op_num_threads = 1
    options.log_severity_level = 4
    # Its threads wait for more work at full speed after a run, on the processors that the next side is timed on.
    options.add_session_config_entry("session.force_spinning_stop", "1")
    return options


def _bound(session: Any, feeds: dict[str, Any]) -> Callable[[], Any]:
    """A run whose inputs are where it needs them, and whose outputs stay where they are made."""
    if any(value.dtype.kind in "OUS" for value in feeds.values()):
        names = [o.name for o in session.get_outputs()]  # strings cannot be bound
        return lambda: session.run(names, feeds)
    binding, device = session.io_binding(), _state["device"]
    for name, value in feeds.items():
        binding.bind_ortvalue_input(name, ort_value(value))  # copies to the device now, and not in each run
    for output in session.get_outputs():
        binding.bind_output(output.name, device)
    return lambda: session.run_with_iobinding(binding)
