"""What a graph computes: MACs, exactly or as a polynomial, and the elements that its other arithmetic makes."""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass, field
from typing import NamedTuple

from graphkit.analyze.inference import Table, show
from graphkit.analyze.mac_rules import has_macs, macs
from graphkit.analyze.node import Node
from graphkit.analyze.polynomial import Size, TooLong, short, terms_of, text

DEFINITION = (
    "a MAC is a multiplication whose product is summed, in Conv, Gemm, MatMul, Einsum, Attention and recurrent layers; "
    "FLOPs are twice the MACs. Elementwise: one per element that other arithmetic makes, or a reduction reads"
)

MOVES_DATA = frozenset(
    (
        "Cast", "CastLike", "Compress", "Concat", "Constant", "ConstantOfShape", "DepthToSpace", "DequantizeLinear",
        "Expand", "EyeLike", "Flatten", "Gather", "GatherElements", "GatherND", "Identity", "NonZero", "OneHot",
        "Optional", "OptionalGetElement", "OptionalHasElement", "Pad", "QuantizeLinear", "Range", "Reshape",
        "ReverseSequence", "Scatter", "ScatterElements", "ScatterND", "SequenceAt", "SequenceConstruct",
        "SequenceInsert", "Shape", "Size", "Slice", "SpaceToDepth", "Split", "SplitToSequence", "Squeeze",
        "TensorScatter", "Tile", "Transpose", "Trilu", "Unsqueeze", "Where", "Dropout",
    )
)  # fmt: skip
"""Operators that compute nothing, or only convert; they count neither way."""


_NOTHING = (0, 0)
_LONG = 60
"""Characters of a polynomial that are still shown."""


class NodeCost(NamedTuple):
    """What one node computes.

    Attributes:
        table: The graph that it is in, and its types.
        node: Its place in it.
        macs, elementwise: None if they are unknown.
    """

    table: Table
    node: int
    macs: Size | None
    elementwise: Size | None


@dataclass(slots=True)
class Cost:
    """What a graph computes, its functions and bodies of control flow included.

    Attributes:
        macs: Of all nodes whose MACs are known.
        elementwise: Likewise.
        nodes: Those of the graph itself that compute something, in order; a call of a function is one of them.
        unknown: Operators whose cost is unknown, and how many of each.
        notes: What was not counted, and why.
        inner: By node, the cost of the body that it runs and is counted, and how often.
    """

    macs: Size = 0
    elementwise: Size = 0
    nodes: list[NodeCost] = field(default_factory=list)
    unknown: Counter[str] = field(default_factory=Counter)
    notes: list[str] = field(default_factory=list)
    inner: dict[int, tuple[Cost, Size]] = field(default_factory=dict)

    @property
    def complete(self) -> bool:
        """Whether every MAC is counted."""
        return not self.unknown and not self.notes


def cost_of(table: Table) -> Cost:
    """The cost of a graph. What is the same in every run (a product of two weights) is not counted: any runtime folds
    it. Linear in the nodes; a function is looked at once for all calls with the same types."""
    return _Costs().of(table)


