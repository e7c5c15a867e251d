"""Sliding windows: where a convolution or a pool of TensorFlow reads its input, and the way back.

Everything here is channels-first; `to_first` and `to_last` carry a TensorFlow tensor there and back.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from graphkit.capture.tf_handlers.emitter import Emitter, Refusal


@dataclass(frozen=True, slots=True)
class Window:
    """Kernel, strides, dilations and padding over the spatial axes.

    Attributes:
        padding: `SAME`, `VALID` or `EXPLICIT`.
        explicit: (begin, end) per spatial axis, for `EXPLICIT`.
        channels_last: How the TensorFlow tensors lie.
    """

    kernel: tuple[int, ...]
    strides: tuple[int, ...]
    dilations: tuple[int, ...]
    padding: str
    explicit: tuple[tuple[int, int], ...]
    channels_last: bool

    @property
    def spatial(self) -> int:
        return len(self.kernel)

    @property
    def reach(self) -> tuple[int, ...]:
        """The extent of the dilated kernel."""
        return tuple((k - 1) * d + 1 for k, d in zip(self.kernel, self.dilations, strict=True))

    def static_pads(self, size: Sequence[int]) -> tuple[list[int], list[int]] | None:
        """(begin, end) for an input of this spatial size; None if SAME needs a size that is not known."""
        if self.padding == "VALID":
            return [0] * self.spatial, [0] * self.spatial
        if self.padding == "EXPLICIT":
            return [b for b, _ in self.explicit], [a for _, a in self.explicit]
        if any(n < 0 for n in size):
            return None
        totals = [max((-(-n // s) - 1) * s + r - n, 0) for n, s, r in zip(size, self.strides, self.reach, strict=True)]
        return [t // 2 for t in totals], [t - t // 2 for t in totals]


def window_of(e: Emitter, kernel: Sequence[int]) -> Window:
    """The window of a convolution or pool node whose kernel is known."""
    layout = e.node.get_attr_value("data_format", "NHWC")
    layout = layout.decode() if isinstance(layout, bytes) else str(layout)
    last = not layout.startswith("NC")
    spatial = len(kernel)
    axes = slice(1, 1 + spatial) if last else slice(2, 2 + spatial)
    strides = list(e.node.get_attr_value("strides") or [1] * (spatial + 2))
    dilations = list(e.node.get_attr_value("dilations") or [1] * (spatial + 2))
    flat = list(e.node.get_attr_value("explicit_paddings") or [0] * (2 * spatial + 4))
    pairs = list(zip(flat[0::2], flat[1::2], strict=True))
    if any(k < 0 for k in kernel):
        raise Refusal("the size of the kernel is not known")
    return Window(
        kernel=tuple(int(k) for k in kernel),
        strides=tuple(strides[axes]),
        dilations=tuple(dilations[axes]),
        padding=e.node.get_attr_str("padding"),
        explicit=tuple(pairs[axes]),
        channels_last=last,
    )


def to_first(e: Emitter, tensor: str, window: Window) -> str:
    """The tensor with channels after the batch."""
    n = window.spatial
    return e.op("Transpose", tensor, perm=[0, n + 1, *range(1, n + 1)]) if window.channels_last else tensor


def to_last(e: Emitter, tensor: str, window: Window) -> str:
    """The inverse of `to_first`."""
    n = window.spatial
    return e.op("Transpose", tensor, perm=[0, *range(2, n + 2), 1]) if window.channels_last else tensor


def spatial_of(shape: Sequence[int] | None, window: Window) -> list[int]:
    """The spatial part of a shape that lies as the window's tensors do; -1 for what is not known."""
    if shape is None:
        return [-1] * window.spatial
    return list(shape[1:-1] if window.channels_last else shape[2:])


def run_time_pads(e: Emitter, size: str, window: Window) -> tuple[str, str]:
    """(begin, end) as int64 vectors, for a spatial size known at run time only."""
    if window.padding != "SAME":
        begin, end = window.static_pads([0] * window.spatial) or ([], [])
        return e.ints(*begin), e.ints(*end)
    strides = e.ints(*window.strides)
    steps = e.op("Div", e.op("Sub", size, e.ints(1)), strides)
    needed = e.op("Add", e.op("Mul", steps, strides), e.ints(*window.reach))
    total = e.op("Max", e.op("Sub", needed, size), e.ints(0))
    begin_at = e.op("Div", total, e.ints(2))
    return begin_at, e.op("Sub", total, begin_at)


def padded(e: Emitter, tensor: str, size: Sequence[int], window: Window) -> tuple[str, list[int]]:
    """The channels-first tensor and the `pads` attribute for it: a Pad node where only the run time knows."""
    pads = window.static_pads(size)
    if pads is not None:
        return tensor, pads[0] + pads[1]
    begin, end = run_time_pads(e, spatial_size(e, tensor), window)
    around = e.op("Concat", e.ints(0, 0), begin, e.ints(0, 0), end, axis=0)
    return e.op("Pad", tensor, around, e.const(0.0, like=tensor)), [0] * (2 * window.spatial)


def spatial_size(e: Emitter, tensor: str) -> str:
    """The spatial size of a channels-first tensor, an int64 vector."""
    return e.op("Slice", e.op("Shape", tensor), e.ints(2), e.ints(2**31 - 1))


def spread(
    e: Emitter,
    tensor: str,
    kernel: str,
    window: Window,
    size: Sequence[int],
    run_time_size: str,
    group: int = 1,
    *bias: str,
) -> str:
    """The transposed convolution that gives back the input of a forward window.

    Args:
        e: Where to write.
        tensor: Channels-first, the size of the forward output.
        kernel: In ONNX's order for ConvTranspose.
        window: The forward window.
        size: The spatial size to reach, -1 where it is not known.
        run_time_size: The same as an int64 vector.
        group: As in Conv.
        bias: One vector, or none.
    """
    given = spatial_of_first(e, tensor, window)
    pads = window.static_pads(size)
    common = {"strides": list(window.strides), "dilations": list(window.dilations), "group": group}
    if pads is not None and all(n >= 0 for n in [*size, *given]):
        full = [(n - 1) * s + r for n, s, r in zip(given, window.strides, window.reach, strict=True)]
        over = [f - b - n for f, b, n in zip(full, pads[0], size, strict=True)]
        ends = [max(o, 0) for o in over]
        extra = [max(-o, 0) for o in over]
        if any(extra):
            common["output_padding"] = extra
        return e.op("ConvTranspose", tensor, kernel, *bias, pads=[*pads[0], *ends], **common)
    whole = e.op("ConvTranspose", tensor, kernel, **common)
    begin, _ = run_time_pads(e, run_time_size, window)
    if any(s > 1 for s in window.strides) or window.padding == "EXPLICIT":
        room = [s - 1 + b for s, (b, _) in zip(window.strides, window.explicit, strict=True)]
        pads_end = e.ints(*[0] * (2 + window.spatial), 0, 0, *room)
        whole = e.op("Pad", whole, pads_end, e.const(0.0, like=whole))
    axes = e.ints(*range(2, 2 + window.spatial))
    made = e.op("Slice", whole, begin, e.op("Add", begin, run_time_size), axes)
    for vector in bias:  # not before the Pad: its zeros take the bias too
        made = e.op("Add", made, e.op("Reshape", vector, e.ints(-1, *[1] * window.spatial)))
    return made


def spatial_of_first(e: Emitter, tensor: str, window: Window) -> list[int]:
    """The known spatial size of a channels-first tensor."""
    shape = e.shape(tensor)
    return [-1] * window.spatial if shape is None else shape[2:]
