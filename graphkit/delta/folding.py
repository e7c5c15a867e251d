"""Equal hunks and equal changes told once: a rewrite of 24 blocks is one line."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass

from graphkit.delta.places import common, place_of, ranges
from graphkit.delta.result import GraphDelta, Hunk, NodeChange
from graphkit.view import GraphView

_SHOWN_NODES = 6

_BLOCK = re.compile(r"\D*\d+")
"""The start of a module path up to its first number: `model.layers.3`."""


@dataclass(frozen=True, slots=True)
class Folded:
    """Hunks that take out and put in the same operators.

    Attributes:
        hunks: All of them.
        removed, added: Operators with their number, in the order of data flow.
        where: Module paths, or nodes.
        source: Line of code that the first one comes from, "" if nothing tells.
    """

    hunks: tuple[Hunk, ...]
    removed: tuple[tuple[str, int], ...]
    added: tuple[tuple[str, int], ...]
    where: str
    source: str


@dataclass(frozen=True, slots=True)
class FoldedChange:
    """Nodes that changed alike.

    Attributes:
        op: Their operator in `a`.
        details: As in `NodeChange`.
        changes: All of them.
        where: Module paths, or nodes.
        source: Line of code that the first one comes from.
    """

    op: str
    details: tuple[tuple[str, str | None, str | None], ...]
    changes: tuple[NodeChange, ...]
    where: str
    source: str


def fold(delta: GraphDelta) -> list[Folded]:
    """The hunks of a graph, the most frequent first; of equally frequent ones, the first in the graph."""
    groups: dict[tuple[object, ...], list[Hunk]] = {}
    for hunk in delta.hunks:
        removed, added = _ops(delta.a, hunk.removed), _ops(delta.b, hunk.added)
        groups.setdefault((tuple(sorted(removed)), tuple(sorted(added)), hunk.weights), []).append(hunk)
    found = []
    partners = {j: i for i, j in delta.pairs}
    for hunks in groups.values():
        first = hunks[0]
        modules = [_module(delta, hunk, partners) for hunk in hunks]
        where = ranges(modules) if all(modules) else _nodes(delta, hunks)
        source = _source(delta.a, first.removed) or _source(delta.b, first.added)
        found.append(Folded(tuple(hunks), _ops(delta.a, first.removed), _ops(delta.b, first.added), where, source))
    return sorted(found, key=lambda folded: -len(folded.hunks))


def fold_changes(delta: GraphDelta) -> list[FoldedChange]:
    """The changed nodes of a graph, in the order of the first of each kind."""
    assert delta.a is not None
    groups: dict[tuple[object, ...], list[NodeChange]] = {}
    for change in delta.changes:
        groups.setdefault((delta.a.ops[change.a], change.details), []).append(change)
    found = []
    for changes in groups.values():
        first = changes[0]
        modules = [place_of(delta.a, change.a).module for change in changes]
        where = ranges(modules) if all(modules) else _listed("node", sorted(change.a for change in changes))
        source = place_of(delta.a, first.a).source
        found.append(FoldedChange(delta.a.ops[first.a], first.details, tuple(changes), where, source))
    return found


def _ops(graph: GraphView | None, nodes: Sequence[int]) -> tuple[tuple[str, int], ...]:
    return tuple(Counter(graph.ops[node] for node in nodes).items()) if graph is not None else ()


def _module(delta: GraphDelta, hunk: Hunk, partners: dict[int, int]) -> str:
    for graph, nodes in ((delta.a, hunk.removed), (delta.b, hunk.added)):
        modules = [place_of(graph, node).module for node in nodes] if graph is not None else []
        known = [module for module in modules if module]
        if known:
            # A hunk that reaches into the next block is told by the block that it begins in.
            block = _BLOCK.match(known[0])
            shared = common(known)
            return shared if block is None or _BLOCK.match(shared) else block[0]
    return _module_before(delta, hunk, partners)


def _module_before(delta: GraphDelta, hunk: Hunk, partners: dict[int, int]) -> str:
    """The module of what new nodes read, where they have none themselves."""
    assert delta.a is not None
    assert delta.b is not None
    reads = (value for node in hunk.added for value in delta.b.reads[node])
    nodes = (partners[made] for value in reads if (made := delta.b.producers[value]) in partners)
    return next((f"{module} (after)" for node in nodes if (module := place_of(delta.a, node).module)), "")


def _source(graph: GraphView | None, nodes: Sequence[int]) -> str:
    sources = (place_of(graph, node).source for node in nodes) if graph is not None else iter(())
    return next((source for source in sources if source), "")


def _nodes(delta: GraphDelta, hunks: Sequence[Hunk]) -> str:
    if all(hunk.removed for hunk in hunks):
        return _listed("node", sorted(hunk.removed[0] for hunk in hunks))
    return _listed("new node", sorted((hunk.added or hunk.removed)[0] for hunk in hunks))


def _listed(what: str, nodes: Sequence[int]) -> str:
    shown = ", ".join(map(str, nodes[:_SHOWN_NODES]))
    more = f" and {len(nodes) - _SHOWN_NODES} more" if len(nodes) > _SHOWN_NODES else ""
    return f"{what}{'s' if len(nodes) > 1 else ''} {shown}{more}"
