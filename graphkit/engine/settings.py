"""What NVIDIA TensorRT can be asked for; TensorRT-RTX has little of it, and refuses the rest with the reason."""

from __future__ import annotations

from dataclasses import dataclass, fields
from pathlib import Path
from typing import Any, Literal

from graphkit.errors import BadOption

HardwareLevel = Literal["ampere-plus", "same-compute-capability"]
HARDWARE_LEVELS: tuple[HardwareLevel, ...] = ("ampere-plus", "same-compute-capability")
LEVELS = range(6)
"""Builder optimisation levels: 0 is the fastest build, 5 the longest search; TensorRT's own default is 3."""


@dataclass(frozen=True, slots=True)
class TensorRTSettings:
    """Options of a build; each does nothing unless given. TensorRT-RTX has the workspace only.

    Attributes:
        timing_cache: File of measured kernel times: read if it is there, and written after the build. It is made
            editable, so that its entries say which kernel a later build takes.
        version_compatible: Whether later releases of TensorRT may run the engine, which then carries a lean runtime.
        hardware: Which other GPUs may run it: all from Ampere on, or those of the same compute capability.
        workspace: MiB of GPU memory that kernels may use for themselves; all of it, if None.
        level: One of `LEVELS`.
        refittable: Whether the engine takes new weights later.
        strip_weights: Whether it is written without those weights that a refit can put back, which makes it small; it
            then has to be refitted before it runs. Implies that it is refittable.
    """

    timing_cache: Path | None = None
    version_compatible: bool = False
    hardware: HardwareLevel | None = None
    workspace: int | None = None
    level: int | None = None
    refittable: bool = False
    strip_weights: bool = False

    def __post_init__(self) -> None:
        if self.level is not None and self.level not in LEVELS:
            raise BadOption(
                f"optimisation level {self.level} is none of TensorRT's", remedy=f"--level 0 to {LEVELS[-1]}"
            )
        if self.workspace is not None and self.workspace < 1:
            raise BadOption(f"a workspace of {self.workspace} MiB holds nothing", remedy="--workspace 4096")
        if self.hardware is not None and self.hardware not in HARDWARE_LEVELS:
            raise BadOption(
                f"unknown hardware compatibility {self.hardware!r}", remedy=f"one of {', '.join(HARDWARE_LEVELS)}"
            )

    @property
    def given(self) -> tuple[str, ...]:
        """Names of the fields that differ from their defaults."""
        return tuple(f.name for f in fields(self) if getattr(self, f.name) != f.default)

    def to_json(self) -> dict[str, Any]:
        """Those fields as JSON values, in the order above."""
        values = {name: getattr(self, name) for name in self.given}
        return {name: str(value) if isinstance(value, Path) else value for name, value in values.items()}

    def refuse_for_rtx(self) -> None:
        """Raises: `BadOption`: something was asked for that TensorRT-RTX has not."""
        for name in self.given:
            if name not in _NOT_IN_RTX:
                continue
            raise BadOption(
                f"--{_OPTIONS[name]} means nothing for TensorRT-RTX: {_NOT_IN_RTX[name]}",
                remedy=f"leave --{_OPTIONS[name]} out, or --backend tensorrt on a machine with the GPU",
            )


NO_SETTINGS = TensorRTSettings()
"""Nothing that is not asked for."""

_OPTIONS = {
    "timing_cache": "timing-cache",
    "version_compatible": "version-compatible",
    "hardware": "hardware",
    "workspace": "workspace",
    "level": "level",
    "refittable": "refittable",
    "strip_weights": "strip-weights",
}

_NOT_IN_RTX = {
    "timing_cache": "it measures no kernels when it builds; they are compiled on the user's GPU",
    "version_compatible": "its engines run with the release that built them only",
    "hardware": "its engines name their GPUs with --cc, and run on all from 8.0 on without",
    "level": "its engines are the same byte for byte at every level",
    "refittable": "it builds none without a CUDA driver, and what it builds with one is not verified",
    "strip_weights": "it builds none without a CUDA driver, and what it builds with one is not verified",
}
"""Measured with 1.7.1."""
