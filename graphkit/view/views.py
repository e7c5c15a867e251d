"""A model as it stands in its file: names, operators, attributes, types, and where each weight lies.

Views are values: nothing in them changes after they are made. A graph keeps its nodes in columns, since an analysis of
100,000 nodes walks over one or two properties of all of them; `NodeView` and `ValueView` are windows on a row.
"""

from __future__ import annotations

from array import array
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from graphkit.errors import CorruptFile
from graphkit.view import wire
from graphkit.view.weights import SparseView, WeightView

if TYPE_CHECKING:
    from graphkit.model import SourceLine

ABSENT = 0
"""Id, in every graph, of the value that stands for an optional input or output that is left out; its name is ""."""

_SOURCE_KEY = "graphkit.source"


@dataclass(frozen=True, slots=True)
class TypeView:
    """The type of a value.

    Attributes:
        kind: `tensor`, `sparse_tensor`, `sequence`, `optional`, `map`, `opaque`, or `` if it is not stated.
        dtype: Of the elements, or of a map's keys; None if it is not stated.
        shape: Sizes, names of symbolic sizes, None for an unknown size; None where even the rank is unknown.
        element: Type of the elements of a sequence or optional, or of a map's values.
    """

    kind: str = ""
    dtype: str | None = None
    shape: tuple[int | str | None, ...] | None = None
    element: TypeView | None = None


@dataclass(frozen=True, slots=True)
class AttributeView:
    """An attribute of a node.

    Attributes:
        name: Its name.
        kind: As in ONNX: `FLOAT`, `INTS`, `GRAPH`, ...
        value: float, int, bytes, WeightView, GraphView, SparseView, TypeView, or a tuple of them; None if it has a
            `reference`.
        reference: In a function body, the attribute of the function that gives the value.
    """

    name: str
    kind: str
    value: Any
    reference: str | None = None


