"""One digest for a whole graph, made bottom-up from those of its values.

Value numbering as compilers do it (Cocke and Schwartz, 1970), with digests for numbers, so that two models can be
compared without having both: a value is the operator that makes it, its attributes, and the values it reads.
"""

from __future__ import annotations

import hashlib
import struct
from collections.abc import Callable, Iterator, Mapping
from typing import Any, TypeAlias

from graphkit.errors import CorruptFile
from graphkit.view import (
    ABSENT,
    AttributeView,
    FunctionView,
    GraphView,
    ModelView,
    SparseView,
    TypeView,
    WeightView,
)
from graphkit.view.order import topological

Leaf: TypeAlias = Callable[[WeightView | SparseView, bool], str]
"""What stands for a weight; the flag says that it is an attribute of its node, and no value of the graph."""

_Key: TypeAlias = tuple[str, str, str]


def digest_of(*parts: Any) -> str:
    """128 bits of blake2b, in hexadecimal, of strings, bytes, integers, None, and tuples of them."""
    return hashlib.blake2b(repr(parts).encode(), digest_size=16).hexdigest()


def number(view: ModelView, leaf: Leaf) -> str:
    """The digest of a model's graph, in which `leaf` stands for its weights. Names and order do not count.

    Linear in the nodes of the graph, its subgraphs and its functions: a function is numbered once, not at each call.

    Raises:
        CorruptFile: the graph has a cycle, a value that is made twice or not at all, or a function that calls itself.
    """
    numbering = Numbering(leaf)
    for function in called_first(view):
        numbering.functions[function.key] = numbering.function(function)
    return numbering.graph(view.graph, view.opsets, {})


class Numbering:
    """Digests of graphs, functions and attributes, in which `leaf` stands for weights.

    Attributes:
        functions: Digest of each function's body; a call of a function that is not here is a plain operator.
    """

    def __init__(self, leaf: Leaf) -> None:
        self.leaf = leaf
        self.functions: dict[_Key, str] = {}
        self.attributes: dict[int, tuple[Any, ...]] = {}  # by identity: nodes share equal attributes

    def function(self, function: FunctionView) -> str:
        body = self.graph(function.body, function.opsets, {})
        defaults = tuple(sorted(self.attribute(a, function.opsets, {}) for a in function.defaults))
        return digest_of("function", tuple(sorted(function.attributes)), defaults, body)

    def graph(self, graph: GraphView, opsets: Mapping[str, int], around: Mapping[str, str]) -> str:
        """Digest of a graph; `around` has those of the values that it reads from outside."""
        values = self._given(graph, around)
        inputs = tuple(values[v] for v in graph.inputs if v not in graph.initializers)
        found = []
        ids: dict[str, int] = {}
        for index in topological(graph):
            constant = held_by_constant(graph, index)
            if constant is not None:
                own = self.leaf(constant, False)
            else:
                scope: Mapping[str, str] = {}
                row = graph.attributes[index]
                if row and any(attribute.kind in ("GRAPH", "GRAPHS") for attribute in row):
                    ids = ids or {name: value for value, name in enumerate(graph.values)}
                    scope = {n: values[ids[n]] if n in ids else around.get(n, "") for n in graph.node(index).captures}
                own = self._node(graph, index, opsets, values, scope)
                found.append(own)
            for slot, value in enumerate(graph.makes[index]):
                if value:
                    values[value] = own if constant is not None else f"{own}.{slot}"
        return digest_of("graph", inputs, tuple(sorted(found)), tuple(values[v] for v in graph.outputs))

    def _given(self, graph: GraphView, around: Mapping[str, str]) -> list[str]:
        """Digests by value id: those of inputs, weights and values from outside; "" where a node makes the value."""
        values = [""] * len(graph.values)
        symbols: dict[str, int] = {}
        position = 0
        for value in graph.inputs:
            if value not in graph.initializers:
                values[value] = digest_of("input", position, plain_type(graph.types.get(value), symbols))
                position += 1
        for value, weight in graph.initializers.items():
            values[value] = self.leaf(weight, False)
        values[ABSENT] = ""  # a nameless input or weight, which nothing can read
        given = [bool(text) for text in values]
        _require_made_once(graph, given)
        for name in _read_directly(graph, given):
            text = around.get(graph.values[name])
            if not text:
                raise CorruptFile(f"nothing makes the value `{graph.values[name]}`, which graph `{graph.name}` reads")
            values[name] = text
        return values

    def _node(
        self, graph: GraphView, index: int, opsets: Mapping[str, int], values: list[str], scope: Mapping[str, str]
    ) -> str:
        domain, op = graph.domains[index], graph.ops[index]
        overload = graph.overloads.get(index, "")
        body = self.functions.get((domain, op, overload))
        label = ("call", body) if body else (domain, op, overload, opsets.get(domain))
        attributes = tuple(sorted(self.attribute(a, opsets, scope) for a in graph.attributes[index]))
        reads = [values[value] for value in graph.reads[index]]
        makes = [value != 0 for value in graph.makes[index]]
        for row in (reads, makes):
            while row and not row[-1]:
                row.pop()
        return digest_of(label, attributes, tuple(reads), tuple(makes))

    def attribute(
        self, attribute: AttributeView, opsets: Mapping[str, int], scope: Mapping[str, str]
    ) -> tuple[Any, ...]:
        """An attribute as plain values."""
        kind, value = attribute.kind, attribute.value
        if attribute.reference is not None:
            return attribute.name, kind, "reference", attribute.reference
        if kind == "GRAPH":
            return attribute.name, kind, self.graph(value, opsets, scope)
        if kind == "GRAPHS":
            return attribute.name, kind, tuple(self.graph(graph, opsets, scope) for graph in value)
        known = self.attributes.get(id(attribute))
        if known is None:
            known = self.attributes[id(attribute)] = (attribute.name, kind, self._plain(value))
        return known

    def _plain(self, value: Any) -> Any:
        if isinstance(value, tuple):
            return tuple(self._plain(each) for each in value)
        if isinstance(value, float):
            return struct.pack("<d", value)
        if isinstance(value, TypeView):
            return plain_type(value, {})
        if isinstance(value, WeightView | SparseView):
            return self.leaf(value, True)
        return value


