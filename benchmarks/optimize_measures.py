"""What is measured on a graph and on what became of it; each in a child, as one line of JSON.

`python -m benchmarks.optimize_measures MEASURE CORPUS NAME FILE ...`, of the graph NAME and what became of it:
`graph` (nodes, foreign operators, signature, equality at the three shapes), `layers` and `built` (TensorRT-RTX),
`built_marked` (with the mark that `graphkit optimize --target rtx` sets last of all), `padding` (rows with and without
a key), `latency` (of several files), `paired` (of two files).
"""

from __future__ import annotations

import json
import statistics
import sys
import time
from collections import Counter
from collections.abc import Callable
from pathlib import Path
from typing import Any

from fixtures.corpus_inputs import Entry, entries, feeds

OF_SCALE = 1e-5
RUNS = 7
"""Rounds over all files, which say what the best peer is."""
PAIRS = 41


def main() -> int:
    """Measure; the arguments are those of the module's description."""
    what, corpus, name, *given = sys.argv[1:]
    entry = next(entry for entry in entries(Path(corpus)) if entry.name == name)
    before, files = Path(corpus) / entry.file, [Path(file) for file in given]
    measures: dict[str, Callable[[], dict[str, Any]]] = {
        "graph": lambda: graph(before, files[0], entry),
        "layers": lambda: layers(files[0]),
        "built": lambda: layers(files[0], build_for=entry),
        "built_marked": lambda: layers(_marked(files[0]), build_for=entry),
        "padding": lambda: padding(before, files[0], entry),
        "latency": lambda: latency(before, entry, files),
        "paired": lambda: paired(entry, files[0], files[1]),
    }
    print(json.dumps(measures[what]()))
    return 0


def graph(before: Path, after: Path, entry: Entry) -> dict[str, Any]:
    """What became of the nodes, and whether it computes the same.

    `nodes` without weights in any spelling (`Constant`; `ConstantOfShape` of a constant shape), `counted` with the
    latter, `foreign` (operators of other domains), `wrong` ("" where nothing is), `largest` difference of scale.
    """
    import onnx

    from fixtures.patterns import contract
    from fixtures.patterns_build import ops_of

    old, new = onnx.load(before), onnx.load(after)
    ops = ops_of(new)
    found = {
        "nodes": ops.total - compact_weights(new),
        "counted": ops.total,
        "foreign": dict(ops.custom),
        "ops": dict(ops.counts),
        "bytes": after.stat().st_size,
    }
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


def compact_weights(model: Any) -> int:
    """`ConstantOfShape` nodes of a constant shape: weights of one value, in a few bytes; those of subgraphs too."""

    def counted(graph: Any, outer: frozenset[str]) -> int:
        known = outer | {tensor.name for tensor in graph.initializer}
        known |= {name for node in graph.node if node.op_type == "Constant" for name in node.output}
        total = 0
        for node in graph.node:
            total += node.op_type == "ConstantOfShape" and node.domain in ("", "ai.onnx") and node.input[0] in known
            for attribute in node.attribute:
                held = [attribute.g] if attribute.HasField("g") else []
                total += sum(counted(inner, known) for inner in (*held, *attribute.graphs))
        return total

    return counted(model.graph, frozenset())


def layers(file: Path, build_for: Entry | None = None) -> dict[str, Any]:
    """`layers` after parsing, how many are `computing` with more than constants, and their `types`; `error` where
    TensorRT-RTX refuses; `built` where it was asked to.

    Args:
        file: The graph.
        build_for: What it reads, where an engine is to be built: for SM86, from the smallest to the largest of the
            three sets of sizes.
    """
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
    found: dict[str, Any] = {"layers": network.num_layers, "computing": _computing(network), "types": dict(types)}
    if build_for is not None:
        found |= _built(trt, builder, network, logger.said, build_for)
    return found


def _computing(network: Any) -> int:
    """Layers that are no constants and read more than constants: a `ConstantOfShape` is four layers that are not."""
    known, count = set[str](), 0
    for index in range(network.num_layers):
        layer = network.get_layer(index)
        given = [layer.get_input(at) for at in range(layer.num_inputs)]
        if all(tensor is None or tensor.name in known for tensor in given):
            known |= {layer.get_output(at).name for at in range(layer.num_outputs)}
        else:
            count += 1
    return count


