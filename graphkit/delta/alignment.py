"""Aligns the nodes between fixed pairs, as a text diff aligns the lines between equal ones.

Myers, "An O(ND) difference algorithm and its variations" (1986), greedy and forward, with a budget: where two
stretches differ too much, the furthest path so far is taken, and the search goes on from its end.
"""

from __future__ import annotations

from bisect import bisect_left
from collections.abc import Iterator, Sequence

from graphkit.delta.canonical import Canon
from graphkit.delta.pairing import Pairing

MOST_EDITS = 1500
"""Insertions and deletions that one search may need before its furthest path is taken."""

TRANSPARENT = frozenset(("QuantizeLinear", "DequantizeLinear", "Identity", "Cast"))
"""Operators that stand between the same nodes once a model is quantised or cast."""


def align(pairing: Pairing, a: Sequence[int], b: Sequence[int], trusted: bool = True) -> None:
    """Pair nodes with equal tokens in the gaps between pairs that stand in the same order in both graphs.

    Args:
        pairing: Receives the pairs; `approximate` is set if the budget was hit.
        a, b: Token of each node.
        trusted: If not, a pair also needs a neighbour that is paired in the same way.
    """
    for left, right in gaps(pairing):
        # A token that only one side has takes no part, and is most of what there is where little is alike.
        both = {a[node] for node in left} & {b[node] for node in right}
        left, right = [node for node in left if a[node] in both], [node for node in right if b[node] in both]
        matched, complete = myers([a[node] for node in left], [b[node] for node in right], pairing.budget)
        pairing.approximate |= not complete
        for x, y in matched:
            if trusted or _neighbourly(pairing, left[x], right[y]):
                pairing.link(left[x], right[y])


def gaps(pairing: Pairing) -> Iterator[tuple[list[int], list[int]]]:
    """Stretches of unmatched nodes between neighbouring pairs that do not cross."""
    line_a, line_b = pairing.lines
    fixed = [
        (rank, pairing.ranks[1][pairing.to_b[node]]) for rank, node in enumerate(line_a) if pairing.to_b[node] >= 0
    ]
    x = y = 0
    for i, j in [*_increasing(fixed), (len(line_a), len(line_b))]:
        if i > x and j > y:
            left = [node for node in line_a[x:i] if pairing.to_b[node] < 0]
            right = [node for node in line_b[y:j] if pairing.to_a[node] < 0]
            if left and right:
                yield left, right
        x, y = i + 1, j + 1


def myers(a: Sequence[int], b: Sequence[int], budget: list[int]) -> tuple[list[tuple[int, int]], bool]:
    """Pairs of positions of a longest common subsequence, and whether it is one: False if the budget was hit."""
    found: list[tuple[int, int]] = []
    x = y = 0
    complete = True
    while x < len(a) and y < len(b):
        if a[x] == b[y]:
            found.append((x, y))
            x, y = x + 1, y + 1
            continue
        if budget[0] <= 0:
            return found, False
        path, finished = _search(a, b, x, y, budget)
        complete &= finished
        if finished or not path:
            found.extend(path)
            return found, complete and finished
        # Past the cut the path is a guess: its last quarter is looked at again.
        kept = path[: max(1, len(path) * 3 // 4)]
        found.extend(kept)
        x, y = kept[-1][0] + 1, kept[-1][1] + 1
    return found, complete


def _search(
    a: Sequence[int], b: Sequence[int], start_a: int, start_b: int, budget: list[int]
) -> tuple[list[tuple[int, int]], bool]:
    """The pairs of a shortest edit script from a position to the end, or of the furthest path within the limits."""
    n, m = len(a) - start_a, len(b) - start_b
    reach = {1: 0}
    history: list[dict[int, int]] = []
    best = (0, 0, 0)  # x + y, edits, diagonal
    for edits in range(min(n + m, MOST_EDITS) + 1):
        current: dict[int, int] = {}
        budget[0] -= edits + 1
        low = -edits if edits <= m else edits - 2 * m
        high = edits if edits <= n else 2 * n - edits
        for diagonal in range(low, high + 1, 2):
            before, after = reach.get(diagonal - 1, -1), reach.get(diagonal + 1, -1)
            x = after if after > before else before + 1
            y = x - diagonal
            if x > n or y > m or y < 0:
                continue
            first = x
            while x < n and y < m and a[start_a + x] == b[start_b + y]:
                x, y = x + 1, y + 1
            budget[0] -= x - first
            current[diagonal] = x
            if x + y > best[0]:
                best = (x + y, edits, diagonal)
            if x >= n and y >= m:
                history.append(current)
                return _walk_back(history, edits, diagonal, start_a, start_b), True
        history.append(current)
        reach = current
        if budget[0] <= 0:
            break
    _, edits, diagonal = best
    return _walk_back(history, edits, diagonal, start_a, start_b), False


def _walk_back(
    history: list[dict[int, int]], edits: int, diagonal: int, start_a: int, start_b: int
) -> list[tuple[int, int]]:
    found: list[tuple[int, int]] = []
    while True:
        x = history[edits][diagonal]
        if edits == 0:
            first = 0
        else:
            reach = history[edits - 1]
            before, after = reach.get(diagonal - 1, -1), reach.get(diagonal + 1, -1)
            down = after > before
            first = after if down else before + 1
        found.extend((start_a + i, start_b + i - diagonal) for i in range(x - 1, first - 1, -1))
        if edits == 0:
            return found[::-1]
        diagonal += 1 if down else -1
        edits -= 1


def _increasing(pairs: list[tuple[int, int]]) -> list[tuple[int, int]]:
    """The longest subsequence whose second parts increase; the first ones do already. O(n log n) (Schensted 1961)."""
    tails: list[int] = []
    ends: list[int] = []
    previous = [-1] * len(pairs)
    for index, (_, y) in enumerate(pairs):
        at = bisect_left(tails, y)
        previous[index] = ends[at - 1] if at else -1
        if at == len(tails):
            tails.append(y)
            ends.append(index)
        else:
            tails[at] = y
            ends[at] = index
    found = []
    index = ends[-1] if ends else -1
    while index >= 0:
        found.append(pairs[index])
        index = previous[index]
    return found[::-1]


def _neighbourly(pairing: Pairing, i: int, j: int) -> bool:
    """Whether a neighbour of one is paired with the neighbour of the other in the same slot."""
    a, b = pairing.a, pairing.b
    for read, read_b in zip(a.reads[i], b.reads[j], strict=False):
        value, other = _behind(a, read, pairing.to_b), _behind(b, read_b, pairing.to_a)
        if (a.producers[value] >= 0 or value in pairing.values) and other and pairing.partner(value) == other:
            return True
    users = {(use.node, use.slot) for value in b.makes[j] for use in b.users[value]}
    return any((pairing.to_b[use], at) in users for value in a.makes[i] for use, at in a.users[value])


def _behind(graph: Canon, value: int, partners: list[int]) -> int:
    """The value that stands behind operators which only change its numbers' form, as far as they have no partner."""
    made = graph.producers[value]
    while made >= 0 and partners[made] < 0 and graph.reads[made] and graph.op(made) in TRANSPARENT:
        value = graph.reads[made][0]
        made = graph.producers[value]
    return value
