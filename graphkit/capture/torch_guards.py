"""What torch.export assumed about sizes, held against what was asked for.

torch.export records an assumption about a dynamic size as a guard (`ShapeEnv.guards`, torch 2.13); torch.onnx drops
them all. A guard that the user's own code caused (`if x.shape[0] > 4`) and that is false for a requested size means
that the graph holds the wrong branch there.
"""

from __future__ import annotations

import contextlib
import itertools
import sys
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from graphkit.capture.torch_example import Leaf
from graphkit.capture.torch_source_line import code_at, is_users, shown
from graphkit.errors import FrozenDimension, FrozenScalar, ShapeDependentBranch
from graphkit.model import SourceLine
from graphkit.shapes import DimRange


@dataclass(frozen=True, slots=True)
class _Guard:
    """One assumption: a sympy expression over torch's symbols, where it comes from, and whether the user's own code
    asked (a comparison in Python) or an operator's implementation did."""

    expression: Any
    line: SourceLine | None
    direct: bool

    @property
    def symbols(self) -> frozenset[str]:
        return frozenset(map(str, self.expression.free_symbols))


def check(program: Any, leaves: tuple[Leaf, ...], dims: tuple[DimRange, ...]) -> dict[str, str]:
    """Hold the guards of a program against what was asked; returns torch's symbol -> the user's.

    Raises:
        FrozenDimension: a dimension asked to be dynamic became a constant, or two of them one.
        ShapeDependentBranch: the capture holds for a part of the requested sizes only.
        FrozenScalar: a Python number given as an input was baked in.
    """
    guards = _guards(program)
    symbols = _match_symbols(program, leaves, guards)
    ranges = {d.symbol: d for d in dims}
    _check_branches(guards, symbols, ranges)
    _check_ranges(program, symbols, ranges, guards)
    scalar = next((leaf for leaf in leaves if leaf.scalar and leaf.value is not None), None)
    if scalar is not None:
        raise FrozenScalar(
            f"torch.export bakes in the Python {type(scalar.value).__name__} `{scalar.name}` = {scalar.value}",
            where=f"argument `{scalar.name}` of forward",
            remedy="--via script keeps it as an input; or pass a tensor; or leave it out to keep its default",
        )
    return symbols


@contextlib.contextmanager
def recording_lines() -> Iterator[None]:
    """torch 2.13 records the framework's line with a guard, not the user's, in non-strict export: add that one."""
    from torch.fx.experimental.symbolic_shapes import ShapeEnv

    original = getattr(ShapeEnv, "_get_sloc", None)
    if original is None:
        yield
        return

    def patched(self: Any, *args: Any, **kwargs: Any) -> Any:
        location = original(self, *args, **kwargs)
        object.__setattr__(location, "graphkit_line", _users_frame())  # a frozen dataclass without slots
        return location

    ShapeEnv._get_sloc = patched
    try:
        yield
    finally:
        ShapeEnv._get_sloc = original


# --- finding them ------------------------------------------------------------------------------------------------

# Between a comparison in Python and the guard it makes lie only these files.
_MACHINERY = (
    "/torch/fx/experimental/symbolic_shapes.py",
    "/torch/fx/experimental/sym_node.py",
    "/torch/fx/experimental/recording.py",
    "/torch/__init__.py",
    "/torch/utils/_stats.py",
    "/torch/_logging/_internal.py",
    "/torch/_export/non_strict_utils.py",
    "/capture/torch_guards.py",
    "/functools.py",
    "/contextlib.py",
)


def _users_frame() -> tuple[SourceLine | None, bool]:
    frame: Any = sys._getframe(1)
    direct = True
    while frame is not None:
        file = frame.f_code.co_filename.replace("\\", "/")
        if is_users(file):
            return SourceLine("", shown(file), frame.f_lineno, frame.f_code.co_qualname), direct
        direct = direct and file.endswith(_MACHINERY)
        frame = frame.f_back
    return None, False


def _guards(program: Any) -> list[_Guard]:
    """Guards of a program that was just exported; one that was loaded from a file has none."""
    for node in program.graph.nodes:
        environment = getattr(getattr(node.meta.get("val"), "fake_mode", None), "shape_env", None)
        if environment is not None:
            recorded = [(g.expr, getattr(g.sloc, "graphkit_line", (None, False))) for g in environment.guards]
            return [_Guard(expression, line, direct) for expression, (line, direct) in recorded]
    return []


# --- constants ---------------------------------------------------------------------------------------------------


def _match_symbols(program: Any, leaves: tuple[Leaf, ...], guards: Sequence[_Guard]) -> dict[str, str]:
    symbols: dict[str, str] = {}
    tensors = (x for x in leaves if not x.scalar)
    for leaf, shape in zip(tensors, _placeholder_shapes(program), strict=True):
        for axis, wanted in enumerate(leaf.spec.shape or ()):
            if not isinstance(wanted, str):
                continue
            found = str(shape[axis])
            if found.isdecimal():
                raise _frozen(leaf, axis, wanted, found, guards)
            if symbols.setdefault(found, wanted) != wanted:
                raise FrozenDimension(
                    f"dimensions `{symbols[found]}` and `{wanted}` must be equal for this model",
                    where=f"input `{leaf.name}`, axis {axis}",
                    remedy=f"give both the same name: {symbols[found]}",
                )
    return symbols


