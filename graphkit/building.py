"""`build`: an ONNX file -> an engine: one stage of `convert`, without capture, optimisation or parity."""

from __future__ import annotations

import json
import time
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from graphkit import atomic, events
from graphkit.engine import cache
from graphkit.engine.builder import Builder, BuildRequest, Engine, choose
from graphkit.engine.make import Made, key_for, make
from graphkit.engine.plan import is_engine
from graphkit.engine.settings import NO_SETTINGS, TensorRTSettings
from graphkit.errors import BadOption, CorruptFile, FileMissing, GraphkitError, TargetsLeftOut, UnknownFormat
from graphkit.model import Finding
from graphkit.shapes import DimRange

if TYPE_CHECKING:
    from graphkit.model import Model

SCHEMA = "graphkit.build/1"
NOT_COMPARED = "build makes an engine and compares nothing; `graphkit convert` and `graphkit validate` do"


@dataclass(frozen=True, slots=True)
class EngineRequest:
    """What an engine is asked to be.

    Attributes:
        backend: `rtx` or `tensorrt` to insist on one; None for the best that this machine has.
        dims, profiles, find_ranges, compute_capabilities, tf32, settings: As of `BuildRequest`; the capabilities may
            be `("all",)`.
        cache: Whether an engine that was built before may be taken, and this one kept.
    """

    backend: str | None = None
    dims: tuple[DimRange, ...] = ()
    profiles: tuple[tuple[DimRange, ...], ...] = ()
    find_ranges: bool = False
    compute_capabilities: tuple[str, ...] = ()
    tf32: bool = True
    settings: TensorRTSettings = NO_SETTINGS
    cache: bool = True


@dataclass(frozen=True, slots=True)
class BuildResult:
    """An engine that was built from a file, or taken from the cache.

    Attributes:
        source: Name of the ONNX file.
        engine: The engine.
        files: What was written, the engine first.
        cached: Whether it came from the cache.
        seconds: Wall time.
        findings: What the build and the cache have to say.
        complaint: The targets that it was asked to have and has not.
    """

    source: str
    engine: Engine
    files: tuple[Path, ...]
    cached: bool
    seconds: float
    findings: tuple[Finding, ...]
    complaint: TargetsLeftOut | None

    def to_json(self) -> dict[str, Any]:
        """Strict JSON values, schema `graphkit.build/1`."""
        engine = self.engine
        return {
            "schema": SCHEMA,
            "status": "ok" if self.complaint is None else "no",
            "source": self.source,
            "files": [str(file) for file in self.files],
            "engine": {
                "kind": engine.kind,
                "version": engine.version,
                "targets": list(engine.targets),
                "size": engine.size,
                "sha256": engine.sha256,
                "profiles": [profile.to_json() for profile in engine.profiles],
                "precision": engine.precision,
            },
            "cached": self.cached,
            "parity": {"status": "not run", "reason": NOT_COMPARED},
            "seconds": round(self.seconds, 3),
            "warnings": [finding.to_json() for finding in self.findings],
            "error": None if self.complaint is None else self.complaint.to_json(),
        }


def build(source: Path | str, output: Path | str, request: EngineRequest | None = None) -> BuildResult:
    """Build an engine from an ONNX file, or take it from the cache if it was built before.

    Nothing is compared. Where some targets cannot have it, it is written for the others, and `complaint` says so.

    Raises:
        FileMissing, UnknownFormat, CorruptFile, UnsafePath: as the source is.
        BadOption: the output is the source.
        GraphkitError: what ended the build; nothing was written.

    Example:
        >>> build("model.onnx", "model.engine", EngineRequest(dims=(DimRange("batch", 1, 4, 8),))).cached
        False
    """
    started = time.perf_counter()
    asked = request or EngineRequest()
    source, output = Path(source), Path(output)
    _check(source, output)
    # TensorRT builds for the GPU of this machine alone; named targets are TensorRT-RTX's business.
    builder = choose(asked.backend or ("rtx" if asked.compute_capabilities else None))
    kept = key_for(builder, asked, cache.digest(source)) if asked.cache else None
    hit = cache.EngineCache().take(kept, output) if kept is not None else None
    if hit is not None and hit.built is not None and hit.sidecar is not None:
        made = Made(hit.built, True, hit.sidecar, hit.built.engine.findings)
    else:
        events.emit("stage", name="build", state="start")
        made = make(builder, _request(_model(source, builder, asked), asked), output, kept=kept, hit=hit)
    files = (output, _write_sidecar(output, made))
    engine = made.built.engine
    seconds = time.perf_counter() - started
    return BuildResult(source.name, engine, files, made.cached, seconds, made.findings, made.built.complaint())


def _check(source: Path, output: Path) -> None:
    """Refuse what is no ONNX file, and an output that would replace a part of it."""
    from graphkit import view

    if source.is_dir():
        raise UnknownFormat(f"{source} is a folder; build takes an ONNX file", remedy=_CONVERT.format(source))
    if not source.is_file():
        raise FileMissing(f"no such file: {source}")
    try:
        graph = view.read(source)
    except CorruptFile as damage:
        raise _what_it_is(source, damage) from damage
    parts = {source, *(source.parent / w.location for w in graph.weights() if w.location is not None)}
    if output.resolve() in {part.resolve() for part in parts}:
        raise BadOption(f"{output} is a file of the model: the engine would replace it", remedy="name another with -o")
    atomic.check_writable(output)


_CONVERT = "graphkit convert {} --to trt takes other kinds of models"


def _what_it_is(source: Path, damage: CorruptFile) -> GraphkitError:
    """A file that is no ONNX file may well be another kind of model."""
    from graphkit.analyze.inspection import inspect

    try:
        kind = inspect(source).kind
    except GraphkitError:
        return damage
    remedy = "name the ONNX file that it was built from" if is_engine(source) else _CONVERT.format(source)
    return UnknownFormat(f"{source.name} is no ONNX file: {kind}", remedy=remedy)


def _model(source: Path, builder: Builder, asked: EngineRequest) -> Model:
    """The graph in the form that the library takes: nothing else about it is changed."""
    from graphkit import marks, optimization
    from graphkit.capture.onnx_file import read
    from graphkit.capture.request import CaptureRequest

    builder.warm_up()
    model = read(source, CaptureRequest(dims=asked.dims))
    target = "trt" if builder.name == "tensorrt" else "rtx"
    rewritten = optimization.rewrite_model(model, optimization.Options(level=0, target=target))
    return marks.mark(rewritten.model if rewritten.changes.done else model)


def _request(model: Model, asked: EngineRequest) -> BuildRequest:
    return BuildRequest(
        model,
        model.dims,
        asked.compute_capabilities,
        asked.tf32,
        profiles=asked.profiles,
        settings=asked.settings,
        find_ranges=asked.find_ranges,
    )


def _write_sidecar(output: Path, made: Made) -> Path:
    """The description beside the engine, under the engine's own name."""
    facts = {**made.sidecar, "engine": {**made.sidecar["engine"], "name": output.name}}
    path = output.with_name(f"{output.name}.json")
    text = json.dumps(facts, indent=2, sort_keys=True, ensure_ascii=False, allow_nan=False)
    atomic.write_bytes(path, (text + "\n").encode())
    return path
