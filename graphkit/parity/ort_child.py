"""The child's side of `OrtRunner`: load a model once, run it many times. ONNX Runtime lives only here, because a
division in the model (INT_MIN / -1) or a fault in its optimiser ends the whole process."""

from __future__ import annotations

import contextlib
import ctypes
import gc
import re
from collections import OrderedDict
from pathlib import Path
from typing import Any

from graphkit.errors import BadSample, InvalidExport, OutOfMemory, ParityFailed

_KEPT = 4
_THREADS = 2
_sessions: OrderedDict[tuple[str, bool], Any] = OrderedDict()


def load(path: str, optimize: bool) -> dict[str, list[str]]:
    """Load a model, and keep it; returns the names of its inputs and outputs.

    Raises:
        InvalidExport: ONNX Runtime cannot load it.
    """
    key = (path, optimize)
    if key not in _sessions:
        while len(_sessions) >= _KEPT:
            _sessions.popitem(last=False)
        _sessions[key] = open_session(path, optimize)
    _sessions.move_to_end(key)
    session = _sessions[key]
    return {"inputs": [i.name for i in session.get_inputs()], "outputs": [o.name for o in session.get_outputs()]}


def forget(path: str) -> None:
    """Free the memory of a model."""
    for key in [k for k in _sessions if k[0] == path]:
        del _sessions[key]
    gc.collect()
    with contextlib.suppress(OSError, AttributeError):  # not every C library has it, and none has to give memory back
        ctypes.CDLL(None).malloc_trim(0)


def run(path: str, optimize: bool, inputs: list[dict[str, str]], folder: str) -> list[dict[str, str]]:
    """Run a model on tensors in files and write its outputs into `folder`.

    Args:
        inputs: `name`, `dtype` and `file` (see `tensor_files`) of each input.

    Raises:
        InvalidExport: ONNX Runtime cannot load the model.
        BadSample: the inputs do not fit it.
        ParityFailed: it fails while it runs.
    """
    from graphkit.tensor_files import read_tensors, write_tensors

    load(path, optimize)
    session = _sessions[path, optimize]
    return write_tensors(infer(session, read_tensors(inputs)), Path(folder))


def infer(session: Any, feeds: dict[str, Any]) -> dict[str, Any]:
    """Outputs of a session by name.

    Raises:
        BadSample, ParityFailed: as `run`.
    """
    try:
        return _infer(session, feeds)
    except MemoryError:
        raise
    except Exception as error:  # ORT's errors share no base class
        raise run_error(error) from error


def open_session(path: str, optimize: bool) -> Any:
    """A session made here and not by Polygraphy's SessionFromOnnx, which takes the optimisation level but sets the
    threads to the number of CPUs (sums then depend on the machine) and leaves warnings on."""
    import onnxruntime as ort

    options = ort.SessionOptions()
    levels = ort.GraphOptimizationLevel
    options.graph_optimization_level = levels.ORT_ENABLE_ALL if optimize else levels.ORT_DISABLE_ALL
    options.intra_op_num_threads = _THREADS
    options.inter_op_num_threads = 1
    options.use_deterministic_compute = True
    options.log_severity_level = 4
    try:
        return ort.InferenceSession(path, options, providers=["CPUExecutionProvider"])
    except MemoryError:
        raise
    except Exception as error:  # ORT's errors share no base class
        raise InvalidExport(
            f"ONNX Runtime cannot load the model: {reason(error)}",
            remedy="an opset or operator that ONNX Runtime knows, or a valid ONNX file",
        ) from error


def _infer(session: Any, feeds: dict[str, Any]) -> dict[str, Any]:
    for output in session.get_outputs():
        if not output.type.startswith("tensor("):
            raise BadSample(
                f"output `{output.name}` is no tensor but {output.type}, which cannot be compared",
                remedy="compare the part of the model whose outputs are tensors",
            )
    lacking = [i.name for i in session.get_inputs() if i.name not in feeds]
    if lacking:
        raise BadSample(f"no values for the inputs {', '.join(lacking)}", remedy="give every input")
    small = [t.type for t in (*session.get_inputs(), *session.get_outputs()) if "bfloat16" in t.type or "8e" in t.type]
    if small:
        return _infer_small_floats(session, feeds)
    from polygraphy.backend.onnxrt import OnnxrtRunner

    with OnnxrtRunner(session) as runner:
        # ONNX Runtime's own check of the inputs names what is wrong; Polygraphy's does not know every dtype.
        return dict(runner.infer(feeds, check_inputs=False))


def _infer_small_floats(session: Any, feeds: dict[str, Any]) -> dict[str, Any]:
    """bfloat16 and 8-bit floats cannot cross `session.run`: ORT 1.32 has no numpy type for them."""
    values = {name: ort_value(array) for name, array in feeds.items()}
    names = [o.name for o in session.get_outputs()]
    results = session.run_with_ort_values(names, values)
    return {name: _to_numpy(value) for name, value in zip(names, results, strict=True)}


def ort_value(array: Any) -> Any:
    """An array, of any dtype but string, as a value of ONNX Runtime's."""
    import onnx_ir as ir
    import onnxruntime as ort

    if array.dtype.kind == "V" or "float8" in array.dtype.name:
        raw = array.view("uint16" if array.dtype.itemsize == 2 else "uint8")
        return ort.OrtValue.ortvalue_from_numpy_with_onnx_type(raw, ir.DataType.from_numpy(array.dtype).value)
    return ort.OrtValue.ortvalue_from_numpy(array)


def _to_numpy(value: Any) -> Any:
    import numpy as np
    import onnx_ir as ir

    kind = value.data_type().removeprefix("tensor(").removesuffix(")").upper()
    if "BFLOAT16" not in kind and "8E" not in kind:
        return value.numpy()
    raw = ctypes.string_at(value.data_ptr(), value.tensor_size_in_bytes())
    return np.frombuffer(raw, ir.DataType[kind].numpy()).reshape(value.shape())


def run_error(error: Exception) -> Exception:
    """What ONNX Runtime raised in a run as an error of graphkit's."""
    if isinstance(error, BadSample):
        return error
    text = reason(error)
    if type(error).__name__ == "InvalidArgument":
        return BadSample(f"ONNX Runtime refuses the inputs: {text}")
    if "bad_alloc" in text or "Failed to allocate memory" in text:
        return OutOfMemory(f"ONNX Runtime ran out of memory: {text}")
    return ParityFailed(f"ONNX Runtime fails while it runs the model: {text}")


def reason(error: Exception) -> str:
    """The deciding sentence of one of ORT's errors: no codes, no source positions of its own, one line."""
    lines = [line.strip() for line in str(error).splitlines() if line.strip()]
    text = lines[0] if lines else type(error).__name__
    while text.startswith("[ONNXRuntimeError]") or text[:3].strip(": ").isdigit():
        text = text.partition(" : ")[2] or text.removeprefix("[ONNXRuntimeError]").strip()
    code, _, rest = text.partition(" : ")
    if rest and code.replace("_", "").isupper():
        text = rest
    return re.sub(r"^Load model from .*? failed:\s*", "", text)[:400]  # the path is a temporary file of ours
