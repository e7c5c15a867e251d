"""The door to ONNX Runtime: all operators that it has not, and whether it loads the model."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

from graphkit.errors import InvalidExport, NativeCrash
from graphkit.parity.runners import OrtRunner, ort_worker
from graphkit.support.rule import Hit
from graphkit.support.scene import Scene


def release() -> str:
    """`onnxruntime 1.32.0`."""
    from importlib.metadata import version

    return f"onnxruntime {version('onnxruntime')}"


def unknown(scene: Scene) -> Iterator[Hit]:
    """Every node whose operator ONNX Runtime has not."""
    functions = {function.key for function in scene.view.functions}
    asked: dict[tuple[str, str], int] = {}
    for place in scene.places:
        domain, op = place.graph.domains[place.index], place.op
        if (domain, op, place.graph.overloads.get(place.index, "")) not in functions:
            asked[domain, op] = _opset(scene, domain)
    rows = [(domain, op, opset) for (domain, op), opset in asked.items()]
    found = ort_worker().call("graphkit.support.ort_child:unknown", operators=rows)
    missing = {(domain, op): opset for (domain, op, opset), is_unknown in zip(rows, found, strict=True) if is_unknown}
    for place in scene.places:
        domain = place.graph.domains[place.index]
        key = (domain, place.op)
        if key in missing and (*key, place.graph.overloads.get(place.index, "")) not in functions:
            name = place.op if domain in ("", "ai.onnx") else f"{domain}::{place.op}"
            at = f" at opset {missing[key]}" if domain in ("", "ai.onnx") else ""
            yield Hit(f"ONNX Runtime has no operator `{name}`{at}", place)


def load(path: Path) -> str | None:
    """None, or why a session cannot be made of a file.

    Raises:
        OutOfMemory, TimedOut: the child died of it.
    """
    try:
        with OrtRunner(path, optimize=True, as_is=True) as runner:
            runner.load()
    except (InvalidExport, NativeCrash) as error:
        return error.message
    return None


def _opset(scene: Scene, domain: str) -> int:
    if domain in ("", "ai.onnx"):
        return scene.opset
    return scene.view.opsets.get(domain, 1)
