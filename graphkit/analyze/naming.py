"""Names for the sizes that nobody knows, so that equal ones are seen to be equal.

A value of the main graph is computed once per run: whatever size it has then, it has one, and a name for it says no
more than that. One thing is told of some: a Slice from 0 to n has at most n, and 0 only where n is 0; hence what is
broadcast against n has n.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from graphkit.analyze.polynomial import Poly, Size, symbol
from graphkit.analyze.tensors import Shape, Tensor

if TYPE_CHECKING:
    from graphkit.analyze.inference import Table

_BROADCAST = frozenset(
    (
        *("Add", "Sub", "Mul", "Div", "Pow", "And", "Or", "Xor", "Equal", "Greater", "GreaterOrEqual", "Less"),
        *("LessOrEqual", "Where", "Max", "Min", "Expand"),
    )
)


class Names:
    """Names that were given in one model.

    Attributes:
        below: By name, the size that it is at most.
    """

    def __init__(self) -> None:
        self.below: dict[Poly, Size] = {}

    def derived(self, table: Table, index: int, value: int, tensor: Tensor) -> Tensor:
        """What the rules of the operators say of an output, with the sizes that follow from those names."""
        shape, op = tensor.shape, table.graph.ops[index]
        if shape is None or None not in shape or not (op in _BROADCAST or op == "Slice"):
            return tensor
        sizes: list[Size | None] = []
        for axis, size in enumerate(shape):
            if size is None and op in _BROADCAST:
                size = self._joined(table, index, len(shape) - axis)
            elif size is None:
                end = _end(table, index, axis, len(shape))
                if end is not None:
                    size = symbol(f"{table.graph.values[value]}.{axis}")
                    self.below[size] = end
            sizes.append(size)
        return Tensor(tuple(sizes), tensor.dtype)

    def all(self, table: Table, value: int, tensor: Tensor) -> Tensor:
        """The type of a value, every size of it a number or a name."""
        if tensor.shape is None or None not in tensor.shape:
            return tensor
        name = table.graph.values[value]
        sizes = (symbol(f"{name}.{axis}") if size is None else size for axis, size in enumerate(tensor.shape))
        return Tensor(tuple(sizes), tensor.dtype)

    def _joined(self, table: Table, index: int, back: int) -> Size | None:
        """The size, so far from the end, of what is broadcast together."""
        graph = table.graph
        shapes: list[Shape | None] = [table.tensors[value].shape for value in graph.reads[index] if value]
        if graph.ops[index] == "Expand":
            shapes[1] = table.ints(graph.reads[index][1])
        if None in shapes:
            return None
        sizes = {shape[-back] for shape in shapes if shape is not None and len(shape) >= back} - {1}
        for size in sizes:
            if isinstance(size, Poly) and all(
                other == size or (isinstance(other, Poly) and self.below.get(other) == size) for other in sizes
            ):
                return size
        return None


def _end(table: Table, index: int, axis: int, rank: int) -> Size | None:
    """The n of a Slice from 0 to n along an axis, in steps of one."""
    reads = table.graph.reads[index]
    given = [table.ints(value) if value else None for value in reads[1:]]
    if len(given) < 2 or given[0] is None or given[1] is None:
        return None
    axes = given[2] if len(given) > 2 else tuple(range(len(given[0])))
    steps = given[3] if len(given) > 3 else (1,) * len(given[0])
    if axes is None or steps is None:
        return None
    for at, start, end, step in zip(axes, given[0], given[1], steps, strict=False):
        if isinstance(at, int) and at % rank == axis and start == 0 and step == 1 and isinstance(end, Poly):
            return end
    return None
