"""Which TensorFlow operations an ONNX node does the work of: its own, and those that were merged into it."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import TYPE_CHECKING, Any

from graphkit.capture.tf_paths import Layers, named_after, plain

if TYPE_CHECKING:
    import onnx_ir as ir

_PASSIVE = ("Const", "Identity", "NoOp", "Placeholder")


def absorbed(model: ir.Model, layers: Layers, graphs: Iterable[Any]) -> dict[ir.Node, list[str]]:
    """The operations behind each ONNX node of the main graph, in the order in which they ran; constants left out.

    A value that is named after an operation is that operation's. So a node replaces what lies between the operations
    that it is named after and those that other nodes are: a convolution with a normalization in it has both.

    Args:
        graphs: The GraphDef as the source made it, where nothing was merged yet, and as it was translated.
    """
    reads, ops = _read(graphs)
    own = {node: [name for name in named_after(node, layers) if name in ops] for node in model.graph}
    border = {name for names in own.values() for name in names}
    border |= {layers.operation(value.name or "") or "" for value in model.graph.inputs}
    paths = {name: layers.path(name) for name in ops}
    return {node: _behind(names, reads, ops, border, paths) for node, names in own.items()}


def _read(graphs: Iterable[Any]) -> tuple[dict[str, list[str]], dict[str, str]]:
    reads: dict[str, list[str]] = {}
    ops: dict[str, str] = {}
    for graph_def in graphs:
        for nodes in (graph_def.node, *(function.node_def for function in graph_def.library.function)):
            for node in nodes:
                name = plain(node.name)
                ops[name] = node.op
                reads.setdefault(name, []).extend(plain(_operation(each)) for each in node.input)
    return reads, ops


def _behind(
    names: list[str],
    reads: Mapping[str, list[str]],
    ops: Mapping[str, str],
    border: set[str],
    paths: Mapping[str, str],
) -> list[str]:
    found = dict.fromkeys(names)
    pending = list(names)
    while pending:
        for name in reads.get(pending.pop(), ()):
            if name in found or name in border or name not in ops or _is_upstream(name, reads, border, paths):
                continue
            found[name] = None
            pending.append(name)
    return [name for name in _in_order(found, reads) if ops[name] not in _PASSIVE or name in names]


def _in_order(names: Iterable[str], reads: Mapping[str, list[str]]) -> list[str]:
    """These operations, each after those of them that it reads."""
    inside = dict.fromkeys(names)
    done: dict[str, None] = {}
    for start in inside:
        pending, opened = [start], set[str]()
        while pending:
            waiting = [] if pending[-1] in opened else [n for n in reads[pending[-1]] if n in inside and n not in done]
            opened.add(pending[-1])
            if waiting:
                pending.extend(waiting)
            else:
                done.setdefault(pending.pop())
    return list(done)


def _is_upstream(
    name: str, reads: Mapping[str, list[str]], border: set[str], paths: Mapping[str, str], depth: int = 6
) -> bool:
    """Whether an operation follows, in its own layer, one that an earlier node is named after: a bias goes into the
    convolution before it."""
    same = [each for each in reads.get(name, ()) if paths.get(each) == paths[name]]
    if any(each in border for each in same):
        return True
    return depth > 0 and any(_is_upstream(each, reads, border, paths, depth - 1) for each in same)


def _operation(name: str) -> str:
    return name.removeprefix("^").partition(":")[0]
