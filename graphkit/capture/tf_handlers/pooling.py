"""Gradients of pooling."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from graphkit.capture.tf_handlers import windows
from graphkit.capture.tf_handlers.emitter import Emit, Emitter, Refusal


def handlers() -> Mapping[str, Emit]:
    return {
        "MaxPoolGrad": _max_pool_grad,
        "MaxPoolGradV2": _max_pool_grad,
        "MaxPool3DGrad": _max_pool_grad,
        "AvgPoolGrad": _average_pool_grad,
        "AvgPool3DGrad": _average_pool_grad,
    }


def _max_pool_grad(e: Emitter) -> list[str]:
    """Each gradient goes to the first greatest element of its window; in 3-D to every one that is as great, as
    TensorFlow does on a CPU."""
    x, _, gradient = e.node.input[:3]
    window = _pool_window(e, e.rank(x) - 2)
    overlap = any(k > s for k, s in zip(window.kernel, window.strides, strict=True))
    if window.spatial == 3 or (overlap and e.opset < 16):
        return _by_offsets(e, window)
    data = windows.to_first(e, x, window)
    pads = _pads(window, windows.spatial_of(e.shape(x), window))
    places = e.ops("MaxPool", [data], 2, kernel_shape=list(window.kernel), strides=list(window.strides), **pads)[1]
    shape = e.op("Shape", data)
    count = e.op("ReduceProd", shape, keepdims=1)
    zeros = e.op("Expand", e.const(0.0, like=gradient), count)
    flat = [e.op("Reshape", t, e.ints(-1)) for t in (places, windows.to_first(e, gradient, window))]
    adding = {"reduction": "add"} if overlap else {}
    scattered = e.op("ScatterElements", zeros, *flat, axis=0, **adding)
    return [windows.to_last(e, e.op("Reshape", scattered, shape), window)]


def _by_offsets(e: Emitter, window: windows.Window) -> list[str]:
    """The same without adding in place (opset 16): one comparison for each place in the window, then a transposed
    convolution that puts every place where it belongs."""
    import numpy as np

    x, y, gradient = (windows.to_first(e, t, window) for t in e.node.input[:3])
    size = windows.spatial_of(e.shape(e.node.input[0]), window)
    around = _low_padded(e, x, size, window)
    steps = e.op("Sub", windows.spatial_size(e, y), e.ints(1))
    last = e.op("Add", e.op("Mul", steps, e.ints(*window.strides)), e.ints(1))
    axes, strides = e.ints(*range(2, 2 + window.spatial)), e.ints(*window.strides)
    zero, taken, parts = e.const(0.0, like=gradient), None, []
    for place in np.ndindex(*window.kernel):
        begin = e.ints(*place)
        chosen = e.op("Equal", e.op("Slice", around, begin, e.op("Add", begin, last), axes, strides), y)
        if window.spatial == 2:
            first = chosen if taken is None else e.op("And", chosen, e.op("Not", taken))
            taken = chosen if taken is None else e.op("Or", taken, chosen)
            chosen = first
        parts.append(e.op("Where", chosen, gradient, zero))
    planes = e.op("Concat", *(_as_planes(e, p) for p in parts), axis=1)
    e.graph.set_shape(planes, [-1, len(parts), *windows.spatial_of_first(e, gradient, window)])
    kernel = np.eye(len(parts)).reshape(len(parts), 1, *window.kernel)
    run_time = windows.spatial_size(e, x)
    made = windows.spread(e, planes, e.const(kernel, like=gradient), window, size, run_time)
    return [windows.to_last(e, e.op("Reshape", made, e.op("Shape", x)), window)]


def _low_padded(e: Emitter, x: str, size: list[int], window: windows.Window) -> str:
    """Padded with what no maximum can be."""
    import numpy as np

    low = e.const(np.finfo(e.numpy_dtype(x)).min, like=x)
    pads = window.static_pads(size)
    begin, end = (
        windows.run_time_pads(e, windows.spatial_size(e, x), window)
        if pads is None
        else (e.ints(*pads[0]), e.ints(*pads[1]))
    )
    return e.op("Pad", x, e.op("Concat", e.ints(0, 0), begin, e.ints(0, 0), end, axis=0), low)


def _as_planes(e: Emitter, tensor: str) -> str:
    """(batch * channels, 1, spatial...)."""
    return e.op("Reshape", tensor, e.op("Concat", e.ints(-1, 1), windows.spatial_size(e, tensor), axis=0))


def _pads(window: windows.Window, size: list[int]) -> dict[str, Any]:
    pads = window.static_pads(size)
    return {"auto_pad": "SAME_UPPER"} if pads is None else {"pads": pads[0] + pads[1]}


def _pool_window(e: Emitter, spatial: int) -> windows.Window:
    if e.node.type.endswith("V2"):
        for name, tensor in zip(("ksize", "strides"), e.node.input[3:5], strict=True):
            value = e.value(tensor)
            if value is None:
                raise Refusal("the window is computed at run time")
            e.node.set_attr(name, [int(n) for n in value])
    ksize = list(e.node.get_attr_value("ksize"))
    whole = windows.window_of(e, [1] * spatial)
    kernel = ksize[1:-1] if whole.channels_last else ksize[2:]
    if len(ksize) - len(kernel) != 2 or ksize[0] != 1 or ksize[-1 if whole.channels_last else 1] != 1:
        raise Refusal(f"the window {ksize} pools over the batch or the channels")
    return windows.window_of(e, kernel)


def _average_pool_grad(e: Emitter) -> list[str]:
    """The gradient over the number of elements that its window really holds, spread over that window."""
    sizes, gradient = e.node.input
    window = _pool_window(e, e.rank(gradient) - 2)
    size = windows.spatial_of(e.shape(e.node.output[0]), window)
    whole = e.int64(sizes)
    first = 1 if window.channels_last else 2
    run_time = e.op("Slice", whole, e.ints(first), e.ints(first + window.spatial))
    data = windows.to_first(e, gradient, window)
    ones = e.const([[_ones(window.kernel)]], like=gradient)
    share = e.op("Div", data, _members(e, data, ones, size, run_time, window))
    planes = _as_planes(e, share)
    given = windows.spatial_of_first(e, data, window)
    e.graph.set_shape(planes, [-1, 1, *given])
    made = windows.spread(e, planes, ones, window, size, run_time)
    leading = e.op("Slice", e.op("Shape", data), e.ints(0), e.ints(2))
    back = e.op("Reshape", made, e.op("Concat", leading, run_time, axis=0))
    return [windows.to_last(e, back, window)]


def _ones(kernel: tuple[int, ...]) -> Any:
    import numpy as np

    return np.ones(kernel)


def _members(e: Emitter, data: str, ones: str, size: list[int], run_time: str, window: windows.Window) -> str:
    """How many elements of the input lie in each window: all of the kernel, but for padding."""
    import numpy as np

    if window.padding == "VALID":
        return e.const(float(np.prod(window.kernel)), like=data)
    plane = e.op("Expand", e.const(1.0, like=data), e.op("Concat", e.ints(1, 1), run_time, axis=0))
    e.graph.set_shape(plane, [1, 1, *size])
    around, pads = windows.padded(e, plane, size, window)
    return e.op("Conv", around, ones, strides=list(window.strides), pads=pads)