def _placeholder_shapes(program: Any) -> list[tuple[Any, ...]]:
    """Shapes of the tensor inputs, in order."""
    kinds = {s.arg.name for s in program.graph_signature.input_specs if s.kind.name == "USER_INPUT"}
    placeholders = [n for n in program.graph.nodes if n.op == "placeholder" and n.name in kinds]
    return [tuple(n.meta["val"].shape) for n in placeholders if hasattr(n.meta.get("val"), "shape")]


def _frozen(leaf: Leaf, axis: int, wanted: str, found: str, guards: Sequence[_Guard]) -> FrozenDimension:
    line = next((g.line for g in reversed(guards) if str(g.expression).endswith(f", {found})") and g.line), None)
    code = code_at(line)
    dims = [found if i == axis else str(d) for i, d in enumerate(leaf.spec.shape or ())]
    return FrozenDimension(
        f"dimension `{wanted}` of input `{leaf.name}` (axis {axis}) was captured as the constant {found}"
        + (f", by `{code}`" if code else ""),
        where=str(line) if line else f"input `{leaf.name}`",
        remedy=f"make the code work for every `{wanted}`, or fix the size: --shape {leaf.name}={','.join(dims)}",
    )


# --- branches and ranges -----------------------------------------------------------------------------------------

_TRIED = 64
"""Sizes tried per symbol, from the smallest; and the ends of its range."""


def _check_branches(guards: Sequence[_Guard], symbols: Mapping[str, str], ranges: Mapping[str, DimRange]) -> None:
    for guard in guards:
        if not guard.direct or not guard.symbols or not guard.symbols <= symbols.keys():
            continue
        sizes = _false_at(guard, symbols, ranges)
        if sizes is not None:
            code = code_at(guard.line)
            text = ", ".join(f"{k}={v}" for k, v in sizes.items())
            raise ShapeDependentBranch(
                f"the captured branch is not the one taken at {text}" + (f": `{code}`" if code else ""),
                where=str(guard.line),
                remedy="--via script (keeps the branch); or --dim " + _narrower(guard, symbols),
                data={"condition": _readable(guard, symbols), "false_at": sizes},
            )


def _false_at(guard: _Guard, symbols: Mapping[str, str], ranges: Mapping[str, DimRange]) -> dict[str, int] | None:
    """Requested sizes at which the guard does not hold."""
    free = sorted(guard.expression.free_symbols, key=str)
    each = [_sizes(ranges.get(symbols[str(s)]), thin=len(free) > 1) for s in free]
    for values in itertools.product(*each):
        if guard.expression.subs(dict(zip(free, values, strict=True))) == False:  # noqa: E712 - sympy's own false
            return {symbols[str(s)]: v for s, v in zip(free, values, strict=True)}
    return None


def _sizes(bounds: DimRange | None, *, thin: bool) -> list[int]:
    low, high = (bounds.min, bounds.max) if bounds else (1, 4096)
    count = 8 if thin else _TRIED
    return sorted({*range(low, min(high, low + count) + 1), *((bounds.opt,) if bounds else ()), high})


def _readable(guard: _Guard, symbols: Mapping[str, str]) -> str:
    text = str(guard.expression)
    for old in sorted(symbols, key=len, reverse=True):
        text = text.replace(old, symbols[old])
    return text


def _narrower(guard: _Guard, symbols: Mapping[str, str]) -> str:
    names = [symbols[s] for s in sorted(guard.symbols)]
    return f"{names[0]}=MIN:OPT:MAX where {_readable(guard, symbols)} holds"


def _check_ranges(
    program: Any, symbols: Mapping[str, str], asked: Mapping[str, DimRange], guards: Sequence[_Guard]
) -> None:
    """Limits that torch.export derived, by whatever route.

    It reasons from size 2 on, so a lower limit of 2 is its convention and not the model's.
    """
    for symbol, interval in program.range_constraints.items():
        name = symbols.get(str(symbol))
        if name is None:
            continue
        low, high = _bound(interval.lower, 0), _bound(interval.upper, sys.maxsize)
        want = asked.get(name)
        fits_low = low <= 2 or (want is not None and want.min >= low)
        fits_high = high == sys.maxsize or (want is not None and want.max <= high)
        if fits_low and fits_high:
            continue
        line = next((g.line for g in reversed(guards) if str(symbol) in g.symbols and g.line), None)
        code = code_at(line)
        text = f"{low if low > 2 else 1} to {high}" if high < sys.maxsize else f"{low} on"
        raise ShapeDependentBranch(
            f"the capture holds only for `{name}` from {text}" + (f": `{code}`" if code else ""),
            where=str(line) if line else None,
            remedy=f"--via script (keeps the branch); or --dim {name}=MIN:OPT:MAX inside that range",
            data={"symbol": name, "min": low, "max": high if high < sys.maxsize else None},
        )


def _bound(value: Any, infinite: int) -> int:
    try:
        return int(value)
    except (TypeError, ValueError, OverflowError, AttributeError):
        return infinite
