"""Elements of small integer tensors that follow from the graph: shapes, axes, bounds of slices."""

from __future__ import annotations

import struct
from collections.abc import Callable
from typing import TYPE_CHECKING, Any

from graphkit.analyze.polynomial import Size, TooLong, floor, product
from graphkit.view import SparseView, WeightView

if TYPE_CHECKING:
    from graphkit.analyze.inference import Table

MOST_ELEMENTS = 64
DEEPEST = 100
"""Nodes that are followed backwards for one value."""

_CODES = {"int64": "q", "int32": "i", "bool": "?"}


def find(table: Table, value: int, depth: int) -> tuple[Size, ...] | None:
    """The elements of a value, flattened; None where they depend on data, are many, or no integers."""
    graph = table.graph
    weight = graph.initializers.get(value)
    if weight is not None:
        return of_weight(weight)
    index = graph.producers[value]
    if index < 0 or depth > DEEPEST:
        return None
    rule = _RULES.get(graph.ops[index]) if not graph.domains[index] else None
    if rule is None or graph.makes[index][0] != value:
        return None
    try:
        return rule(_Asked(table, index, depth + 1))
    except (TooLong, ZeroDivisionError):
        return None


def of_weight(weight: Any) -> tuple[Size, ...] | None:
    """Integers that a small tensor of them holds, read without numpy where they lie as raw bytes."""
    if not isinstance(weight, WeightView) or weight.size > MOST_ELEMENTS or weight.missing:
        return None
    if weight.dtype not in _CODES:
        return None
    data = b"".join(weight.pieces())
    return struct.unpack(f"<{weight.size}{_CODES[weight.dtype]}", data)


def floats_of(table: Table, value: int) -> tuple[float, ...] | None:
    """Elements of a small float32 weight, or of a constant's; None if it is neither."""
    weight = table.graph.initializers.get(value)
    index = table.graph.producers[value]
    if weight is None and index >= 0 and table.graph.ops[index] == "Constant":
        weight = next((a.value for a in table.graph.attributes[index] if a.name == "value"), None)
    if not isinstance(weight, WeightView) or weight.size > MOST_ELEMENTS or weight.dtype != "float32" or weight.missing:
        return None
    return struct.unpack(f"<{weight.size}f", b"".join(weight.pieces()))


class _Asked:
    """A node whose output is asked for."""

    def __init__(self, table: Table, index: int, depth: int) -> None:
        self.table = table
        self.index = index
        self.depth = depth
        self.reads = table.graph.reads[index]

    def ints(self, slot: int) -> tuple[Size, ...] | None:
        value = self.reads[slot] if slot < len(self.reads) else 0
        return self.table.ints(value, self.depth) if value else None

    def present(self, slot: int) -> bool:
        return slot < len(self.reads) and self.reads[slot] != 0

    def shape(self, slot: int) -> tuple[Size | None, ...] | None:
        return self.table.tensors[self.reads[slot]].shape if self.present(slot) else None

    def attribute(self, name: str, default: Any = None) -> Any:
        for attribute in self.table.graph.attributes[self.index]:
            if attribute.name == name:
                return attribute.value if attribute.reference is None else default
        return default


def _shape(asked: _Asked) -> tuple[Size, ...] | None:
    shape = asked.shape(0)
    if shape is None:
        return None
    start, end = asked.attribute("start", 0), asked.attribute("end", len(shape))
    part = shape[start:end]
    known = tuple(size for size in part if size is not None)
    return known if len(known) == len(part) else None


def _size(asked: _Asked) -> tuple[Size, ...] | None:
    shape = asked.shape(0)
    if shape is None or any(size is None for size in shape):
        return None
    return (product(size for size in shape if size is not None),)


def _constant(asked: _Asked) -> tuple[Size, ...] | None:
    for attribute in asked.table.graph.attributes[asked.index]:
        if attribute.reference is not None or attribute.value is None:
            return None
        if attribute.name == "value" and not isinstance(attribute.value, SparseView):
            return of_weight(attribute.value)
        if attribute.name == "value_int":
            return (int(attribute.value),)
        if attribute.name == "value_ints":
            return tuple(attribute.value)[:MOST_ELEMENTS] if len(attribute.value) <= MOST_ELEMENTS else None
    return None


def _same(asked: _Asked) -> tuple[Size, ...] | None:
    return asked.ints(0)


def _cast(asked: _Asked) -> tuple[Size, ...] | None:
    """Only casts from one kind of integer to another: their elements are the sizes of tensors."""
    return asked.ints(0) if asked.attribute("to") in (6, 7) else None


def _concat(asked: _Asked) -> tuple[Size, ...] | None:
    found: list[Size] = []
    for slot in range(len(asked.reads)):
        part = asked.ints(slot)
        if part is None or len(asked.shape(slot) or ()) > 1:
            return None
        found.extend(part)
    return tuple(found) if len(found) <= MOST_ELEMENTS else None


