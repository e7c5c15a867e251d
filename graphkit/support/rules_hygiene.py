"""What makes a model harder to read, larger or slower than it has to be."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator

from graphkit.support.rule import EVERY, Hit, Rule
from graphkit.support.scene import Scene

_NAMED = 5
"""Names that are listed of many."""


def _unused(scene: Scene) -> Iterator[Hit]:
    for graph in scene.view.graphs():
        used = {v for reads in graph.reads for v in reads} | set(graph.outputs)
        captured: set[str] | None = None
        for value, weight in graph.initializers.items():
            if value in used:
                continue
            if captured is None:
                captured = {name for node in graph.nodes if graph.attributes[node.index] for name in node.captures}
            name = graph.values[value]
            if name not in captured:
                yield Hit(f"weight `{name}` ({weight.dtype}, {list(weight.dims)}) is read by no node", value=name)


def _same_names(scene: Scene) -> Iterator[Hit]:
    names = Counter(place.graph.names[place.index] for place in scene.places)
    twice = {name: count for name, count in names.items() if name and count > 1}
    if twice:
        first = next(p for p in scene.places if p.graph.names[p.index] in twice)
        listed = ", ".join(f"`{name}`" for name in list(twice)[:_NAMED])
        more = f" and {len(twice) - _NAMED} more" if len(twice) > _NAMED else ""
        yield Hit(f"several nodes share a name: {listed}{more}", first)


def _no_names(scene: Scene) -> Iterator[Hit]:
    nameless = [place for place in scene.places if not place.graph.names[place.index]]
    if nameless:
        yield Hit(f"{len(nameless)} of {len(scene.places)} nodes have no name", nameless[0])


def _unused_nodes(scene: Scene) -> Iterator[Hit]:
    """Nodes of the main graph that no output depends on."""
    graph = scene.graph
    ids = {name: value for value, name in enumerate(graph.values)}
    live = [False] * len(graph)
    pending = list(graph.outputs)
    while pending:
        node = graph.producers[pending.pop()]
        if node >= 0 and not live[node]:
            live[node] = True
            pending.extend(graph.reads[node])
            if graph.attributes[node]:
                pending.extend(ids[name] for name in graph.node(node).captures if name in ids)
    dead = [place for place in scene.places if place.graph is graph and not live[place.index]]
    if dead:
        yield Hit(
            "reaches no output" if len(dead) == 1 else f"{len(dead)} nodes reach no output, this one first", dead[0]
        )


RULES = (
    Rule(
        "GKC331",
        "a weight that nothing reads",
        "warning",
        EVERY,
        "It makes the file larger, and loads for nothing.",
        "graphkit convert writes the model without it",
        _unused,
    ),
    Rule(
        "GKC332",
        "nodes of the same name",
        "warning",
        EVERY,
        "Errors of TensorRT, profiles and calibration tables go by a node's name.",
        "export the model again, or give each node a name of its own",
        _same_names,
    ),
    Rule(
        "GKC333",
        "nodes without a name",
        "note",
        EVERY,
        "ONNX allows it; an error of a library can then say only what the node makes.",
        "give each node a name",
        _no_names,
    ),
    Rule(
        "GKC334",
        "nodes that reach no output",
        "note",
        EVERY,
        "What they compute is thrown away. Libraries leave them out when they build, but parse them before.",
        "graphkit convert writes the model without them",
        _unused_nodes,
    ),
)
