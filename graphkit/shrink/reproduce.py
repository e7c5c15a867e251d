"""Runs model.onnx on the inputs beside it; ends with 1 if it fails as README.md says. Needs numpy and onnxruntime."""

from __future__ import annotations

import json
import sys
import zlib
from pathlib import Path
from typing import Any
from urllib.parse import quote

HERE = Path(__file__).resolve().parent


def main() -> int:
    """`parity`: the outputs with ONNX Runtime's optimisations against those without, or against other.onnx; `ort`:
    whether it loads and runs."""
    said = json.loads((HERE / "failure.json").read_text(encoding="utf-8"))
    other = HERE / "other.onnx"
    try:
        candidate = session(HERE / "model.onnx", optimize=not other.exists())
        folders = sorted((HERE / "inputs").glob("*"), key=lambda f: int(f.name))
        found = [run(candidate, folder) for folder in folders]
    except Exception as error:  # ONNX Runtime's errors share no base class
        print(f"FAILS: {error}")
        return 1
    if said["until"] != "parity":
        print("runs")
        return 0
    reference = session(other if other.exists() else HERE / "model.onnx", optimize=False)
    bad = [
        f"inputs/{folder.name}: {line}"
        for folder, outputs, tolerances in zip(folders, found, said["tolerances"], strict=True)
        for line in differences(run(reference, folder), outputs, tolerances)
    ]
    print("\n".join(["FAILS:", *bad]) if bad else "agrees")
    return 1 if bad else 0


def session(path: Path, *, optimize: bool) -> Any:
    """A session on the CPU with two threads."""
    import onnxruntime

    options = onnxruntime.SessionOptions()
    levels = onnxruntime.GraphOptimizationLevel
    options.graph_optimization_level = levels.ORT_ENABLE_ALL if optimize else levels.ORT_DISABLE_ALL
    options.intra_op_num_threads = 2
    options.use_deterministic_compute = True
    options.log_severity_level = 3
    return onnxruntime.InferenceSession(str(path), options, providers=["CPUExecutionProvider"])


def run(model: Any, folder: Path) -> dict[str, Any]:
    """Outputs by name."""
    import numpy

    feeds = {i.name: numpy.load(folder / f"{stem(i.name)}.npy", allow_pickle=False) for i in model.get_inputs()}
    names = [o.name for o in model.get_outputs()]
    return dict(zip(names, model.run(names, feeds), strict=True))


def stem(name: str) -> str:
    """The file of an input: its name, percent-encoded."""
    text = quote(name, safe=" +,@=") if name not in (".", "..") else name.replace(".", "%2E")
    return text if len(text) <= 200 else f"{text[:200]}~{zlib.crc32(name.encode()):08x}"


def differences(reference: dict[str, Any], found: dict[str, Any], tolerances: dict[str, list[float]]) -> list[str]:
    """What is outside |found - reference| <= atol + rtol * |reference|."""
    import numpy

    lines = []
    for name, expected in reference.items():
        value = found[name]
        if expected.shape != value.shape or expected.dtype != value.dtype:
            lines.append(f"{name}: {value.dtype}{value.shape} instead of {expected.dtype}{expected.shape}")
            continue
        atol, rtol = tolerances.get(name, (0.0, 0.0))
        if expected.dtype.kind in "fc":
            equal = numpy.isclose(value, expected, rtol=rtol, atol=atol, equal_nan=True)
        else:
            equal = value == expected
        if not equal.all():
            lines.append(f"{name}: {(~equal).sum()} of {equal.size} elements differ (atol {atol:.2g}, rtol {rtol:.2g})")
    return lines


if __name__ == "__main__":
    sys.exit(main())
