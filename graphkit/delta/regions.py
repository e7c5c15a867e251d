"""What tells the places of one graph apart: how deep a node lies, and whether it only works out shapes."""

from __future__ import annotations

from collections.abc import Sequence

from graphkit.delta.canonical import Canon

_SHAPES = frozenset(("Shape", "Size"))


def arithmetic(graph: Canon) -> bytearray:
    """For each node whether all that it reads are shapes and constants: many blocks may share what it makes."""
    found = bytearray(len(graph))
    for node in graph.order:
        if graph.op(node) in _SHAPES and not graph.graph.domains[graph.nodes[node]]:
            found[node] = 1
            continue
        made = [graph.producers[value] for value in graph.reads[node] if value and value not in graph.weights]
        found[node] = all(producer >= 0 and found[producer] for producer in made)
    return found


def spans(graph: Canon, partners: Sequence[int]) -> list[tuple[int, int]]:
    """For each node how many matched nodes are on the longest path to it, and on the longest one from it."""
    above, below = [0] * len(graph), [0] * len(graph)
    for node in graph.order:
        made = {graph.producers[value] for value in graph.reads[node]} - {-1}
        above[node] = max((above[producer] + (partners[producer] >= 0) for producer in made), default=0)
    for node in reversed(graph.order):
        step = below[node] + (partners[node] >= 0)
        for value in graph.reads[node]:
            producer = graph.producers[value]
            if producer >= 0 and below[producer] < step:
                below[producer] = step
    return list(zip(above, below, strict=True))
