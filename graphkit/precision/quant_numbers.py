"""From the largest |x| to a scale, and from float32 weights to int8 and float8e4m3fn: symmetric, zero points 0."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Literal

if TYPE_CHECKING:
    import numpy as np

    Array = np.ndarray[Any, Any]

Kind = Literal["int8", "fp8"]

LARGEST = {"int8": 127.0, "fp8": 448.0}
"""What the largest |x| becomes. int8 leaves -128 unused, so that the range is symmetric; 448 is the largest finite
float8e4m3fn (Micikevicius et al., FP8 Formats for Deep Learning, 2022). ONNX Runtime's own fp8 scale sets the standard
deviation of weights to that of the float8 numbers, and leaves activations at a scale of their own distribution; the
largest |x| on 448 is what TensorRT's tools do."""

_TINY = 2.0**-126


def scale_of(amax: Array | float, kind: Kind) -> Array:
    """Scale(s) for the largest |x|, float32; 1 where all is zero, as in onnxruntime.quantization."""
    import numpy as np

    scale = np.asarray(amax, np.float64) / LARGEST[kind]
    return np.where(scale < _TINY, 1.0, scale).astype(np.float32)


def amax_per_channel(weight: Array, axis: int | None) -> Array:
    """The largest |w| of each slice along `axis`, or of all."""
    import numpy as np

    if axis is None:
        return np.asarray(np.abs(weight).max(initial=0.0))
    others = tuple(i for i in range(weight.ndim) if i != axis)
    return np.asarray(np.abs(weight).max(axis=others, initial=0.0))


def quantised(weight: Array, scale: Array, axis: int | None, kind: Kind) -> Array:
    """The weight in units of its scale, rounded to even: int8, or float8e4m3fn."""
    import ml_dtypes
    import numpy as np

    shape = [1] * weight.ndim
    if axis is not None:
        shape[axis] = -1
    units = weight / scale.reshape(shape)
    if kind == "int8":
        return np.clip(np.rint(units), -127, 127).astype(np.int8)
    return np.clip(units, -448, 448).astype(ml_dtypes.float8_e4m3fn)
