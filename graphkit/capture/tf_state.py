"""Variables that a traced function assigns: state, which an ONNX graph has none of."""

from __future__ import annotations

from collections.abc import Collection, Iterable, Iterator, Mapping
from dataclasses import dataclass
from typing import Any

from graphkit.errors import StateMutated
from graphkit.shapes import TensorSpec

_WRITES = ("Assign", "ResourceScatter", "ResourceApply", "ResourceSparseApply", "ResourceStridedSliceAssign")
_RANDOM = ("RngReadAndSkip", "RngSkip", "StatefulStandardNormal", "StatefulUniform", "StatefulTruncatedNormal")
_CALLS = {"cond": 0, "body": 0, "then_branch": 1, "else_branch": 1, "branches": 1, "f": 0}
"""Attributes that name functions -> how many of the node's inputs come before the functions' own arguments."""


@dataclass(frozen=True, slots=True)
class State:
    """A variable that becomes an input and an output.

    Attributes:
        variable: The `tf.Variable`.
        placeholder: Node of the trace that stands for its handle.
        spec: Its input; the name is the variable's own (a Keras variable's path).
        next_name: Its output, the value after the call: `<name>_next`.
    """

    variable: Any
    placeholder: str
    spec: TensorSpec
    next_name: str


def assigned(concrete: Any, taken: Collection[str] = ()) -> tuple[State, ...]:
    """The variables that a concrete function assigns, itself or in the functions that it calls.

    Args:
        concrete: The traced function.
        taken: Names of its inputs and outputs.
    """
    handles = _variables(concrete)
    graph = concrete.graph.as_graph_def()
    functions = {f.signature.name: f for f in graph.library.function}
    written = _written(graph.node, {name: name for name in handles}, functions, set())
    used = set(taken)
    return tuple(_state(handles[name], name, used) for name in handles if name in written)


def refuse(states: Iterable[State], name: str) -> None:
    """Refuse a function that assigns variables.

    Raises:
        StateMutated: there is at least one.
    """
    names = [s.spec.name for s in states]
    if not names:
        return
    listed = ", ".join(f"`{n}`" for n in names[:6]) + (f" and {len(names) - 6} more" if len(names) > 6 else "")
    raise StateMutated(
        f"{name} assigns {listed} while it runs; an ONNX graph has no memory between runs",
        details=tuple(f"`{n}` would be the input `{n}` and the output `{n}_next`" for n in names[:6]),
        remedy="--state inputs makes each an input and an output; or convert a function that assigns none",
        data={"state": names},
    )


def _variables(concrete: Any) -> dict[str, Any]:
    """Placeholder of each captured variable's handle -> the variable."""
    by_handle = {id(v.handle): v for v in concrete.graph.variables}
    captured = ((id(outer), inner.op.name) for outer, inner in concrete.graph.captures)
    return {name: by_handle[outer] for outer, name in captured if outer in by_handle}


def _state(variable: Any, placeholder: str, used: set[str]) -> State:
    base = variable.name.partition(":")[0]
    name, number = base, 1
    while name in used or f"{name}_next" in used:
        name, number = f"{base}_{number}", number + 1
    used.update((name, f"{name}_next"))
    shape = tuple(d if d is not None else f"{name}_{axis}" for axis, d in enumerate(variable.shape.as_list()))
    return State(variable, placeholder, TensorSpec(name, variable.dtype.base_dtype.name, shape), f"{name}_next")


def _written(
    nodes: Iterable[Any], origin: Mapping[str, str], functions: Mapping[str, Any], seen: set[tuple[Any, ...]]
) -> set[str]:
    """Which of the handles in `origin` (reference in these nodes -> placeholder) are written."""
    found: set[str] = set()
    known = dict(origin)
    for node in _in_order(nodes):
        inputs = [known.get(_node(i)) for i in node.input if not i.startswith("^")]
        if node.op in ("Identity", "Enter", "Switch") and inputs and inputs[0] is not None:
            known[node.name] = inputs[0]
        elif node.op.startswith(_WRITES) or node.op in _RANDOM:
            found.update(i for i in inputs[:3] if i is not None)
        else:
            for name, skipped in _called(node):
                found |= _written_in(functions.get(name), inputs[skipped:], functions, seen)
    return found


def _written_in(
    function: Any, arguments: list[str | None], functions: Mapping[str, Any], seen: set[tuple[Any, ...]]
) -> set[str]:
    if function is None or (function.signature.name, *arguments) in seen or not any(arguments):
        return set()
    seen.add((function.signature.name, *arguments))
    names = [a.name for a in function.signature.input_arg]
    origin = {n: a for n, a in zip(names, arguments, strict=False) if a is not None}
    return _written(function.node_def, origin, functions, seen)


def _called(node: Any) -> Iterator[tuple[str, int]]:
    if node.op in ("PartitionedCall", "StatefulPartitionedCall"):
        yield node.attr["f"].func.name, 0
        return
    for attribute, skipped in _CALLS.items():
        if attribute in node.attr and attribute != "f":
            value = node.attr[attribute]
            for function in value.list.func if value.WhichOneof("value") == "list" else [value.func]:
                yield function.name, skipped


def _in_order(nodes: Iterable[Any]) -> list[Any]:
    """Identities of handles first: nodes of a function stand in no order."""
    return sorted(nodes, key=lambda n: n.op != "Identity")


def _node(reference: str) -> str:
    return reference.partition(":")[0]
