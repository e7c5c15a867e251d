"""A `Delta` as JSON (schema `graphkit.diff/1`), and as the mapping that Model Explorer's two panes navigate by."""

from __future__ import annotations

import math
from dataclasses import asdict
from typing import Any

from graphkit.delta.places import place_of
from graphkit.delta.result import Delta, GraphDelta, WeightChange
from graphkit.view import GraphView

SCHEMA = "graphkit.diff/1"


def to_json(delta: Delta) -> dict[str, Any]:
    """Strict JSON values; the same models give the same bytes."""
    return {
        "schema": SCHEMA,
        "a": delta.a,
        "b": delta.b,
        "same": delta.empty,
        "alignment": "approximate" if delta.approximate else "exact",
        "unread": list(delta.unread),
        "count": delta.count(),
        "facts": [asdict(fact) for fact in delta.facts],
        "signature": [asdict(port) for port in delta.signature],
        "graphs": [_graph(graph) for graph in delta.graphs],
    }


def model_explorer(delta: Delta) -> dict[str, Any]:
    """The mapping for Model Explorer's synchronised navigation, by names of nodes (`op_index` for one without a name).

    Pairs are in `mapping`; what took the place of what is in `mappingEntries`. Main graph only: Model Explorer
    has no ids for nodes of subgraphs. Source: `SyncNavigationData` of its visualizer.
    """
    graph = delta.graphs[0]
    a, b = graph.a, graph.b
    assert a is not None
    assert b is not None
    hunks = [hunk for hunk in graph.hunks if hunk.removed and hunk.added]
    return {
        "type": "sync_navigation",
        "mapping": {_id(a, i): _id(b, j) for i, j in graph.pairs},
        "mappingEntries": [
            {"leftNodeIds": [_id(a, i) for i in h.removed], "rightNodeIds": [_id(b, j) for j in h.added]} for h in hunks
        ],
        "disableMappingFallback": True,
    }


def _graph(graph: GraphDelta) -> dict[str, Any]:
    a, b = graph.a, graph.b
    replaced = [hunk for hunk in graph.hunks if hunk.removed and hunk.added]
    return {
        "path": graph.path.rstrip(" /"),
        "in": [side for side, view in (("a", a), ("b", b)) if view is not None],
        "nodes": {"a": graph.sizes[0], "b": graph.sizes[1]},
        "mapping": [
            *({"a": [i], "b": [j]} for i, j in graph.pairs),
            *({"a": list(hunk.removed), "b": list(hunk.added)} for hunk in replaced),
        ],
        "hunks": [
            {
                "removed": [_node(a, i) for i in hunk.removed],
                "added": [_node(b, j) for j in hunk.added],
                "weights": dict(hunk.weights),
            }
            for hunk in graph.hunks
        ],
        "changes": [
            {
                "a": _node(a, change.a),
                "b": _node(b, change.b),
                "details": [{"what": what, "a": before, "b": after} for what, before, after in change.details],
            }
            for change in graph.changes
        ],
        "rewires": [
            {
                "a": _node(a, rewire.a) if rewire.a >= 0 else None,
                "b": _node(b, rewire.b) if rewire.b >= 0 else None,
                "input" if rewire.a >= 0 else "output": rewire.slot,
                "before": rewire.before,
                "after": rewire.after,
            }
            for rewire in graph.rewires
        ],
        "weights": [_weight(weight) for weight in graph.weights],
        "weights_equal": graph.weights_equal,
    }


def _node(graph: GraphView | None, index: int) -> dict[str, Any]:
    assert graph is not None
    place = place_of(graph, index)
    return {
        "index": index,
        "name": graph.names[index],
        "op": graph.ops[index],
        "module": place.module or None,
        "source": place.source or None,
    }


def _weight(weight: WeightChange) -> dict[str, Any]:
    return {key: _finite(value) for key, value in asdict(weight).items()}


def _finite(value: Any) -> Any:
    return None if isinstance(value, float) and not math.isfinite(value) else value


def _id(graph: GraphView, index: int) -> str:
    return graph.names[index] or f"{graph.ops[index]}_{index}"
