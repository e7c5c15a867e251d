"""Convolutions that tf2onnx gets wrong or cannot do, and their gradients.

The gradient of a filter is itself a convolution: the input, with channels in place of the batch, is convolved with the
output's gradient, with strides and dilations exchanged (Dumoulin and Visin, A guide to convolution arithmetic, 2016).
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from graphkit.capture.tf_handlers import windows
from graphkit.capture.tf_handlers.emitter import Emit, Emitter, Refusal, run_builtin


def handlers() -> Mapping[str, Emit]:
    return {
        "Conv2D": _conv,
        "Conv3D": _conv,
        "Conv2DBackpropInput": _input_gradient,
        "Conv3DBackpropInputV2": _input_gradient,
        "DepthwiseConv2dNativeBackpropInput": _depthwise_input_gradient,
        "Conv2DBackpropFilter": _filter_gradient,
        "Conv3DBackpropFilterV2": _filter_gradient,
        "DepthwiseConv2dNativeBackpropFilter": _depthwise_filter_gradient,
    }


def _conv(e: Emitter) -> list[str] | None:
    """Grouped, and dilated SAME of unknown size: tf2onnx drops the groups of Conv3D, and ONNX Runtime refuses
    `auto_pad` with dilations. Everything else is tf2onnx's."""
    x, kernel, *bias = e.node.input  # tf2onnx has put a BiasAdd's in
    filter_shape = e.shape(kernel)
    spatial = 3 if e.node.type == "Conv3D" else 2
    whole = filter_shape is not None and len(filter_shape) == e.rank(x) == spatial + 2
    unpadded = e.node.get_attr_str("padding") == "VALID"
    if filter_shape is None or not whole or (unpadded and min(filter_shape[:spatial]) < 0):
        run_builtin(e)
        return None
    window = windows.window_of(e, filter_shape[:spatial])
    shape = e.shape(x) or []
    channels = shape[-1] if window.channels_last else shape[1]
    size = windows.spatial_of(shape, window)
    # where a size is unknown: one group, which a runtime refuses if there are more
    groups = channels // filter_shape[-2] if channels > 0 and filter_shape[-2] > 0 else 1
    dilated_unknown = window.static_pads(size) is None and any(d > 1 for d in window.dilations)
    if not dilated_unknown and (spatial == 2 or groups == 1):
        run_builtin(e)
        return None
    data, pads = windows.padded(e, windows.to_first(e, x, window), size, window)
    weights = _out_first(e, kernel, spatial)
    made = e.op("Conv", data, weights, *bias, pads=pads, group=groups, **_steps(window))
    return [windows.to_last(e, made, window)]


def _steps(window: windows.Window) -> dict[str, Any]:
    return {
        "strides": list(window.strides),
        "dilations": list(window.dilations),
        "kernel_shape": list(window.kernel),
    }


def _out_first(e: Emitter, kernel: str, spatial: int) -> str:
    """TensorFlow's (..., in, out) as ONNX's (out, in, ...); those of a transposed convolution are the other way
    round in both."""
    order = [spatial + 1, spatial, *range(spatial)]
    return _turned(e, kernel, order) or _requantised(e, kernel, order) or e.op("Transpose", kernel, perm=order)


def _turned(e: Emitter, constant: str, order: list[int]) -> str | None:
    import numpy as np

    value = e.value(constant)
    return None if value is None else e.const(np.ascontiguousarray(value.transpose(order)))


def _requantised(e: Emitter, kernel: str, order: list[int]) -> str | None:
    """A quantised constant turned before it is quantised: engines look for the pair right before a convolution."""
    dequantise = e.graph.get_node_by_output(kernel)
    quantise = dequantise.inputs[0] if dequantise is not None and dequantise.type == "DequantizeLinear" else None
    if quantise is None or quantise.type != "QuantizeLinear":
        return None
    weights = _turned(e, quantise.input[0], order)
    scale = e.shape(dequantise.input[1])
    if weights is None or scale is None:
        return None
    # one scale has no axis; the axis of the outputs, as for one a channel, is what tf2onnx writes
    axis = 1 if scale in ([], [1]) else order.index(dequantise.get_attr_value("axis", 1) % len(order))
    whole = e.op("QuantizeLinear", weights, *quantise.input[1:], axis=axis)
    return e.op("DequantizeLinear", whole, *dequantise.input[1:], axis=axis)


