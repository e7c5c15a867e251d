"""What a conversion is asked for."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, fields
from pathlib import Path

from graphkit.capture.request import CaptureRequest
from graphkit.errors import BadOption, UnknownTarget
from graphkit.shapes import DimRange, Sample, TensorSpec

TARGETS = {"onnx": ".onnx", "trt": ".engine", "saved_model": ".saved_model", "tflite": ".tflite"}
EXPORTS = ("saved_model", "tflite")
"""Targets that a framework writes itself: no ONNX is on the way."""


@dataclass(frozen=True, slots=True)
class ConvertRequest:
    """What to convert to, and how.

    Attributes:
        to: `onnx` or `trt`; for a TensorFlow or Keras source also `saved_model` or `tflite`.
        output: The file to write; the source's name with the target's suffix, in the working directory, if None.
        shapes, dims, samples, opset, via, submodule, architecture, trust, seed, signature, state, layout, outputs: see
            `CaptureRequest`.
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
    signature: str | None = None
    state: str | None = None
    layout: tuple[str, ...] = ()
    outputs: tuple[str, ...] = ()

    def for_capture(self) -> CaptureRequest:
        """The part of the request that capture is concerned with."""
        own = {field.name: getattr(self, field.name) for field in fields(CaptureRequest)}
        return CaptureRequest(**own)


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
    if request.to != "trt" and (request.backend or request.compute_capabilities):
        raise BadOption(
            f"--backend and --cc concern engines; with --to {request.to} they say nothing", remedy="--to trt"
        )
    if request.to in EXPORTS:
        _refuse_graph_options(request)
    for what, names in (("--shape", [s.name for s in request.shapes]), ("--input", [s.name for s in request.samples])):
        twice = next((n for n in names if names.count(n) > 1), None)
        if twice is not None:
            raise BadOption(f"{what} is given twice for `{twice}`", remedy="give it once")


def _refuse_graph_options(request: ConvertRequest) -> None:
    """Refuse what says how an ONNX graph is made, where none is made."""
    said = {
        "--opset": request.opset,
        "--via": request.via,
        "--submodule": request.submodule,
        "--no-optimize": not request.optimize,
        "--state": request.state,
        "--layout": request.layout,
    }
    given = next((option for option, value in said.items() if value), None)
    if given is not None:
        raise BadOption(
            f"{given} concerns the ONNX graph; with --to {request.to} none is made", remedy=f"leave {given} out"
        )
