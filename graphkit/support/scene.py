"""What the rules look at: every node of a model with its types, its constants, and the graphs around it."""

from __future__ import annotations

import copy
from collections import deque
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, TypeAlias

from graphkit.view import AttributeView, GraphView, ModelView, NodeView, WeightView

if TYPE_CHECKING:
    from graphkit.analyze.inference import Table
    from graphkit.analyze.tensors import Shape, Tensor

SMALL = 65_536
"""Elements of a constant up to which a rule reads it."""

_STANDARD = ("", "ai.onnx")


@dataclass(frozen=True, slots=True)
class Place:
    """A node, and where it is.

    Attributes:
        graph: The graph it is in.
        index: Its place there.
        around: The node whose branch or body that graph is; None in the main graph and in functions.
        branch: Name of the attribute that holds the graph, or of the function.
    """

    graph: GraphView = field(repr=False)
    index: int
    around: Place | None = None
    branch: str = ""

    @property
    def node(self) -> NodeView:
        return self.graph.node(self.index)

    @property
    def op(self) -> str:
        return self.graph.ops[self.index]

    @property
    def top(self) -> Place:
        """The outermost node that this one is part of; itself in the main graph."""
        place = self
        while place.around is not None:
            place = place.around
        return place

    def bodies(self) -> Iterator[tuple[str, GraphView]]:
        return self.graph.subgraphs(self.index)


_Seat: TypeAlias = tuple[GraphView, Place | None, str]
"""A graph, the node that it is inside of, and the name of the attribute or function that holds it."""


