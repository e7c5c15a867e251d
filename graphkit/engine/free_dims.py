"""Ranges of dimensions that nobody gave, found in the graph: at which sizes does strict shape inference hold?

ONNX's inference sees what is decided by shapes alone (Reshape, Concat, MatMul, broadcasting); what depends on values it
does not see. Every range found is a finding, and is proven like one that was given.
"""

from __future__ import annotations

import functools
import itertools
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace

from graphkit.engine.builder import BuildRequest
from graphkit.engine.profiles import infer
from graphkit.errors import BadDimRange
from graphkit.model import Finding, Model
from graphkit.shapes import DimRange, evaluate

TRIED = (*range(1, 17), 24, 32, 48, 64, 96, 128, 192, 224, 256, 384, 512)
"""Sizes that are tried; a range ends at the last one that holds and is at most `_STRETCH` times the usual size."""

_STRETCH = 4
_SMALL = 8
_MOST_FREE = 12

Point = Mapping[str, int]
"""A size for each symbol."""


@dataclass(frozen=True, slots=True)
class Resolved:
    """A request with a range for every dimension, and what was found on the way."""

    request: BuildRequest
    findings: tuple[Finding, ...] = ()


def resolve(request: BuildRequest) -> Resolved:
    """Find the ranges that are missing, if the request asks for that.

    Raises:
        BadDimRange: no size was found at which the graph holds, or too many dimensions are free to try.
        TimedOut: inference did not end.
    """
    given = {r.symbol: r for r in request.ranges}
    free = [symbol for symbol in request.model.signature.symbols if symbol not in given]
    if not request.find_ranges or not free:
        return Resolved(request)
    if len(free) > _MOST_FREE:
        raise BadDimRange(
            f"{len(free)} dimensions have no range: too many to try them all", remedy=f"--dim {free[0]}=MIN:OPT:MAX"
        )
    usual = {symbol: r.opt for symbol, r in given.items()}
    base = _start(request.model, free, usual)
    found: list[DimRange] = []
    findings: list[Finding] = []
    for group, sizes in _groups(request.model, free, base):
        ranges = [_range(symbol, base[symbol], sizes) for symbol in group]
        found.extend(ranges)
        findings.append(_finding(ranges, sizes))
    return Resolved(replace(request, dims=(*request.ranges, *found), find_ranges=False), tuple(findings))


def _start(model: Model, free: Sequence[str], usual: Point) -> dict[str, int]:
    """Sizes at which the graph holds: those of its capture, else one size for every free dimension."""
    captured = model.origin.sizes
    points = [dict(usual) | {s: captured.get(s, n) for s in free} for n in TRIED if captured]
    points += [dict(usual) | dict.fromkeys(free, n) for n in TRIED]
    holding = [point for point, holds in zip(points, _holds(model, points), strict=True) if holds]
    if not holding:
        raise BadDimRange(
            f"no size up to {TRIED[-1]} was found at which the graph holds, for {', '.join(f'`{s}`' for s in free)}",
            remedy=" ".join(f"--dim {symbol}=MIN:OPT:MAX" for symbol in free),
        )
    # 1 holds too often: it is broadcast to anything.
    small = [point for point in holding if max(point[s] for s in free) <= _SMALL]
    return holding[0] if captured else (small[-1] if small else holding[0])


def _groups(model: Model, free: Sequence[str], base: Point) -> list[tuple[list[str], list[int]]]:
    """Dimensions that can only change together, and the sizes at which they hold while the others keep theirs."""
    alone = _sizes(model, [[symbol] for symbol in free], base)
    groups = [[symbol] for symbol in free]
    pinned = [symbol for symbol in free if alone[symbol,] == [base[symbol]]]
    pairs = [[a, b] for a, b in itertools.combinations(pinned, 2) if base[a] == base[b]]
    for (first, second), sizes in _sizes(model, pairs, base).items() if pairs else ():
        if len(sizes) > 1:
            one = next(g for g in groups if first in g)
            other = next(g for g in groups if second in g)
            if one is not other:
                one.extend(other)
                groups.remove(other)
    sizes_of = _sizes(model, groups, base)
    return [(group, sizes_of[tuple(group)]) for group in groups]


def _sizes(model: Model, groups: Sequence[Sequence[str]], base: Point) -> dict[tuple[str, ...], list[int]]:
    """For each group, those of `TRIED` (and its usual size) that hold."""
    tried = {tuple(group): sorted({*TRIED, base[group[0]]}) for group in groups}
    points = [dict(base) | dict.fromkeys(group, n) for group, sizes in tried.items() for n in sizes]
    answers = iter(_holds(model, points))
    return {group: [n for n in sizes if next(answers)] for group, sizes in tried.items()}


def _holds(model: Model, points: Sequence[Point]) -> list[bool]:
    """Whether the graph holds at each point, in one run of inference."""
    shapes = {str(number): _shapes(model, point) for number, point in enumerate(points)}
    failures, _ = infer(model, {label: each for label, each in shapes.items() if each is not None})
    failed = {failure["point"] for failure in failures}
    return [shapes[label] is not None and label not in failed for label in shapes]


def _shapes(model: Model, point: Point) -> dict[str, list[int]] | None:
    """Shape of each input; None where a dimension is no positive number."""
    found: dict[str, list[int]] = {}
    for spec in model.signature.inputs:
        sizes = [evaluate(dim, point) for dim in spec.shape or ()]
        if any(size is None or size < 1 for size in sizes):
            return None
        found[spec.name] = [size for size in sizes if size is not None]
    return found


def _range(symbol: str, usual: int, sizes: Sequence[int]) -> DimRange:
    within = [n for n in sizes if n <= max(_SMALL, _STRETCH * usual)]
    return DimRange(symbol, within[0], usual, within[-1])


def _finding(ranges: Sequence[DimRange], sizes: Sequence[int]) -> Finding:
    names = " and ".join(f"`{r.symbol}`" for r in ranges)
    what = f"dimension {names} was given no range" if len(ranges) == 1 else f"dimensions {names} were given no range"
    text = f"{ranges[0].min}:{ranges[0].opt}:{ranges[0].max}"
    together = ", together," if len(ranges) > 1 else ""
    return Finding(
        "range-found",
        f"{what}: {text} was found{together} in the graph, {_rule(sizes)}",
        remedy=" ".join(f"--dim {r.symbol}=MIN:OPT:MAX" for r in ranges),
    )


def _rule(sizes: Sequence[int]) -> str:
    if len(sizes) == 1:
        return f"which holds at {sizes[0]} only"
    step = functools.reduce(math.gcd, sizes)
    multiples = [n for n in TRIED if sizes[0] <= n <= sizes[-1] and n % step == 0]
    if list(sizes) == multiples:
        every = "every size" if step == 1 else f"every multiple of {step}"
        return f"which holds at {every} tried from {sizes[0]} to {sizes[-1]}"
    return f"which holds at {', '.join(map(str, sizes[:8]))}{', ...' if len(sizes) > 8 else ''} of the sizes tried"
