"""The command line's spelling of an optimization profile, and what several span."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence

from graphkit.errors import BadDimRange
from graphkit.shapes import DimRange, evaluate, parse_dim


def parse_profile(text: str) -> tuple[DimRange, ...]:
    """`batch=1:4:8,seq=1:32:128` as ranges; `total=batch*seq` is computed from the others at min, opt and max.

    Raises:
        BadDimRange: the text is malformed, names a dimension twice, or an expression has no value, or none in order.
    """
    ranges: dict[str, DimRange] = {}
    computed: dict[str, str] = {}
    for part in filter(None, (part.strip() for part in text.split(","))):
        symbol, _, rest = part.partition("=")
        if symbol in ranges or symbol in computed:
            raise BadDimRange(f"--profile {text!r} names `{symbol}` twice", remedy="--profile batch=1:4:8,seq=1:32:128")
        if rest and not rest.replace(":", "").isdecimal() and ":" not in rest:
            computed[symbol.strip()] = rest.strip()
        else:
            ranges[symbol] = parse_dim(part)
    if not ranges:
        raise BadDimRange(f"--profile {text!r} gives no range", remedy="--profile batch=1:4:8,seq=1:32:128")
    return (*ranges.values(), *_computed(computed, tuple(ranges.values()), text))


def _computed(expressions: Mapping[str, str], ranges: Sequence[DimRange], text: str) -> Iterator[DimRange]:
    for symbol, expression in expressions.items():
        triple = [
            evaluate(expression, {r.symbol: getattr(r, point) for r in ranges}) for point in ("min", "opt", "max")
        ]
        low, opt, high = triple
        if low is None or opt is None or high is None:
            raise BadDimRange(
                f"--profile {text!r}: `{expression}` cannot be computed from {', '.join(r.symbol for r in ranges)}",
                remedy="numbers, the dimensions of the same --profile, and + - * // %",
            )
        yield DimRange(symbol, low, opt, high)


def hull(profiles: Sequence[Sequence[DimRange]], dims: Sequence[DimRange]) -> tuple[DimRange, ...]:
    """One range that spans those of all profiles, for each dimension that has none in `dims`.

    Raises:
        BadDimRange: such a dimension is in some profiles and not in others.
    """
    given = {r.symbol for r in dims}
    ranges: dict[str, list[DimRange]] = {}
    for each in (r for profile in profiles for r in profile if r.symbol not in given):
        ranges.setdefault(each.symbol, []).append(each)
    for symbol, found in ranges.items():
        if len(found) < len(profiles):
            raise BadDimRange(
                f"{len(found)} of {len(profiles)} profiles give a range for `{symbol}`",
                remedy=f"--dim {symbol}=MIN:OPT:MAX for the others, or {symbol}=... in each --profile",
            )
    return tuple(
        DimRange(symbol, min(r.min for r in found), found[0].opt, max(r.max for r in found))
        for symbol, found in ranges.items()
    )
