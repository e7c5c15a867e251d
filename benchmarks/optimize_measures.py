"""What is measured on a graph and on what became of it; each in a child, as one line of JSON.

`python -m benchmarks.optimize_measures graph BEFORE AFTER CORPUS NAME`: nodes, foreign operators, signature, equality
at the three shapes. `... layers FILE [--build]`: TensorRT-RTX. `... latency BEFORE CORPUS NAME AFTER ...`: CPU.
"""

from __future__ import annotations

import json
import statistics
import sys
import time
from collections import Counter
from pathlib import Path
from typing import Any

from fixtures.corpus_inputs import Entry, entries, feeds

OF_SCALE = 1e-5
RUNS = 15


def main() -> int:
    """Measure; the arguments are those of the module's description."""
    what, *given = sys.argv[1:]
    if what == "graph":
        found = graph(Path(given[0]), Path(given[1]), _entry(given[2], given[3]))
    elif what == "layers":
        found = layers(Path(given[0]), build="--build" in given)
    else:
        found = latency(Path(given[0]), _entry(given[1], given[2]), [Path(file) for file in given[3:]])
    print(json.dumps(found))
    return 0


def graph(before: Path, after: Path, entry: Entry) -> dict[str, Any]:
    """`nodes`, `foreign` (operators of other domains), `wrong` ("" where nothing is), `largest` difference of scale."""
    import onnx

    from fixtures.patterns import contract
    from fixtures.patterns_build import ops_of

    old, new = onnx.load(before), onnx.load(after)
    ops = ops_of(new)
    found = {"nodes": ops.total, "foreign": dict(ops.custom), "ops": dict(ops.counts), "bytes": after.stat().st_size}
    wrong, largest = contract(old, new), 0.0
    for which in range(1 if entry.name.startswith("light_") else len(entry.sizes)):
        given = feeds(entry, which)
        try:
            expected = _session(before, optimised=False).run(None, given)
        except Exception:  # it did not run as exported: nothing to compare with
            continue
        try:
            got = _session(after, optimised=False).run(None, given)
        except Exception as error:  # ONNX Runtime raises many classes
            return {**found, "wrong": f"at {dict(entry.sizes[which])}: {str(error).splitlines()[0][:240]}"}
        for left, right in zip(expected, got, strict=False):
            if left.shape != right.shape:
                wrong = wrong or f"shape {left.shape} became {right.shape}"
            else:
                largest = max(largest, _of_scale(left, right))
    if largest > OF_SCALE:
        wrong = wrong or f"differs by {largest:.2g} of scale at {OF_SCALE:g}"
    return {**found, "wrong": wrong, "largest": largest}


def layers(file: Path, *, build: bool) -> dict[str, Any]:
    """`layers` after parsing, and their `types`; `error` where TensorRT-RTX refuses; `built` with `--build`."""
    import tensorrt_rtx as trt

    class Quiet(trt.ILogger):  # type: ignore[misc, name-defined, unused-ignore]
        """Keeps what is an error."""

        def __init__(self) -> None:
            super().__init__()
            self.said: list[str] = []

        def log(self, severity: Any, message: str) -> None:
            if severity in (trt.ILogger.ERROR, trt.ILogger.INTERNAL_ERROR):
                self.said.append(message)

    logger = Quiet()
    builder = trt.Builder(logger)
    network = builder.create_network(0)
    parser = trt.OnnxParser(network, logger)
    if not parser.parse_from_file(str(file)):
        errors = [parser.get_error(index) for index in range(parser.num_errors)]
        kinds = sorted({error.node_operator() for error in errors if error.node_operator()})
        said = errors[0].desc().splitlines()[0][:200] if errors else "refused"
        return {"error": f"PARSE {','.join(kinds)}", "said": said}
    types = Counter(str(network.get_layer(index).type).rpartition(".")[2] for index in range(network.num_layers))
    found: dict[str, Any] = {"layers": network.num_layers, "types": dict(types)}
    if build:
        found |= _built(trt, builder, network, logger.said)
    return found


def latency(before: Path, entry: Entry, files: list[Path]) -> dict[str, Any]:
    """Seconds by file name with optimisations off (`off`) and by default (`default`): medians of interleaved runs."""
    given = feeds(entry, 0)
    found: dict[str, Any] = {}
    for label, optimised in (("off", False), ("default", True)):
        sessions = {}
        for file in (before, *files):
            try:
                sessions[str(file)] = _session(file, optimised=optimised)
                sessions[str(file)].run(None, given)
            except Exception as error:  # what does not run has no latency
                sessions.pop(str(file), None)
                print(f"{file.name}: {str(error).splitlines()[0][:120]}", file=sys.stderr)
        taken: dict[str, list[float]] = {name: [] for name in sessions}
        for _ in range(RUNS):
            for name, session in sessions.items():
                started = time.perf_counter()
                session.run(None, given)
                taken[name].append(time.perf_counter() - started)
        found[label] = {name: statistics.median(each) for name, each in taken.items()}
    return found


def _built(trt: Any, builder: Any, network: Any, said: list[str]) -> dict[str, Any]:
    config = builder.create_builder_config()
    config.num_compute_capabilities = 1
    config.set_compute_capability(trt.ComputeCapability.SM86, 0)
    profile = builder.create_optimization_profile()
    for index in range(network.num_inputs):
        tensor = network.get_input(index)
        shape = tuple(tensor.shape)
        if -1 in shape:
            low, best, high = (tuple(size if d == -1 else d for d in shape) for size in (1, 4, 16))
            profile.set_shape(tensor.name, low, best, high)
    config.add_optimization_profile(profile)
    made = builder.build_serialized_network(network, config)
    return {"built": made is not None, "said": said[0][:240] if made is None and said else ""}


def _session(file: Path, *, optimised: bool) -> Any:
    import onnxruntime as ort

    settings = ort.SessionOptions()
    settings.intra_op_num_threads = 1
    settings.log_severity_level = 4
    if not optimised:
        settings.graph_optimization_level = ort.GraphOptimizationLevel.ORT_DISABLE_ALL
    return ort.InferenceSession(file, settings, providers=["CPUExecutionProvider"])


def _of_scale(left: Any, right: Any) -> float:
    import numpy as np

    if left.dtype.kind != "f":
        return 0.0 if np.array_equal(left, right) else float("inf")
    if not np.array_equal(np.isfinite(left), np.isfinite(right)):
        return float("inf")
    both = np.isfinite(left)
    scale = float(np.abs(left[both]).max(initial=1e-6))
    return float(np.abs(left[both].astype(np.float64) - right[both]).max(initial=0.0)) / scale


def _entry(folder: str, name: str) -> Entry:
    return next(entry for entry in entries(Path(folder)) if entry.name == name)


if __name__ == "__main__":
    sys.exit(main())
