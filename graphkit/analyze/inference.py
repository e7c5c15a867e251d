"""Shapes of every value of a graph: by the rules of the operators, and where they have none, as the file states them.

A size stays unknown where neither says it. Nothing is executed and no library is imported. Nodes of the same operator
with the same attributes and types are looked at once: a graph of 20,000 nodes has a few dozen of them.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, NamedTuple

from graphkit.analyze import known_values, shape_bodies, shape_rules
from graphkit.analyze.naming import Names
from graphkit.analyze.polynomial import Size, substitute, symbol, symbols_in
from graphkit.analyze.tensors import UNKNOWN, Shape, Tensor, stated
from graphkit.errors import CorruptFile
from graphkit.view import AttributeView, FunctionView, GraphView, ModelView, TypeView
from graphkit.view.order import topological

MOST_NOTES = 20


class Known(NamedTuple):
    """What a graph is given from outside: a type, and the elements where they are known."""

    tensor: Tensor = UNKNOWN
    ints: tuple[Size, ...] | None = None


@dataclass(slots=True)
class Shared:
    """What the tables of one model share.

    Attributes:
        view: The model.
        dims: Sizes that names of dimensions are given.
        free: Names in the inputs' shapes that are given none.
        naming: Gives names to sizes of the main graph that nobody knows.
        notes: Where the file contradicts itself.
    """

    view: ModelView
    dims: Mapping[str, Size]
    free: frozenset[str] = frozenset()
    naming: Names | None = None
    functions: dict[tuple[str, str, str], FunctionView] = field(default_factory=dict)
    calling: list[tuple[str, str, str]] = field(default_factory=list)
    bodies: dict[Any, Table] = field(default_factory=dict)
    types: dict[int, Tensor] = field(default_factory=dict)
    tensors: dict[Tensor, Tensor] = field(default_factory=dict)
    rows: dict[Any, tuple[tuple[Tensor, ...], int]] = field(default_factory=dict)
    notes: list[str] = field(default_factory=list)

    def one(self, tensor: Tensor) -> Tensor:
        """The one object for equal types, so that they can be told apart by identity."""
        return self.tensors.setdefault(tensor, tensor)

    def of_type(self, type_: TypeView) -> Tensor:
        found = self.types.get(id(type_))
        if found is None:
            said = stated(type_)
            if said.shape is not None and self.dims:
                shape = tuple(None if size is None else substitute(size, self.dims) for size in said.shape)
                said = Tensor(shape, said.dtype)
            found = self.types[id(type_)] = self.one(said)
        return found


class Table:
    """Types of the values of one graph.

    Attributes:
        graph: The graph.
        tensors: By id of the value.
        order: The nodes in an order in which they can run.
        constant: By id of the value, whether it is the same in every run.
        operators: Those that occur.
        kinds: By node, a number that nodes share only if operator, attributes and all types are the same; else -1.
        bodies: By node, tables of the graphs among its attributes, by their names, and of the function that it calls,
            under "".
    """

    def __init__(self, shared: Shared, graph: GraphView, opsets: Mapping[str, int]) -> None:
        self.shared = shared
        self.graph = graph
        self.opsets = opsets
        self.order: Sequence[int] = topological(graph)
        self.tensors: list[Tensor] = [UNKNOWN] * len(graph.values)
        self.constant = bytearray(len(graph.values))
        self.kinds = [-1] * len(graph)
        self.operators = frozenset(graph.ops)
        self.bodies: dict[int, tuple[tuple[str, Table], ...]] = {}
        self.outer: Mapping[str, Known] = {}
        self.attributes: Mapping[str, AttributeView] = {}
        self._ints: dict[int, tuple[Size, ...] | None] = {}
        self._with_graphs = frozenset(graph.with_graphs())

    def ints(self, value: int, depth: int = 0) -> tuple[Size, ...] | None:
        """The elements of a small integer tensor, as far as they are known."""
        if value not in self._ints:
            self._ints[value] = None  # while it is looked for
            self._ints[value] = known_values.find(self, value, depth)
        return self._ints[value]

    def fill(self, given: Sequence[Known], outer: Mapping[str, Known]) -> Table:
        """Find the types. `given` are those of the inputs, as far as they are known; `outer` what is around, by name.

        Raises:
            CorruptFile: functions call one another without end.
        """
        graph, tensors, shared = self.graph, self.tensors, self.shared
        self.outer = outer
        for value, type_ in graph.types.items():
            tensors[value] = shared.of_type(type_)
        for value, known in zip(graph.inputs, given, strict=False):
            tensors[value] = self._settled(value, known.tensor)
            if known.ints is not None:
                self._ints[value] = known.ints
        for value, weight in graph.initializers.items():
            tensors[value] = shared.one(Tensor(tuple(weight.dims), weight.dtype))
            self.constant[value] = 1
        for value, producer in enumerate(graph.producers) if outer else ():
            if producer < 0 and graph.values[value] in outer:
                tensors[value], self._ints[value] = outer[graph.values[value]].tensor, outer[graph.values[value]].ints
        for index in self.order:
            self._node(index)
        return self

    def _node(self, index: int) -> None:
        graph, tensors, constant, shared = self.graph, self.tensors, self.constant, self.shared
        op, domain, reads, makes = graph.ops[index], graph.domains[index], graph.reads[index], graph.makes[index]
        row = graph.attributes[index]
        function = shared.functions and shared.functions.get((domain, op, graph.overloads.get(index, "")))
        bodies = index in self._with_graphs
        kind = -1
        if function:
            found = self._call(index, function)
        elif bodies:
            found = self._with_bodies(index)
        elif op in shape_rules.BY_VALUE or self.attributes:
            found = shape_rules.outputs(self, index)
        else:
            attributes = [id(a) for a in row] if row else ()
            key = (op, domain, *attributes, None, *[id(tensors[v]) for v in reads], len(makes))
            known = shared.rows.get(key)
            if known is None:
                known = tuple(map(shared.one, shape_rules.outputs(self, index))), len(shared.rows)
                shared.rows[key] = known
            found, kind = known
        fixed = not bodies and op not in _RANDOM
        naming = shared.naming if graph is shared.view.graph else None  # a body runs often, each time with other sizes
        for value in reads:
            if value and not constant[value]:
                fixed = False
                break
        for slot, value in enumerate(makes):
            if not value:
                continue
            inferred = found[slot] if slot < len(found) else UNKNOWN
            said = tensors[value]
            if naming is not None:
                inferred, kind = shared.one(naming.derived(self, index, value, inferred)), -1
            if inferred is not said:
                tensors[value] = settled = inferred if said is UNKNOWN else self._settled(value, inferred)
                if settled is not inferred:
                    kind = -1
            if naming is not None:
                tensors[value] = shared.one(naming.all(self, value, tensors[value]))
            constant[value] = fixed
        self.kinds[index] = kind

    def _settled(self, value: int, inferred: Tensor) -> Tensor:
        """A value's type by inference, and where that does not know, by the file."""
        said = self.tensors[value]
        if inferred is said or said is UNKNOWN:
            return inferred
        if inferred.shape is None or said.shape is None:
            shape = said.shape if inferred.shape is None else inferred.shape
        elif len(inferred.shape) != len(said.shape):
            shape = inferred.shape
            self._note(value, said.shape, inferred.shape)
        else:
            shape = tuple(map(self._chosen, inferred.shape, said.shape))
            if any(_differ(a, b) for a, b in zip(inferred.shape, said.shape, strict=True)):
                self._note(value, said.shape, inferred.shape)
        return self.shared.one(Tensor(shape, inferred.dtype or said.dtype))

    def _chosen(self, inferred: Size | None, said: Size | None) -> Size | None:
        if inferred is None or said is None:
            return said if inferred is None else inferred
        if isinstance(inferred, int) or self.shared.free.issuperset(symbols_in(inferred)):
            return inferred
        if self.shared.naming is not None and not self.shared.free.issuperset(symbols_in(said)):
            return inferred  # a name of somebody's shape inference, which starts anew at every node
        return said

    def _note(self, value: int, said: Shape, inferred: Shape) -> None:
        if len(self.shared.notes) < MOST_NOTES:
            name = self.graph.values[value]
            self.shared.notes.append(
                f"the file says that `{name}` is {show(said)}, but its operator makes {show(inferred)}, which was taken"
            )

    def _captured(self, index: int) -> dict[str, Known]:
        around = dict(self.outer)
        wanted = set(self.graph.node(index).captures)
        for value, name in enumerate(self.graph.values):
            if value and name in wanted:
                around[name] = Known(self.tensors[value], self.ints(value))
        return around

    def _with_bodies(self, index: int) -> tuple[Tensor, ...]:
        around = self._captured(index)
        given = shape_bodies.body_inputs(self, index)
        tables = [
            (name, Table(self.shared, graph, self.opsets).fill(given, around))
            for name, graph in self.graph.subgraphs(index)
        ]
        self.bodies[index] = tuple(tables)
        return shape_bodies.body_outputs(self, index, tables)

    def _call(self, index: int, function: FunctionView) -> tuple[Tensor, ...]:
        """Look at a function's body with the types of this call; calls that are alike are looked at once."""
        shared, graph = self.shared, self.graph
        if function.key in shared.calling:
            raise CorruptFile(f"the function {function.domain}:{function.name} calls itself", remedy="export it again")
        given = [Known(self.tensors[v], self.ints(v)) if v else Known() for v in graph.reads[index]]
        attributes = {a.name: a for a in (*function.defaults, *graph.attributes[index])}
        key = (function.key, tuple(given), tuple((n, id(a)) for n, a in attributes.items()))
        table = shared.bodies.get(key)
        if table is None:
            table = shared.bodies[key] = Table(shared, function.body, function.opsets)
            table.attributes = attributes
            shared.calling.append(function.key)
            table.fill(given, {})
            shared.calling.pop()
        self.bodies[index] = (("", table),)
        return tuple(table.tensors[v] for v in function.body.outputs)


