"""A tree by module path: what each part of the author's model holds and computes."""

from __future__ import annotations

import ast
import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field

from graphkit.analyze.cost import Cost
from graphkit.analyze.inference import Table
from graphkit.analyze.polynomial import Size, TooLong
from graphkit.view import GraphView
from graphkit.view.dtypes import BY_NAME


@dataclass(slots=True)
class Module:
    """A module, with all that is in it.

    Attributes:
        name: The last part of its path; "" for the model.
        parameters, nbytes: Of weights that its nodes are the first to read.
        macs: None where they are too involved to add up.
        nodes: How many.
        parts: Modules inside it, in the order of the graph.
    """

    name: str
    parameters: int = 0
    nbytes: int = 0
    macs: Size | None = 0
    nodes: int = 0
    parts: dict[str, Module] = field(default_factory=dict)


def tree(table: Table, cost: Cost) -> tuple[Module, str]:
    """The tree of the main graph, and where the paths come from: `graphkit`, `torch`, `names`, or `` without any."""
    graph = table.graph
    source, path_of = _paths(graph, table.order)
    root = Module("")
    macs = {each.node: each.macs for each in cost.nodes}
    seen: set[int] = set()
    for index in table.order:
        own = [v for v in graph.reads[index] if v in graph.initializers and v not in seen]
        seen.update(own)
        weights = [graph.initializers[v] for v in own]
        nbytes = sum(weight.nbytes for weight in weights)
        count = sum(weight.size for weight in weights if is_parameter(weight.dtype))
        module = root
        _add(module, count, nbytes, macs.get(index, 0))
        for name in path_of(index):
            module = module.parts.setdefault(name, Module(name))
            _add(module, count, nbytes, macs.get(index, 0))
    return root, source


def is_parameter(dtype: str) -> bool:
    """Whether weights of a dtype are parameters: numbers that training found, not shapes, indices or texts."""
    return dtype not in ("int64", "int32", "bool", "string") and dtype in BY_NAME


def _add(module: Module, parameters: int, nbytes: int, macs: Size | None) -> None:
    module.parameters += parameters
    module.nbytes += nbytes
    module.nodes += 1
    try:
        module.macs = None if module.macs is None or macs is None else module.macs + macs
    except TooLong:
        module.macs = None


def _paths(graph: GraphView, order: Sequence[int]) -> tuple[str, Callable[[int], tuple[str, ...]]]:
    for source, path_of in (("graphkit", _of_graphkit), ("torch", _of_torch), ("names", _of_name)):
        if any(path_of(graph, index) for index in order):
            return source, lambda index, path_of=path_of: path_of(graph, index)
    return "", lambda _index: ()


def module_of(graph: GraphView, index: int) -> str:
    """The module path of a node, dotted; "" where none is known."""
    for path_of in (_of_graphkit, _of_torch, _of_name):
        path = path_of(graph, index)
        if path:
            return ".".join(path)
    return ""


def _of_graphkit(graph: GraphView, index: int) -> tuple[str, ...]:
    """From the source lines that graphkit keeps: of several, as far as they agree."""
    if index not in graph.node_metadata:
        return ()
    paths = [tuple(line.module.split(".")) for line in graph.node(index).provenance if line.module]
    if not paths:
        return ()
    common = paths[0]
    for path in paths[1:]:
        while common != path[: len(common)]:
            common = common[:-1]
    return common


_SCOPES = "pkg.torch.onnx.name_scopes"


def _of_torch(graph: GraphView, index: int) -> tuple[str, ...]:
    """From PyTorch's metadata: a list of the paths of all modules around, and the node's own name."""
    if index not in graph.node_metadata:
        return ()
    written = graph.node(index).metadata.get(_SCOPES, "")
    try:
        scopes = ast.literal_eval(written) if len(written) < 10_000 else []
    except (ValueError, SyntaxError, RecursionError, MemoryError):
        return ()
    if not isinstance(scopes, list) or len(scopes) < 2 or not isinstance(scopes[-2], str):
        return ()
    return tuple(scopes[-2].split(".")) if scopes[-2] else ()


_COUNTER = re.compile(r"_\d+$")


def _of_name(graph: GraphView, index: int) -> tuple[str, ...]:
    """From a node's name: `/layer1/0/conv/Conv` or `model/dense/MatMul`, whose last part is the node's own."""
    parts = [part for part in graph.names[index].split("/") if part]
    return tuple(part.split(";")[0] for part in parts[:-1])
