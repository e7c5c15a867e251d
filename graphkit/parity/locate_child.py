"""The child's side of `taps`: runs both graphs with some of their tensors as outputs and measures how far these are
apart. The tensors themselves never leave the child, and each side is freed before the next chunk."""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from graphkit.errors import GraphkitError
from graphkit.parity import ort_child
from graphkit.parity.compare import is_float, magnitude, tolerance_for

_CHUNK = 1 << 20
_KEPT = 2  # graphs without their weights: both sides of one comparison
_graphs: dict[str, Any] = {}


def measure(
    reference: str, candidate: str, pairs: Sequence[Sequence[str]], inputs: list[dict[str, str]]
) -> list[dict[str, Any] | None]:
    """Run both graphs up to the named tensors.

    Args:
        reference, candidate: `.onnx` files; their folders are ours, and a file is written beside each.
        pairs: Name of each tensor in the reference, and in the candidate.
        inputs: As of `ort_child.run`.

    Returns:
        The fields of a `TensorError` that only the values tell, for each pair; None for what is no tensor.

    Raises:
        InvalidExport, BadSample, ParityFailed: one side cannot be loaded or run; the message says which.
    """
    from graphkit.tensor_files import read_tensors

    feeds = read_tensors(inputs)
    expected = run_to(reference, [r for r, _ in pairs], feeds, "reference")
    found = run_to(candidate, [c for _, c in pairs], feeds, "candidate")
    return [apart(expected[r], found[c]) if r in expected and c in found else None for r, c in pairs]


def measure_files(
    reference: str, candidate: list[dict[str, str]], inputs: list[dict[str, str]]
) -> list[dict[str, Any] | None]:
    """The same for tensors in files that something else has made, which has the reference's names for them."""
    from graphkit.tensor_files import read_tensors

    found = read_tensors(candidate)
    expected = run_to(reference, list(found), read_tensors(inputs), "reference")
    return [apart(expected[n], found[n]) if n in expected else None for n in found]


def floats(graph: str, names: Sequence[str]) -> dict[str, str]:
    """The dtypes of those of the named tensors that hold floats of 16 or 32 bits, as ONNX Runtime infers them; nothing
    is run.

    Raises: as `measure`.
    """
    try:
        made = _session(graph, names).get_outputs()
    except GraphkitError as error:
        raise type(error)(f"the reference does not run: {error.message}", remedy=error.remedy) from error
    kinds = {"tensor(float)": "float32", "tensor(float16)": "float16", "tensor(bfloat16)": "bfloat16"}
    return {o.name: kinds[o.type] for o in made if o.type in kinds}


# --- running -----------------------------------------------------------------------------------------------------


def run_to(path: str, names: Sequence[str], feeds: Mapping[str, Any], side: str) -> dict[str, Any]:
    """The named tensors of a graph by name; what is no tensor is left out.

    Raises:
        InvalidExport, BadSample, ParityFailed: it cannot be loaded or run; the message begins with `side`.
    """
    try:
        session = _session(path, names)
        lists = [o.name for o in session.get_outputs() if not o.type.startswith("tensor(")]
        if lists:
            session = _session(path, [n for n in names if n not in lists])
        wanted = {i.name for i in session.get_inputs()}
        return ort_child.infer(session, {n: v for n, v in feeds.items() if n in wanted})
    except GraphkitError as error:
        raise type(error)(f"the {side} does not run: {error.message}", remedy=error.remedy) from error


def _session(path: str, names: Sequence[str]) -> Any:
    """A session for the part of a graph that makes the named tensors."""
    tapped = Path(path).with_name("tapped.onnx")
    tapped.write_bytes(_cut(path, names).SerializeToString())
    return ort_child.open_session(str(tapped), optimize=False)


def _cut(path: str, names: Sequence[str]) -> Any:
    import onnx

    if path not in _graphs:
        while len(_graphs) >= _KEPT:
            _graphs.pop(next(iter(_graphs)))
        _graphs[path] = onnx.load(path, load_external_data=False)
    whole = _graphs[path]
    cut = onnx.ModelProto()
    for part in ("ir_version", "producer_name", "producer_version", "domain", "model_version"):
        setattr(cut, part, getattr(whole, part))
    cut.opset_import.extend(whole.opset_import)
    cut.functions.extend(whole.functions)
    graph = whole.graph
    kept, needed = _needed(graph, names)
    cut.graph.name = graph.name or "graph"
    cut.graph.node.extend(graph.node[i] for i in kept)
    cut.graph.initializer.extend(t for t in graph.initializer if t.name in needed)
    cut.graph.sparse_initializer.extend(t for t in graph.sparse_initializer if t.values.name in needed)
    cut.graph.input.extend(v for v in graph.input if v.name in needed)
    cut.graph.output.extend(onnx.ValueInfoProto(name=n) for n in names)
    return cut


