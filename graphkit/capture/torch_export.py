"""The first way of capturing a PyTorch module: torch.export, then torch.onnx on the exported program.

torch.export runs the module's Python code on fake tensors and records every assumption it makes about sizes as a
guard (PyTorch docs, "torch.export programming model"). torch.onnx drops those guards; here each is held against
what was asked for.
"""

from __future__ import annotations

import contextlib
import io
import logging
import sys
import warnings
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from graphkit.capture.torch_example import Leaf
from graphkit.capture.torch_load import first_line
from graphkit.capture.torch_source_line import code_at, is_users, line_of_error, shown
from graphkit.errors import (
    CaptureFailed,
    DataDependentBranch,
    FrozenDimension,
    FrozenScalar,
    ShapeDependentBranch,
    UnsupportedOperator,
)
from graphkit.model import SourceLine
from graphkit.shapes import DimRange

if TYPE_CHECKING:
    import onnx_ir as ir

DEFAULT_OPSET = 20
_LOWEST_OPSET = 18  # of torch.onnx's translations; below, it converts down where it can


@dataclass(frozen=True, slots=True)
class Exported:
    """What torch.export and torch.onnx made.

    Attributes:
        model: The ONNX graph, with torch's names and metadata.
        symbols: torch's name of a dimension -> the user's.
        optimised: Whether the exporter's own optimiser ran.
    """

    model: ir.Model
    symbols: dict[str, str]
    optimised: bool


def export_program(module: Any, leaves: tuple[Leaf, ...], arguments: Mapping[str, Any]) -> Any:
    """A torch.export ExportedProgram whose dimensions are dynamic where the leaves have symbols.

    Raises:
        DataDependentBranch, CaptureFailed
    """
    import torch

    shapes = _dynamic_shapes(leaves, arguments)
    try:
        with _quiet(), _guards_know_the_users_line():
            return torch.export.export(module, (), dict(arguments), dynamic_shapes=shapes, strict=False)
    except Exception as error:  # torch.export raises a dozen types; the kind is in the deepest one
        raise _explain(error) from error


def to_onnx(program: Any, opset: int | None) -> tuple[ir.Model, Any, bool]:
    """The program as ONNX: the graph, the decomposed program, and whether the exporter's optimiser ran.

    Raises:
        UnsupportedOperator, CaptureFailed
    """
    import torch

    failure: Exception | None = None
    for optimize in (True, False):
        try:
            with _quiet():
                result = torch.onnx.export(
                    program, (), dynamo=True, opset_version=opset or DEFAULT_OPSET, optimize=optimize, verbose=False
                )
            return result.model, result.exported_program, optimize
        except Exception as error:  # each step of the exporter wraps what it raises
            failure = error
            if _deepest(error).__class__.__name__ == "DispatchError":
                break
    assert failure is not None
    raise _explain(failure) from failure


def check_guards(program: Any, leaves: tuple[Leaf, ...], dims: tuple[DimRange, ...]) -> dict[str, str]:
    """Hold what torch.export assumed about sizes against what was asked; returns torch's symbol -> the user's.

    Raises:
        FrozenDimension: a dimension asked to be dynamic became a constant, or two of them one.
        ShapeDependentBranch: the capture holds for a part of the requested sizes only.
        FrozenScalar: a Python number given as an input was baked in.
    """
    shapes = _placeholder_shapes(program)
    guards = _guards(program)
    symbols: dict[str, str] = {}
    for leaf, shape in zip((x for x in leaves if not x.scalar), shapes, strict=True):
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
    _check_ranges(program, symbols, dims, guards)
    scalar = next((leaf for leaf in leaves if leaf.scalar and leaf.value is not None), None)
    if scalar is not None:
        raise FrozenScalar(
            f"torch.export bakes in the Python {type(scalar.value).__name__} `{scalar.name}` = {scalar.value}",
            where=f"argument `{scalar.name}` of forward",
            remedy="--via script keeps it as an input; or pass a tensor; or leave it out to keep its default",
        )
    return symbols


