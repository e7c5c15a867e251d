"""Finds for each node of a graph its partner in another: from what is certain to what is likely.

1  equal from the inputs and from the outputs, weights included
2  alone with its weights and surroundings: anchors, and what hangs on them
3  as 1, but with the shapes of weights instead of their values
4  in line between such pairs (before 5: along a chain of residual sums that one of them left, neighbours mislead)
5  the only choice beside a pair
6  what has the same neighbours was changed
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from graphkit.delta.alignment import align
from graphkit.delta.canonical import Canon
from graphkit.delta.labels import Labels
from graphkit.delta.numbers import Table, down, near, own_labels, up
from graphkit.delta.pairing import Pairing, linear
from graphkit.delta.propagation import spread, update
from graphkit.delta.repair import repair

_ROUNDS = 8


@dataclass(frozen=True, slots=True)
class Ends:
    """What is known of two graphs before their nodes are looked at.

    Attributes:
        values: For inputs and values from outside of the first graph, the partner in the second.
        leaves: For each graph, the leaf of each of these values, equal for partners.
        outputs: For each graph, numbers of its outputs, equal for partners, by value.
    """

    values: dict[int, int]
    leaves: tuple[Mapping[int, int], Mapping[int, int]]
    outputs: tuple[Mapping[int, Sequence[int]], Mapping[int, Sequence[int]]]

    def turned(self) -> Ends:
        back = {other: value for value, other in self.values.items()}
        return Ends(back, (self.leaves[1], self.leaves[0]), (self.outputs[1], self.outputs[0]))


def match(a: Canon, b: Canon, labels: Labels, ends: Ends) -> Pairing:
    """The pairs of two graphs. `match(b, a)` has the same."""
    if not _is_first(a, b):
        return _turned(_match(b, a, labels, ends.turned()))
    return _match(a, b, labels, ends)


def _match(a: Canon, b: Canon, labels: Labels, ends: Ends) -> Pairing:
    both = _Both(a, b, labels, ends)
    exact = both.numbers(content=True)
    pairing = Pairing(a, b, (linear(a, exact.down[0]), linear(b, exact.down[1])), ends.values)
    pairing.match_equal(*exact.surroundings)
    if pairing.is_complete():
        return pairing
    region = exact.own
    for _ in range(3):
        region = both.near(region)
    pairing.match_equal(*_zipped(exact.down, region))
    pairing.match_equal(*_zipped(exact.up, region))
    pairing.match_unique(*region, lambda graph, node: True)
    pairing.match_unique(*exact.own, Canon.has_evidence)
    spread(pairing, *region)
    if pairing.is_complete():
        return pairing
    loose = both.numbers(content=False)
    pairing.match_equal(*loose.surroundings)
    close = both.near(loose.own)
    pairing.match_equal(*_zipped(loose.down, close))
    pairing.match_equal(*_zipped(loose.up, close))
    align(pairing, *close)
    align(pairing, *loose.own)
    spread(pairing, *loose.own, names=True)
    _changed(pairing, both, loose.own)
    return pairing


def _changed(pairing: Pairing, both: _Both, own: tuple[list[int], list[int]]) -> None:
    table: Table = {}
    ops = tuple([table.setdefault(graph.op(n), len(table)) for n in range(len(graph))] for graph in (both.a, both.b))
    for _ in range(_ROUNDS):
        count = pairing.count
        repaired = repair(pairing, *own)
        if not pairing.is_complete():
            align(pairing, ops[0], ops[1], trusted=False)
            update(pairing)
            spread(pairing, *own, names=True)
        if not repaired and pairing.count == count:
            return


@dataclass(frozen=True, slots=True)
class _Numbers:
    """Numbers of the nodes of both graphs."""

    own: tuple[list[int], list[int]]
    down: tuple[list[int], list[int]]
    up: tuple[list[int], list[int]]

    @property
    def surroundings(self) -> tuple[list[tuple[int, int]], list[tuple[int, int]]]:
        return _zipped(self.down, self.up)


@dataclass(frozen=True, slots=True)
class _Both:
    """Two graphs that are numbered from the same tables."""

    a: Canon
    b: Canon
    labels: Labels
    ends: Ends

    def numbers(self, *, content: bool) -> _Numbers:
        graphs = (self.a, self.b)
        leaves = [
            g.leaves(self.labels, given, content=content) for g, given in zip(graphs, self.ends.leaves, strict=True)
        ]
        operators = [graph.operators[content] for graph in graphs]
        tables: tuple[Table, Table, Table] = ({}, {}, {})
        own = [own_labels(g, operators[i], leaves[i], tables[0]) for i, g in enumerate(graphs)]
        below = [down(g, operators[i], leaves[i], tables[1]) for i, g in enumerate(graphs)]
        above = [up(g, own[i], self.ends.outputs[i], tables[2]) for i, g in enumerate(graphs)]
        return _Numbers((own[0], own[1]), (below[0], below[1]), (above[0], above[1]))

    def near(self, codes: tuple[list[int], list[int]]) -> tuple[list[int], list[int]]:
        table: Table = {}
        return near(self.a, codes[0], table), near(self.b, codes[1], table)


def _zipped(
    first: tuple[list[int], list[int]], second: tuple[list[int], list[int]]
) -> tuple[list[tuple[int, int]], list[tuple[int, int]]]:
    return list(zip(first[0], second[0], strict=True)), list(zip(first[1], second[1], strict=True))


def _is_first(a: Canon, b: Canon) -> bool:
    """Which of two graphs to begin with, whoever asks: ties are broken along the first one's line."""
    for own, other in zip(_facts(a), _facts(b), strict=True):
        if own != other:
            return bool(own < other)
    return True


def _facts(graph: Canon) -> tuple[Any, ...]:
    return len(graph), graph.graph.ops, graph.graph.reads, graph.graph.names, graph.graph.values


def _turned(pairing: Pairing) -> Pairing:
    back = {other: value for value, other in pairing.values.items()}
    turned = Pairing(pairing.b, pairing.a, (pairing.lines[1], pairing.lines[0]), back)
    turned.to_b, turned.to_a = pairing.to_a, pairing.to_b
    turned.count, turned.approximate = pairing.count, pairing.approximate
    return turned
