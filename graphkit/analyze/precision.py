"""In which precision the multiplications run: dtypes, and quantisation as the file states it."""

from __future__ import annotations

from collections import Counter
from typing import NamedTuple

from graphkit.analyze.cost import Cost, NodeCost
from graphkit.analyze.inference import Table
from graphkit.analyze.mac_rules import has_macs, operands
from graphkit.analyze.polynomial import Size, TooLong
from graphkit.view import GraphView

_PASSES = frozenset(("Transpose", "Reshape", "Identity", "Squeeze", "Unsqueeze", "Flatten"))
_QOPERATORS = frozenset(
    (
        "QLinearConv",
        "QLinearMatMul",
        "QGemm",
        "ConvInteger",
        "MatMulInteger",
        "DynamicQuantizeMatMul",
        "MatMulIntegerToFloat",
    )
)
_FARTHEST = 8
"""Nodes between a dequantisation and what it feeds."""


class Precision(NamedTuple):
    """How the model is quantised.

    Attributes:
        macs: By precision, `int8 Q/DQ` or `float32`, the MACs that run in it.
        quantize, dequantize: Number of QuantizeLinear and DequantizeLinear nodes.
        per_channel: Of the dequantised weights, how many have a scale for each channel or block, and how many
            there are.
    """

    macs: dict[str, Size]
    quantize: int
    dequantize: int
    per_channel: tuple[int, int]


def precision_of(cost: Cost, table: Table) -> Precision:
    """The precision of a graph and of what it calls; linear, each function is looked at once."""
    graphs = list(table.shared.view.graphs())
    ops = Counter(op for graph in graphs for op in graph.ops if op.endswith("eLinear"))
    scales = [
        scale
        for graph in graphs
        for index, op in enumerate(graph.ops)
        if op == "DequantizeLinear" and (scale := _scale_elements(graph, index))
    ]
    channels = sum(count > 1 for count in scales)
    shares = _shares(cost, {})
    return Precision(shares, ops["QuantizeLinear"], ops["DequantizeLinear"], (channels, len(scales)))


def _scale_elements(graph: GraphView, index: int) -> int:
    """Number of scales of a dequantised weight; 0 for one of an activation."""
    reads = graph.reads[index]
    if len(reads) < 2 or reads[0] not in graph.initializers or reads[1] not in graph.initializers:
        return 0
    return graph.initializers[reads[1]].size


def _shares(cost: Cost, known: dict[int, dict[str, Size]]) -> dict[str, Size]:
    if id(cost) in known:
        return known[id(cost)]
    found: dict[str, Size] = {}
    counts: dict[tuple[str, int], tuple[Size, int]] = {}
    labels: dict[int, str] = {}
    for node in cost.nodes:
        if not node.macs:
            continue
        if node.node in cost.inner:
            body, runs = cost.inner[node.node]
            for label, size in _shares(body, known).items():
                _add(found, label, size, runs)
        elif has_macs(node.table.graph.ops[node.node], node.table.graph.domains[node.node]):
            label = _label(node, labels)
            counts[label, id(node.macs)] = node.macs, counts.get((label, id(node.macs)), (0, 0))[1] + 1
    for (label, _), (size, count) in counts.items():
        _add(found, label, size, count)
    known[id(cost)] = found
    return found


def _add(found: dict[str, Size], label: str, size: Size, times: Size) -> None:
    try:
        found[label] = found.get(label, 0) + size * times
    except TooLong:
        found.setdefault("too involved to add up", 0)


def _label(node: NodeCost, labels: dict[int, str]) -> str:
    """The precision of a node that multiplies; where nothing is dequantised, that of its kind, kept in `labels`."""
    kind = node.table.kinds[node.node]
    if kind < 0 or "DequantizeLinear" in node.table.operators:
        return _found(node)
    if kind not in labels:
        labels[kind] = _found(node)
    return labels[kind]


def _found(node: NodeCost) -> str:
    graph, tensors = node.table.graph, node.table.tensors
    op, reads = graph.ops[node.node], graph.reads[node.node]
    if op in _QOPERATORS:
        return "int8 QOperator"
    if op in ("MatMulNBits", "MatMulBnb4"):
        bits = next((a.value for a in graph.attributes[node.node] if a.name == "bits"), 4)
        return f"int{bits} weights"
    sides = [(reads[slot], _quantized(node.table, reads[slot])) for slot in operands(op) if slot < len(reads)]
    kinds = [kind for _, kind in sides if kind is not None]
    plain = tensors[reads[0]].dtype or "unknown"
    if not kinds:
        return plain
    widest = max(kinds, key=lambda kind: int("".join(c for c in kind if c.isdigit())[:2] or 0))
    return f"{widest} Q/DQ" if len(kinds) == len(sides) else f"{widest} weights"


def _quantized(table: Table, value: int) -> str | None:
    """The dtype that a value was dequantised from, through nodes that only move data."""
    graph = table.graph
    for _ in range(_FARTHEST):
        index = graph.producers[value]
        if index < 0:
            return None
        if graph.ops[index] == "DequantizeLinear":
            return table.tensors[graph.reads[index][0]].dtype
        if graph.ops[index] not in _PASSES:
            return None
        value = graph.reads[index][0]
    return None
