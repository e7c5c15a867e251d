"""An engine from the cache where it was built before, else built for the targets that can have one, and kept."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Protocol

from graphkit import __version__
from graphkit.engine import cache as caches
from graphkit.engine import targets
from graphkit.engine.builder import Builder, BuildRequest
from graphkit.engine.cache import EngineCache
from graphkit.engine.settings import TensorRTSettings
from graphkit.engine.targets import Built
from graphkit.model import Finding
from graphkit.shapes import DimRange


@dataclass(frozen=True, slots=True)
class Made:
    """What `make` leaves.

    Attributes:
        built: The engine, and the targets that it lacks.
        cached: Whether it came from the cache.
        sidecar: Its description, as `sidecar.describe` has it.
        findings: What it, its build and the cache have to say.
    """

    built: Built
    cached: bool
    sidecar: Mapping[str, Any]
    findings: tuple[Finding, ...]


class Asked(Protocol):
    """The part of a request that decides what is built, beside the model; see `BuildRequest`."""

    @property
    def dims(self) -> tuple[DimRange, ...]: ...
    @property
    def profiles(self) -> tuple[tuple[DimRange, ...], ...]: ...
    @property
    def find_ranges(self) -> bool: ...
    @property
    def compute_capabilities(self) -> tuple[str, ...]: ...
    @property
    def tf32(self) -> bool: ...
    @property
    def settings(self) -> TensorRTSettings: ...


def key_for(builder: Builder, asked: Asked, content: str) -> str | None:
    """The key under which an engine is kept; None for one that is not: a timing cache is there to be written anew.

    Args:
        content: `cache.digest` of the ONNX file.
    """
    if asked.settings.timing_cache is not None:
        return None
    return caches.key_of(
        {
            "model": content,
            "graphkit": __version__,  # another one may write the graph in another form
            **builder.identity(),
            "dims": sorted(map(str, asked.dims)),
            "profiles": [sorted(map(str, each)) for each in asked.profiles],
            "find ranges": asked.find_ranges,
            "targets": sorted(asked.compute_capabilities),
            "tf32": asked.tf32,
            "settings": asked.settings.to_json(),
        }
    )


def make(
    builder: Builder,
    request: BuildRequest,
    output: Path,
    *,
    kept: str | None = None,
    durable: bool = True,
    hit: caches.Hit | None = None,
) -> Made:
    """Take the engine from the cache or build it.

    Args:
        kept: Its key in the cache; None to leave the cache alone.
        hit: What the cache said to that key, if it was asked already.

    Raises:
        GraphkitError: as `targets.build`.
    """
    from graphkit.engine import free_dims, sidecar

    cache = EngineCache()
    if hit is None:
        hit = cache.take(kept, output, durable=durable) if kept is not None else caches.Hit()
    if hit.built is not None and hit.sidecar is not None:
        return Made(hit.built, True, hit.sidecar, hit.built.engine.findings)
    expanded = replace(request, compute_capabilities=targets.expand(builder, request.compute_capabilities))
    resolved = free_dims.resolve(expanded)
    built = targets.build(builder, resolved.request, output, durable=durable)
    engine = replace(built.engine, findings=(*resolved.findings, *built.engine.findings))
    built = replace(built, engine=engine)
    described = sidecar.describe(engine, resolved.request)
    said = (*hit.findings, *engine.findings)
    if kept is not None and (trouble := cache.store(kept, built, described)) is not None:
        said = (*said, trouble)
    return Made(built, False, described, said)
