"""Delta debugging: from a list that fails to a part of it of which nothing can be left out.

The `ddmin` of Zeller and Hildebrandt, "Simplifying and Isolating Failure-Inducing Input", IEEE TSE 28(2), 2002, after
a bisection of both ends, which takes log2(n) trials where the failure has one cause.
"""

from __future__ import annotations

import itertools
from collections.abc import Callable, Sequence
from typing import TypeVar

T = TypeVar("T")

Fails = Callable[[Sequence[T]], bool]
"""Whether a part of the list still fails, in the same way. The empty part is never asked about."""


def bisect_ends(items: Sequence[T], fails: Fails[T]) -> Sequence[T]:
    """The shortest failing prefix, and of that the shortest failing suffix, if failing is monotone; else some part
    that fails. `items` must fail."""
    high = _least(1, len(items), lambda n: fails(items[:n]))
    kept = items[:high]
    length = _least(1, len(kept), lambda n: fails(kept[len(kept) - n :]))
    return kept[len(kept) - length :]


def ddmin(items: Sequence[T], fails: Fails[T]) -> Sequence[T]:
    """A part that fails and is 1-minimal: without any single item of it, it no longer does. `items` must fail."""
    parts = 2
    while len(items) > 1:
        parts = min(parts, len(items))
        chunks = _split(items, parts)
        alone = next((c for c in chunks if fails(c)), None) if parts < len(items) or parts == 2 else None
        if alone is not None:
            items, parts = alone, 2
            continue
        rest = next((r for r in _complements(chunks) if fails(r)), None) if parts > 2 else None
        if rest is not None:
            items, parts = rest, max(parts - 1, 2)
            continue
        if parts == len(items):
            break
        parts *= 2
    return items


def _least(low: int, high: int, fails: Callable[[int], bool]) -> int:
    """The least number in [low, high] for which `fails` holds, taken for monotone and true at `high`."""
    while low < high:
        middle = (low + high) // 2
        if fails(middle):
            high = middle
        else:
            low = middle + 1
    return high


def _split(items: Sequence[T], parts: int) -> list[Sequence[T]]:
    edges = [len(items) * i // parts for i in range(parts + 1)]
    return [items[a:b] for a, b in itertools.pairwise(edges)]


def _complements(chunks: Sequence[Sequence[T]]) -> list[Sequence[T]]:
    return [[item for other in (*chunks[:i], *chunks[i + 1 :]) for item in other] for i in range(len(chunks))]
