"""Quantised models: which Q/DQ a target takes, and which was never calibrated."""

from __future__ import annotations

from collections.abc import Iterator

from graphkit.support.rule import EVERY, NVIDIA, Hit, Rule
from graphkit.support.scene import Scene

_QDQ = ("QuantizeLinear", "DequantizeLinear")
_SYMMETRIC = "quantise symmetrically: ActivationSymmetric and WeightSymmetric in onnxruntime.quantization, QInt8"


def _zero_points(scene: Scene) -> Iterator[Hit]:
    for place in scene.of(*_QDQ):
        zero = scene.weight(place, 2)
        if zero is None or zero.dtype not in ("int8", "uint8"):
            continue
        values = scene.numbers(place, 2)
        if values is not None and values.any():
            found = int(values.reshape(-1)[values.reshape(-1) != 0][0])
            yield Hit(f"`{place.op}` has the zero point {found} ({zero.dtype})", place, fix=_SYMMETRIC)


_TAKEN = ("int8", "uint8", "float8e4m3fn", "int4", "float4e2m1", "float8e8m0", None)


def _types(scene: Scene) -> Iterator[Hit]:
    for place in scene.of(*_QDQ):
        dtype = scene.dtype(place, 0) if place.op == "DequantizeLinear" else scene.made_dtype(place)
        if dtype in _TAKEN:
            continue
        if dtype == "int32":
            fix = "quantise with extra_options={'QuantizeBias': False}: the bias stays float"
            yield Hit("`DequantizeLinear` of int32, as ONNX Runtime writes a quantised bias", place, fix=fix)
        else:
            yield Hit(f"`{place.op}` with the type {dtype}", place)


def _uncalibrated(scene: Scene) -> Iterator[Hit]:
    import math

    for place in scene.of("QuantizeLinear"):
        scale = scene.weight(place, 1)
        values = scene.numbers(place, 1)
        if scale is None or values is None or values.size == 0:
            continue
        numbers = [float(v) for v in values.reshape(-1)]
        bad = next((v for v in numbers if not math.isfinite(v) or v <= 0), None)
        if bad is not None:
            yield Hit(f"`QuantizeLinear` has the scale {bad:g}", place)
        elif not scene.constant_slot(place, 0) and all(v == 1.0 for v in numbers):
            yield Hit("`QuantizeLinear` has the scale 1, as before calibration", place)


RULES = (
    Rule(
        "GKC141",
        "a zero point that is not zero",
        "error",
        NVIDIA,
        "TensorRT quantises symmetrically: `Non-zero zero point is not supported`.",
        _SYMMETRIC,
        _zero_points,
    ),
    Rule(
        "GKC142",
        "a quantised type that the target has not",
        "error",
        NVIDIA,
        "QuantizeLinear and DequantizeLinear work on int8, uint8 with zero point 0, float8e4m3fn, int4 and float4e2m1; "
        "not on int32, int16, uint16 or float8e5m2.",
        "quantise to int8 or float8e4m3fn",
        _types,
    ),
    Rule(
        "GKC341",
        "a scale that was never calibrated",
        "warning",
        EVERY,
        "The scale of a QuantizeLinear on activations is 1, 0, negative or not finite: what a quantiser "
        "writes before it has seen data. The model runs, and is wrong.",
        "calibrate with representative data, and quantise again",
        _uncalibrated,
    ),
)