class _Costs:
    def __init__(self) -> None:
        self.tables: dict[int, Cost] = {}
        self.rows: dict[int, tuple[Size | None, Size | None]] = {}

    def of(self, table: Table) -> Cost:
        known = self.tables.get(id(table))
        if known is None:
            known = self.tables[id(table)] = self._of(table)
        return known

    def _of(self, table: Table) -> Cost:
        cost = Cost()
        graph, constant, rows, kinds = table.graph, table.constant, self.rows, table.kinds
        counts: dict[int, int] = {}
        held: list[tuple[Size | None, Size | None]] = []
        nodes = cost.nodes
        for index in table.order:
            if graph.ops[index] in MOVES_DATA and not graph.domains[index]:
                continue
            for value in graph.makes[index]:  # not any(): 20,000 generators take as long as all the rest
                if value and not constant[value]:
                    break
            else:
                continue
            kind = kinds[index]
            row = rows.get(kind)
            if row is None:
                row = self._of_bodies(table, index, cost) if index in table.bodies else _counted(Node(table, index))
                row = _NOTHING if row == _NOTHING else row
                if kind >= 0:
                    rows[kind] = row
                else:
                    held.append(row)
            if kind >= 0:
                counts[kind] = counts.get(kind, 0) + 1
            if row[0] is None:
                cost.unknown[graph.ops[index]] += 1
            if row is not _NOTHING:
                nodes.append(NodeCost(table, index, row[0], row[1]))
        for kind, count in counts.items():
            macs_, other = rows[kind]
            cost.macs, cost.elementwise = cost.macs + (macs_ or 0) * count, cost.elementwise + (other or 0) * count
        for macs_, other in held:
            cost.macs, cost.elementwise = cost.macs + (macs_ or 0), cost.elementwise + (other or 0)
        return cost

    def _of_bodies(self, table: Table, index: int, cost: Cost) -> tuple[Size | None, Size | None]:
        node = Node(table, index)
        costs = [(name, self.of(body)) for name, body in table.bodies[index]]
        for _, inner in costs:
            cost.unknown.update(inner.unknown)
            cost.notes.extend(note for note in inner.notes if note not in cost.notes)
        runs = _runs(node)
        where = f"{node.op} `{table.graph.names[index]}`"
        if node.op == "If" and len(costs) == 2 and not node.domain:
            yes, no = (inner for _, inner in costs)
            if yes.macs == no.macs:
                cost.inner[index] = yes, 1
                return yes.macs, yes.elementwise if yes.elementwise == no.elementwise else None
            if yes.complete and no.complete:
                cost.notes.append(f"{where}: its branches cost {_told(yes)} and {_told(no)} MACs; neither is counted")
            return 0, None
        (_, body), *_ = costs
        if runs is not None:
            cost.inner[index] = body, runs
            return body.macs * runs, body.elementwise * runs
        if body.macs != 0:
            cost.notes.append(f"{where}: {_told(body)} MACs a run, and how often it runs depends on data; not counted")
        return 0, None


def _told(cost: Cost) -> str:
    said = text(cost.macs, short)
    return said if len(said) <= _LONG else f"a polynomial of {len(terms_of(cost.macs))} terms"


def _counted(node: Node) -> tuple[Size | None, Size | None]:
    try:
        if has_macs(node.op, node.domain):
            return macs(node), 0
        if node.domain not in ("", "com.microsoft"):
            return None, None
        if node.op.startswith("Reduce") or node.op in ("ArgMax", "ArgMin"):
            return 0, node.tensor(0).elements
        if not node.makes or not node.makes[0]:
            return 0, 0
        return 0, node.table.tensors[node.makes[0]].elements
    except TooLong:
        return None, None


def _runs(node: Node) -> Size | None:
    """How often the body of a loop runs, or a function's: 1. None where it depends on data."""
    if node.domain or node.op not in ("Loop", "Scan"):
        return 1
    if node.op == "Scan":
        scanned = node.attribute("num_scan_inputs", 0)
        slot = len(node.reads) - scanned
        shape, axes = node.shape(slot), node.attribute("scan_input_axes", (0,) * scanned)
        return shape[axes[0] % len(shape)] if shape and scanned and node.opset >= 9 else None
    times = node.ints(0)
    return times[0] if times and _runs_through(node) else None


def _runs_through(node: Node) -> bool:
    """Whether a loop's condition is true in every run."""
    _, body = node.table.bodies[node.index][0]
    going = body.graph.outputs[0]
    if body.ints(going) == (1,):
        return True
    maker = body.graph.producers[going]
    passed = maker >= 0 and body.graph.ops[maker] == "Identity" and body.graph.reads[maker][0] == body.graph.inputs[1]
    return (passed or going == body.graph.inputs[1]) and (not node.given(1) or node.ints(1) == (1,))


def output_shape(cost: NodeCost) -> str:
    """The shape of a node's first output, as text."""
    makes = cost.table.graph.makes[cost.node]
    return show(cost.table.tensors[makes[0]].shape) if makes else ""