def held_by_constant(graph: GraphView, index: int) -> WeightView | SparseView | None:
    """The tensor of a Constant node: the same as an initializer."""
    if graph.ops[index] != "Constant" or graph.domains[index] or len(graph.attributes[index]) != 1:
        return None
    value = graph.attributes[index][0].value
    return value if isinstance(value, WeightView | SparseView) else None


def plain_type(type_: TypeView | None, symbols: dict[str, int]) -> tuple[Any, ...] | None:
    """A type as plain values, with the names of its symbolic sizes numbered as they come."""
    if type_ is None:
        return None
    shape = None
    if type_.shape is not None:
        shape = tuple(f"#{symbols.setdefault(d, len(symbols))}" if isinstance(d, str) else d for d in type_.shape)
    return type_.kind, type_.dtype, shape, plain_type(type_.element, symbols)


def _require_made_once(graph: GraphView, given: list[bool]) -> None:
    made = given.copy()
    for makes in graph.makes:
        for value in makes:
            if value and made[value]:
                raise CorruptFile(f"the value `{graph.values[value]}` is made twice in graph `{graph.name}`")
            made[value] = True


def _read_directly(graph: GraphView, given: list[bool]) -> Iterator[int]:
    """Values that the graph's own nodes or outputs take from outside."""
    for value in dict.fromkeys(v for reads in (*graph.reads, graph.outputs) for v in reads):
        if value and graph.producers[value] < 0 and not given[value]:
            yield value


def called_first(view: ModelView) -> list[FunctionView]:
    """The functions, each after those that it calls."""
    known = {function.key: function for function in view.functions}
    done: dict[_Key, bool] = {}  # False while its calls are being followed
    order: list[FunctionView] = []
    for first in known:
        pending = [first]
        while pending:
            key = pending[-1]
            if key in done:
                pending.pop()
                if not done[key]:
                    done[key] = True
                    order.append(known[key])
                continue
            done[key] = False
            for called in _calls(known[key]):
                if called not in known:
                    continue
                if done.get(called) is False:
                    raise CorruptFile(f"the function {called[0]}:{called[1]} calls itself", remedy="export it again")
                pending.append(called)
    return order


def _calls(function: FunctionView) -> set[_Key]:
    return {
        (graph.domains[index], graph.ops[index], graph.overloads.get(index, ""))
        for graph in function.body.walk()
        for index in range(len(graph))
    }
