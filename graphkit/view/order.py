"""An order in which the nodes of a graph can run, whatever order the file has them in."""

from __future__ import annotations

from collections.abc import Sequence

from graphkit.errors import CorruptFile
from graphkit.view.views import GraphView


def topological(graph: GraphView) -> Sequence[int]:
    """Indices of all nodes, each after those that make what it, or a graph inside it, reads; the file's own order
    where that will do, as ONNX demands. Linear (Kahn 1962).

    Raises:
        CorruptFile: the graph has a cycle; a node of it is named.
    """
    needs = _needs(graph)
    if all(need < index for index, row in enumerate(needs) for need in row):
        return range(len(graph))
    waiting = [len(row) for row in needs]
    users: list[list[int]] = [[] for _ in needs]
    for index, row in enumerate(needs):
        for need in row:
            users[need].append(index)
    order = [index for index, count in enumerate(waiting) if not count]
    for index in order:  # grows while it is walked
        for user in users[index]:
            waiting[user] -= 1
            if not waiting[user]:
                order.append(user)
    if len(order) < len(needs):
        stuck = next(index for index, count in enumerate(waiting) if count)
        raise CorruptFile(
            "the graph has a cycle: it cannot be run",
            where=f"node {stuck} `{graph.names[stuck]}` ({graph.ops[stuck]})",
            remedy="export the model again",
        )
    return order


def _needs(graph: GraphView) -> list[list[int]]:
    """For each node, the nodes that make what it reads."""
    producers = graph.producers
    needs = [[p for value in reads if (p := producers[value]) >= 0] for reads in graph.reads]
    ids: dict[str, int] | None = None
    for index in graph.with_graphs():
        ids = ids if ids is not None else {name: value for value, name in enumerate(graph.values)}
        captured = (ids[name] for name in graph.node(index).captures if name in ids)
        needs[index].extend(p for value in captured if (p := producers[value]) >= 0)
    return needs
