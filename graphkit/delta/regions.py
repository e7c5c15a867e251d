"""What tells the places of one graph apart: how far a node is from the end, and whether it only works out shapes."""

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


def heights(graph: Canon, partners: Sequence[int]) -> list[int]:
    """For each node how many matched nodes are on the longest path from it: blocks in a row differ in that.

    Towards the end, not from the start: what each block does to a mask of its own begins equally early in all of them.
    """
    found = [0] * len(graph)
    for node in reversed(graph.order):
        step = found[node] + (partners[node] >= 0)
        for value in graph.reads[node]:
            made = graph.producers[value]
            if made >= 0 and found[made] < step:
                found[made] = step
    return found
