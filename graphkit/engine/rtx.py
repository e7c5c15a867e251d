"""TensorRT-RTX, ahead of time: engines for every RTX GPU, built on a machine without any."""

from __future__ import annotations

import re
from collections.abc import Mapping
from importlib.metadata import version
from pathlib import Path
from typing import Any

from graphkit import isolate
from graphkit.engine import builder, running
from graphkit.engine.builder import BuildRequest, Engine, Library
from graphkit.engine.profiles import prover
from graphkit.errors import Lacking, UnknownTarget


class RtxBuilder:
    """Builds with TensorRT-RTX; no GPU needed. Without named compute capabilities: 8.0 and later."""

    name = "rtx"

    def available(self) -> Lacking | None:
        return builder.missing("tensorrt_rtx", "trt")

    def warm_up(self) -> None:
        if self.available() is None:
            library().worker.start()
            prover().start()

    def known(self) -> tuple[str, ...]:
        lacks = self.available()
        if lacks is not None:
            raise lacks
        return known_capabilities(library())

    def identity(self) -> dict[str, Any]:
        return {"library": "tensorrt-rtx", "version": version("tensorrt-rtx")}

    def check(self, request: BuildRequest) -> None:
        request.settings.refuse_for_rtx()
        builder.check(self, request)
        if request.compute_capabilities:
            check_capabilities(request.compute_capabilities, library())

    def build(self, request: BuildRequest, output: Path, *, durable: bool = True) -> Engine:
        self.check(request)
        return builder.build(library(), request, output, durable)

    def run(self, engine: Engine, inputs: Mapping[str, Any]) -> dict[str, Any]:
        lacks = self.available()
        if lacks is not None:
            raise lacks
        return running.run(library(), engine, inputs)


def library() -> Library:
    """TensorRT-RTX as a library in its child."""
    worker = isolate.worker(
        "TensorRT-RTX",
        preload=(
            "tensorrt_rtx",
            "polygraphy.backend.trt",
            "polygraphy.backend.tensorrt_rtx",
            "graphkit.engine.trt_child",
        ),
        env={"POLYGRAPHY_USE_TENSORRT_RTX": "1"},  # read when Polygraphy is imported, for the whole process
    )
    return Library("TensorRT-RTX", "tensorrt-rtx", True, worker)


def known_capabilities(library: Library) -> tuple[str, ...]:
    """Compute capabilities that the installed release builds for."""
    return tuple(library.worker.call("graphkit.engine.trt_child:known_capabilities"))


def check_capabilities(asked: tuple[str, ...], library: Library) -> None:
    """Refuse compute capabilities that the installed release does not build for."""
    known = known_capabilities(library)
    for capability in asked:
        if not re.fullmatch(r"[0-9]+\.[0-9]", capability) or capability not in known:
            raise UnknownTarget(
                f"TensorRT-RTX builds for no compute capability {capability!r}",
                remedy=f"--cc with any of {','.join(known)}; without --cc: 8.0 and later",
                data={"known": list(known)},
            )
    if len(set(asked)) != len(asked):
        raise UnknownTarget(f"a compute capability is named twice: {','.join(asked)}", remedy="name each one once")
