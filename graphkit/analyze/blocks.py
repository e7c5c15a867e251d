"""Repeated blocks: runs of nodes that occur several times in a row, alike in operators, attributes, weights' shapes and
wiring.

The nodes in their order are a text, a repeated block a repetition in it. A repetition of period p is a stretch where
each letter equals the one p before it (Main and Lorentz, 1984, do it without trying periods; here the few distances
at which rare letters recur are the only periods that can be).
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass

from graphkit.view import GraphView
from graphkit.view.views import ABSENT

FEWEST_NODES = 3
"""A block of fewer nodes is a chain, and no block."""

FEWEST_SAVED = 6
"""Nodes that a repetition has beside its first block; with fewer it tells nothing."""

_PERIODS = 12
"""Distances that are tried."""


@dataclass(frozen=True, slots=True)
class Block:
    """A block that is repeated.

    Attributes:
        count: How often.
        nodes: Indices of the nodes of its first occurrence, in order.
        starts: Position, in the order, of each occurrence.
        operators: How many of each operator it has, the most frequent first.
    """

    count: int
    nodes: tuple[int, ...]
    starts: tuple[int, ...]
    operators: tuple[tuple[str, int], ...]


def repeated(graph: GraphView, order: Sequence[int]) -> tuple[Block, ...]:
    """The repeated blocks of a graph, those that cover most first; they don't overlap. Constant nodes are left out."""
    order = [index for index in order if graph.ops[index] != "Constant" or graph.domains[index]]
    labels = _labels(graph, order)
    place = [-1] * (len(graph) + 1)  # the last one is that of producer -1
    for at, index in enumerate(order):
        place[index] = at
    made_at = [place[producer] for producer in graph.producers]
    made = [[made_at[v] for v in graph.reads[index]] for index in order]
    candidates = [run for period in _periods(labels) for run in _runs(labels, made, period)]
    candidates.sort(key=lambda run: (-(run[1] * run[2]), run[1]))
    taken = bytearray(len(order))
    blocks = []
    for start, period, count in candidates:
        if any(taken[start : start + period * count]):
            continue
        taken[start : start + period * count] = b"\1" * (period * count)
        nodes = tuple(order[start : start + period])
        operators = Counter(graph.ops[index] for index in nodes)
        ranked = tuple(sorted(operators.items(), key=lambda pair: (-pair[1], pair[0])))
        blocks.append(Block(count, nodes, tuple(range(start, start + period * count, period)), ranked))
    return tuple(blocks)


def _labels(graph: GraphView, order: Sequence[int]) -> list[int]:
    """A number for each node: the same for the same operator, attributes, and kinds of inputs."""
    numbers: dict[tuple[object, ...], int] = {}
    kinds: dict[tuple[object, ...], int] = {}
    slots = [1] * len(graph.values)  # numbers, which hash faster than types
    slots[ABSENT] = 0
    for v, w in graph.initializers.items():
        slots[v] = kinds.setdefault((w.dtype, w.dims), len(kinds) + 2)
    found = []
    for index in order:
        row = graph.attributes[index]
        attributes = [a.name if a.kind in _LARGE else id(a) for a in row] if row else ()
        read = [slots[v] for v in graph.reads[index]]
        key = (graph.ops[index], graph.domains[index], *attributes, None, *read, len(graph.makes[index]))
        found.append(numbers.setdefault(key, len(numbers)))
    return found


_LARGE = frozenset(("TENSOR", "GRAPH", "TENSORS", "GRAPHS"))


def _periods(labels: Sequence[int]) -> list[int]:
    """The distances at which letters recur most, the rarest letters first: those mark a block."""
    last: dict[int, int] = {}
    counts = Counter(labels)
    weight: Counter[int] = Counter()
    for at, label in enumerate(labels):
        if label in last and at - last[label] >= FEWEST_NODES:
            weight[at - last[label]] += 1 + len(labels) // counts[label] // 8
        last[label] = at
    return [period for period, _ in sorted(weight.items(), key=lambda pair: (-pair[1], pair[0]))[:_PERIODS]]


def _runs(labels: Sequence[int], made: Sequence[Sequence[int]], period: int) -> list[tuple[int, int, int]]:
    """Start, period and count of each repetition of one period; blocks are wired alike inside."""
    runs = []
    start = 0
    size = len(labels) - period
    while start < size:
        if labels[start] != labels[start + period]:
            start += 1
            continue
        end = start
        while end < size and labels[end] == labels[end + period]:
            end += 1
        if end - start >= period:
            count = (end - start) // period + 1
            count = _wired(made, start, period, count)
            if (count - 1) * period >= FEWEST_SAVED:
                runs.append((start, period, count))
        start = end + 1
    return runs


def _wired(made: Sequence[Sequence[int]], start: int, period: int, count: int) -> int:
    """How many of the blocks, from the first on, are wired inside as the first is."""
    inside = [[p - start if p >= start else -1 for p in made[start + at]] for at in range(period)]
    for block in range(1, count):
        base = start + block * period
        for at in range(period):
            if [p - base if p >= base else -1 for p in made[base + at]] != inside[at]:
                return block
    return count
