"""A graph as `diff` sees it: constants and copies of weights are weights, names count for nothing."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import NamedTuple

from graphkit.delta.labels import COMMUTATIVE, LIFTED, NOTHING, Labels, Weight, is_evidence, lifted_weight
from graphkit.numbering import held_by_constant
from graphkit.view import ABSENT, GraphView, ModelView
from graphkit.view.order import topological

CAPTURED = -1
"""Slot of a value that a node's subgraph reads; such slots have no order."""


class Use(NamedTuple):
    """A place where a value is read."""

    node: int
    slot: int


@dataclass(frozen=True, slots=True, eq=False)
class Canon:
    """The nodes of one graph, by their number here, and its values, by their id in the view.

    Attributes:
        view: The model.
        graph: The graph.
        opsets: Operator sets that its nodes are of.
        nodes: Index in the view of each node.
        reads: Values that each node reads; then those that its subgraphs do. None left out at the end.
        own: How many of them the node itself reads.
        makes: Values that each node makes.
        producers: Node that makes a value, -1 for none.
        places: Which output of its producer a value is, where it is not the first.
        users: Where each value is read; slot 0 at a commutative operator.
        exits: Positions among the graph's outputs, by value.
        weights: Weights by value; attributes that later opsets have as inputs among them.
        operators: Number of each node's operator: without the values of weights inside it, and with them.
        commutative: Whether a node's inputs may be swapped.
        order: Nodes in an order in which they can run.
    """

    view: ModelView
    graph: GraphView
    opsets: Mapping[str, int]
    nodes: list[int] = field(repr=False)
    reads: list[tuple[int, ...]] = field(repr=False)
    own: list[int] = field(repr=False)
    makes: list[tuple[int, ...]] = field(repr=False)
    producers: list[int] = field(repr=False)
    places: dict[int, int] = field(repr=False)
    users: list[list[Use]] = field(repr=False)
    exits: dict[int, list[int]] = field(repr=False)
    weights: dict[int, Weight] = field(repr=False)
    operators: tuple[list[int], list[int]] = field(repr=False)
    commutative: list[bool] = field(repr=False)
    order: Sequence[int] = field(repr=False)

    def __len__(self) -> int:
        return len(self.nodes)

    @property
    def inputs(self) -> list[int]:
        return [value for value in self.graph.inputs if value not in self.graph.initializers]

    @property
    def outputs(self) -> tuple[int, ...]:
        return self.graph.outputs

    def op(self, node: int) -> str:
        return self.graph.ops[self.nodes[node]]

    def name(self, node: int) -> str:
        return self.graph.names[self.nodes[node]]

    def outer(self) -> list[int]:
        """Values that come from a graph around this one."""
        inside = set(self.graph.inputs) | set(self.weights) | {ABSENT}
        read = dict.fromkeys(v for reads in (*self.reads, self.outputs) for v in reads)
        return [v for v in read if self.producers[v] < 0 and v not in inside]

    def leaves(self, labels: Labels, given: Mapping[int, int], *, content: bool) -> list[int]:
        """For every value the leaf that stands for it, `NOTHING` for those that nodes make."""
        found = [NOTHING] * len(self.producers)
        for value, weight in self.weights.items():
            found[value] = labels.weight(weight, content=content)
        for value, leaf in given.items():
            found[value] = leaf
        found[ABSENT] = NOTHING
        return found

    def has_evidence(self, node: int) -> bool:
        """Whether a node reads a weight that is large enough to tell it from others."""
        weights = self.weights
        return any(value in weights and is_evidence(weights[value]) for value in self.reads[node])


