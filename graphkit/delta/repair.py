"""Undoes exchanges of branches that look alike: q, k and v of one shape, once all weights are new.

Alignment keeps to one order of nodes, and an edit may turn that order around. What shows is that partners read from
nodes that are not partners; pairs are then exchanged up the branch, and kept so if more edges agree than before.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence

from graphkit.delta.canonical import Canon
from graphkit.delta.pairing import Pairing

_LONGEST = 200
"""Exchanges that one attempt may make."""

_DETOUR = 3
"""Nodes without a partner that an exchange may step over."""


def repair(pairing: Pairing, a: Sequence[int], b: Sequence[int]) -> bool:
    """Exchange pairs where more edges then agree; says whether any was. Nodes are exchanged only for equal codes."""
    found = False
    tried: set[tuple[int, int]] = set()  # of thousands of users of one value, the first one speaks for all
    for i in reversed(pairing.lines[0]):
        j = pairing.to_b[i]
        if j < 0 or _in_line(pairing, i, j):
            continue
        for p, q in _sources(pairing, i, j):
            if pairing.to_b[p] != q and a[p] == b[q] and (p, q) not in tried:
                tried.add((p, q))
                found |= _attempt(pairing, p, q, a, b)
    return found


def _in_line(pairing: Pairing, i: int, j: int) -> bool:
    """Whether what two nodes read, slot by slot, comes from partners: so it is nearly everywhere."""
    above, above_b, to_b = pairing.a.producers, pairing.b.producers, pairing.to_b
    for value, other in zip(pairing.a.reads[i], pairing.b.reads[j], strict=False):
        made = above[value]
        if (to_b[made] if made >= 0 else -1) != above_b[other]:
            return False
    return True


def _attempt(pairing: Pairing, p: int, q: int, a: Sequence[int], b: Sequence[int]) -> bool:
    undone: list[tuple[int, int, int, int]] = []
    gain = 0
    pending = [(p, q)]
    while pending and len(undone) < _LONGEST:
        p, q = pending.pop()
        x, y = pairing.to_a[q], pairing.to_b[p]
        if y == q or a[p] != b[q]:
            continue
        if x >= 0 and y >= 0 and a[x] != b[y]:
            continue
        before = _agreeing(pairing, p, y) + _agreeing(pairing, x, q)
        _exchange(pairing, p, q, x, y)
        undone.append((p, q, x, y))
        gain += _agreeing(pairing, p, q) + _agreeing(pairing, x, y) - before
        pending.extend(_sources(pairing, p, q))
    if gain > 0:
        return True
    for p, q, x, y in reversed(undone):
        _exchange(pairing, p, y, x, q)
    return False


def _exchange(pairing: Pairing, p: int, q: int, x: int, y: int) -> None:
    """Make partners of p and q, and of x and y; -1 stands for none."""
    for node, partner in ((p, q), (x, y)):
        if node >= 0:
            pairing.count += (partner >= 0) - (pairing.to_b[node] >= 0)
            pairing.to_b[node] = partner
        if partner >= 0:
            pairing.to_a[partner] = node


def _sources(pairing: Pairing, i: int, j: int) -> Iterator[tuple[int, int]]:
    """Producers of what two nodes read in the same slot, those without a partner stepped over."""
    a, b = pairing.a, pairing.b
    reads, others = a.reads[i], b.reads[j]
    if a.commutative[i]:  # a bias may stand on either side
        reads = tuple(value for value in reads if a.producers[value] >= 0)
        others = tuple(value for value in others if b.producers[value] >= 0)
        if len(reads) > 1 and any(pairing.partner(value) in others for value in reads):
            return
    for value, other in zip(reads, others, strict=False):
        p, q = _source(a, value, pairing.to_b), _source(b, other, pairing.to_a)
        if p >= 0 and q >= 0:
            yield p, q


def _source(graph: Canon, value: int, partners: list[int]) -> int:
    made = graph.producers[value]
    if made < 0 or partners[made] >= 0:
        return made
    for _ in range(_DETOUR):
        if made < 0 or partners[made] >= 0:
            return made
        above = [p for v in graph.reads[made] if (p := graph.producers[v]) >= 0]
        if len(above) != 1:
            return made
        made = above[0]
    return made


def _agreeing(pairing: Pairing, i: int, j: int) -> int:
    """Edges of two partners whose other ends are partners too."""
    if i < 0 or j < 0:
        return 0
    a, b = pairing.a, pairing.b
    reads, others = a.reads[i], b.reads[j]
    if a.commutative[i]:
        mine = [pairing.partner(value) for value in reads if a.producers[value] >= 0]
        found = sum(value in others for value in mine if value > 0)
    else:
        pairs = zip(reads, others, strict=False)
        found = sum(a.producers[v] >= 0 and pairing.partner(v) == other for v, other in pairs if v and other)
    users = {(use.node, use.slot) for value in b.makes[j] for use in b.users[value]}
    return found + sum((pairing.to_b[use], at) in users for value in a.makes[i] for use, at in a.users[value])
