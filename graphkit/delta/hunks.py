"""Nodes without a partner, put together where they touch: what was taken out, and what stands in its place.

One hunk is one place. What many places share (a mask, the arithmetic on a shape) does not make them one; it is a hunk
of its own.
"""

from __future__ import annotations

from collections.abc import Hashable, Iterable, Iterator, Sequence
from itertools import product

from graphkit.delta.pairing import Pairing
from graphkit.delta.regions import arithmetic, heights

_CROWD = 8
"""Beyond so many unmatched users, reading one value does not make them belong together: every layer reads a mask."""

_FAR = 2
"""Users of one value with more matched nodes than this in a row between them are in different places."""

_ROUNDS = 8
"""How often arithmetic may move to the only place that needs it; once for each fork in it, as a rule."""

Borders = dict[tuple[Hashable, ...], tuple[list[int], list[int]]]


def hunks(pairing: Pairing) -> list[tuple[list[int], list[int]]]:
    """Connected unmatched nodes of both graphs, in the order of data flow.

    Nodes of one graph belong together along an edge; those of `a` and `b` where they read the same value, or feed the
    same input of a matched node. An edge counts for nothing if the value is read far apart, or if it leads from
    arithmetic on shapes that more than one place needs.
    """
    left, right = pairing.unmatched()
    return _Hunks(pairing, left, right).all() if left or right else []


class _Hunks:
    """Groups of nodes that grow together; nodes of `b` are ~node.

    Attributes:
        nodes: All unmatched ones.
        parents: Towards the node that stands for its group.
        helpers: Nodes that only work out shapes.
        heights: Of all nodes, on each side.
        borders: Where nodes of both sides touch the same matched one.
    """

    def __init__(self, pairing: Pairing, left: list[int], right: list[int]) -> None:
        self.pairing = pairing
        self.nodes = [*left, *(~node for node in right)]
        self.parents = {node: node for node in self.nodes}
        shapes = arithmetic(pairing.a), arithmetic(pairing.b)
        self.helpers = {node: None for node in self.nodes if (shapes[1][~node] if node < 0 else shapes[0][node])}
        self.heights = heights(pairing.a, pairing.to_b), heights(pairing.b, pairing.to_a)
        self.borders = _borders(pairing, left, right)

    def all(self) -> list[tuple[list[int], list[int]]]:
        self.along_edges()
        self.across()
        self.absorb()
        found: dict[int, tuple[list[int], list[int]]] = {}
        for node in self.nodes:
            found.setdefault(self.root(node), ([], []))[node < 0].append(~node if node < 0 else node)
        return sorted(found.values(), key=lambda hunk: _position(self.pairing, *hunk))

    def along_edges(self) -> None:
        for node in self.nodes:
            for users in self.uses(node) if node not in self.helpers else ():
                if not self.is_far(users):
                    for use in users:
                        self.join(node, use)

    def across(self) -> None:
        for (what, *_), both in self.borders.items():
            mine, others = ([node for node in nodes if node not in self.helpers] for nodes in both)
            crowded = len(mine) + len(others) > _CROWD or self.is_far(mine) or self.is_far(others)
            if mine and others and not (what == "reads" and crowded):
                for node in (*mine[1:], *others):
                    self.join(mine[0], node)

    def absorb(self) -> None:
        """Arithmetic goes to the only place that needs it; what several places need, to the arithmetic around it."""
        links = list(self.links())
        for _ in range(_ROUNDS):
            places = self.places()
            wanted: dict[int, set[int]] = {}
            for helper, node in links:
                group, other = self.root(helper), self.root(node)
                if group != other and group not in places:
                    wanted.setdefault(group, set()).add(other)
            # Two places never grow together here: a group joins one other at most, and a place none.
            alone = [(group, other) for group, others in wanted.items() if len(others) == 1 for other in others]
            if not alone:
                break
            for group, other in alone:
                self.join(other, group)
        places = self.places()
        for helper, node in links:
            if self.root(helper) not in places and self.root(node) not in places:
                self.join(helper, node)

    def links(self) -> Iterator[tuple[int, int]]:
        """From arithmetic to what needs it, and to what stands in its place."""
        for helper in self.helpers:
            yield from ((helper, use) for users in self.uses(helper) for use in users)
        for (what, *_), (mine, others) in self.borders.items():
            if len(mine) + len(others) <= _CROWD:
                for i, j in product(mine, others):
                    alike = i in self.helpers and j in self.helpers
                    if alike or (what != "reads" and i in self.helpers):
                        yield i, j
                    if alike or (what != "reads" and j in self.helpers):
                        yield j, i

    def places(self) -> set[int]:
        """Groups that are more than arithmetic."""
        return {self.root(node) for node in self.nodes if node not in self.helpers}

    def uses(self, node: int) -> Iterator[list[int]]:
        """For each value that a node makes its unmatched users."""
        graph = self.pairing.b if node < 0 else self.pairing.a
        for value in graph.makes[~node if node < 0 else node]:
            users = (~use if node < 0 else use for use, _ in graph.users[value])
            yield [use for use in users if use in self.parents]

    def is_far(self, nodes: Sequence[int]) -> bool:
        """Whether nodes of one graph lie so far apart that they are in different places."""
        found = [self.heights[1][~node] if node < 0 else self.heights[0][node] for node in nodes]
        return bool(found) and max(found) - min(found) > _FAR

    def root(self, node: int) -> int:
        parents = self.parents
        while parents[node] != node:
            parents[node] = parents[parents[node]]
            node = parents[node]
        return node

    def join(self, node: int, other: int) -> None:
        first, second = self.root(node), self.root(other)
        if first != second:
            self.parents[second] = first


