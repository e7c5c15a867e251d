"""An ONNX file: what its header says, and its graph."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Mapping
from pathlib import Path

from graphkit.analyze.inference import Table
from graphkit.analyze.inspection import Inspection, weighed
from graphkit.analyze.summary import summarise
from graphkit.shapes import TensorSpec
from graphkit.view import ModelView, TypeView, read
from graphkit.view.dtypes import BY_NAME
from graphkit.view.sources import ExternalSource


def look_at(path: Path, dims: Mapping[str, int]) -> Inspection:
    """What an ONNX file is. Missing external data is said, and is no error.

    Raises:
        FileMissing, CorruptFile, UnsafePath, UnknownName: as `inspection.inspect`.
    """
    view = read(path)
    summary = summarise(view, dims)
    operators = Counter(
        op if not domain else f"{domain}:{op}"
        for graph in view.graphs()
        for op, domain in zip(graph.ops, graph.domains, strict=True)
    )
    ranked = tuple(sorted(operators.items(), key=lambda row: (-row[1], row[0])))
    inputs = tuple(_spec(summary.table, v) for v in view.graph.inputs if v not in view.graph.initializers)
    outputs = tuple(_spec(summary.table, v) for v in view.graph.outputs)
    by_dtype, external, mistakes = _weights(view)
    missing = [name for name, there in external.items() if not there]
    notes = list(summary.table.shared.notes)
    notes.extend(f"the weights in {name} are missing: their values are unknown, all else is not" for name in missing)
    notes.extend(mistakes)
    if view.trainings:
        notes.append(f"{view.trainings} training graphs are not looked at")
    return Inspection(
        path.name, "ONNX", path.stat().st_size, tuple(_facts(view)), inputs, outputs, ranked,
        weighed(by_dtype, external), notes=tuple(notes), graph=summary,
    )  # fmt: skip


def _facts(view: ModelView) -> Iterator[tuple[str, str]]:
    opsets = ", ".join(f"{domain or 'ai.onnx'} {version}" for domain, version in view.opsets.items())
    yield "IR version", str(view.ir_version)
    yield "opsets", opsets or "none"
    producer = " ".join(part for part in view.producer if part)
    yield "producer", producer or "not stated"
    origin = _origin(view)
    if origin:
        yield "origin", origin


def _origin(view: ModelView) -> str:
    """What graphkit recorded of the model's source, and what was done since."""
    text = view.metadata.get("graphkit.origin")
    if not text:
        return ""
    import json

    try:
        origin = json.loads(text)
        parts = [f"{origin['kind']} {origin['name']}".strip()]
        if origin.get("sha256"):
            parts.append(f"sha256 {origin['sha256'][:12]}")
        parts += [f"{name} {version}" for name, version in origin.get("versions", {}).items()]
        parts += [f"via {rung['name']}" for rung in origin.get("rungs", ())[-1:]]
        parts += [str(step) for step in origin.get("steps", ())]
        return ", ".join(parts)
    except (ValueError, KeyError, TypeError, AttributeError, RecursionError):
        return "damaged"


def _spec(table: Table, value: int) -> TensorSpec:
    """An input or output, with the shape that follows from the graph."""
    tensor, type_ = table.tensors[value], table.graph.types.get(value)
    dtype = tensor.dtype or (None if type_ is None else _dtype(type_))
    shape = None
    if tensor.shape is not None:
        shape = tuple(size if isinstance(size, int | None) else str(size) for size in tensor.shape)
    return TensorSpec(table.graph.values[value], dtype, shape)


def _dtype(type_: TypeView) -> str | None:
    """A dtype, or what kind of value it is: `sequence(float32)`."""
    if type_.kind in ("tensor", ""):
        return type_.dtype
    if type_.element is None:
        return type_.kind
    return f"{type_.kind}({_dtype(type_.element) or '?'})"


def _weights(view: ModelView) -> tuple[dict[str, tuple[int, int, int]], dict[str, bool], list[str]]:
    """Tensors, elements and bytes by dtype; external files and whether they are there; what is wrong with them."""
    by_dtype: dict[str, tuple[int, int, int]] = {}
    external: dict[str, bool] = {}
    needed: dict[str, int] = {}
    sizes: dict[str, int] = {}
    for weight in view.weights():
        count, elements, nbytes = by_dtype.get(weight.dtype, (0, 0, 0))
        size = weight.size
        known = BY_NAME.get(weight.dtype)
        stored = -(-size * known.bits // 8) if known is not None and known.bits else weight.length
        by_dtype[weight.dtype] = count + 1, elements + size, nbytes + stored
        if isinstance(weight.source, ExternalSource):
            location = weight.location or ""
            if location not in external:
                external[location] = not weight.missing
                if external[location] and weight.source.problem is None:
                    sizes[location] = weight.source.size()
            needed[location] = max(needed.get(location, 0), weight.offset + weight.length)
    short = [
        f"{location} holds {sizes[location]} bytes, but weights end at byte {needed[location]}: it was cut off"
        for location in sizes
        if needed[location] > sizes[location]
    ]
    return by_dtype, external, short
