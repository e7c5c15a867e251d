"""Elementwise ops that tf2onnx translates to something that differs for some values: negative integers, zeros."""

from __future__ import annotations

import math
from collections.abc import Mapping

from graphkit.capture.tf_handlers.emitter import Emit, Emitter, run_builtin


def handlers() -> Mapping[str, Emit]:
    return {
        "FloorDiv": _floor_div,
        "FloorMod": _floor_mod,
        "TruncateMod": _truncate_mod,
        "Atan2": _atan2,
        "OneHot": _one_hot,
        "AdjustSaturation": _adjust_saturation,
    }


def _is_integer(e: Emitter, tensor: str) -> bool:
    import numpy as np

    return np.issubdtype(e.numpy_dtype(tensor), np.integer)


def _floor_div(e: Emitter) -> list[str] | None:
    """Towards minus infinity: ONNX's Div of integers is towards zero."""
    x, y = e.node.input
    if not _is_integer(e, x):
        run_builtin(e)
        return None
    return [e.op("Div", e.op("Sub", x, e.op("Mod", x, y)), y)]


def _floor_mod(e: Emitter) -> list[str] | None:
    """With the sign of the divisor, as ONNX's Mod of integers."""
    x, y = e.node.input
    if not _is_integer(e, x):
        run_builtin(e)
        return None
    return [e.op("Mod", x, y)]


def _truncate_mod(e: Emitter) -> list[str]:
    x, y = e.node.input
    return [e.op("Mod", x, y, fmod=1)]


def _atan2(e: Emitter) -> list[str]:
    """The quadrant by the signs; 1 / y tells a negative zero."""
    y, x = e.node.input
    zero, half = e.const(0.0, like=y), e.const(math.pi / 2, like=y)
    below = e.op("Or", e.op("Less", y, zero), e.op("Less", e.op("Reciprocal", y), zero))
    turn = e.op("Where", below, e.const(-math.pi, like=y), e.const(math.pi, like=y))
    upright = e.op("Equal", x, zero)
    slope = e.op("Atan", e.op("Div", y, e.op("Where", upright, e.const(1.0, like=x), x)))
    beside = e.op("Where", e.op("Less", x, zero), e.op("Add", slope, turn), slope)
    straight = e.op("Where", e.op("Equal", y, zero), y, e.op("Mul", half, e.op("Sign", y)))
    return [e.op("Where", upright, straight, beside)]


def _one_hot(e: Emitter) -> None:
    """A negative index is off everywhere: ONNX counts it from the end."""
    indices, depth = e.node.input[:2]
    known = e.value(indices)
    if not (known is not None and (known >= 0).all()) and e.numpy_dtype(indices).__name__ != "uint8":
        negative = e.op("Less", indices, e.const(0, like=indices))
        e.graph.replace_input(e.node, indices, e.op("Where", negative, e.cast(depth, indices), indices), 0)
    run_builtin(e)


def _adjust_saturation(e: Emitter) -> list[str]:
    """Hue and value stay, so that every channel's distance from the greatest scales as the saturation does."""
    import numpy as np

    images, scale = e.node.input
    axis = [e.rank(images) - 1]
    most = e.reduce("ReduceMax", images, axis, keepdims=True)
    least = e.reduce("ReduceMin", images, axis, keepdims=True)
    zero, one = e.const(np.zeros(()), like=images), e.const(np.ones(()), like=images)
    grey = e.op("Equal", most, least)
    saturation = e.op("Div", e.op("Sub", most, least), e.op("Where", grey, one, most))
    wanted = e.op("Clip", e.op("Mul", saturation, e.cast(scale, images)), zero, one)
    ratio = e.op("Where", grey, one, e.op("Div", wanted, e.op("Where", grey, one, saturation)))
    return [e.op("Sub", most, e.op("Mul", e.op("Sub", most, images), ratio))]
