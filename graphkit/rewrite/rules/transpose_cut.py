"""Which nodes to compute in the layout before the Transposes, so that the fewest Transposes are left.

Every node of a region is on one of two sides: computed as it is, or before the Transposes. A value whose maker and
readers are on different sides costs a Transpose, however many readers there are. That is a minimum cut, found by
augmenting paths (Ford and Fulkerson, "Maximal flow through a network", 1956); its value is the number of Transposes,
so that a path is found for each and no more.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Iterable

BEFORE, AFTER = 0, 1
"""The two sides as vertices: computed before the Transposes, and as it is."""

_ALWAYS = 1 << 30


class Cut:
    """A network under construction."""

    def __init__(self) -> None:
        self._edges: list[dict[int, int]] = [{}, {}]
        self.cost = 0

    def vertex(self) -> int:
        """A node that may be on either side."""
        self._edges.append({})
        return len(self._edges) - 1

    def value(self, maker: int | None, readers: Iterable[int]) -> None:
        """A value, by the sides or vertices of its maker (None: it costs the same on either side) and its readers."""
        found = dict.fromkeys(readers)
        if not found:
            return
        source = self.vertex() if maker is None else maker
        as_is = AFTER if maker is None else maker
        self.cost += any(self._now(reader) != self._now(as_is) for reader in found)
        out, back = self.vertex(), self.vertex()
        self._edge(source, out, 1)
        self._edge(back, source, 1)
        for reader in found:
            self._edge(out, reader, _ALWAYS)
            self._edge(reader, back, _ALWAYS)

    def best(self) -> tuple[int, set[int]]:
        """The fewest Transposes, and the vertices that are computed before them (as few as may be)."""
        flow = 0
        while True:
            parents = self._reach()
            if AFTER not in parents:
                return flow, set(parents)
            vertex = AFTER
            while vertex != BEFORE:
                parent = parents[vertex]
                self._edges[parent][vertex] -= 1
                self._edges[vertex][parent] = self._edges[vertex].get(parent, 0) + 1
                vertex = parent
            flow += 1

    def _now(self, vertex: int) -> int:
        return BEFORE if vertex == BEFORE else AFTER

    def _edge(self, start: int, end: int, capacity: int) -> None:
        if start != end:
            self._edges[start][end] = self._edges[start].get(end, 0) + capacity
            self._edges[end].setdefault(start, 0)

    def _reach(self) -> dict[int, int]:
        """What can still be reached from `BEFORE`, each with where it was reached from."""
        parents = {BEFORE: BEFORE}
        queue = deque([BEFORE])
        while queue and AFTER not in parents:
            vertex = queue.popleft()
            for end, capacity in self._edges[vertex].items():
                if capacity > 0 and end not in parents:
                    parents[end] = vertex
                    queue.append(end)
        return parents