@dataclass(frozen=True, slots=True, eq=False)
class GraphView:
    """The main graph, a subgraph, or the body of a function: nodes and values, each with an id.

    Values are numbered from 1, within one graph; a subgraph has numbers of its own for what it reads from outside.
    Every column of nodes has the same length.

    Attributes:
        name: Its name.
        values: Name of each value, by id; `values[ABSENT]` is "".
        inputs, outputs: Ids, in order. An input that has an initializer is a default, not an input (IR version < 4).
        types: Type of each value that has one stated, by id.
        initializers: Weights of the graph, by id of the value, in the order of the file; sparse ones last.
        ops, domains, names: Operator, domain ("" for ONNX's own) and name of each node.
        reads, makes: Ids of the inputs and outputs of each node; `ABSENT` where one is left out.
        attributes: Attributes of each node, in the order of the file.
        overloads: Overload of the function that is called, for the nodes that state one.
        producers: For each value, the node that makes it; -1 for none.
        metadata: `metadata_props` of the graph.
    """

    name: str
    values: tuple[str, ...] = field(repr=False)
    inputs: tuple[int, ...]
    outputs: tuple[int, ...]
    types: Mapping[int, TypeView] = field(repr=False)
    initializers: Mapping[int, WeightView | SparseView] = field(repr=False)
    ops: tuple[str, ...] = field(repr=False)
    domains: tuple[str, ...] = field(repr=False)
    names: tuple[str, ...] = field(repr=False)
    reads: tuple[tuple[int, ...], ...] = field(repr=False)
    makes: tuple[tuple[int, ...], ...] = field(repr=False)
    attributes: tuple[tuple[AttributeView, ...], ...] = field(repr=False)
    overloads: Mapping[int, str] = field(repr=False)
    producers: array[int] = field(repr=False)
    metadata: Mapping[str, str] = field(repr=False)
    node_metadata: Mapping[int, tuple[bytes, ...]] = field(repr=False)

    def __len__(self) -> int:
        """Number of nodes, those of subgraphs not included."""
        return len(self.ops)

    @property
    def nodes(self) -> Sequence[NodeView]:
        """Every node, made anew at each call; a loop over many is faster on the columns."""
        return [NodeView(self, i) for i in range(len(self.ops))]

    def node(self, index: int) -> NodeView:
        return NodeView(self, index)

    def value(self, index: int) -> ValueView:
        return ValueView(self, index)

    def consumers(self) -> list[list[int]]:
        """For each value, the nodes that read it as an input, in order, once for each slot; computed at each call.
        What subgraphs read is in `NodeView.captures`."""
        found: list[list[int]] = [[] for _ in self.values]
        for index, reads in enumerate(self.reads):
            for value in reads:
                found[value].append(index)
        found[ABSENT] = []
        return found

    def subgraphs(self, index: int) -> Iterator[tuple[str, GraphView]]:
        """The graphs among a node's attributes, with the attribute's name."""
        for attribute in self.attributes[index]:
            if attribute.kind == "GRAPH" and attribute.value is not None:
                yield attribute.name, attribute.value
            elif attribute.kind == "GRAPHS" and attribute.value is not None:
                for graph in attribute.value:
                    yield attribute.name, graph

    def with_graphs(self) -> list[int]:
        """The nodes that have graphs among their attributes."""
        rows = enumerate(self.attributes)
        return list(dict.fromkeys([index for index, row in rows for a in row if a.kind in _GRAPHS]))

    def walk(self) -> Iterator[GraphView]:
        """This graph and every graph inside it, outer ones first."""
        pending = [self]
        while pending:
            graph = pending.pop()
            yield graph
            inner = [g for i in graph.with_graphs() for _, g in graph.subgraphs(i)]
            pending.extend(reversed(inner))

    def captured(self) -> tuple[str, ...]:
        """Names that the graph, or a graph inside it, reads and nothing in it makes: values of the graphs around."""
        inside = set(self.inputs) | set(self.initializers) | {ABSENT}
        read = dict.fromkeys(v for reads in self.reads for v in reads)
        read.update(dict.fromkeys(self.outputs))
        names = [self.values[v] for v in read if self.producers[v] < 0 and v not in inside]
        own: set[str] | None = None
        for index, row in enumerate(self.attributes):
            for name in (n for _, g in self.subgraphs(index) for n in g.captured()) if row else ():
                if own is None:
                    own = {self.values[v] for v in inside}
                    own.update(self.values[v] for makes in self.makes for v in makes)
                if name not in own:
                    names.append(name)
        return tuple(dict.fromkeys(names))

    def weights(self) -> Iterator[WeightView]:
        """Every dense tensor stored in this graph and those inside it: initializers, parts of sparse ones, and
        tensors among attributes."""
        for graph in self.walk():
            stored: list[Any] = list(graph.initializers.values())
            for attribute in (a for row in graph.attributes if row for a in row):
                if attribute.kind in _WITH_TENSORS and attribute.value is not None:
                    stored.extend(attribute.value if attribute.kind.endswith("S") else (attribute.value,))
            for weight in stored:
                if isinstance(weight, SparseView):
                    yield weight.values
                    yield weight.indices
                else:
                    yield weight


_GRAPHS = ("GRAPH", "GRAPHS")
_WITH_TENSORS = frozenset(("TENSOR", "TENSORS", "SPARSE_TENSOR", "SPARSE_TENSORS"))


