"""What share of a model's multiplications really runs in a precision: counted in the graph itself."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from graphkit.analyze.cost import Cost, NodeCost
    from graphkit.analyze.inference import Table
    from graphkit.analyze.polynomial import Size
    from graphkit.analyze.summary import GraphSummary
    from graphkit.model import Model


@dataclass(frozen=True, slots=True)
class Share:
    """Nodes that multiply and sum, and their FLOPs (twice the MACs), in the low precision and in all.

    `flops_low` and `flops_total` are 0 where the FLOPs of any node are unknown.
    """

    nodes_low: int
    nodes_total: int
    flops_low: float
    flops_total: float


def counted(model: Model, is_low: Callable[[NodeCost], bool] | None = None, dtype: str = "") -> Share:
    """Count nodes and FLOPs. Nodes of a body count once, their FLOPs as often as it runs; what is the same in every
    run (a product of two weights) counts not at all: any runtime folds it.

    Args:
        is_low: Whether a node computes in the precision; None: whether what it multiplies is of `dtype`.
    """
    from graphkit import view
    from graphkit.analyze.summary import summarise

    summary = summarise(view.of(model), {})
    low = is_low or (lambda node: _multiplies(node) == {dtype})
    lows = [low(node) for node in _nodes(summary.table)]
    flops_low = flops = 0.0
    known = summary.cost.complete
    for node, times in _multiplying(summary.cost, 1):
        size = _flops(summary, node.macs, times)
        known &= size is not None
        flops += size or 0
        flops_low += (size or 0) if low(node) else 0
    return Share(sum(lows), len(lows), flops_low if known else 0, flops if known else 0)


def _nodes(table: Table) -> Iterator[NodeCost]:
    """The nodes that multiply, those of bodies included."""
    from graphkit.analyze.cost import NodeCost
    from graphkit.analyze.mac_rules import has_macs

    graph = table.graph
    for index in table.order:
        for _, body in table.bodies.get(index, ()):
            yield from _nodes(body)
        varies = any(value and not table.constant[value] for value in graph.makes[index])
        if varies and has_macs(graph.ops[index], graph.domains[index]):
            yield NodeCost(table, index, None, None)


def _multiplying(cost: Cost, times: Size) -> Iterator[tuple[NodeCost, Size]]:
    """Each node whose MACs are counted, and how often it runs."""
    from graphkit.analyze.mac_rules import has_macs

    for node in cost.nodes:
        if node.node in cost.inner:
            inner, runs = cost.inner[node.node]
            yield from _multiplying(inner, times * runs)
        elif has_macs(node.table.graph.ops[node.node], node.table.graph.domains[node.node]):
            yield node, times


def _flops(summary: GraphSummary, macs: Size | None, times: Size) -> float | None:
    value = summary.at(None if macs is None else macs * times)
    return None if value is None else 2.0 * value


def _multiplies(node: NodeCost) -> set[str]:
    """The dtypes of what a node multiplies."""
    from graphkit.analyze.mac_rules import operands

    graph, tensors = node.table.graph, node.table.tensors
    reads = graph.reads[node.node]
    slots = operands(graph.ops[node.node])
    return {tensors[reads[s]].dtype or "unknown" for s in slots if s < len(reads) and reads[s]}
