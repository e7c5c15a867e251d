"""What a quantised graph really holds, counted in the graph itself and not in what was asked of it."""

from __future__ import annotations

import functools
from collections.abc import Mapping
from typing import TYPE_CHECKING

from graphkit.analyze.mac_rules import has_macs
from graphkit.errors import PrecisionRefused
from graphkit.lowering import Kept, Lowering
from graphkit.model import Finding, Model
from graphkit.precision.share import counted

if TYPE_CHECKING:
    from graphkit.analyze.cost import NodeCost


def result(
    model: Model,
    precision: str,
    kept: tuple[Kept, ...],
    findings: tuple[Finding, ...] = (),
    *,
    uncalibrated: bool = False,
) -> Lowering:
    """A lowering with its shares.

    Raises:
        PrecisionRefused: no node of the graph runs in the precision, whatever was asked.
    """
    share = counted(model, functools.partial(_is_low, precision))
    if not share.nodes_low:
        raise PrecisionRefused(f"no layer of the model is in {precision}", remedy="nothing was written")
    return Lowering(
        model,
        precision,
        kept,
        share.nodes_low,
        share.nodes_total,
        share.flops_low,
        share.flops_total,
        findings,
        uncalibrated,
    )


def layer_flops(model: Model) -> Mapping[str, float]:
    """FLOPs of each node of the main graph that multiplies, by name, at the sizes of `Lowering.flops_total`; {} where
    those of one are unknown."""
    from graphkit import view
    from graphkit.analyze.summary import summarise

    summary = summarise(view.of(model), {})
    found: dict[str, float] = {}
    for row in summary.cost.nodes:
        graph = row.table.graph
        if not has_macs(graph.ops[row.node], graph.domains[row.node]):
            continue
        macs = summary.at(row.macs)
        if macs is None:
            return {}
        made = next((graph.values[v] for v in graph.makes[row.node] if v), "")
        found[graph.names[row.node] or made] = 2.0 * macs
    return found


def _is_low(precision: str, node: NodeCost) -> bool:
    graph = node.table.graph
    makers = [graph.producers[value] for value in graph.reads[node.node][:2]]
    dequantised = [maker >= 0 and graph.ops[maker] == "DequantizeLinear" for maker in makers]
    return dequantised == ([False, True] if precision == "int4" else [True, True])
