"""How large and how small the tensors of a graph become: it is run in float32, and every tensor looked at once.

The graph is run in segments: what a segment makes is measured and thrown away, but for what later ones read. So each
node runs once for a sample, and neither all tensors nor all weights are in memory together.
"""

from __future__ import annotations

import tempfile
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from graphkit import isolate
from graphkit.parity.taps import split
from graphkit.precision.half_types import bodies, is_float
from graphkit.shapes import evaluate

if TYPE_CHECKING:
    import numpy as np
    import onnx_ir as ir

    from graphkit.model import Model

    Sample = Mapping[str, np.ndarray[Any, Any]]

BYTES_AT_ONCE = 256_000_000
"""Of the tensors of one segment, and of what is kept between two."""

NODES_AT_ONCE = 1000
_MOST_TOGETHER = 16  # samples that go through a segment before the next one is loaded
_UNKNOWN = 4_000_000  # bytes that a tensor of unknown shape is taken for
_CHILD = "graphkit.precision.ranges_child"


@dataclass(frozen=True, slots=True)
class Range:
    """What was seen of one tensor, over all samples.

    Attributes:
        largest: Of |x|, where finite; 0 where all are zero.
        smallest: Of |x|, where it is finite and not zero; None where there is none.
        elements: In the largest sample.
        seen: Elements that are finite and not zero, in all samples; `subnormal` of them are below 2**-14, the least
            normal float16. (None in bodies of control flow.)
        bad: Elements that are infinite or NaN.
    """

    largest: float
    smallest: float | None = None
    elements: int = 0
    seen: int | None = None
    subnormal: int = 0
    bad: int = 0

    @property
    def share_subnormal(self) -> float:
        return self.subnormal / self.seen if self.seen else 0.0


def trace(model: Model, samples: Sequence[Sample]) -> dict[int, Range]:
    """Run a float32 graph on each sample; what is known of its float32 values afterwards, by `id` of the value.

    Values inside bodies of If, Loop and Scan are there too, with their `largest` alone. A body that never ran has none.

    Raises:
        InvalidExport, BadSample, ParityFailed, NativeCrash, OutOfMemory: the graph cannot be loaded or run.
    """
    from graphkit.precision.half_probes import probed
    from graphkit.tensor_files import write_tensors

    watched = {v.name: v for v in _values(model.ir.graph) if v.name and is_float(v)}
    with_probes, probes = probed(model)
    with tempfile.TemporaryDirectory(prefix="graphkit-ranges-") as name:
        folder = Path(name)
        graph = split(with_probes, folder / "graph")
        written = []
        for position, sample in enumerate(samples):
            (folder / str(position)).mkdir()
            written.append(write_tensors(sample, folder / str(position)))
        found = worker().call(
            f"{_CHILD}:trace",
            graph=str(graph),
            watched=list(watched),
            probes=list(probes),
            samples=written,
            **_segments(with_probes, samples),
        )
    ranges = {id(watched[n]): Range(**entry) for n, entry in found["ranges"].items()}
    for output, values in probes.items():
        for value, largest in zip(values, found["probes"].get(output, ()), strict=False):
            ranges[id(value)] = Range(largest if largest is not None else 0.0, bad=largest is None)
    return ranges


def warm_up() -> None:
    """Start the child and its imports now, while something else is done."""
    worker().start()


def worker() -> isolate.Worker:
    """The child that runs the segments."""
    preload = ("numpy", "onnx", "onnxruntime", "graphkit.tensor_files", _CHILD)
    return isolate.worker("ONNX Runtime (ranges)", preload=preload, without=isolate.FRAMEWORKS)


def _values(graph: ir.Graph) -> Iterator[ir.Value]:
    yield from (v for v in graph.inputs if v.name not in graph.initializers)
    yield from (v for node in graph for v in node.outputs)


def _segments(model: Model, samples: Sequence[Sample]) -> dict[str, Any]:
    """`segments`: how many nodes run together, each time; `together`: how many samples go through a segment before
    the next one is loaded."""
    nodes = list(model.ir.graph)
    sizes = _sizes(model, samples)
    made = [sum(_bytes(v, sizes) for v in node.outputs) for node in nodes]
    ends: dict[int, list[int]] = {}  # outputs by the node that reads them last
    for output, position in {v: i for i, n in enumerate(nodes) for v in reads(n) if v.producer() is not None}.items():
        ends.setdefault(position, []).append(_bytes(output, sizes))
    segments, alive, most = [0], 0, 1
    total = 0
    for position, more in enumerate(made):
        if segments[-1] and (total + more > BYTES_AT_ONCE or segments[-1] >= NODES_AT_ONCE):
            most = max(most, alive)
            segments.append(0)
            total = 0
        segments[-1] += 1
        total += more
        alive += more - sum(ends.get(position, ()))
    return {"segments": segments, "together": min(_MOST_TOGETHER, max(1, BYTES_AT_ONCE // most))}


def reads(node: ir.Node) -> Iterator[ir.Value]:
    """What a node reads, its bodies included."""
    yield from (v for v in node.inputs if v is not None)
    for body in bodies(node):
        yield from body.outputs
        for inner in body:
            yield from reads(inner)


def _sizes(model: Model, samples: Sequence[Sample]) -> dict[str, int]:
    """The largest size of each symbolic dimension."""
    sizes: dict[str, int] = {}
    for spec in model.signature.inputs:
        for axis, dim in enumerate(spec.shape or ()):
            if isinstance(dim, str):
                seen = [s[spec.name].shape[axis] for s in samples if spec.name in s and s[spec.name].ndim > axis]
                sizes[dim] = max([sizes.get(dim, 1), *seen])
    return sizes


def _bytes(value: ir.Value, sizes: Mapping[str, int]) -> int:
    total = 4
    for dim in value.shape if value.shape is not None else (None,):
        known = evaluate(dim if isinstance(dim, int) else getattr(dim, "value", None), sizes)
        if known is None:
            return _UNKNOWN
        total *= known
    return total