def _input_gradient(e: Emitter) -> list[str]:
    sizes, kernel, gradient, *bias = e.node.input
    spatial = e.rank(kernel) - 2
    filter_shape = e.shape(kernel) or []
    window = windows.window_of(e, filter_shape[:spatial])
    shape = e.shape(e.node.output[0])
    known = e.value(sizes)
    if known is not None and len(known) == spatial:  # the sizes may be the spatial ones alone
        size, run_time = [int(n) for n in known], e.ints(*[int(n) for n in known])
    else:
        size = windows.spatial_of(shape, window)
        run_time = _spatial_entries(e, sizes, window) if any(n < 0 for n in size) else e.ints(*size)
    channels = -1 if shape is None else (shape[-1] if window.channels_last else shape[1])
    group = channels // filter_shape[-2] if channels > 0 and filter_shape[-2] > 0 else 1
    weights = _out_first(e, kernel, spatial)
    data = windows.to_first(e, gradient, window)
    return [windows.to_last(e, windows.spread(e, data, weights, window, size, run_time, group, *bias), window)]


def _spatial_entries(e: Emitter, sizes: str, window: windows.Window) -> str:
    """The spatial entries of a whole shape given at run time."""
    first = 1 if window.channels_last else 2
    return e.op("Slice", e.int64(sizes), e.ints(first), e.ints(first + window.spatial))


def _depthwise_input_gradient(e: Emitter) -> list[str]:
    sizes, kernel, gradient = e.node.input
    height, width, channels, multiplier = e.shape(kernel) or [-1] * 4
    window = windows.window_of(e, [height, width])
    size = windows.spatial_of(e.shape(e.node.output[0]), window)
    run_time = _spatial_entries(e, sizes, window) if any(n < 0 for n in size) else e.ints(*size)
    weights = e.op("Transpose", kernel, perm=[2, 3, 0, 1])
    weights = e.op("Reshape", weights, e.ints(channels * multiplier, 1, height, width))
    data = windows.to_first(e, gradient, window)
    return [windows.to_last(e, windows.spread(e, data, weights, window, size, run_time, channels), window)]


def _filter_gradient(e: Emitter) -> list[str]:
    x, _, gradient = e.node.input
    *kernel, inputs, _ = _filter_shape(e)
    window = windows.window_of(e, kernel)
    shape = e.shape(x) or []
    channels = shape[-1] if window.channels_last else shape[1]
    if channels < 0 or inputs < 0:
        raise Refusal("the number of input channels is not known, so neither is the number of groups")
    made = _correlate(e, x, gradient, window, channels // inputs, inputs)
    spatial = list(range(2, 2 + window.spatial))
    return [e.op("Transpose", made, perm=[*spatial, 0, 1])]


def _depthwise_filter_gradient(e: Emitter) -> list[str]:
    x, _, gradient = e.node.input
    height, width, channels, multiplier = _filter_shape(e)
    window = windows.window_of(e, [height, width])
    made = _correlate(e, x, gradient, window, channels, 1)
    split = e.op("Reshape", made, e.ints(channels, multiplier, height, width))
    return [e.op("Transpose", split, perm=[2, 3, 0, 1])]


def _filter_shape(e: Emitter) -> list[int]:
    known = e.value(e.node.input[1])
    shape = [int(n) for n in known] if known is not None else e.shape(e.node.output[0])
    if shape is None or any(n < 0 for n in shape):
        raise Refusal("the shape of the filter is not known")
    return shape


def _correlate(e: Emitter, x: str, gradient: str, window: windows.Window, groups: int, per_group: int) -> str:
    """The filter's gradient as (inputs per group, outputs, kernel...)."""
    spatial = list(range(2, 2 + window.spatial))
    size = windows.spatial_of(e.shape(x), window)
    data, pads = windows.padded(e, windows.to_first(e, x, window), size, window)
    if groups == 1:
        images = e.op("Transpose", data, perm=[1, 0, *spatial])
    else:
        tail = windows.spatial_size(e, data)
        split = e.op("Reshape", data, e.op("Concat", e.ints(-1, groups, per_group), tail, axis=0))
        turned = e.op("Transpose", split, perm=[2, 1, 0, *[s + 1 for s in spatial]])
        images = e.op("Reshape", turned, e.op("Concat", e.ints(per_group, -1), tail, axis=0))
    steps = e.op("Transpose", windows.to_first(e, gradient, window), perm=[1, 0, *spatial])
    made = e.op(
        "Conv", images, steps,
        pads=pads, group=groups, strides=list(window.dilations), dilations=list(window.strides),
    )  # fmt: skip
    return e.op("Slice", made, e.ints(*[0] * window.spatial), e.ints(*window.kernel), e.ints(*spatial))
