"""What two graphs call the same: operators, attributes and weights of both, as numbers from one table.

Numbers are given, not hashed: equal numbers mean equal things. Operators are at least 0, what stands at the leaves
of a graph (weights, inputs, what is left out) is below 0.
"""

from __future__ import annotations

import struct
from collections.abc import Hashable, Mapping
from dataclasses import replace
from functools import cache
from typing import Any, TypeAlias

from graphkit.errors import FileMissing
from graphkit.numbering import Numbering, called_first
from graphkit.view import AttributeView, FunctionView, GraphView, ModelView, SparseView, WeightView

Weight: TypeAlias = WeightView | SparseView

NOTHING = -1
"""The leaf that stands for an input that is left out."""

COMMUTATIVE = frozenset(
    ("Add", "Mul", "Min", "Max", "And", "Or", "Xor", "Equal", "Sum", "Mean", "BitwiseAnd", "BitwiseOr", "BitwiseXor")
)
"""Operators of ONNX whose inputs may be swapped."""

_PARAMETER_BYTES = 512
"""An int64 tensor of at most this many bytes is a shape or an axis: structure, which training does not change."""

_EVIDENCE = 8
"""A weight of at most this many elements proves nothing: eps and 2.0 stand everywhere."""

_OUTER = "outer"


class Labels:
    """Numbers for the operators and weights of two models.

    Args:
        a, b: The models.
        contents: Whether values of weights count at all.
    """

    def __init__(self, a: ModelView, b: ModelView, *, contents: bool = True) -> None:
        self.contents = contents
        self.unread: dict[str, None] = {}
        """Weights whose values are not there, by name."""
        self._digests: dict[int, tuple[str, Weight]] = {}  # by identity; the weight is kept, so that no other gets it
        self._operators: dict[Hashable, int] = {}
        self._leaves: dict[Hashable, int] = {"nothing": NOTHING}
        self._rows: dict[tuple[Any, ...], tuple[int, int]] = {}
        self._varying = _varying(a, b)
        self._shared = {f.key for f in a.functions} & {f.key for f in b.functions}
        self._numberings: dict[int, tuple[Numbering, Numbering]] = {}
        for view in (a, b):
            both = (Numbering(self._structural), Numbering(self.content))
            for function in called_first(view):
                for numbering in both:
                    # Without opsets: another opset alone does not make another function.
                    numbering.functions[function.key] = numbering.function(replace(function, opsets={}))
            self._numberings[id(view)] = both

    def operator(self, view: ModelView, opsets: Mapping[str, int], graph: GraphView, index: int) -> tuple[int, int]:
        """Two numbers of a node's operator with its attributes: without the values of weights in subgraphs and
        functions, and with them."""
        row = graph.attributes[index]
        name = (graph.domains[index], graph.ops[index], graph.overloads.get(index, ""))
        known = (id(view), *name, *map(id, row)) if row else (id(view), *name)
        found = self._rows.get(known)
        if found is None:
            plain = tuple(
                self._number(
                    ("op", *self._callee(numbering, name), *self._plain(numbering, opsets, graph, index).values())
                )
                for numbering in self._numberings[id(view)]
            )
            found = plain[0], plain[1]
            if not any(attribute.kind in ("GRAPH", "GRAPHS") for attribute in row):
                self._rows[known] = found
        return found

    def attributes(
        self, view: ModelView, opsets: Mapping[str, int], graph: GraphView, index: int
    ) -> dict[str, tuple[Any, ...]]:
        """Attributes as plain values, those that only repeat a default left out; subgraphs left out too."""
        found = self._plain(self._numberings[id(view)][1], opsets, graph, index)
        return {name: value for name, value in found.items() if value[1] not in ("GRAPH", "GRAPHS")}

    def body(self, view: ModelView, body: GraphView | FunctionView, around: Mapping[str, str]) -> str:
        """Digest of a subgraph, or a function's body, with its weights; `around` stands for what it reads outside."""
        numbering = self._numberings[id(view)][1]
        if isinstance(body, FunctionView):
            return numbering.functions[body.key]
        return numbering.graph(body, {}, around)

    def weight(self, weight: Weight, *, content: bool) -> int:
        """The leaf for a weight: by its content, or by its shape and kind of number."""
        if content or (self.contents and is_parameter(weight)):
            return self.leaf(("weight", self.content(weight, False)))
        return self.leaf(("weight", _family(weight), weight.dims))

    def content(self, weight: Weight, of_attribute: bool) -> str:
        """Digest of a weight; of one whose file is missing, its dtype and shape."""
        if not self.contents and not of_attribute:
            return f"{weight.dtype} {weight.dims}"
        known = self._digests.get(id(weight))
        if known is None:
            try:
                digest = weight.digest()
            except FileMissing:
                self.unread[weight.name] = None
                digest = f"unknown {weight.dtype} {weight.dims}"
            known = self._digests[id(weight)] = digest, weight
        return known[0]

    def known(self, weight: Weight) -> bool:
        """Whether a weight's values could be read."""
        return not self.content(weight, False).startswith("unknown ")

    def leaf(self, key: Hashable) -> int:
        return self._leaves.setdefault(key, -1 - len(self._leaves))

    def _structural(self, weight: Weight, of_attribute: bool) -> str:
        if of_attribute or (self.contents and is_parameter(weight)):
            return self.content(weight, of_attribute)
        return f"{_family(weight)} {weight.dims}"

    def _callee(self, numbering: Numbering, name: tuple[str, str, str]) -> tuple[str, ...]:
        """A function that only one model has is told by its body; one of both is compared on its own."""
        body = numbering.functions.get(name) if name not in self._shared else None
        return ("call", body) if body else name

    def _number(self, key: Hashable) -> int:
        return self._operators.setdefault(key, len(self._operators))

    def _plain(
        self, numbering: Numbering, opsets: Mapping[str, int], graph: GraphView, index: int
    ) -> dict[str, tuple[Any, ...]]:
        """Attributes as plain values, by name and in its order."""
        row = graph.attributes[index]
        operator = graph.domains[index], graph.ops[index]
        lifted = LIFTED.get(operator[1], {}) if not operator[0] else {}
        inner = any(attribute.kind in ("GRAPH", "GRAPHS") for attribute in row)
        scope = dict.fromkeys(graph.node(index).captures, _OUTER) if inner else {}
        found = {a.name: numbering.attribute(a, {}, scope) for a in row if a.name not in lifted}
        if operator in self._varying:
            defaults = _defaults(*operator, opsets.get(operator[0], 0))
            for name in [n for n, plain in found.items() if plain == defaults.get(n) or _is_neutral(plain)]:
                del found[name]
        return dict(sorted(found.items()))


