"""The child's side of `ranges`: runs a graph segment by segment and measures what each makes."""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from graphkit.errors import ParityFailed
from graphkit.parity import ort_child

_CHUNK = 1 << 17
_NORMAL = 2.0**-14
"""The least normal float16."""


def trace(
    graph: str,
    watched: Sequence[str],
    probes: Sequence[str],
    samples: Sequence[list[dict[str, str]]],
    segments: Sequence[int],
    together: int,
) -> dict[str, Any]:
    """Run a graph on samples.

    Args:
        graph: The `.onnx` file; its folder is ours, and files are written beside it.
        watched: Float32 tensors to measure.
        probes: Tensors whose last axis holds the largest |x| of tensors in bodies; those over all other axes are kept.
        samples: As of `ort_child.run`, each.
        segments: How many nodes to run at once, each time.
        together: How many samples go through a segment before the next one is loaded.

    Returns:
        `ranges`: the fields of a `Range`, by name; `probes`: the largest |x| of each, None where it is not finite.

    Raises:
        InvalidExport, BadSample, ParityFailed: a segment cannot be loaded or run.
    """
    import onnx

    whole = onnx.load(graph, load_external_data=False)
    plan = _Plan(whole, Path(graph), {*watched, *probes}, segments)
    tallies: dict[str, Tally] = {}
    peaks: dict[str, Any] = {}
    for start in range(0, len(samples), together):
        _run(plan, samples[start : start + together], frozenset(watched), tallies, peaks)
    ranges = {name: tally.to_json() for name, tally in tallies.items()}
    return {"ranges": ranges, "probes": {n: [_finite(v) for v in values.tolist()] for n, values in peaks.items()}}


def _run(
    plan: _Plan,
    samples: Sequence[list[dict[str, str]]],
    watched: frozenset[str],
    tallies: dict[str, Tally],
    peaks: dict[str, Any],
) -> None:
    import numpy as np

    from graphkit.tensor_files import read_tensors

    states = []
    for entries in samples:
        tensors = read_tensors(entries)
        for name in watched & tensors.keys():
            tallies.setdefault(name, Tally()).add(tensors[name])
        states.append({name: _value(tensor) for name, tensor in tensors.items()})
    for segment in plan.segments():
        session = segment.open(states)
        for state in states:
            for name, value in _infer(session, segment.outputs, state).items():
                if name in watched and value.is_tensor():
                    tallies.setdefault(name, Tally()).add(value.numpy())
                elif name in plan.probes:
                    rows = value.numpy()
                    largest = rows.reshape(-1, rows.shape[-1]).max(axis=0, initial=0)
                    peaks[name] = np.maximum(peaks[name], largest) if name in peaks else largest
                if name in segment.kept:
                    state[name] = value
            for name in segment.dropped & state.keys():
                del state[name]


def _value(tensor: Any) -> Any:
    import onnx_ir as ir
    import onnxruntime as ort

    if tensor.dtype.kind == "V" or "float8" in tensor.dtype.name or "bfloat16" in tensor.dtype.name:
        raw = tensor.view("uint16" if tensor.dtype.itemsize == 2 else "uint8")
        kind = ir.DataType.from_numpy(tensor.dtype).value
        return ort.OrtValue.ortvalue_from_numpy_with_onnx_type(raw, kind)
    return ort.OrtValue.ortvalue_from_numpy(tensor)


def _infer(session: Any, outputs: Sequence[str], state: Mapping[str, Any]) -> dict[str, Any]:
    try:
        feeds = {i.name: state[i.name] for i in session.get_inputs()}
        return dict(zip(outputs, session.run_with_ort_values(list(outputs), feeds), strict=True))
    except MemoryError:
        raise
    except Exception as error:  # ORT's errors share no base class
        why = f"no value for `{error.args[0]}`" if isinstance(error, KeyError) else ort_child.reason(error)
        raise ParityFailed(
            f"the model does not run on a sample: {why}", remedy="samples that fit its inputs"
        ) from error


# --- segments ----------------------------------------------------------------------------------------------------


class _Plan:
    """A graph cut into segments.

    Args:
        whole: The graph, its large weights in a file beside it.
        path: Where it is.
        wanted: Tensors that are looked at.
        sizes: Number of nodes of each segment.
    """

    def __init__(self, whole: Any, path: Path, wanted: set[str], sizes: Sequence[int]) -> None:
        self.whole, self.path, self.wanted, self.sizes = whole, path, wanted, sizes
        self.probes = wanted - {v.name for v in whole.graph.input}
        self.reads = [set(_reads(node)) for node in whole.graph.node]
        self.last = {name: i for i, names in enumerate(self.reads) for name in names}

    def segments(self) -> Iterator[_Segment]:
        start = 0
        for size in self.sizes:
            segment = _Segment(self, start, start + size)
            if segment.outputs:  # else nothing of it is looked at or read later
                yield segment
            start += size


