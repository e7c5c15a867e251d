"""Layers that are tried together: those of one module of the user's model, else neighbours in the graph."""

from __future__ import annotations

import re
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

from graphkit.model import provenance
from graphkit.precision.quant_result import layer_flops
from graphkit.precision.quant_select import name_of

if TYPE_CHECKING:
    from graphkit.model import Model

MOST = 16
"""Groups: each costs a run of the model."""


@dataclass(frozen=True, slots=True)
class Layer:
    """A node that can be lowered.

    Attributes:
        name: Of the node.
        path: Path of the module that it comes from, else the parts of its name: `encoder`, `layer`, `0`.
        flops: FLOPs of one run; 1 where those of any layer are unknown.
    """

    name: str
    path: tuple[str, ...]
    flops: float = 1.0


@dataclass(frozen=True, slots=True)
class Group:
    """Layers that are lowered or kept together.

    Attributes:
        name: The path that they share, or the first and last of them.
        order: Their names, in the graph's order.
        flops: Of all of them.
    """

    name: str
    order: tuple[str, ...]
    flops: float

    @property
    def names(self) -> frozenset[str]:
        return frozenset(self.order)


def layers_of(model: Model, names: Iterable[str]) -> list[Layer]:
    """The named nodes of the main graph, in its order, with their modules and FLOPs."""
    wanted = set(names)
    flops = layer_flops(model)
    known = bool(flops) and wanted <= set(flops)
    found = []
    for node in model.ir.graph:
        name = name_of(node)
        if name in wanted:
            lines = provenance(node)
            module = next((line.module for line in lines if line.module), "")
            path = tuple(part for part in re.split(r"[/.]+", module or name) if part)
            found.append(Layer(name, path, flops[name] if known else 1.0))
    return found


def grouped(layers: Sequence[Layer], most: int = MOST) -> list[Group]:
    """At most `most` groups, in the graph's order: modules, split further where one holds the largest share of FLOPs;
    neighbours where paths tell nothing, or too much."""
    parts: list[tuple[tuple[str, ...], list[Layer]]] = [((), list(layers))]
    while True:
        best = None
        for at, (prefix, members) in sorted(enumerate(parts), key=lambda p: -sum(m.flops for m in p[1][1])):
            split = _split(prefix, members)
            if len(split) > 1 and len(parts) - 1 + len(split) <= most:
                best = at, split
                break
        if best is None:
            break
        parts[best[0] : best[0] + 1] = best[1]
    largest = max(range(len(parts)), key=lambda at: sum(m.flops for m in parts[at][1]))
    room, members = most - len(parts) + 1, parts[largest][1]
    if room > 1 and len(members) > 1:  # it has more parts than there is room for
        parts[largest : largest + 1] = _runs(members, room)
    return [_group(prefix, members) for prefix, members in parts]


def _split(prefix: tuple[str, ...], members: Sequence[Layer]) -> list[tuple[tuple[str, ...], list[Layer]]]:
    """The members by the next part of their paths where they differ; one part where they do not."""
    depth = len(prefix)
    shortest = min(len(m.path) for m in members)
    while depth < shortest and len({m.path[depth] for m in members}) == 1:
        depth += 1
    found: dict[tuple[str, ...], list[Layer]] = {}
    for member in members:
        found.setdefault(member.path[: depth + 1], []).append(member)
    return list(found.items())


def _runs(layers: Sequence[Layer], most: int) -> list[tuple[tuple[str, ...], list[Layer]]]:
    size = -(-len(layers) // most)
    return [((), list(layers[at : at + size])) for at in range(0, len(layers), size)]


def _group(prefix: tuple[str, ...], members: Sequence[Layer]) -> Group:
    order = tuple(m.name for m in members)
    named = ".".join(prefix) or (order[0] if len(order) == 1 else f"{order[0]} to {order[-1]}")
    return Group(named, order, sum(m.flops for m in members))
