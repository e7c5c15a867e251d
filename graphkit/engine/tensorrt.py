"""NVIDIA TensorRT: an engine tuned on, and for, the GPU of this machine."""

from __future__ import annotations

from collections.abc import Mapping
from importlib.metadata import version
from pathlib import Path
from typing import Any

from graphkit import isolate
from graphkit.engine import builder, running
from graphkit.engine.builder import BuildRequest, Engine, Library
from graphkit.engine.profiles import prover
from graphkit.errors import GpuRequired, Lacking, UnknownTarget


class TensorRTBuilder:
    """Builds with TensorRT, which measures its kernels: the GPU that the engine is for must be in this machine."""

    name = "tensorrt"

    def available(self) -> Lacking | None:
        lacks = builder.missing("tensorrt", "tensorrt")
        if lacks is not None or builder.visible_gpus():
            return lacks
        return GpuRequired(
            "TensorRT builds only on the GPU that the engine is for; the driver shows none",
            remedy="--backend rtx builds without a GPU; `graphkit doctor` says what is missing here",
        )

    def warm_up(self) -> None:
        if self.available() is None:
            library().worker.start()
            prover().start()

    def known(self) -> tuple[str, ...]:
        lacks = self.available()
        if lacks is not None:
            raise lacks
        return builder.visible_gpus()[:1]

    def identity(self) -> dict[str, Any]:
        gpu = [*builder.visible_gpus()[:1], builder.gpu_name()]
        return {"library": "tensorrt", "version": version("tensorrt"), "gpu": gpu}

    def check(self, request: BuildRequest) -> None:
        builder.check(self, request)
        here = builder.visible_gpus()[0]
        if request.compute_capabilities not in ((), (here,)):
            raise UnknownTarget(
                f"TensorRT builds only for the GPU of this machine ({here}), "
                f"not for {','.join(request.compute_capabilities)}",
                remedy="--backend rtx builds for other GPUs",
            )

    def build(self, request: BuildRequest, output: Path, *, durable: bool = True) -> Engine:
        self.check(request)
        return builder.build(library(), request, output, durable)

    def run(self, engine: Engine, inputs: Mapping[str, Any]) -> dict[str, Any]:
        lacks = self.available()
        if lacks is not None:
            raise lacks
        return running.run(library(), engine, inputs)


def library() -> Library:
    """TensorRT as a library in its child."""
    worker = isolate.worker(
        "TensorRT",
        preload=("tensorrt", "polygraphy.backend.trt", "graphkit.engine.trt_child"),
        env={"POLYGRAPHY_USE_TENSORRT_RTX": "0"},  # whatever the user's shell says
    )
    return Library("TensorRT", "tensorrt", False, worker)
