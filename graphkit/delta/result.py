"""What `diff` found: a `Delta`, with one `GraphDelta` for each graph that differs."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any, Literal

from graphkit.view import GraphView

WeightKind = Literal["cast", "transposed", "scaled", "quantised", "reshaped", "changed", "unknown", "not measured"]


@dataclass(frozen=True, slots=True)
class FactChange:
    """A fact about the whole model, such as its opset; None where one side has none."""

    what: str
    a: str | None
    b: str | None


@dataclass(frozen=True, slots=True)
class PortChange:
    """An input or output of the model that is not the same.

    Attributes:
        side: `input` or `output`.
        kind: `added`, `removed`, `renamed`, `moved` (another position) or `retyped`.
        a, b: Name, dtype and shape on each side, None where it is missing.
    """

    side: str
    kind: str
    a: str | None
    b: str | None


@dataclass(frozen=True, slots=True)
class NodeChange:
    """A node whose operator, attributes or constants are not the same.

    Attributes:
        a, b: Its index on each side.
        details: What, before, after; None where a side has none.
    """

    a: int
    b: int
    details: tuple[tuple[str, str | None, str | None], ...]


@dataclass(frozen=True, slots=True)
class Rewire:
    """A node, or an output of the graph, that reads another value, although both values are on both sides.

    Attributes:
        a, b: Index of the node on each side; -1 for an output of the graph.
        slot: Its input, or the position of the output.
        before, after: What it reads.
    """

    a: int
    b: int
    slot: int
    before: str
    after: str


@dataclass(frozen=True, slots=True)
class Hunk:
    """Nodes of `a` and what stands in their place in `b`; either may be empty. Indices, in the order of data flow.

    Attributes:
        removed, added: The nodes.
        weights: How the weights that they read are related: kind to count, `identical` among them.
    """

    removed: tuple[int, ...]
    added: tuple[int, ...]
    weights: tuple[tuple[str, int], ...] = ()


@dataclass(frozen=True, slots=True)
class WeightChange:
    """A weight of a matched node that is not the same.

    Attributes:
        kind: `cast` to another dtype, `transposed`, `scaled` along one axis, `reshaped`, `quantised`, or `changed`;
            `unknown` where values are missing, `not measured` where nobody asked.
        a, b: Its name on each side.
        type_a, type_b: `float32[3,4]`.
        max_abs, max_rel: Largest difference; the latter over the largest magnitude in `a`. None if not comparable.
        cosine: Of the angle between both as vectors.
        share: Of elements that differ in any bit.
        node: Index of the node of `a` that reads it.
        slot: Its input.
    """

    kind: WeightKind
    a: str
    b: str
    type_a: str
    type_b: str
    max_abs: float | None = None
    max_rel: float | None = None
    cosine: float | None = None
    share: float | None = None
    node: int = -1
    slot: int = -1


@dataclass(frozen=True, slots=True, eq=False)
class GraphDelta:
    """Differences of one graph, or the body of a function.

    Attributes:
        path: "" for the main graph; `If 3 then_branch`, `function local:Gelu`.
        a, b: Both graphs; None where a side has none: a function that was added.
        pairs: Index of each node and its partner's.
        sizes: Number of nodes on each side, Constant nodes not counted.
    """

    path: str
    a: GraphView | None = field(repr=False)
    b: GraphView | None = field(repr=False)
    sizes: tuple[int, int]
    pairs: tuple[tuple[int, int], ...] = field(repr=False)
    hunks: tuple[Hunk, ...] = ()
    changes: tuple[NodeChange, ...] = ()
    rewires: tuple[Rewire, ...] = ()
    weights: tuple[WeightChange, ...] = ()
    weights_equal: int = 0

    @property
    def empty(self) -> bool:
        missing = self.a is None or self.b is None
        return not (self.hunks or self.changes or self.rewires or self.weights or missing)

    @property
    def removed(self) -> int:
        return sum(len(hunk.removed) for hunk in self.hunks)

    @property
    def added(self) -> int:
        return sum(len(hunk.added) for hunk in self.hunks)


@dataclass(frozen=True, slots=True, eq=False)
class Delta:
    """How two models differ, apart from names of inner values, the order of nodes, and how constants are stored.

    Attributes:
        a, b: Names of the models.
        facts: Opsets, producer, metadata.
        signature: Inputs and outputs.
        graphs: The main graph first; then the subgraphs and functions that differ.
        approximate: Whether a search was cut short: some pairs may not be the best ones.
        unread: Weights whose values are missing.
    """

    a: str
    b: str
    facts: tuple[FactChange, ...]
    signature: tuple[PortChange, ...]
    graphs: tuple[GraphDelta, ...]
    approximate: bool = False
    unread: tuple[str, ...] = ()

    @property
    def empty(self) -> bool:
        return not (self.facts or self.signature or any(not graph.empty for graph in self.graphs))

    def __bool__(self) -> bool:
        """Whether there is a difference."""
        return not self.empty

    def count(self) -> dict[str, int]:
        """How many nodes, weights and ports are the same and not, over all graphs."""
        changed = [len({c.a for c in g.changes} | {r.a for r in g.rewires if r.a >= 0}) for g in self.graphs]
        return {
            "matched": sum(len(g.pairs) for g in self.graphs),
            "removed": sum(g.removed for g in self.graphs),
            "added": sum(g.added for g in self.graphs),
            "changed": sum(changed),
            "rewired": sum(len(g.rewires) for g in self.graphs),
            "weights_changed": sum(len(g.weights) for g in self.graphs),
            "weights_equal": sum(g.weights_equal for g in self.graphs),
            "signature": len(self.signature),
            "facts": len(self.facts),
        }

    def to_json(self) -> dict[str, Any]:
        """The differences as strict JSON (schema `graphkit.diff/1`)."""
        from graphkit.delta.as_json import to_json

        return to_json(self)
