"""State that nobody can miss: no output depends on it, and nothing of the inputs goes into it.

A counter of calls is such, and the seed of a random layer that draws nothing at inference. The moving averages of a
batch normalisation in training are not: no output reads them, but they hold what was learnt from the inputs.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable
from typing import Any

_LOOPS = ("While", "StatelessWhile")
_CONDITIONS = {"If": ("then_branch", "else_branch"), "StatelessIf": ("then_branch", "else_branch")}
_CASES = ("Case", "StatelessCase")
_CALLS = ("PartitionedCall", "StatefulPartitionedCall")


def is_idle(graph: Any, handles: Collection[str], inputs: Collection[str], outputs: Iterable[str]) -> bool:
    """Whether none of these variables matters.

    Args:
        graph: A GraphDef.
        handles: Placeholders of the variables' handles.
        inputs: Names of its inputs' nodes.
        outputs: Its output tensors.
    """
    flow = _Flow(graph.library.function)
    nodes = {node.name: node for node in graph.node}
    read = flow.behind(nodes, outputs) & set(handles)
    return not read and not flow.behind_writes(nodes, set(handles)) & set(inputs)


class _Flow:
    """Which nodes a tensor is made of, through calls, branches and loops, without control dependencies."""

    def __init__(self, functions: Iterable[Any]) -> None:
        self._functions = {function.signature.name: function for function in functions}
        self._known: dict[tuple[str, int], frozenset[int]] = {}

    def behind(self, nodes: dict[str, Any], tensors: Iterable[str]) -> set[str]:
        """Names of the nodes, and of the function's arguments, that the tensors are made of."""
        reached: set[tuple[str, int]] = set()
        pending = [_place(tensor, nodes) for tensor in tensors]
        while pending:
            place = pending.pop()
            if place in reached:
                continue
            reached.add(place)
            node = nodes.get(place[0])
            if node is not None:
                pending.extend(_place(tensor, nodes) for tensor in self._read(node, place[1]))
        return {name for name, _ in reached}

    def behind_writes(self, nodes: dict[str, Any], handles: set[str]) -> set[str]:
        """Names of what the values that are written to variables are made of, and whether they are written at all.

        Args:
            handles: Nodes or arguments that are handles of the variables.
        """
        handles = _handles(nodes.values(), handles)
        users = [node for node in nodes.values() if node.op != "ReadVariableOp"]
        return self.behind(nodes, [tensor for node in users for tensor in self._written(node, handles)])

    def _written(self, node: Any, handles: set[str]) -> list[str]:
        """The inputs of a node on which what it writes depends; none where it has no handle."""
        given = _inputs(node)
        held = [position for position, tensor in enumerate(given) if _is_handle(tensor, handles)]
        if not held:
            return []
        if node.op in _CALLS:
            return [given[i] for i in self._written_arguments(node.attr["f"].func.name, held)]
        if node.op in _CONDITIONS or node.op in _CASES:
            passed = [position - 1 for position in held]
            used = {i for name in _branches(node) for i in self._written_arguments(name, passed)}
            return [given[0], *(given[1 + i] for i in sorted(used))]
        if node.op in _LOOPS:
            first = self._written_arguments(node.attr["body"].func.name, held)
            rounds = self._arguments(node.attr["cond"].func.name, 0)
            return [given[i] for i in sorted({i for each in (*first, *rounds) for i in self._carried(node, each)})]
        return given

    def _written_arguments(self, name: str, held: list[int]) -> list[int]:
        """Positions of a function's arguments on which its writes depend, where those in `held` are handles."""
        function = self._functions[name]
        arguments = [argument.name for argument in function.signature.input_arg]
        nodes = {node.name: node for node in function.node_def}
        reached = self.behind_writes(nodes, {arguments[i] for i in held})
        return [i for i, argument in enumerate(arguments) if argument in reached]

    def _read(self, node: Any, output: int) -> list[str]:
        """The inputs of a node that one of its outputs depends on."""
        given = _inputs(node)
        if node.op in _CALLS:
            return [given[i] for i in self._arguments(node.attr["f"].func.name, output)]
        if node.op in _CONDITIONS or node.op in _CASES:
            used = {i for name in _branches(node) for i in self._arguments(name, output)}
            return [given[0], *(given[1 + i] for i in sorted(used))]
        if node.op in _LOOPS:
            return [given[i] for i in sorted(self._carried(node, output))]
        return given

    def _carried(self, node: Any, output: int) -> set[int]:
        """The loop's variables on which one of them depends: whether it goes on counts too."""
        body, condition = node.attr["body"].func.name, node.attr["cond"].func.name
        found = {output, *self._arguments(condition, 0)}
        before: set[int] = set()
        while found != before:
            before = set(found)
            found.update(i for each in before for i in self._arguments(body, each))
        return found

    def _arguments(self, name: str, output: int) -> frozenset[int]:
        """Positions of a function's arguments on which one of its results depends."""
        if (name, output) not in self._known:
            function = self._functions[name]
            result = function.ret[function.signature.output_arg[output].name]
            reached = self.behind({node.name: node for node in function.node_def}, [result])
            arguments = enumerate(function.signature.input_arg)
            self._known[name, output] = frozenset(i for i, argument in arguments if argument.name in reached)
        return self._known[name, output]


def _branches(node: Any) -> list[str]:
    if node.op in _CASES:
        return [function.name for function in node.attr["branches"].list.func]
    return [node.attr[name].func.name for name in _CONDITIONS[node.op]]


def _handles(nodes: Iterable[Any], first: set[str]) -> set[str]:
    """References to variables, `node` or `node:1`: the first ones, and what hands them on."""
    found, before = set(first), set[str]()
    while found != before:
        before = set(found)
        for node in nodes:
            held = [i for i, tensor in enumerate(_inputs(node)) if _is_handle(tensor, found)]
            if node.op in _LOOPS:
                found.update(f"{node.name}:{i}" for i in held)
            elif held and (node.op in _HANDING_ON or _RESOURCE in node.attr["Tout"].list.type):
                found.add(node.name)
    return found


_HANDING_ON = ("Identity", "IdentityN", "Switch", "Merge", "Enter", "Exit", "NextIteration")
_RESOURCE = 20
"""`DT_RESOURCE`"""


def _is_handle(tensor: str, handles: set[str]) -> bool:
    name, _, rest = tensor.partition(":")
    return name in handles or f"{name}:{rest.rpartition(':')[2] or 0}" in handles


def _inputs(node: Any) -> list[str]:
    return [name for name in node.input if not name.startswith("^")]


def _place(tensor: str, nodes: dict[str, Any]) -> tuple[str, int]:
    """A node and which of its outputs, where that makes a difference: `node`, `node:1`, `node:output:1`."""
    name, _, rest = tensor.partition(":")
    node = nodes.get(name)
    follows = node is not None and (node.op in (*_CALLS, *_CASES, *_LOOPS) or node.op in _CONDITIONS)
    return name, int(rest.rpartition(":")[2] or 0) if follows else 0
