"""What capture may have frozen, found by running the source itself.

An ONNX graph has no memory and one fixed structure. Here the source is run as the user runs it, and what it changes
about itself, and what its outputs do at other sizes, is held against the captured graph.
"""

from __future__ import annotations

import ast
import inspect
import textwrap
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any

from graphkit.capture.torch_source_line import shown
from graphkit.errors import StateMutated
from graphkit.model import SourceLine
from graphkit.shapes import Dim, Shape, evaluate, free_symbols


def changed_state(module: Any, run: Callable[[], Any]) -> list[tuple[str, SourceLine | None]]:
    """Attributes that a Python module changes when it runs, with the line that does it.

    Two runs: caches that are filled once (rotary tables, masks) settle in the first; what the second run still
    changes is state.
    """
    run()
    before = _snapshot(module)
    run()
    after = _snapshot(module)
    changed = [name for name in after if name not in before or before[name] != after[name]]
    return [(name, _assignment(module, name)) for name in changed]


def refuse_state(changes: Iterable[tuple[str, SourceLine | None]], *, name: str, parts: Iterable[str] = ()) -> None:
    """Refuse a model that keeps state between runs.

    Args:
        changes: Attributes it writes, and where.
        name: What to call the model.
        parts: Submodules that keep no state, offered as a remedy.

    Raises:
        StateMutated: there is at least one.
    """
    found = list(changes)
    if not found:
        return
    offered = list(parts)
    listed = ", ".join(f"`{attribute}`" for attribute, _ in found)
    where = next((str(line) for _, line in found if line), None)
    alone = f"--submodule {offered[0]} converts the part that keeps none; or " if offered else ""
    raise StateMutated(
        f"{name} changes {listed} while it runs; an ONNX graph has no memory between runs",
        where=where,
        details=tuple(f"`{attribute}` is written at {line}" for attribute, line in found if line),
        remedy=f"{alone}make the state an input and an output of forward",
        data={"state": [attribute for attribute, _ in found], "submodules": offered},
    )


def output_shapes(
    declared: Mapping[str, Shape | None],
    observed: Sequence[tuple[Mapping[str, int], Mapping[str, tuple[int, ...]]]],
) -> dict[str, Shape]:
    """Shapes of the outputs that agree with what the source really returned.

    Exporters declare some output dimensions wrongly (torch.onnx gives an LSTM's sequence the size of the example),
    and give others names of their own. A declared dimension is kept if it holds at every observed point; else the
    simplest one that does: a constant, a symbol, a multiple of a symbol, a symbol plus a constant; else unknown.

    Args:
        declared: Shape of each output as exported.
        observed: For each run, the sizes of the symbols and the shape of each output.
    """
    shapes: dict[str, Shape] = {}
    for name, shape in declared.items():
        ranks = {len(outputs[name]) for _, outputs in observed}
        if len(ranks) != 1:
            continue
        rank = ranks.pop()
        known: Shape = shape if shape is not None and len(shape) == rank else (None,) * rank
        runs = [(sizes, outputs[name]) for sizes, outputs in observed]
        shapes[name] = tuple(
            _dimension(known[axis], [(sizes, actual[axis]) for sizes, actual in runs], f"{name}_dim{axis}")
            for axis in range(rank)
        )
    return shapes


def _dimension(declared: Dim, runs: list[tuple[Mapping[str, int], int]], free: str) -> Dim:
    symbols = list(runs[0][0])
    if declared is not None and all(evaluate(declared, sizes) == size for sizes, size in runs):
        return declared
    known = isinstance(declared, str) and set(free_symbols(declared)) <= set(symbols)
    if known and any(evaluate(declared, sizes) is None for sizes, _ in runs):
        return free  # an expression that is not understood; a simpler one that holds at these sizes is a guess
    first_sizes, first = runs[0]
    candidates: list[Dim] = []
    if len(runs) > 1 and (len({tuple(sizes.values()) for sizes, _ in runs}) > 1 or not symbols):
        candidates.append(first)
    candidates.extend(symbols)
    candidates.extend(
        f"{first // first_sizes[s]}*{s}" for s in symbols if first_sizes[s] and not first % first_sizes[s]
    )
    candidates.extend(f"{s} + {first - first_sizes[s]}" for s in symbols if first > first_sizes[s])
    for candidate in candidates:
        if all(evaluate(candidate, sizes) == size for sizes, size in runs):
            return candidate
    return free


# --- state -------------------------------------------------------------------------------------------------------


def _snapshot(module: Any) -> dict[str, tuple[Any, ...]]:
    """A fingerprint of every attribute: tensors by identity and version counter, the rest by identity or value."""
    import torch

    found: dict[str, tuple[Any, ...]] = {}
    for path, part in module.named_modules():
        if isinstance(part, torch.jit.ScriptModule):
            continue
        for name, value in [*vars(part).items(), *part._buffers.items(), *part._parameters.items()]:
            if name.startswith("__") or name in ("_buffers", "_parameters", "_modules"):
                continue
            key = f"{path}.{name}" if path else name
            found[key] = _fingerprint(value)
    return found


def _fingerprint(value: Any) -> tuple[Any, ...]:
    import torch

    if isinstance(value, torch.Tensor):
        return ("tensor", id(value), value._version)
    if isinstance(value, bool | int | float | str | bytes | type(None)):
        return ("value", value)
    if isinstance(value, list | tuple | set | dict):
        items = list(value.items()) if isinstance(value, dict) else list(value)
        return (type(value).__name__, len(items), *(_fingerprint(i) for i in items[:256]))
    return ("object", id(value))


def _assignment(module: Any, attribute: str) -> SourceLine | None:
    """Where a module's class assigns `self.attribute`, or writes it in place, outside `__init__`."""
    path, _, name = attribute.rpartition(".")
    owner = module.get_submodule(path) if path else module
    for cls in type(owner).__mro__:
        try:
            source, start = inspect.getsourcelines(cls)
            file = inspect.getsourcefile(cls)
        except (OSError, TypeError):
            continue
        tree = ast.parse(textwrap.dedent("".join(source)))
        for function in (n for n in ast.walk(tree) if isinstance(n, ast.FunctionDef) and n.name != "__init__"):
            line = next((getattr(n, "lineno", None) for n in ast.walk(function) if _writes(n, name)), None)
            if line is not None and file is not None:
                return SourceLine(path, shown(file), start + line - 1, f"{cls.__name__}.{function.name}")
    return None


def _writes(node: ast.AST, name: str) -> bool:
    def is_own(target: ast.AST) -> bool:
        while isinstance(target, ast.Subscript):
            target = target.value
        return isinstance(target, ast.Attribute) and target.attr == name

    if isinstance(node, ast.Assign):
        return any(is_own(t) for t in node.targets)
    if isinstance(node, ast.AugAssign | ast.AnnAssign):
        return is_own(node.target)
    if isinstance(node, ast.Call) and isinstance(node.func, ast.Attribute):
        mutators = ("append", "extend", "pop", "clear", "update", "insert", "add")
        return is_own(node.func.value) and (node.func.attr.endswith("_") or node.func.attr in mutators)
    return False