def mutated_state(program: Any) -> list[tuple[str, SourceLine | None]]:
    """Buffers and parameters that the (decomposed) program writes, with the user's line."""
    signature = program.graph_signature
    written = {**getattr(signature, "buffers_to_mutate", {}), **getattr(signature, "parameters_to_mutate", {})}
    from graphkit.capture.torch_source_line import line_of

    nodes = {n.name: n for n in program.graph.nodes}
    return [
        (target, line_of(nodes[name].meta.get("stack_trace") or "") if name in nodes else None)
        for name, target in written.items()
    ]


# --- torch.export ------------------------------------------------------------------------------------------------


def _dynamic_shapes(leaves: tuple[Leaf, ...], arguments: Mapping[str, Any]) -> dict[str, Any]:
    """Dim.AUTO, not DYNAMIC: a dimension that cannot be dynamic is then found with its guard, not by a bare error."""
    import torch
    from torch.utils import _pytree as pytree

    tensors = {}
    for leaf in leaves:
        dims = {a: torch.export.Dim.AUTO for a, d in enumerate(leaf.spec.shape or ()) if isinstance(d, str)}
        tensors[leaf.param, leaf.path] = dims or None

    def entry(path: tuple[Any, ...], value: Any) -> Any:
        param, *rest = (str(getattr(k, "key", getattr(k, "idx", k))) for k in path)
        return tensors.get((param, tuple(rest))) if isinstance(value, torch.Tensor) else None

    shapes: dict[str, Any] = pytree.tree_map_with_path(entry, dict(arguments))
    return shapes


def _explain(error: Exception) -> CaptureFailed | DataDependentBranch | UnsupportedOperator:
    deepest = _deepest(error)
    line = line_of_error(error) or line_of_error(deepest)
    where = str(line) if line else None
    kind = type(deepest).__name__
    if kind in ("GuardOnDataDependentSymNode", "UserError") and "data-dependent" in str(deepest):
        code = code_at(line)
        return DataDependentBranch(
            f"branch or size depends on data: `{code}`" if code else "branch or size depends on data",
            where=where,
            remedy="--via script (keeps both branches as ONNX If); or torch.where / torch.cond in the model",
        )
    if kind == "DispatchError" or "No ONNX function found" in str(deepest):
        operator = str(deepest).partition("OpOverload(op='")[2].partition("'")[0]
        return UnsupportedOperator(
            f"no ONNX translation for operator `{operator}`" if operator else first_line(deepest),
            where=where,
            remedy="write it with other operators, or convert a part of the model with --submodule",
            data={"operators": [operator] if operator else []},
        )
    return CaptureFailed(f"{kind}: {first_line(deepest)}", where=where)


def _deepest(error: BaseException) -> BaseException:
    seen = {id(error)}
    while True:
        inner = error.__cause__ or error.__context__
        if inner is None or id(inner) in seen:
            return error
        seen.add(id(inner))
        error = inner


# --- guards ------------------------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class _Guard:
    expression: str
    symbols: frozenset[str]
    line: SourceLine | None


def _guards(program: Any) -> list[_Guard]:
    """Assumptions about sizes, with the user's line; none for a program that was loaded from a file."""
    for node in program.graph.nodes:
        environment = getattr(getattr(node.meta.get("val"), "fake_mode", None), "shape_env", None)
        if environment is not None:
            return [
                _Guard(str(g.expr), frozenset(map(str, g.expr.free_symbols)), _users_line(g))
                for g in environment.guards
            ]
    return []


def _users_line(guard: Any) -> SourceLine | None:
    line = getattr(guard.sloc, "graphkit_line", None)
    return line if isinstance(line, SourceLine) else None