@dataclass(frozen=True, slots=True)
class NodeView:
    """One node of a graph.

    Attributes:
        graph: The graph it is in.
        index: Its place in it.
    """

    graph: GraphView = field(repr=False)
    index: int

    @property
    def op(self) -> str:
        return self.graph.ops[self.index]

    @property
    def domain(self) -> str:
        return self.graph.domains[self.index]

    @property
    def overload(self) -> str:
        return self.graph.overloads.get(self.index, "")

    @property
    def name(self) -> str:
        return self.graph.names[self.index]

    @property
    def inputs(self) -> tuple[str, ...]:
        """Names of the inputs, "" where one is left out."""
        return tuple(self.graph.values[v] for v in self.graph.reads[self.index])

    @property
    def outputs(self) -> tuple[str, ...]:
        """Names of the outputs, "" where one is left out."""
        return tuple(self.graph.values[v] for v in self.graph.makes[self.index])

    @property
    def attributes(self) -> dict[str, AttributeView]:
        """By name; of two with one name, which ONNX forbids, the last."""
        return {a.name: a for a in self.graph.attributes[self.index]}

    @property
    def captures(self) -> tuple[str, ...]:
        """Names that the node's subgraphs read from outside them."""
        graphs = self.graph.subgraphs(self.index)
        return tuple(dict.fromkeys(name for _, graph in graphs for name in graph.captured()))

    @property
    def metadata(self) -> dict[str, str]:
        """`metadata_props`: exporters put module paths and stack traces there. Raises: `CorruptFile`."""
        from graphkit.view.fields import entries

        try:
            return entries(self.graph.node_metadata.get(self.index, ()))
        except (wire.WireError, IndexError) as error:
            raise CorruptFile(f"the metadata of node {self.index} is damaged: {error}", where=self.name) from error

    @property
    def provenance(self) -> tuple[SourceLine, ...]:
        """Where in the user's code the node comes from, as graphkit wrote it. Raises: `CorruptFile`."""
        text = self.metadata.get(_SOURCE_KEY)
        if not text:
            return ()
        import json

        from graphkit.model import SourceLine

        try:
            return tuple(SourceLine(*entry) for entry in json.loads(text))
        except (ValueError, TypeError, RecursionError) as error:
            raise CorruptFile(f"the source lines of node {self.index} are damaged: {error}", where=self.name) from error


@dataclass(frozen=True, slots=True)
class ValueView:
    """One value of a graph.

    Attributes:
        graph: The graph it is in.
        index: Its id.
    """

    graph: GraphView = field(repr=False)
    index: int

    @property
    def name(self) -> str:
        return self.graph.values[self.index]

    @property
    def type(self) -> TypeView | None:
        """As the file states it; None if it does not."""
        return self.graph.types.get(self.index)

    @property
    def producer(self) -> NodeView | None:
        """The node that makes it; None for an input, a weight, or a value from outside."""
        node = self.graph.producers[self.index]
        return NodeView(self.graph, node) if node >= 0 else None

    @property
    def weight(self) -> WeightView | SparseView | None:
        """The initializer of that name, if there is one."""
        return self.graph.initializers.get(self.index)


@dataclass(frozen=True, slots=True, eq=False)
class FunctionView:
    """A function of the model: an operator with a body.

    Attributes:
        domain, name, overload: What a node calls it by.
        attributes: Names of the attributes that a call has to give.
        defaults: Attributes that a call may leave out.
        opsets: Operator sets of the body, domain to version.
        body: The nodes, with the function's inputs and outputs.
    """

    domain: str
    name: str
    overload: str
    attributes: tuple[str, ...]
    defaults: tuple[AttributeView, ...]
    opsets: Mapping[str, int]
    body: GraphView

    @property
    def key(self) -> tuple[str, str, str]:
        """Domain, name and overload."""
        return self.domain, self.name, self.overload


@dataclass(frozen=True, slots=True, eq=False)
class ModelView:
    """A whole model.

    Attributes:
        name: File name, or what the model was made from.
        ir_version: Of the file format.
        opsets: Operator sets, domain to version; "" is ONNX's own.
        producer: Name and version of the program that wrote it, "" where they are not stated.
        domain, version: The model's own, as its author states them.
        graph: The main graph.
        functions: In the order of the file.
        metadata: `metadata_props`, graphkit's own entries included.
        trainings: Number of training graphs; they are not read.
    """

    name: str
    ir_version: int
    opsets: Mapping[str, int]
    producer: tuple[str, str]
    domain: str
    version: int
    graph: GraphView
    functions: tuple[FunctionView, ...]
    metadata: Mapping[str, str]
    trainings: int = 0

    def graphs(self) -> Iterator[GraphView]:
        """The main graph, the bodies of functions, and every graph inside them."""
        yield from self.graph.walk()
        for function in self.functions:
            yield from function.body.walk()

    def weights(self) -> Iterator[WeightView]:
        """Every dense tensor that the model stores, those of functions included."""
        yield from self.graph.weights()
        for function in self.functions:
            yield from function.body.weights()
            for attribute in function.defaults:
                if attribute.kind == "TENSOR" and attribute.value is not None:
                    yield attribute.value
