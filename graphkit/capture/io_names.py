"""Names of a graph's inputs and outputs, whoever exported it."""

from __future__ import annotations

from collections.abc import Iterable
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import onnx_ir as ir


def rename_io(graph: ir.Graph, inputs: Iterable[str], outputs: Iterable[str]) -> None:
    """Give a graph's inputs and outputs these names, by position; other values step aside."""
    import onnx_ir as ir

    for position, value in enumerate(graph.outputs):
        if value.is_graph_input() or value.is_initializer() or value in list(graph.outputs)[:position]:
            node = ir.node("Identity", [value])  # a name of its own for an output that is an input, or another output
            node.outputs[0].shape, node.outputs[0].type = value.shape, value.type
            graph.append(node)
            graph.outputs[position] = node.outputs[0]
    wanted = dict(zip(graph.inputs, inputs, strict=True)) | dict(zip(graph.outputs, outputs, strict=True))
    taken = set(wanted.values())
    for value in values_of(graph):
        if value not in wanted and value.name in taken:
            _rename(graph, value, free_name(value.name, taken))
    for value in wanted:
        value.name = f"graphkit renames {id(value)}"
    for value, name in wanted.items():
        value.name = name


def free_name(name: str, taken: set[str]) -> str:
    """The name, or the first of `name_1`, `name_2`... that is not taken; it is taken then."""
    candidate, number = name, 1
    while candidate in taken:
        candidate, number = f"{name}_{number}", number + 1
    taken.add(candidate)
    return candidate


def values_of(graph: ir.Graph) -> list[ir.Value]:
    """Every value of a graph, those inside If and Loop too."""
    values = [*graph.inputs, *graph.initializers.values()]
    values.extend(output for node in graph.all_nodes() for output in node.outputs)
    for inner in graph.subgraphs():
        if inner is not graph:
            values.extend([*inner.inputs, *inner.initializers.values()])
    return values


def _rename(graph: ir.Graph, value: ir.Value, name: str) -> None:
    old = value.name or ""
    if old in graph.initializers and graph.initializers[old] is value:
        graph.initializers.pop(old)
        value.name = name
        graph.initializers[name] = value
    else:
        value.name = name
