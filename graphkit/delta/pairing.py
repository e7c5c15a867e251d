"""Which node of one graph is which of the other, while that is being found out."""

from __future__ import annotations

from collections.abc import Callable, Hashable, Iterable, Sequence
from itertools import chain

from graphkit.delta.canonical import Canon
from graphkit.view.views import ABSENT

BUDGET, BUDGET_PER_NODE = 2_000_000, 30
"""Steps of all searches between two graphs together; a million take about half a second."""


class Pairing:
    """Pairs of nodes of two graphs.

    Attributes:
        a, b: The graphs.
        lines: The nodes of each in an order that neither names nor the file's order change.
        to_b, to_a: Partner of each node, -1 for none.
        values: For the values of `a` that no node makes (inputs, values from outside), their partner in `b`.
        approximate: Whether a search was cut short.
        budget: Steps that searches may still take.
    """

    def __init__(self, a: Canon, b: Canon, lines: tuple[list[int], list[int]], values: dict[int, int]) -> None:
        self.a, self.b = a, b
        self.lines = lines
        self.ranks = _ranks(lines[0]), _ranks(lines[1])
        self.to_b = [-1] * len(a)
        self.to_a = [-1] * len(b)
        self.values = values
        self.approximate = False
        self.count = 0
        self.budget = [BUDGET + BUDGET_PER_NODE * (len(a) + len(b))]

    def link(self, i: int, j: int) -> None:
        self.to_b[i] = j
        self.to_a[j] = i
        self.count += 1

    def is_complete(self) -> bool:
        """Whether nothing is left to pair on one side."""
        return self.count == min(len(self.a), len(self.b))

    def unmatched(self) -> tuple[list[int], list[int]]:
        """Nodes without a partner, along the lines."""
        return (
            [node for node in self.lines[0] if self.to_b[node] < 0],
            [node for node in self.lines[1] if self.to_a[node] < 0],
        )

    def partner(self, value: int) -> int:
        """The value of `b` that is a value of `a`; -1 if none is, or if it is a weight."""
        if value == ABSENT:
            return ABSENT
        made = self.a.producers[value]
        if made < 0:
            return self.values.get(value, -1)
        other = self.to_b[made]
        place = self.a.places.get(value, 0)
        if other < 0 or place >= len(self.b.makes[other]):
            return -1
        return self.b.makes[other][place] or -1

    def match_equal(self, a: Sequence[Hashable], b: Sequence[Hashable], most: int | None = None) -> None:
        """Pair nodes with equal codes, the k-th with the k-th where there are as many on both sides.

        Args:
            a, b: The codes of all nodes.
            most: Only codes that at most so many nodes have.
        """
        left, right = self.unmatched()
        groups = _groups(right, b)
        for code, nodes in _groups(left, a).items():
            others = groups.get(code, ())
            if len(nodes) == len(others) and (most is None or len(nodes) <= most):
                for i, j in zip(nodes, others, strict=True):
                    self.link(i, j)

    def match_unique(self, a: Sequence[int], b: Sequence[int], wanted: Callable[[Canon, int], bool]) -> None:
        """Pair nodes whose code nobody else in their graph has, matched or not."""
        left, right = self.unmatched()
        often = _often(a), _often(b)
        others = {b[node]: node for node in right if often[1][b[node]] == 1 and wanted(self.b, node)}
        for node in left:
            other = others.get(a[node]) if often[0][a[node]] == 1 and wanted(self.a, node) else None
            if other is not None:
                self.link(node, other)


def linear(graph: Canon, below: Sequence[int]) -> list[int]:
    """Nodes in depth-first post-order from the outputs, along input slots; then what no output needs.

    Args:
        graph: The graph.
        below: Number of each node from `numbers.down`, which orders the nodes that no output needs.
    """
    producers = graph.producers
    seen = bytearray(len(graph))
    line: list[int] = []
    dead = (node for node in range(len(graph)) if not any(graph.users[value] for value in graph.makes[node]))
    sinks: Iterable[int] = sorted(dead, key=lambda node: (below[node], node))
    for root in chain((producers[value] for value in graph.outputs), sinks):
        pending = [root] if root >= 0 else []
        while pending:
            node = pending.pop()
            if node < 0:
                line.append(~node)
            elif not seen[node]:
                seen[node] = 1
                pending.append(~node)
                for value in reversed(graph.reads[node]):
                    made = producers[value]
                    if made >= 0 and not seen[made]:
                        pending.append(made)
    return line


def _ranks(line: list[int]) -> list[int]:
    found = [0] * len(line)
    for rank, node in enumerate(line):
        found[node] = rank
    return found


def _groups(nodes: Iterable[int], codes: Sequence[Hashable]) -> dict[Hashable, list[int]]:
    found: dict[Hashable, list[int]] = {}
    for node in nodes:
        found.setdefault(codes[node], []).append(node)
    return found


def _often(codes: Iterable[int]) -> dict[int, int]:
    found: dict[int, int] = {}
    for code in codes:
        found[code] = found.get(code, 0) + 1
    return found
