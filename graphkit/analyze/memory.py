"""Peak memory of activations by liveness, and the bytes that move; at given sizes.

A value is live from the node that makes it to the last one that reads it; outputs to the end, inputs from the
beginning. Reshape and its kin share their input's memory; nothing else is done in place. Weights, what follows from
them alone, and the workspaces of kernels are not counted.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import NamedTuple

from graphkit.analyze.inference import Table
from graphkit.analyze.polynomial import Size, TooLong, evaluate
from graphkit.analyze.tensors import Tensor

DEFINITION = (
    "live values at the worst node, in the order of the file; without weights, workspaces, and reuse in place but for "
    "Reshape and its kin"
)

_VIEWS = frozenset(("Reshape", "Flatten", "Squeeze", "Unsqueeze", "Identity", "Dropout"))


class Memory(NamedTuple):
    """Memory of a graph's activations.

    Attributes:
        peak: Bytes at the worst node; what is unknown counts as nothing.
        node: That node's index; None in a graph without nodes.
        live: Bytes of what is live there, as a polynomial; None where it would be too long.
        unknown: Values whose size is unknown.
        moved: Bytes that nodes read and write, weights included.
        by_node: Bytes that are live at each node of the graph.
    """

    peak: int
    node: int | None
    live: Size | None
    unknown: int
    moved: int
    by_node: tuple[int, ...]


def memory_of(table: Table, dims: Mapping[str, int]) -> Memory:
    """The memory of a graph where its symbols have the sizes `dims`; linear in its nodes."""
    return _Memories(dims).of(table)


class _Memories:
    def __init__(self, dims: Mapping[str, int]) -> None:
        self.dims = dims
        self.tensors: dict[int, tuple[Tensor, int | None]] = {}
        self.tables: dict[int, Memory] = {}

    def sizes(self, table: Table) -> list[int | None]:
        """Bytes of every value of a table."""
        known = self.tensors
        found: list[int | None] = []
        for tensor in table.tensors:
            row = known.get(id(tensor))
            if row is None:
                row = known[id(tensor)] = (tensor, self._size(tensor))
            found.append(row[1])
        return found

    def _size(self, tensor: Tensor) -> int | None:
        try:
            size = tensor.nbytes
        except TooLong:
            return None
        found = None if size is None else evaluate(size, self.dims)
        return None if found is None else max(found, 0)

    def of(self, table: Table) -> Memory:
        known = self.tables.get(id(table))
        if known is None:
            known = self.tables[id(table)] = self._of(table)
        return known

    def _of(self, table: Table) -> Memory:
        graph, constant, bodies = table.graph, table.constant, table.bodies
        first, last = _lives(table)
        sizes = self.sizes(table)
        starts = [0] * (len(table.order) + 1)
        ends = [0] * (len(table.order) + 1)
        unknown = 0
        for value, step in enumerate(first):
            if step >= 0:
                size = sizes[value]
                if size is None:
                    unknown += 1
                else:
                    starts[step] += size
                    ends[last[value]] += size
        now = moved = 0
        by_node = [0] * len(graph)
        for step, index in enumerate(table.order):
            now += starts[step]
            by_node[index] = now
            now -= ends[step]
            if index in bodies:
                inside = [self.of(body) for _, body in bodies[index]]
                by_node[index] += max((each.peak for each in inside), default=0)
                unknown += sum(each.unknown for each in inside)
                moved += max((each.moved for each in inside), default=0)
            makes = graph.makes[index]
            if makes and not constant[makes[0]] and graph.ops[index] not in _VIEWS:
                for value in graph.reads[index] + makes:
                    moved += sizes[value] or 0
        node = by_node.index(max(by_node)) if by_node else None
        live = self._live(table, node, first, last) if node is not None else 0
        return Memory(by_node[node] if node is not None else 0, node, live, unknown, moved, tuple(by_node))

    def _live(self, table: Table, node: int, first: list[int], last: list[int]) -> Size | None:
        """What is live at a node, each kind of value once times its number."""
        step = next(at for at, index in enumerate(table.order) if index == node)
        counts: dict[Tensor, int] = {}
        for value, start in enumerate(first):
            if 0 <= start <= step <= last[value]:
                counts[table.tensors[value]] = counts.get(table.tensors[value], 0) + 1
        total: Size = max((self.of(body).peak for _, body in table.bodies.get(node, ())), default=0)
        try:
            for tensor, count in counts.items():
                total = total + (tensor.nbytes or 0) * count
        except TooLong:
            return None
        return total


def _lives(table: Table) -> tuple[list[int], list[int]]:
    """The first and the last step at which each value is live that has memory of its own; -1 for the others."""
    graph, constant = table.graph, table.constant
    roots = list(range(len(graph.values)))
    first, last = [-1] * len(roots), [-1] * len(roots)
    for value in graph.inputs:
        if value and value not in graph.initializers:
            first[value] = last[value] = 0
    ids: dict[str, int] = {}
    for step, index in enumerate(table.order):
        reads: tuple[int, ...] = graph.reads[index]
        if index in table.bodies and graph.attributes[index]:
            ids = ids or {name: value for value, name in enumerate(graph.values)}
            reads = (*reads, *[ids[name] for name in graph.node(index).captures if name in ids])
        for value in reads:
            if first[roots[value]] >= 0:
                last[roots[value]] = step
        shares = graph.ops[index] in _VIEWS and not graph.domains[index] and bool(reads)
        for slot, value in enumerate(graph.makes[index]):
            if not value or constant[value]:
                continue
            if shares and slot == 0 and first[roots[reads[0]]] >= 0:
                roots[value] = roots[reads[0]]
            else:
                first[value] = last[value] = step
    for value in graph.outputs:
        if first[roots[value]] >= 0:
            last[roots[value]] = len(table.order)
    return first, last
