"""What a conversion is asked for."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from graphkit.capture.request import CaptureRequest
from graphkit.errors import BadOption, UnknownTarget
from graphkit.shapes import DimRange, Sample, TensorSpec

TARGETS = {"onnx": ".onnx", "trt": ".engine"}


@dataclass(frozen=True, slots=True)
class ConvertRequest:
    """What to convert to, and how.

    Attributes:
        to: `onnx` or `trt`.
        output: The file to write; the source's name with the target's suffix, in the working directory, if None.
        shapes, dims, samples, opset, via, submodule, architecture, trust, seed: see `CaptureRequest`.
        optimize: Whether onnxsim runs.
        backend: `rtx` or `tensorrt` to insist on one; None for the best that this machine has.
        compute_capabilities: Targets of the engine (`8.6`); () for the backend's portable default.
        tf32: Whether the engine may use TF32 for float32 matrix products.
    """

    to: str = "onnx"
    output: Path | None = None
    shapes: tuple[TensorSpec, ...] = ()
    dims: tuple[DimRange, ...] = ()
    samples: tuple[Sample, ...] = ()
    opset: int | None = None
    via: str | None = None
    submodule: str | None = None
    architecture: str | None = None
    trust: bool = False
    optimize: bool = True
    backend: str | None = None
    compute_capabilities: tuple[str, ...] = ()
    tf32: bool = True
    seed: int = 0

    def for_capture(self) -> CaptureRequest:
        """The part of the request that capture is concerned with."""
        return CaptureRequest(
            self.shapes,
            self.dims,
            self.samples,
            self.opset,
            self.via,
            self.submodule,
            self.architecture,
            self.trust,
            self.seed,
        )


def as_specs(shapes: Mapping[str, Sequence[int | str] | TensorSpec]) -> tuple[TensorSpec, ...]:
    """`{"x": ("batch", 8)}` as TensorSpecs."""
    return tuple(s if isinstance(s, TensorSpec) else TensorSpec(n, None, tuple(s)) for n, s in shapes.items())


def as_ranges(dims: Mapping[str, tuple[int, int, int] | int]) -> tuple[DimRange, ...]:
    """`{"batch": (1, 4, 8), "seq": 16}` as DimRanges."""
    return tuple(DimRange(s, r, r, r) if isinstance(r, int) else DimRange(s, *r) for s, r in dims.items())


def check_options(request: ConvertRequest) -> None:
    """Refuse options that contradict one another.

    Raises:
        UnknownTarget, BadOption
    """
    if request.to not in TARGETS:
        raise UnknownTarget(f"--to {request.to}: unknown target", remedy=f"one of {', '.join(TARGETS)}")
    if request.to == "onnx" and (request.backend or request.compute_capabilities):
        raise BadOption("--backend and --cc concern engines; with --to onnx they say nothing", remedy="--to trt")
    for what, names in (("--shape", [s.name for s in request.shapes]), ("--input", [s.name for s in request.samples])):
        twice = next((n for n in names if names.count(n) > 1), None)
        if twice is not None:
            raise BadOption(f"{what} is given twice for `{twice}`", remedy="give it once")
