"""Which sizes to try: the ends of the declared ranges, the one to optimise for, and an odd one."""

from __future__ import annotations

import functools
import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace

from graphkit.errors import ShapeMismatch
from graphkit.shapes import DimRange, Signature, evaluate

BUDGET = 1 << 22
"""Elements of all inputs of one run. 4 Mi floats are 28 images of 3x224x224; see also `_TOKEN`."""

_TOKEN = 512
"""An integer element counts as this many: it is looked up as a row of an embedding. 8192 tokens fill the budget."""

_BATCH_LIKE = 8
"""A symbol without a range that capture saw at most this large may be 1; a larger one is an image side or the like,
which networks halve several times, so it is kept and doubled."""


@dataclass(frozen=True, slots=True)
class SizePoint:
    """One set of sizes to run at.

    Attributes:
        sizes: Value of every symbolic dimension.
        label: `min`, `opt`, `odd`, `max`, or `max of seq` where the maxima are too large together.
        draw: Which draw of random values; differs where the sizes cannot.
        seen: Whether capture used these sizes.
        declared: Whether every size lies in a range that the user declared.
        note: What was not tried, and why.
    """

    sizes: Mapping[str, int]
    label: str
    draw: int = 0
    seen: bool = False
    declared: bool = True
    note: str | None = None


def choose_sizes(
    signature: Signature,
    dims: Sequence[DimRange],
    seen: Sequence[Mapping[str, int]] = (),
    count: int = 3,
    *,
    fixed: Mapping[str, int] | None = None,
    budget: int = BUDGET,
) -> list[SizePoint]:
    """At least `count` points inside the declared ranges, at least one of them not in `seen` where ranges allow.

    Args:
        seen: Sizes that capture used.
        fixed: Sizes that the user's own sample values fix (`inputs.fixed_sizes`).
        budget: Elements of all inputs above which a point is not tried; the points that stand in for it say so.
            Four times the minimum is always allowed.

    Raises:
        ShapeMismatch: a fixed size lies outside its declared range.
    """
    ladders = _ladders(signature.symbols, {d.symbol: d for d in dims}, seen, fixed or {})
    low = {s: ladder.low for s, ladder in ladders.items()}
    cost = functools.partial(_cost, signature)
    budget = max(budget, 4 * cost(low))  # the minimum is run anyway; a few times that leaves room for another size
    points = [
        SizePoint(low, "min"),
        _fitted({s: ladder.opt for s, ladder in ladders.items()}, "opt", low, cost, budget),
        _fitted({s: ladder.odd for s, ladder in ladders.items()}, "odd", low, cost, budget),
        *_maxima({s: ladder.high for s, ladder in ladders.items()}, low, cost, budget),
    ]
    declared = {d.symbol for d in dims}
    unique = {tuple(p.sizes.items()): p for p in reversed(points)}
    points = [p for p in points if unique[tuple(p.sizes.items())] is p]
    points += [replace(points[-1], label="again", draw=i, note=None) for i in range(1, count - len(points) + 1)]
    return [replace(p, seen=_is_seen(p.sizes, seen), declared=declared >= set(p.sizes)) for p in points]


@dataclass(frozen=True, slots=True)
class _Ladder:
    low: int
    opt: int
    odd: int
    high: int


def _ladders(
    symbols: Sequence[str], ranges: Mapping[str, DimRange], seen: Sequence[Mapping[str, int]], fixed: Mapping[str, int]
) -> dict[str, _Ladder]:
    ladders: dict[str, _Ladder] = {}
    taken: set[int] = set()
    for position, symbol in enumerate(symbols):
        if symbol in fixed:
            _check_inside(symbol, fixed[symbol], ranges.get(symbol))
            ladders[symbol] = _Ladder(*[fixed[symbol]] * 4)
        elif symbol in ranges:
            declared = ranges[symbol]
            used = {s[symbol] for s in seen if symbol in s}
            odd = _odd(declared, used, taken)
            ladders[symbol] = _Ladder(declared.min, declared.opt, odd, declared.max)
        else:
            base = max((s[symbol] for s in seen if symbol in s), default=0)
            # Sizes differ between symbols, so that two swapped dimensions cannot pass for one another.
            small = (1, 2 + position, 5 + 2 * position, 5 + 2 * position)
            ladders[symbol] = _Ladder(base, base, 2 * base, 2 * base) if base > _BATCH_LIKE else _Ladder(*small)
        taken.add(ladders[symbol].odd)
    return ladders


