"""What differs between two nodes that are the same: operator, attributes, constants, weights, and what they read."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, field
from itertools import zip_longest
from typing import Any

from graphkit.delta.canonical import Canon
from graphkit.delta.labels import Labels, Weight, is_parameter
from graphkit.delta.pairing import Pairing
from graphkit.delta.result import NodeChange, Rewire
from graphkit.view import ABSENT, WeightView

_SHOWN = 16
"""Constants of at most this many elements are shown with their values."""


@dataclass(slots=True)
class Changes:
    """What was found, and the weights still to be looked at.

    Attributes:
        nodes, rewires: Changes of nodes, and of what they read.
        weights: Weights in the same slot that differ, each pair once, with node and slot in `a`.
        quantised: Weights of `a` or `b` in whose place stands a DequantizeLinear: side of the plain one, the weight,
            the DequantizeLinear, node and slot in `a`.
        equal: Number of weights that are the same.
    """

    nodes: list[NodeChange] = field(default_factory=list)
    rewires: list[Rewire] = field(default_factory=list)
    weights: list[tuple[Weight, Weight, int, int]] = field(default_factory=list)
    quantised: list[tuple[int, Weight, int, int, int]] = field(default_factory=list)
    equal: int = 0


def changes(pairing: Pairing, labels: Labels, outputs: list[tuple[int, int]]) -> Changes:
    """The changes of all pairs, in the order of data flow.

    Args:
        pairing: The pairs.
        labels: Numbers for operators and weights.
        outputs: Positions of the graphs' outputs that are the same.
    """
    comparison = _Comparison(pairing, labels)
    for i in pairing.lines[0]:
        if pairing.to_b[i] >= 0:
            comparison.pair(i, pairing.to_b[i])
    for i, j in outputs:
        comparison.slot(-1, -1, i, pairing.a.outputs[i], pairing.b.outputs[j], [])
    comparison.found.equal = len(comparison.same)
    return comparison.found


class _Comparison:
    def __init__(self, pairing: Pairing, labels: Labels) -> None:
        self.pairing = pairing
        self.labels = labels
        self.found = Changes()
        self.seen: set[tuple[int, int]] = set()
        self.same: dict[int, Weight] = {}
        self.coupled = set(pairing.values.values())

    def pair(self, i: int, j: int) -> None:
        a, b = self.pairing.a, self.pairing.b
        details: list[tuple[str, str | None, str | None]] = []
        if a.operators[1][i] != b.operators[1][j]:
            details.extend(self._operator(i, j))
        made, made_b = sum(map(bool, a.makes[i])), sum(map(bool, b.makes[j]))
        if made != made_b:
            details.append(("outputs", str(made), str(made_b)))
        mine, others = a.reads[i][: a.own[i]], b.reads[j][: b.own[j]]
        slots: Iterable[tuple[int, int, int]]
        if a.commutative[i] and b.commutative[j]:
            slots = self._unordered(mine, others)
        else:
            both = zip_longest(mine, others, fillvalue=ABSENT)
            slots = ((slot, value, other) for slot, (value, other) in enumerate(both))
        for slot, value, other in slots:
            self.slot(i, j, slot, value, other, details)
        if details:
            self.found.nodes.append(NodeChange(a.nodes[i], b.nodes[j], tuple(details)))

    def slot(
        self, i: int, j: int, slot: int, value: int, other: int, details: list[tuple[str, str | None, str | None]]
    ) -> None:
        """Compare what two nodes, or two outputs of the graph, read."""
        a, b = self.pairing.a, self.pairing.b
        weight, weight_b = a.weights.get(value), b.weights.get(other)
        if weight is None and weight_b is None and self.pairing.partner(value) == other:
            return
        if weight is not None and weight_b is not None:
            if self.labels.content(weight, False) == self.labels.content(weight_b, False):
                if not is_parameter(weight):
                    self.same[id(weight)] = weight
            elif i >= 0 and _is_constant(weight, weight_b, a.op(i)):
                details.append((f"input {slot}", constant_text(weight), constant_text(weight_b)))
            elif (id(weight), id(weight_b)) not in self.seen:
                self.seen.add((id(weight), id(weight_b)))
                self.found.weights.append((weight, weight_b, a.nodes[i] if i >= 0 else -1, slot))
            return
        if i >= 0 and ((value == ABSENT and weight_b is not None) or (other == ABSENT and weight is not None)):
            details.append((f"input {slot}", _brief(weight), _brief(weight_b)))
            return
        if self._is_explained(i, slot, value, other, weight, weight_b):
            return
        nodes = (a.nodes[i], b.nodes[j]) if i >= 0 else (-1, -1)
        self.found.rewires.append(Rewire(*nodes, slot, value_text(a, value), value_text(b, other)))

    def _operator(self, i: int, j: int) -> list[tuple[str, str | None, str | None]]:
        a, b = self.pairing.a, self.pairing.b
        names = [_operator_name(graph, node) for graph, node in ((a, i), (b, j))]
        before = self.labels.attributes(a.view, a.opsets, a.graph, a.nodes[i])
        after = self.labels.attributes(b.view, b.opsets, b.graph, b.nodes[j])
        found: list[tuple[str, str | None, str | None]] = []
        if names[0] != names[1]:
            found.append(("op", names[0], names[1]))
        for name in sorted(before.keys() | after.keys()):
            if before.get(name) != after.get(name):
                found.append((name, attribute_text(a, i, name), attribute_text(b, j, name)))
        return found

    def _unordered(self, mine: tuple[int, ...], others: tuple[int, ...]) -> list[tuple[int, int, int]]:
        """Slots of operands that may be swapped: those that agree are taken out first."""
        if len(mine) == len(others) and all(
            self._key(value, False) == self._key(other, True) for value, other in zip(mine, others, strict=True)
        ):
            return list(zip(range(len(mine)), mine, others, strict=True))
        free: dict[tuple[str, object], list[int]] = {}
        for place in reversed(range(len(others))):
            free.setdefault(self._key(others[place], True), []).append(place)
        slots, left = [], []
        for slot, value in enumerate(mine):
            same = free.get(self._key(value, False))
            if same:
                slots.append((slot, value, others[same.pop()]))
            else:
                left.append((slot, value))
        # Weights with weights, and values with values, where something is left; both sides in the order of their slots.
        left.sort(key=lambda item: (item[1] in self.pairing.a.weights, item[0]))
        places = [place for same in free.values() for place in same]
        places.sort(key=lambda place: (others[place] in self.pairing.b.weights, place))
        new = [others[place] for place in places] + [ABSENT] * (len(left) - len(places))
        slots.extend((slot, value, other) for (slot, value), other in zip(left, new, strict=False))
        slots.extend((len(mine), ABSENT, other) for other in new[len(left) :])
        return slots

    def _key(self, value: int, of_b: bool) -> tuple[str, object]:
        """Equal for values that are the same on both sides."""
        weight = (self.pairing.b if of_b else self.pairing.a).weights.get(value)
        if weight is not None:
            return "weight", self.labels.content(weight, False)
        return "value", value if of_b else self.pairing.partner(value)

    def _is_explained(
        self, i: int, slot: int, value: int, other: int, weight: Weight | None, weight_b: Weight | None
    ) -> bool:
        """Whether a node that was removed or added, or a port, already says why something else is read."""
        a, b = self.pairing.a, self.pairing.b
        made, made_b = a.producers[value], b.producers[other]
        gone = made >= 0 and self.pairing.to_b[made] < 0
        new = made_b >= 0 and self.pairing.to_a[made_b] < 0
        node = a.nodes[i] if i >= 0 else -1
        if weight is not None and new and b.op(made_b) == "DequantizeLinear":
            self.found.quantised.append((0, weight, made_b, node, slot))
        if weight_b is not None and gone and a.op(made) == "DequantizeLinear":
            self.found.quantised.append((1, weight_b, made, node, slot))
        if gone or new:
            return True
        lost = value and made < 0 and weight is None and value not in self.pairing.values
        return bool(lost or (other and made_b < 0 and weight_b is None and other not in self.coupled))


def value_text(graph: Canon, value: int) -> str:
    """What a value is, for people: names may mean nothing on the other side, so operators are said too."""
    if value == ABSENT:
        return "nothing"
    weight = graph.weights.get(value)
    if weight is not None:
        return constant_text(weight)
    name = graph.graph.values[value]
    made = graph.producers[value]
    return f"`{name}` of {graph.op(made)}" if made >= 0 else f"`{name}`"


def constant_text(weight: Weight, *, values: bool = True) -> str:
    """A small constant with its values, another one as dtype and shape."""
    kind = f"{weight.dtype}[{','.join(map(str, weight.dims))}]"
    if not values or not isinstance(weight, WeightView) or weight.size > _SHOWN or weight.missing:
        return kind
    return plain_text(weight.read().tolist())


def _brief(weight: Weight | None) -> str | None:
    """A weight that only one side has: whatever its size, so that equal changes fold."""
    if weight is None:
        return None
    return constant_text(weight) if is_parameter(weight) or weight.size == 1 else "a weight"


def plain_text(value: Any) -> str:
    """Numbers as they are written in ONNX's text: floats with the digits that float32 has."""
    if isinstance(value, float):
        return f"{value:.7g}"
    if isinstance(value, bytes):
        return value.decode(errors="backslashreplace")
    if isinstance(value, list | tuple):
        return "[" + ", ".join(map(plain_text, value)) + "]"
    return str(value)


def _is_constant(weight: Weight, other: Weight, op: str) -> bool:
    """Whether two weights are parameters of an operator, which are shown with their values."""
    if is_parameter(weight) or is_parameter(other):
        return True
    single = weight.size == 1 and other.size == 1 and weight.dtype == other.dtype
    return single and op not in ("QuantizeLinear", "DequantizeLinear")


def _operator_name(graph: Canon, node: int) -> str:
    domain = graph.graph.domains[graph.nodes[node]]
    return f"{domain}:{graph.op(node)}" if domain else graph.op(node)


def attribute_text(graph: Canon, node: int, name: str) -> str | None:
    """An attribute of a node as it is written in ONNX's text; None if the node does not state it."""
    attribute = graph.graph.node(graph.nodes[node]).attributes.get(name)
    if attribute is None:
        return None
    if attribute.reference is not None:
        return f"@{attribute.reference}"
    if isinstance(attribute.value, WeightView):
        return constant_text(attribute.value)
    return plain_text(attribute.value)