def canonical(view: ModelView, graph: GraphView, opsets: Mapping[str, int], labels: Labels) -> Canon:
    """The canonical form of a graph.

    Raises:
        CorruptFile: the graph has a cycle.
    """
    weights: dict[int, Weight] = dict(graph.initializers)
    numbers = [-1] * len(graph)
    nodes: list[int] = []
    for index, op in enumerate(graph.ops):
        constant = held_by_constant(graph, index) if op == "Constant" else None
        if op == "Identity" and not graph.domains[index] and graph.reads[index]:
            constant = weights.get(graph.reads[index][0])  # torch's exporter ties equal weights by such nodes
        if constant is not None and graph.makes[index]:
            weights[graph.makes[index][0]] = constant
        else:
            numbers[index] = len(nodes)
            nodes.append(index)
    reads, own, extra = _reads(graph, nodes, weights)
    producers = [numbers[index] if index >= 0 else -1 for index in graph.producers] + [-1] * extra
    operators = [labels.operator(view, opsets, graph, index) for index in nodes]
    commutative = [graph.ops[index] in COMMUTATIVE and not graph.domains[index] for index in nodes]
    makes = [graph.makes[index] for index in nodes]
    return Canon(
        view=view,
        graph=graph,
        opsets=opsets,
        nodes=nodes,
        reads=reads,
        own=own,
        makes=makes,
        producers=producers,
        places={value: slot for row in makes if len(row) > 1 for slot, value in enumerate(row) if slot and value},
        users=_users(reads, own, commutative, len(producers)),
        exits=_exits(graph),
        weights=weights,
        operators=([pair[0] for pair in operators], [pair[1] for pair in operators]),
        commutative=commutative,
        order=[numbers[index] for index in topological(graph) if numbers[index] >= 0],
    )


def _reads(
    graph: GraphView, nodes: list[int], weights: dict[int, Weight]
) -> tuple[list[tuple[int, ...]], list[int], int]:
    """What each node reads, how much of it in slots of its own, and how many values had to be made up for it."""
    found: list[tuple[int, ...]] = []
    own: list[int] = []
    ids: dict[str, int] = {}
    made_up = len(graph.values)
    for index in nodes:
        reads = graph.reads[index]
        row = graph.attributes[index]
        lifted = LIFTED.get(graph.ops[index]) if row and not graph.domains[index] else None
        if lifted:
            slots = list(reads)
            for attribute in row:
                weight = lifted_weight(attribute) if attribute.name in lifted and not attribute.reference else None
                slot = lifted.get(attribute.name, 0)
                if weight is not None and len(slots) <= slot:
                    slots.extend([ABSENT] * (slot + 1 - len(slots)))
                if weight is not None and slots[slot] == ABSENT:
                    slots[slot] = made_up
                    weights[made_up] = weight
                    made_up += 1
            reads = tuple(slots)
        while reads and reads[-1] == ABSENT:
            reads = reads[:-1]
        own.append(len(reads))
        if any(attribute.kind in ("GRAPH", "GRAPHS") for attribute in row):
            ids = ids or {name: value for value, name in enumerate(graph.values)}
            reads += tuple(ids[name] for name in _captures(graph, index) if name in ids)
        found.append(reads)
    return found, own, made_up - len(graph.values)


def _exits(graph: GraphView) -> dict[int, list[int]]:
    found: dict[int, list[int]] = {}
    for place, value in enumerate(graph.outputs):
        found.setdefault(value, []).append(place)
    return found


def _captures(graph: GraphView, index: int) -> list[str]:
    """What the subgraphs of a node read from outside, in an order that does not depend on names or on the file's."""
    bodies = sorted(graph.subgraphs(index), key=lambda pair: pair[0])
    return list(dict.fromkeys(name for _, body in bodies for name in _read_outside(body)))


def _read_outside(body: GraphView) -> list[str]:
    found: list[str] = []
    own = {body.values[v] for v in (*body.inputs, *body.initializers, *(v for row in body.makes for v in row))}
    for index in _post_order(body):
        found.extend(body.values[value] for value in body.reads[index])
        if any(attribute.kind in ("GRAPH", "GRAPHS") for attribute in body.attributes[index]):
            found.extend(_captures(body, index))
    found.extend(body.values[value] for value in body.outputs)
    return [name for name in dict.fromkeys(found) if name and name not in own]


def _post_order(graph: GraphView) -> list[int]:
    """Nodes depth first from the outputs, then what is left, in the order of the file."""
    seen = bytearray(len(graph))
    found: list[int] = []
    pending = [*reversed(range(len(graph))), *(graph.producers[value] for value in reversed(graph.outputs))]
    while pending:
        index = pending.pop()
        if index < -1:
            found.append(-2 - index)
        elif index >= 0 and not seen[index]:
            seen[index] = 1
            pending.append(-2 - index)
            pending.extend(graph.producers[value] for value in reversed(graph.reads[index]))
    return found


def _users(reads: list[tuple[int, ...]], own: list[int], commutative: list[bool], values: int) -> list[list[Use]]:
    found: list[list[Use]] = [[] for _ in range(values)]
    for node, row in enumerate(reads):
        for slot, value in enumerate(row):
            found[value].append(Use(node, CAPTURED if slot >= own[node] else 0 if commutative[node] else slot))
    found[ABSENT] = []
    return found
