"""What an engine file cannot say about itself, as JSON beside it."""

from __future__ import annotations

import json
from importlib import metadata
from pathlib import Path
from typing import Any

import graphkit
from graphkit import atomic
from graphkit.engine.builder import BuildRequest, Engine
from graphkit.errors import CorruptFile, FileMissing
from graphkit.model import INLINE_LIMIT, file_sha256, load

SCHEMA = "graphkit.engine/1"


def path_for(engine: Path) -> Path:
    """`m.engine` -> `m.engine.json`."""
    return engine.with_name(f"{engine.name}.json")


def graph_of(engine: Path) -> Path:
    """The ONNX file beside an engine, if it is the one that was built.

    Raises:
        FileMissing: it, or the engine's description, is not there. CorruptFile: it is another one.
    """
    again = "put the files that convert wrote into one folder, or convert again"
    file = engine.with_name(f"{engine.name}.onnx")
    for needed in (file, path_for(engine)):
        if not needed.is_file():
            raise FileMissing(f"{needed.name}, which was written with {engine.name}, is not beside it", remedy=again)
    facts = json.loads(path_for(engine).read_text(encoding="utf-8"))
    # Large weights are in a file of their own, whose name differs from the one that was built from.
    if load(file).weight_bytes < INLINE_LIMIT and file_sha256(file) != facts["model"].get("sha256"):
        raise CorruptFile(f"{file.name} is not the graph that {engine.name} was built from", remedy=again)
    return file


def write(engine: Engine, request: BuildRequest) -> Path:
    """Write the sidecar of an engine that was just built; returns its path.

    The same engine of the same model gives the same bytes: no times, no paths, sorted keys.

    Raises:
        CannotWrite: the folder is read-only.
    """
    path = path_for(engine.path)
    text = json.dumps(describe(engine, request), indent=2, sort_keys=True, ensure_ascii=False, allow_nan=False)
    atomic.write_bytes(path, (text + "\n").encode())
    return path


def describe(engine: Engine, request: BuildRequest) -> dict[str, Any]:
    """The content of the sidecar, schema `graphkit.engine/1`."""
    return {
        "schema": SCHEMA,
        "engine": {
            "name": engine.path.name,
            "kind": engine.kind,
            "sha256": engine.sha256,
            "size": engine.size,
            "layers": engine.layers,
        },
        "model": {
            "sha256": engine.model_sha256,
            "signature": request.model.signature.to_json(),
            "opset": request.model.opset,
            "nodes": request.model.node_count,
            "origin": request.model.origin.to_json(),
        },
        "versions": {
            engine.kind: engine.version,
            "polygraphy": metadata.version("polygraphy"),
            "graphkit": graphkit.__version__,
        },
        "targets": list(engine.targets),
        "profiles": [profile.to_json() for profile in engine.profiles],
        "tf32": engine.tf32,
        "precision": engine.precision,
        "findings": [finding.to_json() for finding in engine.findings],
        **({"kernels": [kernel.to_json() for kernel in engine.kernels]} if engine.kernels else {}),
        **({"weights": _weights(engine, request)} if engine.weights else {}),
        **({"settings": settings} if (settings := _settings(request)) else {}),
    }


def _settings(request: BuildRequest) -> dict[str, Any]:
    """What was asked of TensorRT; a path would differ between machines."""
    said = request.settings.to_json()
    cache = request.settings.timing_cache
    return said if cache is None else {**said, "timing_cache": cache.name}


def _weights(engine: Engine, request: BuildRequest) -> dict[str, Any]:
    from graphkit.engine.refit import weights_of

    return {name: weight.to_json() for name, weight in weights_of(request.model, engine.weights).items()}
