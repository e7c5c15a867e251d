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
    if flow.behind(nodes, outputs) & set(handles):
        return False
    users = _users(graph.node, set(handles))
    return not flow.behind(nodes, (name for node in users for name in _inputs(node))) & set(inputs)


def _users(nodes: Iterable[Any], handles: set[str]) -> list[Any]:
    """What may write to a variable: everything that is given its handle and does more than read."""
    waiting = [node for node in nodes if node.op != "ReadVariableOp"]
    users: list[Any] = []
    while found := [node for node in waiting if any(_node(name) in handles for name in _inputs(node))]:
        users += found
        handles = handles | {node.name for node in found if node.op == "Identity"}
        waiting = [node for node in waiting if not any(node is each for each in found)]
    return users


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

    def _read(self, node: Any, output: int) -> list[str]:
        """The inputs of a node that one of its outputs depends on."""
        given = _inputs(node)
        if node.op in _CALLS:
            return [given[i] for i in self._arguments(node.attr["f"].func.name, output)]
        if node.op in _CONDITIONS or node.op in _CASES:
            branches = [node.attr[name].func for name in _CONDITIONS.get(node.op, ())]
            used = {i for f in branches or node.attr["branches"].list.func for i in self._arguments(f.name, output)}
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


def _inputs(node: Any) -> list[str]:
    return [name for name in node.input if not name.startswith("^")]


def _node(tensor: str) -> str:
    return tensor.partition(":")[0]


def _place(tensor: str, nodes: dict[str, Any]) -> tuple[str, int]:
    """A node and which of its outputs, where that makes a difference: `node`, `node:1`, `node:output:1`."""
    name, _, rest = tensor.partition(":")
    node = nodes.get(name)
    follows = node is not None and (node.op in (*_CALLS, *_CASES, *_LOOPS) or node.op in _CONDITIONS)
    return name, int(rest.rpartition(":")[2] or 0) if follows else 0