def _gather(asked: _Asked) -> tuple[Size, ...] | None:
    data, places = asked.ints(0), asked.ints(1)
    if data is None or places is None or asked.attribute("axis", 0) or len(asked.shape(0) or ()) != 1:
        return None
    if not all(isinstance(at, int) and -len(data) <= at < len(data) for at in places):
        return None
    return tuple(data[at] for at in places if isinstance(at, int))


def _slice(asked: _Asked) -> tuple[Size, ...] | None:
    data = asked.ints(0)
    if data is None or len(asked.shape(0) or ()) != 1:
        return None
    if asked.attribute("starts") is not None:
        starts, ends = asked.attribute("starts"), asked.attribute("ends")
    else:
        starts, ends = asked.ints(1), asked.ints(2)
    steps = asked.ints(4) if asked.present(4) else (1,)
    if not starts or not ends or not steps:
        return None
    start, end, step = starts[0], ends[0], steps[0]
    if not (isinstance(start, int) and isinstance(end, int) and isinstance(step, int)) or step <= 0:
        return None
    return data[start:end:step]


def _elementwise(compute: Callable[[Size, Size], Size]) -> Callable[[_Asked], tuple[Size, ...] | None]:
    def rule(asked: _Asked) -> tuple[Size, ...] | None:
        left, right = asked.ints(0), asked.ints(1)
        if left is None or right is None or (len(left) != len(right) and 1 not in (len(left), len(right))):
            return None
        many = max(len(left), len(right)) if left and right else 0
        left, right = (row * many if len(row) == 1 else row for row in (left, right))
        return tuple(map(compute, left, right))

    return rule


def _truncated(a: Size, b: Size) -> Size:
    """ONNX divides integers towards zero; sizes are not negative, so that is the floor. Of negative numbers it is
    computed only where both are known."""
    if isinstance(a, int) and isinstance(b, int):
        quotient = abs(a) // abs(b)
        return quotient if (a < 0) == (b < 0) else -quotient
    return floor(a, b)


def _remainder(asked: _Asked) -> tuple[Size, ...] | None:
    """Of numbers, with the sign of the divisor: `x % 3` that TorchScript writes for a negative axis."""
    if asked.attribute("fmod", 0):
        return None
    rows = asked.ints(0), asked.ints(1)
    if any(row is None or not all(isinstance(size, int) for size in row) for row in rows):
        return None
    return _elementwise(lambda a, b: a - floor(a, b) * b)(asked)


def _product(asked: _Asked) -> tuple[Size, ...] | None:
    data = asked.ints(0)
    if data is None or len(asked.shape(0) or ()) != 1:
        return None
    return (product(data),)


def _filled(asked: _Asked) -> tuple[Size, ...] | None:
    shape, fill = asked.ints(0), asked.attribute("value")
    if shape is None or len(shape) != 1 or not isinstance(shape[0], int) or not 0 <= shape[0] <= MOST_ELEMENTS:
        return None
    one: tuple[Size, ...] | None = of_weight(fill) if fill is not None else (0,)
    return one * shape[0] if one is not None else None


def _where(asked: _Asked) -> tuple[Size, ...] | None:
    """Where(Equal(shape, -1), ones, shape), which PyTorch writes for expand: known where no choice depends on data."""
    index = asked.table.graph.producers[asked.reads[0]]
    if index < 0 or asked.table.graph.ops[index] != "Equal":
        return None
    compared = _Asked(asked.table, index, asked.depth + 1)
    sides = [compared.ints(0), compared.ints(1), asked.ints(1), asked.ints(2)]
    many = max((len(side) for side in sides if side is not None), default=0)
    rows = [side * many if side is not None and len(side) == 1 else side for side in sides]
    if any(row is None or len(row) != many for row in rows):
        return None
    found: list[Size] = []
    for left, right, yes, no in zip(*(row for row in rows if row is not None), strict=True):
        negative = any(isinstance(side, int) and side < 0 for side in (left, right))
        if left != right and not (negative or (isinstance(left, int) and isinstance(right, int))):
            return None
        found.append(yes if left == right else no)
    return tuple(found)


_RULES: dict[str, Callable[[_Asked], tuple[Size, ...] | None]] = {
    "Shape": _shape,
    "Size": _size,
    "Constant": _constant,
    "Identity": _same,
    "Squeeze": _same,
    "Unsqueeze": _same,
    "Reshape": _same,
    "Flatten": _same,
    "Cast": _cast,
    "Concat": _concat,
    "Gather": _gather,
    "Slice": _slice,
    "Add": _elementwise(lambda a, b: a + b),
    "Sub": _elementwise(lambda a, b: a - b),
    "Mul": _elementwise(lambda a, b: a * b),
    "Div": _elementwise(_truncated),
    "Mod": _remainder,
    "ReduceProd": _product,
    "ConstantOfShape": _filled,
    "Where": _where,
}