def _needed(graph: Any, names: Sequence[str]) -> tuple[list[int], set[str]]:
    """Nodes that the named tensors depend on, in order, and every name that they read."""
    producers = {o: i for i, node in enumerate(graph.node) for o in node.output if o}
    kept: set[int] = set()
    needed = set(names)
    pending = list(names)
    while pending:
        index = producers.get(pending.pop())
        if index is None or index in kept:
            continue
        kept.add(index)
        reads = set(_reads(graph.node[index]))
        pending.extend(reads)
        needed |= reads
    return sorted(kept), needed


def _reads(node: Any) -> Iterator[str]:
    """What a node reads, bodies of If and Loop included; a name of the body's own hides none that matters."""
    yield from (n for n in node.input if n)
    for attribute in node.attribute:
        for body in (*attribute.graphs, *([attribute.g] if attribute.HasField("g") else [])):
            yield from (o.name for o in body.output)
            for inner in body.node:
                yield from _reads(inner)


# --- measuring ---------------------------------------------------------------------------------------------------


def apart(reference: Any, candidate: Any) -> dict[str, Any]:
    """The fields of a `TensorError` that only the values tell, and `nbytes`."""
    import numpy as np

    kinds = _name(reference), _name(candidate)
    found: dict[str, Any] = {
        "dtype": kinds[0] if kinds[0] == kinds[1] else f"{kinds[0]} / {kinds[1]}",
        "shape": list(reference.shape), "nbytes": int(reference.nbytes + candidate.nbytes),
        "error": 0.0, "max_abs": None, "l2": None, "atol": 0.0, "rtol": 0.0, "reason": None,
        "reference_range": _range(reference), "candidate_range": _range(candidate),
    }  # fmt: skip
    if reference.shape != candidate.shape:
        reason = f"shape {list(candidate.shape)} instead of {list(reference.shape)}"
        return {**found, "error": math.inf, "reason": reason}
    if "string" in kinds:
        differ = int(np.count_nonzero(reference != candidate))
        said = f"{differ} of {reference.size} strings differ" if differ else None
        return {**found, "error": math.inf if differ else 0.0, "reason": said}
    if not is_float(reference.dtype) and not is_float(candidate.dtype):
        return {**found, **_exactly(reference, candidate)}
    return {**found, **_within(reference, candidate, *kinds)}


def _exactly(reference: Any, candidate: Any) -> dict[str, Any]:
    import numpy as np

    differ = int(np.count_nonzero(reference != candidate))
    wide = reference.astype(np.float64), candidate.astype(np.float64)
    gap = np.abs(wide[0] - wide[1])
    return {
        "error": math.inf if differ else 0.0,
        "max_abs": float(gap.max(initial=0)),
        "l2": _ratio(float(np.square(gap).sum()), float(np.square(wide[0]).sum())),
        "reason": f"{differ} of {reference.size} elements differ" if differ else None,
    }


def _within(reference: Any, candidate: Any, *kinds: str) -> dict[str, Any]:
    import numpy as np

    if is_float(reference.dtype) != is_float(candidate.dtype):
        return {"error": math.inf, "reason": f"dtype {kinds[1]} instead of {kinds[0]}"}
    atol, rtol = tolerance_for(kinds[0], kinds[1], magnitude(reference) if reference.size else 1.0)
    error = largest = gaps = sizes = 0.0
    elsewhere = 0
    wide = np.complex128 if "complex" in kinds[0] or "complex" in kinds[1] else np.float64
    flat = reference.reshape(-1), candidate.reshape(-1)
    with np.errstate(invalid="ignore", over="ignore"):
        for start in range(0, reference.size, _CHUNK):
            r, c = (side[start : start + _CHUNK].astype(wide) for side in flat)
            both = np.isfinite(r) & np.isfinite(c)
            elsewhere += int(np.count_nonzero(~(both | (r == c) | (np.isnan(r) & np.isnan(c)))))
            gap, size = np.abs(c - r)[both], np.abs(r)[both]
            largest = max(largest, float(gap.max(initial=0)))
            error = max(error, float((gap / (atol + rtol * size)).max(initial=0)))
            gaps, sizes = gaps + float(np.square(gap).sum()), sizes + float(np.square(size).sum())
    reason = f"NaN or infinity differs at {elsewhere} of {reference.size} elements" if elsewhere else None
    return {
        "error": math.inf if elsewhere else error, "max_abs": largest, "l2": _ratio(gaps, sizes),
        "atol": atol, "rtol": rtol, "reason": reason,
    }  # fmt: skip


def _ratio(gap: float, size: float) -> float:
    return math.sqrt(gap / size) if size else (0.0 if not gap else math.inf)


def _range(values: Any) -> list[float] | None:
    import numpy as np

    if values.dtype.kind in "OUSc" or not values.size:
        return None
    wide = values.astype(np.float32) if is_float(values.dtype) and values.dtype.itemsize < 4 else values
    finite = np.isfinite(wide)
    if not finite.any():
        return None
    chosen = wide[finite]
    return [float(chosen.min()), float(chosen.max())]


def _name(values: Any) -> str:
    return "string" if values.dtype.kind in "OUS" else str(values.dtype.name)