_RANDOM = frozenset(
    ("RandomNormal", "RandomUniform", "RandomNormalLike", "RandomUniformLike", "Multinomial", "Bernoulli")
)


def infer(view: ModelView, dims: Mapping[str, Size] | None = None, *, naming: bool = False) -> Table:
    """The table of a model's main graph.

    Args:
        view: The model.
        dims: Sizes for names of dimensions, wherever they stand.
        naming: Give each size of the main graph that is not known a name of its own (value and axis).

    Raises:
        CorruptFile: the graph has a cycle, or functions call one another without end.
    """
    shared = Shared(
        view,
        dims or {},
        naming=Names() if naming else None,
        functions={function.key: function for function in view.functions},
    )
    graph = view.graph
    fed = [value for value in graph.inputs if value not in graph.initializers]
    given: dict[int, Known] = {}
    for value in fed:
        tensor = shared.of_type(graph.types[value]) if value in graph.types else UNKNOWN
        if tensor.shape is not None:
            named = (
                size if size is not None else _named(graph, value, at, shared) for at, size in enumerate(tensor.shape)
            )
            tensor = shared.one(Tensor(tuple(named), tensor.dtype))
        given[value] = Known(tensor)
    shared.free = frozenset(
        name
        for known in given.values()
        for size in known.tensor.shape or ()
        if size is not None
        for name in symbols_in(size)
    )
    return Table(shared, graph, view.opsets).fill([given.get(value, Known()) for value in graph.inputs], {})


def _named(graph: GraphView, value: int, axis: int, shared: Shared) -> Size:
    """A name for a size that has none, so that it can be counted with and set: input and axis."""
    name = f"{graph.values[value]}.{axis}"
    return shared.dims.get(name, symbol(name))


def show(shape: Shape | None) -> str:
    """A shape as text: `[batch, 3, ?]`."""
    return "?" if shape is None else f"[{', '.join('?' if size is None else str(size) for size in shape)}]"


def _differ(inferred: Size | None, said: Size | None) -> bool:
    """Whether they cannot both be right: a number against another, or against what follows from the inputs."""
    if inferred is None or said is None or inferred == said:
        return False
    return isinstance(said, int)