@contextlib.contextmanager
def _guards_know_the_users_line() -> Iterator[None]:
    """torch 2.13 records the framework's line with a guard, not the user's, in non-strict export."""
    from torch.fx.experimental.symbolic_shapes import ShapeEnv

    original = getattr(ShapeEnv, "_get_sloc", None)
    if original is None:
        yield
        return

    def patched(self: Any, *args: Any, **kwargs: Any) -> Any:
        location = original(self, *args, **kwargs)
        frame = sys._getframe(1)
        while frame is not None and not is_users(frame.f_code.co_filename):
            frame = frame.f_back  # type: ignore[assignment]
        if frame is not None:
            with contextlib.suppress(AttributeError):
                location.graphkit_line = SourceLine(
                    "", shown(frame.f_code.co_filename), frame.f_lineno, frame.f_code.co_qualname
                )
        return location

    ShapeEnv._get_sloc = patched
    try:
        yield
    finally:
        ShapeEnv._get_sloc = original


def _placeholder_shapes(program: Any) -> list[tuple[Any, ...]]:
    """Shapes of the tensor inputs, in order."""
    kinds = {s.arg.name for s in program.graph_signature.input_specs if s.kind.name == "USER_INPUT"}
    placeholders = [n for n in program.graph.nodes if n.op == "placeholder" and n.name in kinds]
    return [tuple(n.meta["val"].shape) for n in placeholders if hasattr(n.meta.get("val"), "shape")]


def _frozen(leaf: Leaf, axis: int, wanted: str, found: str, guards: list[_Guard]) -> FrozenDimension:
    line = next((g.line for g in reversed(guards) if g.expression.endswith(f", {found})") and g.line), None)
    code = code_at(line)
    return FrozenDimension(
        f"dimension `{wanted}` of input `{leaf.name}` (axis {axis}) was captured as the constant {found}"
        + (f", by `{code}`" if code else ""),
        where=str(line) if line else f"input `{leaf.name}`",
        remedy=f"make the code work for every `{wanted}`, or ask for a static one: --shape {_static(leaf, axis, found)}",
    )


def _static(leaf: Leaf, axis: int, size: str) -> str:
    dims = [size if i == axis else str(d) for i, d in enumerate(leaf.spec.shape or ())]
    return f"{leaf.name}={','.join(dims)}"


def _check_ranges(program: Any, symbols: dict[str, str], dims: tuple[DimRange, ...], guards: list[_Guard]) -> None:
    asked = {d.symbol: d for d in dims}
    for symbol, interval in program.range_constraints.items():
        name = symbols.get(str(symbol))
        if name is None:
            continue
        low, high = _bound(interval.lower, 0), _bound(interval.upper, sys.maxsize)
        want = asked.get(name)
        # torch.export reasons from size 2 on: a lower bound of 2 is its convention, not the model's.
        fits_low = low <= 2 or (want is not None and want.min >= low)
        fits_high = high == sys.maxsize or (want is not None and want.max <= high)
        if fits_low and fits_high:
            continue
        culprit = [g for g in guards if str(symbol) in g.symbols and g.line is not None]
        line = culprit[-1].line if culprit else None
        code = code_at(line)
        text = f"{low if low > 2 else 1} to {high}" if high < sys.maxsize else f"{low} and more"
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


# --- quiet -------------------------------------------------------------------------------------------------------


@contextlib.contextmanager
def _quiet() -> Iterator[None]:
    """torch logs warnings about its own optional parts (torchvision) and prints what it also raises."""
    loggers = [logging.getLogger(n) for n in ("torch.onnx", "torch.fx.experimental.symbolic_shapes", "torch.export", "onnxscript")]
    levels = [logger.level for logger in loggers]
    for logger in loggers:
        logger.setLevel(logging.CRITICAL)
    try:
        with warnings.catch_warnings(), contextlib.redirect_stdout(io.StringIO()):
            warnings.simplefilter("ignore")
            yield
    finally:
        for logger, level in zip(loggers, levels, strict=True):
            logger.setLevel(level)