class _Segment:
    """Some nodes that follow one another.

    Attributes:
        outputs: What is looked at, or read later.
        kept: What is read later.
        dropped: What is read here for the last time.
    """

    def __init__(self, plan: _Plan, start: int, end: int) -> None:
        self._plan, self._start, self._end = plan, start, end
        made = [o for node in plan.whole.graph.node[start:end] for o in node.output if o]
        self.kept = frozenset(o for o in made if plan.last.get(o, -1) >= end)
        self.outputs = [o for o in made if o in plan.wanted or o in self.kept]
        self.dropped = {n for names in plan.reads[start:end] for n in names if plan.last[n] < end}
        self._read = {n for names in plan.reads[start:end] for n in names} - set(made)

    def open(self, states: Sequence[Mapping[str, Any]]) -> Any:
        """A session; `states` have what earlier segments made of each sample."""
        import onnx

        whole = self._plan.whole
        cut = onnx.ModelProto(ir_version=whole.ir_version)
        cut.opset_import.extend(whole.opset_import)
        cut.functions.extend(whole.functions)
        graph = cut.graph
        graph.name = "segment"
        graph.node.extend(whole.graph.node[self._start : self._end])
        graph.initializer.extend(t for t in whole.graph.initializer if t.name in self._read)
        graph.sparse_initializer.extend(t for t in whole.graph.sparse_initializer if t.values.name in self._read)
        weights = {t.name for t in graph.initializer}
        graph.input.extend(v for v in whole.graph.input if v.name in self._read)
        given = {v.name for v in graph.input} | weights
        graph.input.extend(_described(n, [s[n] for s in states]) for n in sorted(self._read - given) if n in states[0])
        graph.output.extend(onnx.ValueInfoProto(name=n) for n in self.outputs)
        path = self._plan.path.with_name("segment.onnx")
        path.write_bytes(cut.SerializeToString())
        return ort_child.open_session(str(path), optimize=False)


def _described(name: str, values: Sequence[Any]) -> Any:
    """The type of a tensor; sizes that differ between samples are left open. The others help ONNX Runtime: it does not
    load a Resize whose sizes are of unknown number."""
    from onnx import TensorProto, helper

    kind = values[0].data_type()
    dtype = getattr(TensorProto, kind[kind.rindex("(") + 1 : kind.index(")")].upper())
    if not values[0].is_tensor():
        return helper.make_tensor_sequence_value_info(name, dtype, None)
    shapes = [tuple(v.shape()) for v in values]
    if len({len(shape) for shape in shapes}) > 1:
        return helper.make_tensor_value_info(name, dtype, None)
    dims = [sizes[0] if len(set(sizes)) == 1 else None for sizes in zip(*shapes, strict=True)]
    return helper.make_tensor_value_info(name, dtype, dims)


def _reads(node: Any) -> Iterator[str]:
    """What a node reads, its bodies included; a name of a body's own hides none that matters."""
    yield from (n for n in node.input if n)
    for attribute in node.attribute:
        for body in (*attribute.graphs, *([attribute.g] if attribute.HasField("g") else [])):
            yield from (o.name for o in body.output)
            for inner in body.node:
                yield from _reads(inner)


# --- measuring ---------------------------------------------------------------------------------------------------


class Tally:
    """What was seen of a tensor so far."""

    def __init__(self) -> None:
        self.largest = 0.0
        self.smallest = math.inf
        self.elements = self.seen = self.subnormal = self.bad = 0

    def add(self, tensor: Any) -> None:
        flat = tensor.reshape(-1)
        self.elements = max(self.elements, flat.size)
        for start in range(0, flat.size, _CHUNK):
            self._add(flat[start : start + _CHUNK])

    def _add(self, chunk: Any) -> None:
        import numpy as np

        size = np.abs(chunk)
        largest = float(size.max())
        if not math.isfinite(largest):
            finite = size[np.isfinite(size)]
            self.bad += size.size - finite.size
            size, largest = finite, float(finite.max(initial=0))
        self.largest = max(self.largest, largest)
        tiny = size[size < _NORMAL]
        if tiny.size:
            tiny = tiny[tiny > 0]
            self.subnormal += tiny.size
            self.seen += tiny.size + int(np.count_nonzero(size >= _NORMAL))
            self.smallest = min(self.smallest, float(tiny.min(initial=math.inf)))
        else:
            self.seen += size.size
        if self.smallest > _NORMAL and size.size:
            self.smallest = min(self.smallest, float(size.min(where=size > 0, initial=math.inf)))

    def to_json(self) -> dict[str, Any]:
        smallest = self.smallest if math.isfinite(self.smallest) else None
        return {
            "largest": self.largest, "smallest": smallest, "elements": self.elements,
            "seen": self.seen, "subnormal": self.subnormal, "bad": self.bad,
        }  # fmt: skip


def _finite(value: float) -> float | None:
    return value if math.isfinite(value) else None
