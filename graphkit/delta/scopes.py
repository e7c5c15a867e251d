"""What subgraphs read from the graphs around them, told alike on both sides."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field

from graphkit.delta.canonical import Canon
from graphkit.delta.labels import Labels
from graphkit.delta.pairing import Pairing


@dataclass(frozen=True, slots=True)
class Scope:
    """The graphs around a subgraph.

    Attributes:
        labels: Of both models.
        pairing: Of the graphs right around it.
        outer: What the values further out are called on each side, by name.
        depth: How many graphs are around it.
    """

    labels: Labels
    pairing: Pairing
    outer: tuple[Mapping[str, str], Mapping[str, str]] = ({}, {})
    depth: int = 0
    _ids: list[dict[str, int]] = field(default_factory=list)

    def keys(self, names_a: Iterable[str], names_b: Iterable[str]) -> tuple[dict[str, str], dict[str, str]]:
        """For each name a key that is equal for partners, and for weights of equal content."""
        graphs = (self.pairing.a, self.pairing.b)
        if not self._ids:
            self._ids.extend({name: v for v, name in enumerate(g.graph.values) if v} for g in graphs)
        left, right = ({name: self._key(side, name) for name in names} for side, names in enumerate((names_a, names_b)))
        return left, right

    def _key(self, side: int, name: str) -> str:
        graph: Canon = self.pairing.b if side else self.pairing.a
        value = self._ids[side].get(name)
        if value is None:
            return self.outer[side].get(name, "")
        weight = graph.weights.get(value)
        if weight is not None:
            return f"weight {self.labels.content(weight, False)}"
        if graph.producers[value] < 0 and name in self.outer[side]:
            return self.outer[side][name]
        partner = value if side else self.pairing.partner(value)
        return f"{self.depth} b {partner}" if partner > 0 else f"{self.depth} a {value}"