def _borders(pairing: Pairing, left: list[int], right: list[int]) -> Borders:
    """Unmatched nodes of both graphs, by where they touch what is matched."""
    borders: Borders = {}
    for i in left:
        for key in _borders_in_a(pairing, i):
            borders.setdefault(key, ([], []))[0].append(i)
    for j in right:
        for key in _borders_in_b(pairing, j):
            borders.setdefault(key, ([], []))[1].append(~j)
    return {key: both for key, both in borders.items() if both[0] and both[1]}


def _borders_in_a(pairing: Pairing, i: int) -> Iterable[tuple[Hashable, ...]]:
    """Where an unmatched node of `a` touches what is matched, in terms of `b`."""
    a = pairing.a
    for value in a.reads[i]:
        if a.producers[value] >= 0 and (other := pairing.partner(value)) > 0:
            yield "reads", other
    for value in a.makes[i]:
        for use, slot in a.users[value]:
            if pairing.to_b[use] >= 0:
                yield "feeds", pairing.to_b[use], slot
        for place in a.exits.get(value, ()):
            yield "output", place


def _borders_in_b(pairing: Pairing, j: int) -> Iterable[tuple[Hashable, ...]]:
    b = pairing.b
    for value in b.reads[j]:
        if b.producers[value] >= 0 and pairing.to_a[b.producers[value]] >= 0:
            yield "reads", value
    for value in b.makes[j]:
        for use, slot in b.users[value]:
            if pairing.to_a[use] >= 0:
                yield "feeds", use, slot
        for place in b.exits.get(value, ()):
            yield "output", place


def _position(pairing: Pairing, removed: list[int], added: list[int]) -> tuple[int, int]:
    """Where a hunk stands along `a`; one that only adds, after what it reads."""
    if removed:
        return min(pairing.ranks[0][i] for i in removed), 0
    first = min(added, key=lambda j: pairing.ranks[1][j])
    read = [pairing.to_a[p] for v in pairing.b.reads[first] if (p := pairing.b.producers[v]) >= 0]
    return max((pairing.ranks[0][i] for i in read if i >= 0), default=-1), 1 + pairing.ranks[1][first]
