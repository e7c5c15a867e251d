"""int8, fp8 and int4: a model whose graph says that it is quantised, or a refusal.

int8 and fp8 are written as Q/DQ pairs in the form that TensorRT takes: symmetric, zero points 0, one scale per output
channel of a weight, biases in float32. onnxruntime.quantization.quantize_static writes the same numbers with
`ActivationSymmetric`, `WeightSymmetric`, `QuantizeBias=False`, QInt8 and `per_channel` (a test compares them); but it
renames nothing back, keeps no source lines, quantises what TensorRT would not fuse, and calibrates anew each time.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from collections.abc import Set as AbstractSet
from dataclasses import dataclass
from typing import Any, Literal

from graphkit.errors import BadOption
from graphkit.lowering import Kept, Lowering
from graphkit.model import Finding, Model
from graphkit.precision import calibration
from graphkit.precision.calibration import Method, Ranges
from graphkit.precision.data import MOST, CalibrationData, made_up, open_data
from graphkit.precision.qdq_place import WeightCache, place
from graphkit.precision.qdq_spots import find_spots, watched
from graphkit.precision.quant_numbers import Kind
from graphkit.precision.quant_opset import lifted
from graphkit.precision.quant_result import result
from graphkit.precision.quant_select import Candidate, candidates, choose, nothing_left, refuse_quantised
from graphkit.precision.quant_smooth import Smoothing, eligible, smoothings

_LEAST_OPSET = {"int8": 13, "fp8": 19}


def lower(
    model: Model,
    precision: Literal["int8", "fp8", "int4"],
    data: Any = None,
    *,
    method: Method = "minmax",
    uncalibrated: bool = False,
    keep: AbstractSet[str] = frozenset(),
    block: int | None = None,
) -> Lowering:
    """A model whose layers that multiply by weights run in int8 or fp8, or keep their weights in int4.

    Args:
        model: Float32; optimise it first, so that normalisations are folded and weights are constants.
        data: Calibration data (see `data.open_data`); int4 takes none.
        method: How a scale follows from the values seen; fp8 takes no `entropy`, which counts int8 levels. int8 with
            `minmax` also centres channels, and moves outliers into the weights (see `quant_smooth`).
        uncalibrated: Whether made-up inputs may stand in for data; the scales are guesses then, and the result says so.
        keep: Names of nodes to leave in float32, such as the first and the last layer.
        block: int4 only: elements along the summed axis that share a scale; 32 by default.

    Raises:
        PrecisionRefused: the model is quantised already, or nothing in it can be.
        BadOption: there is no data, or an option contradicts the precision. `UnknownName`: `keep` names no such node.
        BadSample, ShapeMismatch, FileMissing, BadCallable: the data does not fit.
    """
    if precision == "int4":
        from graphkit.precision import int4

        if data is not None or uncalibrated or method != "minmax":
            raise BadOption(
                "int4 rounds weights, and calibrates nothing", remedy="leave data, method and --uncalibrated out"
            )
        return int4.lower(model, block=int4.DEFAULT_BLOCK if block is None else block, keep=keep)
    if block is not None:
        raise BadOption(
            f"{precision} has a scale for each channel, not for each block", remedy="leave the block size out"
        )
    return prepare(model, precision, data, method=method, uncalibrated=uncalibrated).lower(keep)


@dataclass(frozen=True, slots=True)
class Calibrated:
    """A model and the scales for all of it, from which any choice of layers can be quantised without another run.

    Attributes:
        model: The float32 model, at an operator set that has Q/DQ.
        kind: `int8` or `fp8`.
        found: The layers that can be quantised.
        left: Those that cannot, and why.
        ranges: What calibration saw.
    """

    model: Model
    kind: Kind
    found: tuple[Candidate, ...]
    left: tuple[Kept, ...]
    ranges: Ranges
    _weights: WeightCache
    _smoothing: Mapping[str, Smoothing]

    @property
    def _amax(self) -> dict[str, float]:
        return {**self.ranges.amax, **{name: each.amax for name, each in self._smoothing.items()}}

    def lower(self, keep: AbstractSet[str] = frozenset()) -> Lowering:
        """The model with all these layers quantised but the kept ones.

        Raises:
            PrecisionRefused: none is left. `UnknownName`: a kept name is no layer that can be quantised.
        """
        chosen, kept = choose(self.model, self.found, self.left, keep)
        if not chosen:
            raise nothing_left(self.kind, kept)
        spots = find_spots(self.model.ir.graph, chosen)
        graph = place(self.model.ir, chosen, spots, self._amax, self.kind, self._weights, self._smoothing)
        step = f"{self.kind} ({self.ranges.method}, {self.ranges.samples} samples)"
        lowered = self.model.with_step(step, graph)
        findings = tuple(_findings(self.ranges))
        return result(lowered, self.kind, kept, findings, uncalibrated=self.ranges.synthetic)


def prepare(
    model: Model,
    kind: Kind,
    data: Any = None,
    *,
    method: Method = "minmax",
    uncalibrated: bool = False,
) -> Calibrated:
    """Calibrate every layer that can be quantised; what `lower` does before it chooses.

    Raises: as `lower`.
    """
    if kind not in _LEAST_OPSET:
        raise BadOption(f"there is no quantisation to {kind!r}", remedy="int8, fp8 or int4")
    if kind == "fp8" and method == "entropy":
        raise BadOption("entropy counts the levels of int8: it says nothing about fp8", remedy="minmax or percentile")
    refuse_quantised(model)
    samples = _samples(model, data, uncalibrated)
    why = "one scale per channel" if kind == "int8" else "float8"
    model = lifted(model, _LEAST_OPSET[kind], why)
    found, left = candidates(model)
    if not found:
        raise nothing_left(kind, left)
    smooth = eligible(found, find_spots(model.ir.graph, found)) if kind == "int8" and method == "minmax" else ()
    ranges = calibration.observe(
        model,
        watched(model.ir.graph, found),
        samples,
        method,
        source=samples.name,
        synthetic=samples.synthetic,
        by_channel=smooth,
    )
    return Calibrated(model, kind, tuple(found), tuple(left), ranges, {}, smoothings(found, ranges.channels))


def _samples(model: Model, data: Any, uncalibrated: bool) -> CalibrationData:
    if data is not None:
        if uncalibrated:
            raise BadOption("data and --uncalibrated contradict one another", remedy="leave one of them out")
        return open_data(model, data)
    if not uncalibrated:
        raise BadOption(
            "without calibration data every scale would be a guess",
            remedy="--data FOLDER|FILE.npz|module:function with typical inputs; or --uncalibrated to accept guesses",
        )
    return made_up(model)


def _findings(ranges: Ranges) -> Iterable[Finding]:
    if ranges.synthetic:
        yield Finding(
            "uncalibrated",
            f"the scales are guesses: they come from {ranges.samples} made-up inputs",
            remedy="calibrate with --data",
        )
    if ranges.samples == MOST:
        yield Finding("samples", f"the first {MOST} samples were used; further ones were not read")
    silent = sorted(name for name, value in ranges.amax.items() if value == 0.0)
    if silent:
        yield Finding(
            "silent",
            f"{len(silent)} tensors were zero in every sample, the first `{silent[0]}`: their scale is 1",
            remedy="calibrate on data that uses every part of the model",
        )