class Scene:
    """A model as rules see it.

    Args:
        view: The model.
        target: `trt`, `rtx` or `ort`.
        capabilities: Compute capabilities that are asked about; () for the target's default.
        table: Its shapes, where they are inferred already.

    Raises:
        CorruptFile: the graph has a cycle, or functions call one another without end.
    """

    def __init__(
        self, view: ModelView, target: str, capabilities: tuple[str, ...] = (), table: Table | None = None
    ) -> None:
        from graphkit.analyze.inference import infer

        self.view = view
        self.target = target
        self.capabilities = capabilities
        self._tables: dict[int, Table] = {}
        self._collect(infer(view) if table is None else table)
        self._ids: dict[int, dict[str, int]] = {}
        self._holders: dict[int, Place] = {}
        self._consumers: dict[int, list[list[int]]] = {}
        self._places: tuple[Place, ...] | None = None
        self._holding: dict[tuple[str, str], list[_Seat]] = {}
        self._kinds: dict[tuple[str, str], tuple[Place, ...]] = {}
        for seat in self._seats():
            for kind in dict.fromkeys(zip(seat[0].domains, seat[0].ops, strict=True)):
                self._holding.setdefault(kind, []).append(seat)

    def aimed_at(self, target: str) -> Scene:
        """The same model as another target sees it; what is known of the model is shared."""
        scene = copy.copy(self)
        scene.target = target
        return scene

    @property
    def places(self) -> tuple[Place, ...]:
        """Every node: of the main graph first, then of graphs inside it, then of functions."""
        if self._places is None:
            self._places = tuple(Place(s[0], i, s[1], s[2]) for s in self._seats() for i in range(len(s[0])))
        return self._places

    @property
    def kinds(self) -> Iterable[tuple[str, str]]:
        """Domain and operator of the nodes, each pair once."""
        return self._holding.keys()

    def of_kind(self, domain: str, op: str) -> tuple[Place, ...]:
        """The nodes of an operator of a domain, in the order of `places`; looked for when a rule asks."""
        kind = domain, op
        if kind not in self._holding:
            return ()
        if kind not in self._kinds:
            self._kinds[kind] = tuple(
                Place(graph, index, around, branch)
                for graph, around, branch in self._holding[kind]
                for index, name in enumerate(graph.ops)
                if name == op and graph.domains[index] == domain
            )
        return self._kinds[kind]

    def of(self, *ops: str) -> Iterator[Place]:
        """The nodes of some of ONNX's operators."""
        return (place for op in ops for domain in _STANDARD for place in self.of_kind(domain, op))

    @property
    def opset(self) -> int:
        """Version of ONNX's own operators; 0 if the model states none."""
        return next((self.view.opsets[d] for d in _STANDARD if d in self.view.opsets), 0)

    @property
    def graph(self) -> GraphView:
        return self.view.graph

    def inputs(self) -> Iterator[int]:
        """Ids of the main graph's inputs that have no initializer."""
        return (v for v in self.graph.inputs if v not in self.graph.initializers)

    def tensor(self, graph: GraphView, value: int) -> Tensor:
        """What is known of a value; nothing for one of a function that is never called."""
        from graphkit.analyze.tensors import UNKNOWN, stated

        table = self._tables.get(id(graph))
        if table is None:
            type_ = graph.types.get(value)
            return stated(type_) if type_ is not None else UNKNOWN
        found = table.tensors[value]
        if found is UNKNOWN and (outer := self._outer(graph, value)) is not None:
            return self.tensor(*outer)
        return found

    def named(self, name: str) -> Tensor:
        """What is known of a value of the main graph."""
        ids = self._ids_of(self.graph)
        return self.tensor(self.graph, ids[name])

    def dtype(self, place: Place, slot: int) -> str | None:
        """Dtype of an input; None where it is unknown or left out."""
        value = _at(place.graph.reads[place.index], slot)
        return self.tensor(place.graph, value).dtype if value else None

    def shape(self, place: Place, slot: int) -> Shape | None:
        value = _at(place.graph.reads[place.index], slot)
        return self.tensor(place.graph, value).shape if value else None

    def made_dtype(self, place: Place, slot: int = 0) -> str | None:
        """Dtype of an output."""
        value = _at(place.graph.makes[place.index], slot)
        return self.tensor(place.graph, value).dtype if value else None

    def given(self, place: Place, slot: int) -> bool:
        """Whether an input is there."""
        return bool(_at(place.graph.reads[place.index], slot))

    def is_constant(self, graph: GraphView, value: int) -> bool:
        """Whether a value is the same in every run."""
        table = self._tables.get(id(graph))
        if value in graph.initializers or (table is not None and table.constant[value]):
            return True
        outer = self._outer(graph, value)
        return outer is not None and self.is_constant(*outer)

    def constant_slot(self, place: Place, slot: int) -> bool:
        """Whether an input is left out, or the same in every run."""
        value = _at(place.graph.reads[place.index], slot)
        return not value or self.is_constant(place.graph, value)

    def weight(self, place: Place, slot: int) -> WeightView | None:
        """The stored tensor that an input is: an initializer, or the value of a Constant."""
        value = _at(place.graph.reads[place.index], slot)
        return self._weight(place.graph, value) if value else None

    def numbers(self, place: Place, slot: int) -> Any:
        """The values of such a tensor as a numpy array; None if it is large, absent, or in a file that is missing."""
        weight = self.weight(place, slot)
        if weight is None or weight.size > SMALL or weight.missing:
            return None
        return weight.read()

    def producer(self, graph: GraphView, value: int) -> Place | None:
        """The node that makes a value, in this graph or in one around it."""
        index = graph.producers[value]
        if index >= 0:
            return Place(graph, index, *self._seat(graph))
        outer = self._outer(graph, value)
        return self.producer(*outer) if outer is not None else None

    def read_by(self, place: Place, op: str) -> bool:
        """Whether a node of an operator, in the same graph, reads what a node makes."""
        graph = place.graph
        if id(graph) not in self._consumers:
            self._consumers[id(graph)] = graph.consumers()
        rows = self._consumers[id(graph)]
        return any(graph.ops[i] == op for value in graph.makes[place.index] for i in rows[value])

    def origin(self, graph: GraphView, value: int) -> int | None:
        """The input of the main graph that a value is, in whatever graph it is read; None if it is none."""
        while graph is not self.graph:
            outer = self._outer(graph, value)
            if outer is None:
                return None
            graph, value = outer
        return value if value in graph.inputs and value not in graph.initializers else None

    def attribute(self, place: Place, name: str, default: Any = None) -> Any:
        """An attribute's value; `default` where it is not stated."""
        found = _attribute(place.graph.attributes[place.index], name)
        return default if found is None or found.value is None else found.value

    def text(self, place: Place, name: str, default: str = "") -> str:
        value = self.attribute(place, name)
        return value.decode("utf-8", "replace") if isinstance(value, bytes) else default

    # --- below: how it is found ----------------------------------------------------------------------------------

    def _collect(self, table: Table) -> None:
        pending = [table]
        while pending:
            each = pending.pop()
            if id(each.graph) not in self._tables:
                self._tables[id(each.graph)] = each
                pending.extend(inner for rows in each.bodies.values() for _, inner in rows)

    def _seats(self) -> Iterator[_Seat]:
        """Every graph, with the node around it; an outer one before those inside it."""
        roots = [(self.view.graph, ""), *((f.body, f"{f.domain}::{f.name}") for f in self.view.functions)]
        for root, name in roots:
            pending: deque[_Seat] = deque([(root, None, name)])
            while pending:
                seat = pending.popleft()
                graph, around, branch = seat
                if around is not None:
                    self._holders[id(graph)] = around
                yield seat
                for index in graph.with_graphs():
                    place = Place(graph, index, around, branch)
                    pending.extend((inner, place, name) for name, inner in place.bodies())

    def _seat(self, graph: GraphView) -> tuple[Place | None, str]:
        holder = self._holders.get(id(graph))
        if graph is self.graph:
            return None, ""
        if holder is None:
            return None, next((f"{f.domain}::{f.name}" for f in self.view.functions if f.body is graph), "")
        return holder, next(name for name, inner in holder.bodies() if inner is graph)

    def _outer(self, graph: GraphView, value: int) -> tuple[GraphView, int] | None:
        """The value of the same name in a graph around, for one that nothing here makes."""
        holder = self._holders.get(id(graph))
        if holder is None or graph.producers[value] >= 0 or value in graph.inputs or value in graph.initializers:
            return None
        name = graph.values[value]
        while holder is not None:
            found = self._ids_of(holder.graph).get(name)
            if found is not None:
                return holder.graph, found
            holder = self._holders.get(id(holder.graph))
        return None

    def _ids_of(self, graph: GraphView) -> dict[str, int]:
        if id(graph) not in self._ids:
            self._ids[id(graph)] = {name: value for value, name in enumerate(graph.values)}
        return self._ids[id(graph)]

    def _weight(self, graph: GraphView, value: int) -> WeightView | None:
        stored = graph.initializers.get(value)
        if isinstance(stored, WeightView):
            return stored
        maker = graph.producers[value]
        if maker >= 0:
            if graph.ops[maker] in ("Identity", "Cast") and graph.reads[maker]:
                return self._weight(graph, graph.reads[maker][0]) if graph.ops[maker] == "Identity" else None
            found = _attribute(graph.attributes[maker], "value") if graph.ops[maker] == "Constant" else None
            return found.value if found is not None and isinstance(found.value, WeightView) else None
        outer = self._outer(graph, value)
        return self._weight(*outer) if outer is not None else None


def _at(row: tuple[int, ...], slot: int) -> int:
    return row[slot] if slot < len(row) else 0


def _attribute(row: tuple[AttributeView, ...], name: str) -> AttributeView | None:
    return next((each for each in row if each.name == name), None)