def padding(before: Path, after: Path, entry: Entry) -> dict[str, Any]:
    """`with_key` and `without_key`: largest difference of scale on rows that see a key, and on rows that see none.

    The sequences are padded on the left, and the first one is nothing but padding. A row of a decoder sees the keys up
    to its own place, a row of an encoder sees all. `rows`: how many there are of each.
    """
    import numpy as np

    given = feeds(entry, 0, padding="left")
    mask = given["attention_mask"]
    mask[0] = 0
    causal = entry.name.startswith(("llama", "gpt2"))
    length = given["input_ids"].shape[1]
    sees = (np.cumsum(mask, 1) if causal else np.broadcast_to(mask.sum(1, keepdims=True), mask.shape))[:, -length:] > 0
    expected, got = (_session(file, optimised=False).run(None, given)[0] for file in (before, after))
    found: dict[str, Any] = {"rows": [int(sees.sum()), int((~sees).sum())]}
    scale = float(np.abs(expected[sees]).max(initial=1e-6))
    for name, rows in (("with_key", sees), ("without_key", ~sees)):
        if not np.array_equal(np.isfinite(expected[rows]), np.isfinite(got[rows])):
            found[name] = "finite on one side only"
            continue
        both = np.isfinite(expected[rows])
        found[name] = float(np.abs(expected[rows][both] - got[rows][both]).max(initial=0.0)) / scale
    return found


def latency(before: Path, entry: Entry, files: list[Path]) -> dict[str, Any]:
    """`default`: seconds by file at ONNX Runtime's default level, medians of a few interleaved runs."""
    given = feeds(entry, 0)
    sessions = {}
    for file in (before, *files):
        try:
            sessions[str(file)] = _session(file, optimised=True)
            sessions[str(file)].run(None, given)
        except Exception as error:  # what does not run has no latency
            sessions.pop(str(file), None)
            print(f"{file.name}: {str(error).splitlines()[0][:120]}", file=sys.stderr)
    taken = {name: list[float]() for name in sessions}
    for _ in range(RUNS):
        for name, session in sessions.items():
            taken[name].append(_seconds(session, given))
    return {"default": {name: statistics.median(each) for name, each in taken.items()}}


def paired(entry: Entry, ours: Path, peer: Path) -> dict[str, Any]:
    """`ratio` of ours over the peer's, `low` and `high` (quartiles): alternating runs at the default level."""
    given = feeds(entry, 0)
    sessions = [_session(file, optimised=True) for file in (ours, peer)]
    for session in sessions * 2:
        session.run(None, given)
    ratios = []
    for which in range(PAIRS):
        order = sessions if which % 2 else sessions[::-1]
        taken = {id(session): _seconds(session, given) for session in order}
        ratios.append(taken[id(sessions[0])] / taken[id(sessions[1])])
    low, middle, high = statistics.quantiles(ratios, n=4)
    return {"ratio": middle, "low": low, "high": high, "pairs": PAIRS}


def _seconds(session: Any, given: Any) -> float:
    started = time.perf_counter()
    session.run(None, given)
    return time.perf_counter() - started


def _marked(file: Path) -> Path:
    """A copy whose attention may be taken apart: what `optimize --target rtx` adds, and ONNX's checker refuses."""
    from graphkit.capture import onnx_file
    from graphkit.capture.request import CaptureRequest
    from graphkit.marks import mark

    made = file.with_suffix(".marked.onnx")
    mark(onnx_file.read(file, CaptureRequest())).save(made, durable=False)
    return made


def _built(trt: Any, builder: Any, network: Any, said: list[str], entry: Entry) -> dict[str, Any]:
    config = builder.create_builder_config()
    config.num_compute_capabilities = 1
    config.set_compute_capability(trt.ComputeCapability.SM86, 0)
    profile = builder.create_optimization_profile()
    ordered = {name: sorted(sizes[name] for sizes in entry.sizes) for name in entry.sizes[0]}
    points = [{name: sizes[which] for name, sizes in ordered.items()} for which in range(3)]
    for given in entry.inputs:
        if any(isinstance(dim, str) for dim in given.shape):
            profile.set_shape(given.name, *(given.dims(point) for point in points))
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


if __name__ == "__main__":
    sys.exit(main())
