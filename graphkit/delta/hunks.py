"""Nodes without a partner, put together where they touch: what was taken out, and what stands in its place."""

from __future__ import annotations

from collections.abc import Hashable, Iterable

from graphkit.delta.canonical import Canon
from graphkit.delta.pairing import Pairing

_CROWD = 8
"""Beyond so many unmatched users, reading one value does not make them belong together: every layer reads a mask."""


def hunks(pairing: Pairing) -> list[tuple[list[int], list[int]]]:
    """Connected unmatched nodes of both graphs, in the order of data flow.

    Nodes of one graph belong together along an edge; those of `a` and `b` where they read the same value, or feed the
    same input of a matched node.
    """
    left, right = pairing.unmatched()
    parents = {node: node for node in (*left, *(~node for node in right))}  # nodes of b as ~node
    for i in left:
        _along_edges(parents, pairing.a, i, False)
    for j in right:
        _along_edges(parents, pairing.b, j, True)
    _across(parents, pairing, left, right)
    found: dict[int, tuple[list[int], list[int]]] = {}
    for i in left:
        found.setdefault(_root(parents, i), ([], []))[0].append(i)
    for j in right:
        found.setdefault(_root(parents, ~j), ([], []))[1].append(j)
    return sorted(found.values(), key=lambda hunk: _position(pairing, *hunk))


def _along_edges(parents: dict[int, int], graph: Canon, node: int, of_b: bool) -> None:
    own = ~node if of_b else node
    for value in graph.reads[node]:
        made = graph.producers[value]
        other = ~made if of_b else made
        if made >= 0 and other in parents:
            _join(parents, own, other)


def _across(parents: dict[int, int], pairing: Pairing, left: list[int], right: list[int]) -> None:
    borders: dict[tuple[Hashable, ...], tuple[list[int], list[int]]] = {}
    for i in left:
        for key in _borders(pairing, i):
            borders.setdefault(key, ([], []))[0].append(i)
    for j in right:
        for key in _borders_in_b(pairing, j):
            borders.setdefault(key, ([], []))[1].append(~j)
    for key, (mine, others) in borders.items():
        if mine and others and (key[0] != "reads" or len(mine) + len(others) <= _CROWD):
            for node in (*mine[1:], *others):
                _join(parents, mine[0], node)


def _borders(pairing: Pairing, i: int) -> Iterable[tuple[Hashable, ...]]:
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


def _root(parents: dict[int, int], node: int) -> int:
    while parents[node] != node:
        parents[node] = parents[parents[node]]
        node = parents[node]
    return node


def _join(parents: dict[int, int], node: int, other: int) -> None:
    first, second = _root(parents, node), _root(parents, other)
    if first != second:
        parents[second] = first
