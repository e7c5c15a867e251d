"""An If whose condition is known is its branch: what is inside can be reduced then."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from typing import TYPE_CHECKING

from graphkit.model import Model

if TYPE_CHECKING:
    import onnx_ir as ir


def conditions(model: Model) -> dict[int, str]:
    """Position of each If of the top graph, and the name of its condition."""
    return {
        i: node.inputs[0].name
        for i, node in enumerate(model.ir.graph)
        if node.op_type == "If" and node.domain == "" and node.inputs[0] is not None and node.inputs[0].name
    }


def inlined(model: Model, chosen: Mapping[int, bool]) -> Model:
    """The model with some of its Ifs replaced by one branch each.

    Args:
        chosen: Position of the If, and whether it takes its then branch.
    """
    whole = model.ir.clone()
    nodes = list(whole.graph)
    taken = {v.name for n in whole.graph.all_nodes() for v in n.outputs} | set(whole.graph.initializers)
    taken |= {v.name for v in whole.graph.inputs}
    for position, then in chosen.items():
        node = nodes[position]
        _inline(whole.graph, node, node.attributes["then_branch" if then else "else_branch"].as_graph(), taken)
    return replace(model, ir=whole)


def _inline(graph: ir.Graph, node: ir.Node, branch: ir.Graph, taken: set[str | None]) -> None:
    import onnx_ir as ir

    results = list(branch.outputs)
    body = list(branch)
    weights = list(branch.initializers.values())
    branch.outputs.clear()
    branch.initializers.clear()
    branch.remove(body)
    for value in (*weights, *(v for n in body for v in n.outputs)):
        if value.name:
            value.name = _free(f"{node.name or node.outputs[0].name}/{value.name}", taken)
    for value in weights:
        graph.register_initializer(value)
    graph.insert_before(node, body)
    for output, result in zip(node.outputs, results, strict=True):
        # Always a node of its own: a result may be a tensor from outside, or stand for two outputs.
        identity = ir.node("Identity", [result], name=_free(f"{output.name}/result", taken))
        made = identity.outputs[0]
        made.type, made.shape = output.type, output.shape
        graph.insert_before(node, identity)
        ir.convenience.replace_all_uses_with(output, made, replace_graph_outputs=True)
        made.name, output.name = output.name, None
    graph.remove(node)


def _free(name: str, taken: set[str | None]) -> str:
    while name in taken:
        name += "_"
    taken.add(name)
    return name
