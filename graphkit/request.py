"""What a conversion is asked for."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, fields
from pathlib import Path
from typing import Any, Literal

from graphkit.capture.request import CaptureRequest
from graphkit.engine.profile_text import hull
from graphkit.engine.settings import NO_SETTINGS, TensorRTSettings
from graphkit.errors import BadOption, UnknownTarget
from graphkit.lowering import Precision
from graphkit.shapes import DimRange, Sample, TensorSpec

TARGETS = {"onnx": ".onnx", "trt": ".engine", "saved_model": ".saved_model", "tflite": ".tflite"}
EXPORTS = ("saved_model", "tflite")
"""Targets that a framework writes itself: no ONNX is on the way."""


@dataclass(frozen=True, slots=True)
class QuantizeRequest:
    """What a model is to be brought to.

    Attributes:
        precision: `fp16`, `bf16`, `int8`, `fp8` or `int4`.
        data: Calibration data: a folder, an `.npz` file, `package.module:function`, or samples.
        method: How int8 and fp8 scales follow from the values seen: `minmax`, `entropy` or `percentile`.
        uncalibrated: Whether int8 and fp8 scales may be guessed from made-up inputs.
        keep: Names of nodes that stay in float32.
        block: int4: elements that share a scale; 32 where None.
        io_types: fp16, bf16: whether inputs and outputs become low too.
        max_drop: Error that the result may have, by `metric`; the layers that have to stay in float32 for that are
            searched for.
        metric: `cosine` (1 - cosine) or `l2` (relative).
        shapes, dims: Shapes of inputs, where a file is read, and ranges of their dimensions.
        samples, seed: For the comparison, where no data is given.
    """

    precision: Precision
    data: Any = None
    method: Literal["minmax", "entropy", "percentile"] = "minmax"
    uncalibrated: bool = False
    keep: frozenset[str] = frozenset()
    block: int | None = None
    io_types: bool = False
    max_drop: float | None = None
    metric: Literal["cosine", "l2"] = "cosine"
    shapes: tuple[TensorSpec, ...] = ()
    dims: tuple[DimRange, ...] = ()
    samples: tuple[Sample, ...] = ()
    seed: int = 0


@dataclass(frozen=True, slots=True)
class ConvertRequest:
    """What to convert to, and how.

    Attributes:
        to: `onnx` or `trt`; for a TensorFlow or Keras source also `saved_model` or `tflite`.
        output: The file to write; the source's name with the target's suffix, in the working directory, if None.
        shapes, dims, samples, opset, via, submodule, architecture, trust, seed, signature, state, layout, outputs: see
            `CaptureRequest`.
        freeze: Inputs that become constants, with their values.
        optimize: Whether the graph is rewritten.
        precision: What the graph is brought to before an engine is built, or before it is written; None leaves it.
        backend: `rtx` or `tensorrt` to insist on one; None for the best that this machine has.
        compute_capabilities: Targets of the engine (`8.6`); () for the backend's portable default, ("all",) for every
            one that it knows.
        tf32: Whether the engine may use TF32 for float32 matrix products.
        profiles, find_ranges, settings: As of `graphkit.engine.builder.BuildRequest`.
        cache: Whether an engine that was built before may be taken from the cache, and this one kept there.
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
    freeze: tuple[Sample, ...] = ()
    optimize: bool = True
    precision: QuantizeRequest | None = None
    backend: str | None = None
    compute_capabilities: tuple[str, ...] = ()
    tf32: bool = True
    seed: int = 0
    signature: str | None = None
    state: str | None = None
    layout: tuple[str, ...] = ()
    outputs: tuple[str, ...] = ()
    profiles: tuple[tuple[DimRange, ...], ...] = ()
    find_ranges: bool = False
    settings: TensorRTSettings = NO_SETTINGS
    cache: bool = True

    def for_capture(self) -> CaptureRequest:
        """The part of the request that capture is concerned with."""
        own = {field.name: getattr(self, field.name) for field in fields(CaptureRequest)}
        dims = (*self.dims, *hull(self.profiles, self.dims))
        return CaptureRequest(**{**own, "samples": (*self.samples, *self.freeze), "dims": dims})


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
    if request.to != "trt" and (request.profiles or request.find_ranges or request.settings.given):
        raise BadOption(f"profiles and how to build concern engines, not --to {request.to}", remedy="--to trt")
    if request.to in EXPORTS:
        _refuse_graph_options(request)
    values = [s.name for s in (*request.samples, *request.freeze)]
    for what, names in (("--shape", [s.name for s in request.shapes]), ("--input or --freeze", values)):
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
        "--freeze": request.freeze,
        "--precision": request.precision is not None,
        "--layout": request.layout,
    }
    given = next((option for option, value in said.items() if value), None)
    if given is not None:
        raise BadOption(
            f"{given} concerns the ONNX graph; with --to {request.to} none is made", remedy=f"leave {given} out"
        )
