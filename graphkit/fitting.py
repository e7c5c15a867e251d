"""The sides of a comparison made to take one and the same inputs: the base's."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace
from typing import Any

from graphkit.errors import ShapeMismatch
from graphkit.parity.judge import pair_names
from graphkit.shapes import Dim, DimRange, TensorSpec
from graphkit.sides import Side, listed


def fitted(sides: Sequence[Side], base: Side) -> tuple[list[Side], dict[str, int], list[str]]:
    """The sides with their inputs matched to the base's; sizes that one of them fixes; what a reader should know."""
    done, fixed, notes = [], dict[str, int](), list[str]()
    for side in sides:
        if side is base or side.inputs is None or base.inputs is None:
            done.append(side)
            continue
        partners = dict(side.partners) or pair_names([s.name for s in base.inputs], [s.name for s in side.inputs])
        own = {s.name: s for s in side.inputs}
        pairs = [(s, own.get((partners or {}).get(s.name, s.name))) for s in base.inputs]
        if partners is None or any(o is not None and not _same_kind(s, o) for s, o in pairs):
            raise ShapeMismatch(
                f"{base.name} and {side.name} take different inputs",
                details=(f"{base.name}: {listed(base.inputs)}", f"{side.name}: {listed(side.inputs)}"),
                remedy="compare models with the same inputs",
            )
        moved = [f"`{b}` of {side.name} is `{a}`" for a, b in partners.items() if a != b]
        notes += [f"inputs matched by position: {', '.join(moved)}"] if moved else []
        for symbol, size in (x for s, o in pairs if o is not None for x in _fixed_by(s, o)):
            if fixed.setdefault(symbol, size) != size:
                raise ShapeMismatch(f"the sides fix `{symbol}` at {fixed[symbol]} and at {size}: no input fits both")
            notes.append(f"{side.name} takes {symbol}={size} alone")
        done.append(replace(side, partners=partners, runner=_renamed(side, partners)))
    return done, fixed, list(dict.fromkeys(notes))


def ranges(base: Side, sides: Sequence[Side]) -> tuple[DimRange, ...]:
    """Ranges of the base's dimensions: its own, else those of a side that declares one there."""
    found = {d.symbol: d for d in base.dims}
    for side in sides:
        theirs = {d.symbol: d for d in side.dims}
        specs = {s.name: s.shape or () for s in side.inputs or ()}
        for spec in base.inputs or ():
            for ours, dim in zip(
                spec.shape or (), specs.get(side.partners.get(spec.name, spec.name), ()), strict=False
            ):
                if isinstance(ours, str) and ours.isidentifier() and isinstance(dim, str) and dim in theirs:
                    found.setdefault(ours, replace(theirs[dim], symbol=ours))
    return tuple(found.values())


def _renamed(side: Side, partners: Mapping[str, str]) -> Any:
    return replace(side.runner, partners=partners) if side.runner is not None else None  # type: ignore[type-var]


def _same_kind(ours: TensorSpec, theirs: TensorSpec) -> bool:
    if theirs.dtype in ("int", "float"):  # a Python number: read from an array of one element
        return True
    if None not in (ours.dtype, theirs.dtype) and ours.dtype != theirs.dtype:
        return False
    if ours.shape is None or theirs.shape is None:
        return True
    static = zip(ours.shape, theirs.shape, strict=False)
    return len(ours.shape) == len(theirs.shape) and not any(_clash(a, b) for a, b in static)


def _clash(a: Dim, b: Dim) -> bool:
    return isinstance(a, int) and isinstance(b, int) and a != b


def _fixed_by(ours: TensorSpec, theirs: TensorSpec) -> Iterator[tuple[str, int]]:
    """Sizes that the other side has fixed where the base has a symbol."""
    for a, b in zip(ours.shape or (), theirs.shape or (), strict=False):
        if isinstance(a, str) and isinstance(b, int) and a.isidentifier():
            yield a, b