def _check_inside(symbol: str, size: int, declared: DimRange | None) -> None:
    if declared is not None and not declared.min <= size <= declared.max:
        raise ShapeMismatch(
            f"the sample values have {symbol}={size}, outside the declared range {declared}",
            remedy=f"samples with a `{symbol}` in that range, or a wider --dim {symbol}",
        )


def _odd(declared: DimRange, used: set[int], taken: set[int]) -> int:
    """A size inside the range that is neither its ends nor its optimum, nor used in capture, nor taken by another
    symbol: odd where possible. It keeps a common divisor of the three from 8 on, since a network that is declared
    for 32:64:128 may need multiples of 32."""
    divisor = math.gcd(declared.min, declared.opt, declared.max)
    step = divisor if divisor >= 8 else 1
    ends = {declared.min, declared.opt, declared.max}
    sizes = range(declared.min, min(declared.max, declared.opt + 64 * step) + 1, step)
    rank = lambda n: (n in ends, n in used, n in taken, (n // step) % 2 == 0, abs(n - declared.opt), n)  # noqa: E731
    return min(sizes, key=rank)


def _maxima(
    high: dict[str, int], low: dict[str, int], cost: Callable[[Mapping[str, int]], int], budget: int
) -> list[SizePoint]:
    """All maxima together; where that is too large, each alone with the others at their minimum."""
    if cost(high) <= budget:
        return [SizePoint(high, "max")]
    together = ", ".join(f"{s}={n}" for s, n in high.items())
    moving = [s for s in high if high[s] > low[s]]
    points = [_fitted({**low, s: high[s]}, f"max of {s}", low, cost, budget) for s in moving]
    if len(moving) > 1:
        note = f"{together} was not run together (too large for a check): each was run with the others at their minimum"
        points = [replace(p, note=p.note or note) for p in points]
    return points or [SizePoint(high, "max")]


def _fitted(
    sizes: dict[str, int], label: str, low: dict[str, int], cost: Callable[[Mapping[str, int]], int], budget: int
) -> SizePoint:
    """`sizes`, or with its largest sizes halved until the inputs fit the budget; never below `low`."""
    wanted = dict(sizes)
    while cost(sizes) > budget and sizes != low:
        symbol = max(sizes, key=lambda s: sizes[s] / low[s])
        step = math.gcd(low[symbol], wanted[symbol])
        sizes = {**sizes, symbol: max(low[symbol], sizes[symbol] // 2 // step * step)}
    if sizes == wanted:
        return SizePoint(sizes, label)
    changed = ", ".join(f"{s}={wanted[s]}" for s in sizes if sizes[s] != wanted[s])
    instead = ", ".join(f"{s}={sizes[s]}" for s in sizes if sizes[s] != wanted[s])
    return SizePoint(sizes, label, note=f"{changed} was not run (too large for a check): {instead} was instead")


def _cost(signature: Signature, sizes: Mapping[str, int]) -> int:
    total = 0
    for spec in signature.inputs:
        elements = math.prod(evaluate(d, sizes) or 1 for d in spec.shape or ())
        total += elements * (_TOKEN if spec.dtype in ("int32", "int64") else 1)
    return total


def _is_seen(sizes: Mapping[str, int], seen: Sequence[Mapping[str, int]]) -> bool:
    return any(all(s.get(symbol) == size for symbol, size in sizes.items()) for s in seen)
