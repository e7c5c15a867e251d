"""A TensorRT engine: its header, and the sidecar that graphkit wrote beside it; without TensorRT."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from graphkit.analyze.inspection import Inspection
from graphkit.engine import plan
from graphkit.shapes import TensorSpec

_NAMES = {"tensorrt-rtx": "TensorRT-RTX engine", "tensorrt": "TensorRT engine"}


def look_at(path: Path) -> Inspection:
    """What an engine says of itself. The sidecar is believed where the size that it states is the file's.

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
    inputs = outputs = None
    sidecar = _sidecar(path)
    if sidecar is None:
        notes.append(f"signature unknown: there is no {path.name}.json that graphkit wrote beside it")
    else:
        try:
            if sidecar["engine"]["size"] != header.size:
                notes.append(
                    f"{path.name}.json is of another engine ({sidecar['engine']['size']} bytes): it was not used"
                )
            else:
                inputs, outputs = (_specs(sidecar["model"]["signature"][side]) for side in ("inputs", "outputs"))
                facts.extend(_facts(sidecar))
        except (KeyError, TypeError, AttributeError) as error:
            notes.append(f"{path.name}.json is damaged: it was not used ({error!r})")
    return Inspection(path.name, _NAMES[header.kind], header.size, tuple(facts), inputs, outputs, notes=tuple(notes))


def _sidecar(path: Path) -> dict[str, Any] | None:
    beside = path.with_name(f"{path.name}.json")
    try:
        content = json.loads(beside.read_bytes())
    except (OSError, ValueError, RecursionError):
        return None
    return content if isinstance(content, dict) and content.get("schema") == "graphkit.engine/1" else None


def _specs(rows: list[dict[str, Any]]) -> tuple[TensorSpec, ...]:
    return tuple(
        TensorSpec(row["name"], row["dtype"], None if row["shape"] is None else tuple(row["shape"])) for row in rows
    )


def _facts(sidecar: dict[str, Any]) -> list[tuple[str, str]]:
    model, engine = sidecar["model"], sidecar["engine"]
    facts = [
        ("built from", f"{model['origin']['kind']} {model['origin']['name']}".strip()),
        ("model", f"{model['nodes']} nodes, opset {model['opset']}, sha256 {str(model['sha256'])[:12]}"),
        ("layers", str(engine["layers"])),
        ("precision", str(sidecar.get("precision"))),
        ("TF32", "on" if sidecar.get("tf32") else "off"),
    ]
    for profile in sidecar.get("profiles", []):
        facts.append(("profile", json.dumps(profile, sort_keys=True)[:300]))
    return facts
