"""Which tensors two graphs have in common, and what lies between them. Top graphs only: what is computed inside the
bodies of If, Loop and Scan counts as part of their node."""

from __future__ import annotations

from collections.abc import Collection, Iterable, Iterator
from dataclasses import dataclass
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import onnx_ir as ir

    from graphkit.model import Model

BLIND = frozenset({
    "Shape", "Size", "ArgMax", "ArgMin", "Greater", "GreaterOrEqual", "Less", "LessOrEqual", "Equal", "NonZero",
    "IsNaN", "IsInf", "Sign", "Floor", "Ceil", "Round",
})  # fmt: skip
"""Operators whose output can be right where their input is wrong."""

_ABSORBING = ("Conv", "ConvTranspose", "Gemm")


@dataclass(frozen=True, slots=True)
class Nearest:
    """What a tensor is made from.

    Attributes:
        tensors: The nearest common tensors before it.
        weights: Initializers that are read on the way.
        between: Nodes on the way, its own producer left out.
    """

    tensors: tuple[str, ...]
    weights: tuple[ir.Value, ...]
    between: tuple[ir.Node, ...]


class CommonTensors:
    """Tensors that nodes of both graphs make under one name, in the candidate's topological order.

    Args:
        reference, candidate: Two models.
        seen: The only names that count, where others cannot be looked at.
    """

    def __init__(self, reference: Model, candidate: Model, seen: Collection[str] | None = None) -> None:
        theirs = {v.name: v for n in reference.ir.graph for v in n.outputs if v.name}
        self.nodes = list(candidate.ir.graph)
        self.depth = {id(n): i for i, n in enumerate(self.nodes)}
        self.makers = {v.name: n for n in self.nodes for v in n.outputs if v.name}
        self.values = {v.name: v for n in self.nodes for v in n.outputs if v.name}
        self.reference_values: dict[str, ir.Value] = {}
        for name in self.makers:
            if name in theirs and (seen is None or name in seen):
                self.reference_values[name] = _same_value(theirs[name], self.makers)
        self.names = tuple(self.reference_values)
        self.unmatched = len(self.makers) - len(self.names)
        self.inside = sum(len(n.outputs) for n in candidate.ir.graph.all_nodes()) - sum(
            len(n.outputs) for n in self.nodes
        )
        self._nearest: dict[str, Nearest] = {}

    def reference_name(self, name: str) -> str:
        """What the reference calls a common tensor."""
        return self.reference_values[name].name or ""

    def forget(self, name: str) -> None:
        """Take a tensor for one that cannot be looked at."""
        self.reference_values.pop(name, None)
        self.names = tuple(self.reference_values)
        self._nearest.clear()

    def nearest(self, name: str) -> Nearest:
        """What a tensor is made from, back to the nearest common tensors."""
        if name not in self._nearest:
            self._nearest[name] = self._find_nearest(name)
        return self._nearest[name]

    def before(self, names: Iterable[str], *, evidence: bool = False) -> set[str]:
        """The common tensors that some tensors depend on, these included.

        Args:
            evidence: Only those that would have been seen to be wrong: nothing behind a `Shape`, an integer or a
                comparison.
        """
        found: set[str] = set()
        seen: set[str] = set()
        pending = [n for n in names if not (evidence and self._blind(n))]
        while pending:
            name = pending.pop()
            if name in seen or name not in self.makers:
                continue
            seen.add(name)
            if name in self.reference_values:
                found.add(name)
            reads = (v.name for v in reads_of(self.makers[name]) if v.name)
            pending.extend(r for r in reads if r not in seen and not (evidence and self._blind(r)))
        return found

    def ordered(self, names: Collection[str]) -> list[str]:
        """Names in the candidate's order."""
        return [n for n in self.names if n in names]

    def _blind(self, name: str) -> bool:
        maker, value = self.makers.get(name), self.values.get(name)
        if maker is None or value is None:
            return True
        return maker.op_type in BLIND or (value.dtype is not None and not value.dtype.is_floating_point())

    def _find_nearest(self, name: str) -> Nearest:
        tensors: dict[str, None] = {}
        weights: dict[str, ir.Value] = {}
        between: dict[int, ir.Node] = {}
        pending = list(reads_of(self.makers[name]))
        while pending:
            value = pending.pop(0)
            maker = value.producer()
            if value.is_initializer():
                weights.setdefault(value.name or "", value)
            elif value.name in self.reference_values:
                tensors.setdefault(value.name or "")
            elif maker is not None and id(maker) not in between and id(maker) in self.depth:
                between[id(maker)] = maker
                pending.extend(reads_of(maker))
        return Nearest(tuple(tensors), tuple(weights.values()), tuple(between.values()))


def _same_value(value: ir.Value, candidate: Collection[str]) -> ir.Value:
    """The reference's value that has a candidate's name. onnxsim 0.8 gives a convolution that has absorbed a
    normalization its old name, so that it holds what the normalization made."""
    maker, users = value.producer(), [u.node for u in value.uses()]
    if maker is None or maker.op_type not in _ABSORBING or len(users) != 1:
        return value
    user = users[0]
    if user.op_type == "BatchNormalization" and user.inputs[0] is value and user.outputs[0].name not in candidate:
        return user.outputs[0]
    return value


def reads_of(node: ir.Node) -> Iterator[ir.Value]:
    """What a node reads, the bodies of If and Loop included."""
    import onnx_ir as ir

    yield from (v for v in node.inputs if v is not None)
    for attribute in node.attributes.values():
        bodies = [attribute.value] if attribute.type == ir.AttributeType.GRAPH else []
        bodies += attribute.value if attribute.type == ir.AttributeType.GRAPHS else []
        for body in bodies:
            yield from body.outputs
            for inner in body:
                yield from reads_of(inner)