def _family(weight: Weight) -> str:
    return "float" if "float" in weight.dtype else weight.dtype


def is_parameter(weight: Weight) -> bool:
    return isinstance(weight, WeightView) and weight.dtype == "int64" and weight.nbytes <= _PARAMETER_BYTES


def is_evidence(weight: Weight) -> bool:
    """Whether equal values mean the same weight."""
    return weight.size > _EVIDENCE


# Attribute -> input that took its place in a later opset. Source: the changelog of ONNX's operators.
_AXES = {"axes": 1}
LIFTED: dict[str, dict[str, int]] = {
    **dict.fromkeys(("Squeeze", "Unsqueeze"), _AXES),
    **{f"Reduce{x}": _AXES for x in ("Sum", "Mean", "Max", "Min", "Prod", "L1", "L2", "LogSum", "LogSumExp")},
    "ReduceSumSquare": _AXES,
    "Split": {"split": 1},
    "Clip": {"min": 1, "max": 2},
    "Slice": {"starts": 1, "ends": 2, "axes": 3},
    "Pad": {"pads": 1, "value": 2},
    "TopK": {"k": 1},
}


def lifted_weight(attribute: AttributeView) -> WeightView | None:
    """The weight that a later opset would have in the place of an attribute."""
    from graphkit.view.sources import BytesSource

    value = attribute.value
    dims: tuple[int, ...] = ()
    if attribute.kind in ("INT", "INTS"):
        values = (value,) if attribute.kind == "INT" else value
        raw, dtype, dims = struct.pack(f"<{len(values)}q", *values), "int64", (len(values),)
    elif attribute.kind == "FLOAT":
        raw, dtype = struct.pack("<f", value), "float32"
    else:
        return None
    return WeightView(attribute.name, dtype, dims, "raw", 0, len(raw), None, BytesSource(raw))


def _varying(a: ModelView, b: ModelView) -> set[tuple[str, str]]:
    """Operators whose nodes do not all state the same attributes: only there can a default make a difference."""
    first: dict[tuple[str, str], tuple[str, ...]] = {}
    found = set()
    names: dict[tuple[int, ...], tuple[str, ...]] = {}
    for graph in (g for view in (a, b) for g in view.graphs()):
        for operator, row in zip(zip(graph.domains, graph.ops, strict=True), graph.attributes, strict=True):
            known = tuple(map(id, row))
            stated = names.get(known)
            if stated is None:
                stated = names[known] = tuple(sorted(attribute.name for attribute in row))
            if first.setdefault(operator, stated) != stated:
                found.add(operator)
    return found


@cache
def _defaults(domain: str, op: str, version: int) -> dict[str, tuple[Any, ...]]:
    """Defaults that ONNX's schema states, as plain values."""
    import onnx

    try:
        schema = onnx.defs.get_schema(op, version, domain) if version else onnx.defs.get_schema(op, domain)
    except onnx.defs.SchemaError:  # an operator of somebody else
        return {}
    numbering = Numbering(lambda weight, _: weight.digest())
    stated = []  # kept, for the numbering knows attributes by identity
    for name, attribute in schema.attributes.items():
        proto = attribute.default_value
        if not proto.name:
            continue
        value = onnx.helper.get_attribute_value(proto)
        kind = onnx.AttributeProto.AttributeType.Name(proto.type)
        stated.append(AttributeView(name, kind, tuple(value) if isinstance(value, list) else value))
    return {attribute.name: numbering.attribute(attribute, {}, {}) for attribute in stated}


def _is_neutral(plain: tuple[Any, ...]) -> bool:
    """Windows that the schema leaves without a formal default: steps of one, no padding."""
    name, _, value = plain[:3]
    if name in ("strides", "dilations"):
        return isinstance(value, tuple) and all(each == 1 for each in value)
    return name == "pads" and isinstance(value, tuple) and not any(value)
