"""A TensorRT engine: its header, the kernels that it names, and the sidecar that graphkit wrote beside it.

An engine is a program: nothing here loads one, with or without a GPU.
"""

from __future__ import annotations

import json
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from graphkit.analyze.inspection import EngineLayer, Inspection
from graphkit.engine import kernels, plan
from graphkit.engine.kernels import Kernel
from graphkit.errors import GraphkitError
from graphkit.model import file_sha256
from graphkit.shapes import TensorSpec

_NAMES = {"tensorrt-rtx": "TensorRT-RTX engine", "tensorrt": "TensorRT engine"}


@dataclass(slots=True)
class _Said:
    """What the sidecar adds."""

    facts: list[tuple[str, str]] = field(default_factory=list)
    inputs: tuple[TensorSpec, ...] | None = None
    outputs: tuple[TensorSpec, ...] | None = None
    kernels: tuple[Kernel, ...] | None = None


def look_at(path: Path) -> Inspection:
    """What an engine says of itself. The sidecar is believed where the sha256 that it states is the file's.

    Raises:
        CorruptFile: it was cut off.
    """
    header = plan.read(path)
    facts = [("version", f"{header.version}; no other release reads it")]
    notes: list[str] = []
    if header.targets:
        facts.append(("targets", "compute capability " + ", ".join(header.targets)))
    else:
        notes.append("the header of a TensorRT engine does not say for which GPU it was built")
    facts.append(("size", "as the header says" if header.size_ok else "not stated by the header"))
    said = _beside(path, header.size, notes)
    facts.extend(said.facts)
    if header.kind == "tensorrt-rtx":
        found = kernels.in_engine(path, header.version)
        if found is None:
            notes.append(f"where {header.version} keeps the layers of its kernels is not known")
    else:
        found = said.kernels
    layers = None if found is None else _layers(found, path, notes)
    if layers:
        named = len({node for each in layers for node in each.nodes})
        facts.append(("kernels", f"{len(layers)}, of {named} ONNX nodes [best effort; --layers lists them]"))
    return Inspection(
        path.name, _NAMES[header.kind], header.size, tuple(facts), said.inputs, said.outputs,
        notes=tuple(notes), engine_layers=layers or None,
    )  # fmt: skip


def _beside(path: Path, size: int, notes: list[str]) -> _Said:
    """What the sidecar says, if it is of this engine; why it was not used goes to `notes`."""
    said = _Said()
    name = f"{path.name}.json"
    sidecar = _sidecar(path)
    if sidecar is None:
        notes.append(f"signature unknown: there is no {name} that graphkit wrote beside it")
        return said
    try:
        stated = sidecar["engine"]
        if stated["size"] != size:
            notes.append(f"{name} is of another engine ({stated['size']} bytes): it was not used")
        elif stated["sha256"] != file_sha256(path):
            notes.append(f"{name} is of another engine of the same size (its sha256 differs): it was not used")
        else:
            inputs, outputs = (_specs(sidecar["model"]["signature"][side]) for side in ("inputs", "outputs"))
            rows = sidecar.get("kernels")
            said = _Said(_facts(sidecar), inputs, outputs, rows and tuple(map(Kernel.from_json, rows)))
    except (KeyError, TypeError, AttributeError, ValueError) as error:
        notes.append(f"{name} is damaged: it was not used ({error!r})")
    return said


def _sidecar(path: Path) -> dict[str, Any] | None:
    beside = path.with_name(f"{path.name}.json")
    try:
        content = json.loads(beside.read_bytes())
    except (OSError, ValueError, RecursionError):
        return None
    return content if isinstance(content, dict) and content.get("schema") == "graphkit.engine/1" else None


def _specs(rows: list[dict[str, Any]]) -> tuple[TensorSpec, ...]:
    return tuple(map(TensorSpec.from_json, rows))


def _facts(sidecar: dict[str, Any]) -> list[tuple[str, str]]:
    model, engine = sidecar["model"], sidecar["engine"]
    facts = [
        ("built from", f"{model['origin']['kind']} {model['origin']['name']}".strip()),
        ("model", f"{model['nodes']} nodes, opset {model['opset']}, sha256 {str(model['sha256'])[:12]}"),
        ("layers", str(engine["layers"])),
        ("precision", _precision(sidecar.get("precision"))),
        ("TF32", "on" if sidecar.get("tf32") else "off"),
    ]
    if sidecar.get("targets"):
        facts.append(("built for", ", ".join(map(str, sidecar["targets"]))))
    for number, profile in enumerate(sidecar.get("profiles") or (), 1):
        facts.append((f"profile {number}", ", ".join(_sizes(name, sizes) for name, sizes in profile.items())))
    if model["origin"].get("sha256"):
        facts.append(("source", f"sha256 {str(model['origin']['sha256'])[:12]}"))
    if sidecar.get("weights"):
        facts.append(("refittable", f"{len(sidecar['weights'])} weights"))
    return facts


def _sizes(name: str, sizes: dict[str, list[int]]) -> str:
    points = ("x".join(map(str, sizes[point])) or "scalar" for point in ("min", "opt", "max"))
    return f"{name} {' '.join(points)}"


def _precision(said: Any) -> str:
    """`compute float16 12, float32 2 layers; weights float16 4864 bytes`."""
    if not isinstance(said, dict):
        return str(said)
    rows = (("compute", "layers"), ("weights", "bytes"))
    parts = (
        f"{what} {', '.join(f'{dtype} {count}' for dtype, count in said[what].items())} {unit}"
        for what, unit in rows
        if said.get(what)
    )
    return "; ".join(parts) or "not stated"


# --- kernels -----------------------------------------------------------------------------------------------------


def _layers(found: tuple[Kernel, ...], path: Path, notes: list[str]) -> tuple[EngineLayer, ...]:
    """Kernels joined to the user's lines, by the ONNX file that convert wrote beside the engine."""
    sources = _sources(path.with_name(f"{path.name}.onnx"), notes)
    return tuple(
        EngineLayer(
            each.name, each.kind, each.dtype, each.nodes,
            tuple(dict.fromkeys(source for node in each.nodes for source in sources.get(node, ()))),
        )
        for each in found
    )  # fmt: skip


def _sources(graph: Path, notes: list[str]) -> dict[str, tuple[str, ...]]:
    """The user's lines by the name of the node."""
    if not graph.is_file():
        return {}
    from graphkit.view import read

    try:
        return {
            node.name: tuple(map(str, node.provenance))
            for each in read(graph).graphs()
            for node in each.nodes
            if node.name
        }
    except GraphkitError as error:
        notes.append(f"{graph.name} cannot be read: {error.message}")
        return {}
