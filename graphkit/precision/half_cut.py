"""Which nodes compute in the low type: those that must not stay in float32, the others so that the fewest casts result.

A minimum cut: nodes on the source's side stay in float32. A tensor that is made on one side and read on the other
costs one cast, however many nodes read it; a node in float32 costs a little. Maximum flow by Dinic (Soviet Math. Dokl.
11, 1970), whose searches end at the nearest node that must be low, so that only the surroundings of nodes in float32
are looked at.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Collection, Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from graphkit.precision.half_types import JUNCTIONS, Slots, is_float, junctions, read_at

if TYPE_CHECKING:
    import onnx_ir as ir

HIGH, LOW = 0, 1
"""The sides: what must stay in float32, and what must be low."""

_CAST = 4  # what one costs, in nodes that could be low and are not
_FREE = frozenset(("Shape", "Size", "Cast"))
_INFINITE = 1 << 40


@dataclass(slots=True)
class Sides:
    """On which side of the cut nodes and values are.

    Attributes:
        node: The side of each node that has one, by id.
        made: The side on which each float32 tensor is made, by id of the value.
        read: The side on which the outputs of graphs and the inputs of If, Loop and Scan are read, by id of the graph
            or node, and position.
    """

    node: dict[int, int] = field(default_factory=dict)
    made: dict[int, int] = field(default_factory=dict)
    read: dict[tuple[int, int], int] = field(default_factory=dict)


def divide(
    graph: ir.Graph, slots: Mapping[int, Slots], high: Collection[int], low: Collection[int], low_io: Collection[int]
) -> Sides:
    """Divide the nodes of a graph, bodies included.

    Args:
        slots: Of each node, by id.
        high: Nodes that must stay in float32, by id.
        low: Nodes that must not, unless they are among `high`.
        low_io: The graph's inputs and outputs that are low, by id of the value.
    """
    network = _Network()
    network.take(graph, slots, high, low, low_io)
    on_high = network.cut()
    # A side that no flow reaches is low: nothing keeps it in float32.
    side = {place: HIGH if place in on_high else LOW for place in range(network.places)}
    return Sides(
        {k: side[p] for k, p in network.nodes.items()},
        {k: side[p] for k, p in network.made.items()},
        {k: side[p] for k, p in network.outputs.items()},
    )


class _Network:
    def __init__(self) -> None:
        self.places = 2
        self.nodes: dict[int, int] = {}
        self.made: dict[int, int] = {}
        self.outputs: dict[tuple[int, int], int] = {}
        self._readers: dict[int, set[int]] = {}
        self._costs: dict[int, int] = {}

    def take(
        self,
        graph: ir.Graph,
        slots: Mapping[int, Slots],
        high: Collection[int],
        low: Collection[int],
        low_io: Collection[int],
    ) -> None:
        for value in graph.inputs:
            if is_float(value):
                self.made[id(value)] = LOW if id(value) in low_io else HIGH
        for position, value in enumerate(graph.outputs):
            if is_float(value):
                side = LOW if id(value) in low_io else HIGH
                self.outputs[id(graph), position] = side
                self._reads(value, side)
        for node in graph.all_nodes():
            if node.op_type in JUNCTIONS and not node.domain:
                self._junctions(node)
            self._node(node, slots[id(node)], high, low)

    def _node(self, node: ir.Node, slots: Slots, high: Collection[int], low: Collection[int]) -> None:
        place = HIGH
        if slots:
            fixed = HIGH if id(node) in high else LOW if id(node) in low else None
            place = self._place(1 if slots.outputs and node.op_type not in _FREE else 0) if fixed is None else fixed
            self.nodes[id(node)] = place
        if node.op_type in JUNCTIONS and not node.domain:
            return
        for position, value in enumerate(node.inputs):
            if value is not None and is_float(value):
                self._reads(value, place if position in slots.inputs else HIGH)
        for position, value in enumerate(node.outputs):
            if is_float(value):
                self.made[id(value)] = place if position in slots.outputs else HIGH

    def _junctions(self, node: ir.Node) -> None:
        """Tensors that pass through control flow: all of one are of one type."""
        for into, out in junctions(node):
            given = [(place, value) for place in into if (value := read_at(place)) is not None]
            if not any(is_float(v) for v in (*(v for _, v in given), *out)):
                continue
            side = self._place(0)
            for (owner, position), value in given:
                self._reads(value, side)
                self.outputs[id(owner), position] = side
            for value in out:
                self.made[id(value)] = side

    def _place(self, cost: int) -> int:
        self._costs[self.places] = cost
        self.places += 1
        return self.places - 1

    def _reads(self, value: ir.Value, place: int) -> None:
        if not value.is_initializer():
            self._readers.setdefault(id(value), set()).add(place)

    def cut(self) -> set[int]:
        flow = _Flow(self.places)
        for place, cost in self._costs.items():
            flow.add(place, LOW, cost)
        for value, readers in self._readers.items():
            place = self.made.get(value, HIGH)
            others = readers - {place}
            if place != HIGH:  # made low: one cast, if any reader is in float32
                cast = flow.node()
                flow.add(cast, place, _CAST)
                for reader in others:
                    flow.add(reader, cast, _INFINITE)
            if place != LOW:  # made in float32: one cast, if any reader is low
                cast = flow.node()
                flow.add(place, cast, _CAST)
                for reader in others:
                    flow.add(cast, reader, _INFINITE)
        return flow.source_side(HIGH, LOW)


class _Flow:
    """A network; edges in pairs, each the other's reverse."""

    def __init__(self, nodes: int) -> None:
        self._edges: list[list[int]] = [[] for _ in range(nodes)]
        self._to: list[int] = []
        self._left: list[int] = []

    def node(self) -> int:
        self._edges.append([])
        return len(self._edges) - 1

    def add(self, start: int, end: int, capacity: int) -> None:
        for a, b, left in ((start, end, capacity), (end, start, 0)):
            self._edges[a].append(len(self._to))
            self._to.append(b)
            self._left.append(left)

    def source_side(self, source: int, sink: int) -> set[int]:
        """The smallest source's side of a minimum cut."""
        while True:
            levels = self._levels(source, sink)
            if sink not in levels:
                return set(levels)
            self._block(source, sink, levels)

    def _levels(self, source: int, sink: int) -> dict[int, int]:
        levels = {source: 0}
        pending = deque([source])
        while pending:
            node = pending.popleft()
            if node == sink:
                return levels
            for edge in self._edges[node]:
                end = self._to[edge]
                if self._left[edge] and end not in levels:
                    levels[end] = levels[node] + 1
                    pending.append(end)
        return levels

    def _block(self, source: int, sink: int, levels: Mapping[int, int]) -> None:
        """A blocking flow: each edge is left for good once nothing more goes through it."""
        positions = dict.fromkeys(levels, 0)
        path: list[int] = []
        node = source
        while True:
            if node == sink:
                amount = min(self._left[e] for e in path)
                for edge in path:
                    self._left[edge] -= amount
                    self._left[edge ^ 1] += amount
                path, node = [], source
                continue
            following = self._next(node, positions, levels)
            if following is not None:
                path.append(following)
                node = self._to[following]
                continue
            if not path:
                return
            node = self._to[path.pop() ^ 1]
            positions[node] += 1

    def _next(self, node: int, positions: dict[int, int], levels: Mapping[int, int]) -> int | None:
        edges = self._edges[node]
        while positions[node] < len(edges):
            edge = edges[positions[node]]
            if self._left[edge] and levels.get(self._to[edge], -1) == levels[node] + 1:
                return edge
            positions[node] += 1
        return None
