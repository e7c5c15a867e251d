"""At which sizes to time, and what is counted there."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from graphkit.errors import BadOption, ShapeMismatch, ShapeMissing, UnknownName
from graphkit.shapes import DimRange, TensorSpec, symbols_of


def choose_points(
    inputs: Sequence[TensorSpec],
    dims: Sequence[DimRange],
    at: Sequence[Mapping[str, int]],
    seen: Mapping[str, int],
    fixed: Mapping[str, int],
) -> list[tuple[dict[str, int], list[str]]]:
    """Sizes of every symbol, and what is to be said of them, at each point.

    Args:
        at: Sizes that were asked for; one point for each, or one if there are none.
        seen: Sizes that were captured.
        fixed: Sizes that a side or a given value fixes.

    Raises:
        UnknownName, BadOption, ShapeMismatch: `at` does not fit. `ShapeMissing`: nothing says a size.
    """
    symbols = symbols_of(inputs)
    declared = {d.symbol: d for d in dims}
    first = {spec.shape[0] for spec in inputs if spec.shape}
    points = []
    for chosen in at or ({},):
        _check_chosen(chosen, symbols, fixed)
        sizes, notes = dict[str, int](), list[str]()
        for symbol in symbols:
            known = chosen.get(symbol, fixed.get(symbol))
            if known is None and symbol in declared:
                known = declared[symbol].opt
            if known is None:
                known = seen.get(symbol)
            if known is None and symbol in first:
                known = 1
                notes.append(f"{symbol}=1, since nothing says its size: --at {symbol}=N")
            if known is None:
                raise ShapeMissing(f"nothing says the size of `{symbol}`", remedy=f"--at {symbol}=N")
            sizes[symbol] = known
            limits = declared.get(symbol)
            if limits is not None and not limits.min <= known <= limits.max:
                notes.append(f"{symbol}={known} is outside the declared range {limits}")
        points.append((sizes, notes))
    return points


def _check_chosen(chosen: Mapping[str, int], symbols: Sequence[str], fixed: Mapping[str, int]) -> None:
    for symbol, size in chosen.items():
        if symbol not in symbols:
            known = f"the inputs have {', '.join(symbols)}" if symbols else "all sizes are fixed"
            raise UnknownName(f"--at {symbol}={size}: no input has a dimension called `{symbol}`; {known}")
        if size < 1:
            raise BadOption(f"--at {symbol}={size} is no size", remedy=f"--at {symbol}=1")
        if fixed.get(symbol, size) != size:
            raise ShapeMismatch(f"--at {symbol}={size}: a side, or a given value, fixes `{symbol}` at {fixed[symbol]}")


def item_of(inputs: Sequence[TensorSpec], sizes: Mapping[str, int]) -> tuple[str | None, int]:
    """The dimension that counts items, and its size: `batch`, else the first of the first input."""
    leading = next((spec.shape[0] for spec in inputs if spec.shape), None)
    for symbol in ("batch", leading):
        if isinstance(symbol, str) and symbol in sizes:
            return symbol, sizes[symbol]
    return None, 1
