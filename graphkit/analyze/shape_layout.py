"""Types of a node's outputs from those of its inputs: operators that move data."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from typing import TypeAlias

from graphkit.analyze.node import Node
from graphkit.analyze.polynomial import Poly, Size, floor, product
from graphkit.analyze.tensors import UNKNOWN, Shape, Tensor, elements
from graphkit.view import SparseView, WeightView
from graphkit.view.dtypes import name_of

Outputs: TypeAlias = Sequence[Tensor]


def axes_of(node: Node, slot: int, rank: int) -> tuple[int, ...] | None:
    """Axes from the attribute (older opsets) or the input of that slot; () if there are none; None if unknown."""
    found = node.numbers(slot) if node.given(slot) else node.attribute("axes", ())
    return tuple(axis % rank for axis in found) if found is not None and rank else found


def _constant(node: Node) -> Outputs:
    for name in ("value", "value_float", "value_int", "value_string", "value_floats", "value_ints", "sparse_value"):
        value = node.attribute(name)
        if isinstance(value, WeightView | SparseView):
            return (Tensor(tuple(value.dims), value.dtype),)
        if value is not None:
            dtype = {"f": "float32", "i": "int64", "s": "string"}[name[6]]
            return (Tensor((len(value),) if name.endswith("s") else (), dtype),)
    return (UNKNOWN,)


def _shape_of(node: Node) -> Outputs:
    shape = node.shape(0)
    if shape is None:
        return (Tensor((None,), "int64"),)
    start, end = node.attribute("start", 0), node.attribute("end", len(shape))
    return (Tensor((len(shape[start:end]),), "int64"),)


def _size(_node: Node) -> Outputs:
    return (Tensor((), "int64"),)


def _reshape(node: Node) -> Outputs:
    shape, wanted = node.shape(0), node.ints(1)
    if not node.given(1):
        wanted = node.attribute("shape")
    if wanted is None:
        count = (node.shape(1) or (None,))[0]
        return (Tensor((None,) * count if isinstance(count, int) else None, node.dtype(0)),)
    found: list[Size | None] = []
    for at, size in enumerate(wanted):
        if size == 0 and not node.attribute("allowzero", 0):
            found.append(shape[at] if shape is not None and at < len(shape) else None)
        else:
            found.append(size if size != -1 else None)
    open_ = [at for at, size in enumerate(wanted) if size == -1]
    total = elements(shape)
    if len(open_) == 1:
        found[open_[0]] = _rest(shape, found, open_[0], total)
    return (Tensor(tuple(found), node.dtype(0)),)


def _rest(shape: Shape | None, found: list[Size | None], at: int, total: Size | None) -> Size | None:
    """The size that -1 stands for."""
    others = [size for i, size in enumerate(found) if i != at]
    if total is None:  # unknown sizes that stay where they are divide out
        if shape is None or None in others:
            return None
        kept = [size for size in shape if size is not None]
        unknown = len(shape) - len(kept)
        return None if unknown else product(kept)
    known = elements(tuple(others))
    if known is None or known == 0:
        return None
    return floor(total, known)


def _flatten(node: Node) -> Outputs:
    shape = node.shape(0)
    if shape is None:
        return (Tensor((None, None), node.dtype(0)),)
    axis = node.attribute("axis", 1)
    axis = axis + len(shape) if axis < 0 else axis
    return (Tensor((elements(shape[:axis]), elements(shape[axis:])), node.dtype(0)),)


def _transpose(node: Node) -> Outputs:
    shape = node.shape(0)
    if shape is None:
        return (Tensor(None, node.dtype(0)),)
    order = node.attribute("perm", tuple(reversed(range(len(shape)))))
    return (Tensor(tuple(shape[axis] for axis in order), node.dtype(0)),)


def _squeeze(node: Node) -> Outputs:
    shape = node.shape(0)
    axes = axes_of(node, 1, len(shape)) if shape is not None else None
    if shape is None or axes is None or (not axes and not all(isinstance(size, int) for size in shape)):
        return (Tensor(None, node.dtype(0)),)
    if not axes:
        return (Tensor(tuple(size for size in shape if size != 1), node.dtype(0)),)
    return (Tensor(tuple(size for at, size in enumerate(shape) if at not in axes), node.dtype(0)),)


def _unsqueeze(node: Node) -> Outputs:
    shape = node.shape(0)
    axes = node.numbers(1) if node.given(1) else node.attribute("axes")
    if shape is None or axes is None:
        return (Tensor(None, node.dtype(0)),)
    rank = len(shape) + len(axes)
    places = {axis % rank for axis in axes}
    rest = iter(shape)
    return (Tensor(tuple(1 if at in places else next(rest) for at in range(rank)), node.dtype(0)),)


def _concat(node: Node) -> Outputs:
    shapes = [node.shape(slot) for slot in range(len(node.reads))]
    known = [shape for shape in shapes if shape is not None]
    if not known:
        return (Tensor(None, node.dtype(0)),)
    rank = len(known[0])
    axis = node.attribute("axis", 1) % rank
    found: list[Size | None] = []
    for at in range(rank):
        sizes = [shape[at] if shape is not None else None for shape in shapes]
        if at == axis:
            found.append(_sum(sizes))
        else:
            found.append(
                next((s for s in sizes if isinstance(s, int)), next((s for s in sizes if s is not None), None))
            )
    return (Tensor(tuple(found), node.dtype(0)),)


def _sum(sizes: Sequence[Size | None]) -> Size | None:
    total: Size = 0
    for size in sizes:
        if size is None:
            return None
        total = total + size
    return total


def _split(node: Node) -> Outputs:
    shape, count = node.shape(0), len(node.makes)
    if shape is None:
        return (Tensor(None, node.dtype(0)),) * count
    axis = node.attribute("axis", 0) % len(shape)
    parts = node.ints(1) if node.given(1) else node.attribute("split")
    if parts is None and not node.given(1) and shape[axis] is not None:
        whole = shape[axis]
        step = floor(whole + (count - 1), count) if isinstance(whole, int) else floor(whole, count)
        parts = [step] * (count - 1) + [whole - step * (count - 1)] if isinstance(whole, int) else [step] * count
    return [
        Tensor((*shape[:axis], parts[slot] if parts is not None else None, *shape[axis + 1 :]), node.dtype(0))
        for slot in range(count)
    ]


_FAR = 2**31 - 1


def _slice(node: Node) -> Outputs:
    shape = node.shape(0)
    if shape is None:
        return (Tensor(None, node.dtype(0)),)
    if node.opset < 10:
        starts, ends, axes = node.attribute("starts"), node.attribute("ends"), node.attribute("axes")
        steps: Sequence[Size] | None = None
        axes_known = True
    else:
        starts, ends, axes, steps = node.ints(1), node.ints(2), node.numbers(3), node.ints(4)
        axes_known = axes is not None or not node.given(3)
    if not axes_known:
        return (Tensor((None,) * len(shape), node.dtype(0)),)
    count = next((len(row) for row in (axes, starts, ends) if row is not None), None)
    if count is None:
        return (Tensor((None,) * len(shape), node.dtype(0)),)
    found = list(shape)
    for at, axis in enumerate(axes if axes is not None else range(count)):
        start = starts[at] if starts is not None else None
        end = ends[at] if ends is not None else None
        step = 1 if not node.given(4) else steps[at] if steps is not None else None
        found[axis] = _sliced(shape[axis], start, end, step)
    return (Tensor(tuple(found), node.dtype(0)),)


def _sliced(size: Size | None, start: Size | None, end: Size | None, step: Size | None) -> Size | None:
    if size is None or start is None or end is None or not isinstance(step, int) or step == 0:
        return None
    if isinstance(size, int) and isinstance(start, int) and isinstance(end, int):
        return len(range(*slice(start, end, step).indices(size)))
    if step == -1 and start == -1 and isinstance(end, int) and end <= -_FAR:
        return size
    first = size + start if isinstance(start, int) and start < 0 else start
    last = size if isinstance(end, int) and end >= _FAR else size + end if isinstance(end, int) and end < 0 else end
    if step < 1 or not _within(first, size) or not _within(last, size):
        return None
    return floor(last - first + (step - 1), step)


def _within(bound: Size, size: Size) -> bool:
    """Whether a bound holds at every size of the name in it: 0, the size itself, or the size less a number, as
    authors mean it who write `x[:-1]`. A number from the front may lie behind the end, where it would be clamped."""
    if bound in (0, size):
        return True
    return isinstance(bound, Poly) and isinstance(size, Poly) and isinstance(size - bound, int)


def _expand(node: Node) -> Outputs:
    from graphkit.analyze.shape_rules import broadcast

    wanted = node.ints(1)
    return (Tensor(broadcast((node.shape(0), wanted)), node.dtype(0)),)


def _filled(node: Node) -> Outputs:
    fill, wanted = node.attribute("value"), node.ints(0)
    dtype = fill.dtype if isinstance(fill, WeightView) else "float32"
    if wanted is None:
        count = (node.shape(0) or (None,))[0]
        return (Tensor((None,) * count if isinstance(count, int) else None, dtype),)
    return (Tensor(wanted, dtype),)


def _range(node: Node) -> Outputs:
    start, limit, step = (node.ints(slot) for slot in range(3))
    size: Size | None = None
    if start and limit and step:
        if step[0] == 1 and start[0] == 0:
            size = limit[0]
        elif step[0] == 1 and start[0] is not None and limit[0] is not None and _counts(limit[0] - start[0]):
            size = limit[0] - start[0]
        elif isinstance(start[0], int) and isinstance(limit[0], int) and isinstance(step[0], int):
            size = max(0, math.ceil((limit[0] - start[0]) / step[0]))
    return (Tensor((size,), node.dtype(0)),)


def _counts(size: Size) -> bool:
    """Whether it cannot be negative: a sum of products of dimensions."""
    if isinstance(size, int):
        return size >= 0
    return all(many > 0 and all(isinstance(atom, str) for atom, _ in factors) for factors, many in size.terms)


def _tile(node: Node) -> Outputs:
    shape, times = node.shape(0), node.ints(1)
    if shape is None or times is None or len(times) != len(shape):
        return (Tensor((None,) * len(shape) if shape is not None else None, node.dtype(0)),)
    return (Tensor(tuple(s * t if s is not None else None for s, t in zip(shape, times, strict=True)), node.dtype(0)),)


def _pad(node: Node) -> Outputs:
    shape = node.shape(0)
    pads = node.ints(1) if node.given(1) else node.attribute("pads", node.attribute("paddings"))
    if shape is None:
        return (Tensor(None, node.dtype(0)),)
    axes = node.numbers(3) if node.given(3) else tuple(range(len(shape)))
    if pads is None or axes is None or len(pads) != 2 * len(axes):
        return (Tensor((None,) * len(shape), node.dtype(0)),)
    found = list(shape)
    for at, axis in enumerate(axes):
        size = found[axis]
        found[axis] = size + pads[at] + pads[at + len(axes)] if size is not None else None
    return (Tensor(tuple(found), node.dtype(0)),)


def _resize(node: Node) -> Outputs:
    """Sizes are known where they are given, or where a scale is a whole number or the size is one."""
    shape = node.shape(0)
    if shape is None:
        return (Tensor(None, node.dtype(0)),)
    axes = node.attribute("axes", tuple(range(len(shape))))
    found: list[Size | None] = list(shape)
    sizes = node.ints(3) if node.op == "Resize" and node.opset >= 11 else None
    scales = _floats(node, 1 if node.op == "Upsample" or node.opset < 11 else 2)
    for at, axis in enumerate(axes):
        if sizes is not None:
            found[axis] = sizes[at] if node.text("keep_aspect_ratio_policy", "stretch") == "stretch" else None
        else:
            found[axis] = _scaled(shape[axis], scales[at] if scales is not None and at < len(scales) else None)
    return (Tensor(tuple(found), node.dtype(0)),)


def _scaled(size: Size | None, scale: float | None) -> Size | None:
    if size is None or scale is None:
        return None
    if isinstance(size, int):
        return math.floor(size * scale)
    return size * int(scale) if scale == int(scale) else None


def _floats(node: Node, slot: int) -> Sequence[float] | None:
    if not node.given(slot):
        given: Sequence[float] | None = node.attribute("scales")
        return given
    from graphkit.analyze.known_values import floats_of

    return floats_of(node.table, node.reads[slot])


def _depth_to_space(node: Node) -> Outputs:
    shape, block = node.shape(0), node.attribute("blocksize", 1)
    if shape is None or len(shape) != 4:
        return (Tensor(None, node.dtype(0)),)
    batch, channels, height, width = shape
    if node.op == "DepthToSpace":
        channels = floor(channels, block * block) if channels is not None else None
        height, width = (size * block if size is not None else None for size in (height, width))
    else:
        channels = channels * block * block if channels is not None else None
        height, width = (floor(size, block) if size is not None else None for size in (height, width))
    return (Tensor((batch, channels, height, width), node.dtype(0)),)


def _random(node: Node) -> Outputs:
    dtype = node.attribute("dtype", 1)
    return (Tensor(tuple(node.attribute("shape", ())), name_of(dtype)),)


def _eye_like(node: Node) -> Outputs:
    dtype = node.attribute("dtype")
    return (Tensor(node.shape(0), name_of(dtype) if dtype else node.dtype(0)),)


RULES: dict[str, Callable[[Node], Outputs]] = {
    "Constant": _constant,
    "Shape": _shape_of,
    "Size": _size,
    "Reshape": _reshape,
    "Flatten": _flatten,
    "Transpose": _transpose,
    "Squeeze": _squeeze,
    "Unsqueeze": _unsqueeze,
    "Concat": _concat,
    "Split": _split,
    "Slice": _slice,
    "Expand": _expand,
    "ConstantOfShape": _filled,
    "Range": _range,
    "Tile": _tile,
    "Pad": _pad,
    "Resize": _resize,
    "Upsample": _resize,
    "DepthToSpace": _depth_to_space,
    "SpaceToDepth": _depth_to_space,
    "RandomNormal": _random,
    "RandomUniform": _random,
    "EyeLike": _eye_like,
}

BY_VALUE = frozenset(
    (
        "Reshape", "Squeeze", "Unsqueeze", "Split", "Slice", "Expand", "ConstantOfShape", "Range", "Tile", "Pad",
        "Resize", "Upsample",
    )
)  # fmt: skip
"""Operators whose output's shape depends on elements of inputs."""
