"""From pairs to more pairs: along edges where only one choice is left, and by the neighbours that two nodes share."""

from __future__ import annotations

from collections import deque
from collections.abc import Iterable, Sequence

from graphkit.delta.canonical import Canon, Use
from graphkit.delta.pairing import Pairing

CROWD = 64
"""Users of one value beyond which they are no evidence for one another: a mask is read by every layer."""


def spread(pairing: Pairing, a: Sequence[int], b: Sequence[int], *, names: bool = False) -> None:
    """Pair the neighbours of pairs, and theirs, where codes are equal and nobody else could be meant.

    Args:
        pairing: Receives the pairs.
        a, b: Code of each node.
        names: Whether equal names decide where several could be meant.
    """
    pending = deque((node, pairing.to_b[node]) for node in _beside_unmatched(pairing))
    while pending:
        i, j = pending.popleft()
        for x, y in [*_above(pairing, i, j, a, b), *_below(pairing, i, j, a, b, names)]:
            if pairing.to_b[x] < 0 and pairing.to_a[y] < 0:
                pairing.link(x, y)
                pending.append((x, y))


def update(pairing: Pairing) -> bool:
    """Pair nodes that were changed: they share a neighbour and the operator, or one above and one below. Says whether
    it found any.

    The pairs with the most in common come first; each is taken if both are still free.
    """
    found = False
    left, _ = pairing.unmatched()
    scored = []
    for i in left:
        for j, (above, below) in _shared(pairing, i).items():
            same = pairing.a.op(i) == pairing.b.op(j)
            if same or (above and below):
                apart = abs(pairing.ranks[0][i] - pairing.ranks[1][j])
                scored.append((-above - below - same, apart, pairing.ranks[0][i], pairing.ranks[1][j], i, j))
    for *_, i, j in sorted(scored):
        if pairing.to_b[i] < 0 and pairing.to_a[j] < 0:
            pairing.link(i, j)
            found = True
    return found


def _beside_unmatched(pairing: Pairing) -> list[int]:
    """Paired nodes of `a` that touch an unpaired one, along the line."""
    a, to_b = pairing.a, pairing.to_b
    found: set[int] = set()
    for node in pairing.unmatched()[0]:
        found.update(a.producers[value] for value in a.reads[node])
        found.update(use.node for value in a.makes[node] for use in a.users[value])
    return sorted((n for n in found if n >= 0 and to_b[n] >= 0), key=pairing.ranks[0].__getitem__)


def _above(
    pairing: Pairing, i: int, j: int, codes_a: Sequence[int], codes_b: Sequence[int]
) -> Iterable[tuple[int, int]]:
    """Pairs of unmatched producers of what two nodes read in the same slot, or in any where these may be swapped."""
    a, b = pairing.a, pairing.b
    if not a.commutative[i]:
        for value, other in zip(a.reads[i], b.reads[j], strict=False):
            x, y = a.producers[value], b.producers[other]
            free = x >= 0 and y >= 0 and pairing.to_b[x] < 0 and pairing.to_a[y] < 0
            if free and codes_a[x] == codes_b[y] and a.places.get(value, 0) == b.places.get(other, 0):
                yield x, y
        return
    left = [x for x in map(a.producers.__getitem__, a.reads[i]) if x >= 0 and pairing.to_b[x] < 0]
    right = [y for y in map(b.producers.__getitem__, b.reads[j]) if y >= 0 and pairing.to_a[y] < 0]
    yield from _only_choices(pairing, left, right, codes_a, codes_b, False)


def _below(
    pairing: Pairing, i: int, j: int, codes_a: Sequence[int], codes_b: Sequence[int], names: bool
) -> Iterable[tuple[int, int]]:
    """Pairs of unmatched users of what two nodes make, slot by slot."""
    a, b = pairing.a, pairing.b
    for value, other in zip(a.makes[i], b.makes[j], strict=False):
        left, right = _free(a.users[value], pairing.to_b), _free(b.users[other], pairing.to_a)
        if left and right:
            for slot, nodes in left.items():
                yield from _only_choices(pairing, nodes, right.get(slot, []), codes_a, codes_b, names)


def _free(users: list[Use], partners: list[int]) -> dict[int, list[int]]:
    found: dict[int, list[int]] = {}
    for node, slot in users:
        if partners[node] < 0:
            found.setdefault(slot, []).append(node)
    return found


def _only_choices(
    pairing: Pairing, left: list[int], right: list[int], codes_a: Sequence[int], codes_b: Sequence[int], names: bool
) -> Iterable[tuple[int, int]]:
    if not left or not right:
        return
    groups_a, groups_b = _by_code(pairing.a, left, codes_a, False), _by_code(pairing.b, right, codes_b, False)
    for code, nodes in groups_a.items():
        others = groups_b.get(code, [])
        if len(nodes) == 1 and len(others) == 1:
            yield nodes[0], others[0]
        elif names and others:
            named = _by_code(pairing.b, others, codes_b, True)
            for code_name, same in _by_code(pairing.a, nodes, codes_a, True).items():
                if len(same) == 1 and len(named.get(code_name, ())) == 1:
                    yield same[0], named[code_name][0]


def _by_code(graph: Canon, nodes: list[int], codes: Sequence[int], names: bool) -> dict[tuple[int, str], list[int]]:
    found: dict[tuple[int, str], list[int]] = {}
    for node in dict.fromkeys(nodes):
        found.setdefault((codes[node], graph.name(node) if names else ""), []).append(node)
    return found


def _shared(pairing: Pairing, i: int) -> dict[int, tuple[int, int]]:
    """Unmatched nodes of `b` that touch partners of what `i` touches: at how many inputs, and users of outputs."""
    a, b = pairing.a, pairing.b
    above: dict[int, int] = {}
    for slot, value in enumerate(a.reads[i][: a.own[i]]):
        other = pairing.partner(value) if value else -1
        if other > 0 and len(b.users[other]) <= CROWD:
            for use, at in dict.fromkeys(b.users[other]):
                if pairing.to_a[use] < 0 and (at == slot or a.commutative[i] or b.commutative[use]):
                    above[use] = above.get(use, 0) + 1
    below: dict[int, int] = {}
    for value in a.makes[i]:
        for use, slot in a.users[value]:
            partner = pairing.to_b[use]
            if partner < 0 or slot < 0:
                continue
            reads = b.reads[partner]
            for other in reads[:CROWD] if b.commutative[partner] else reads[slot : slot + 1]:
                _count_maker(pairing, other, below)
        for place in a.exits.get(value, ()):
            if place < len(b.outputs):
                _count_maker(pairing, b.outputs[place], below)
    return {j: (above.get(j, 0), below.get(j, 0)) for j in {**above, **below}}


def _count_maker(pairing: Pairing, value: int, found: dict[int, int]) -> None:
    made = pairing.b.producers[value]
    if made >= 0 and pairing.to_a[made] < 0:
        found[made] = found.get(made, 0) + 1
