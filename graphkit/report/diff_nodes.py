"""The nodes of hunks one by one, in the form of a unified diff."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

from graphkit.delta.places import place_of
from graphkit.delta.result import GraphDelta, Hunk
from graphkit.view import GraphView, WeightView


def listed(delta: GraphDelta, context: int) -> Iterator[str]:
    """A line for each node that was taken out (-) or put in (+), and for `context` steps of matched ones around."""
    a, b = delta.a, delta.b
    assert a is not None
    assert b is not None
    around = _Around(delta) if context else None
    for hunk in delta.hunks:
        yield f"@@ {_where(delta, hunk)} @@"
        before, after = around.of(hunk, context) if around is not None else ([], [])
        yield from (f"  {node_text(a, i)}" for i in before)
        yield from (f"- {node_text(a, i)}" for i in hunk.removed)
        yield from (f"+ {node_text(b, j)}" for j in hunk.added)
        yield from (f"  {node_text(a, i)}" for i in after)


def node_text(graph: GraphView, index: int) -> str:
    """`y = Conv(x, float32[8,3,3,3])` with where it comes from."""
    reads = ", ".join(_value(graph, value) for value in graph.reads[index])
    makes = ", ".join(graph.values[value] or "_" for value in graph.makes[index])
    place = place_of(graph, index)
    where = " ".join(part for part in (place.module, place.source) if part)
    return f"{makes} = {graph.ops[index]}({reads})" + (f"  # {where}" if where else "")


def _value(graph: GraphView, value: int) -> str:
    weight = graph.initializers.get(value)
    if isinstance(weight, WeightView):
        return f"{weight.dtype}[{','.join(map(str, weight.dims))}]"
    return graph.values[value] or "_"


def _where(delta: GraphDelta, hunk: Hunk) -> str:
    parts = []
    for sign, nodes in (("-", hunk.removed), ("+", hunk.added)):
        if nodes:
            parts.append(f"{sign}{nodes[0]},{len(nodes)}")
    graph, nodes = (delta.a, hunk.removed) if hunk.removed else (delta.b, hunk.added)
    module = place_of(graph, nodes[0]).module if graph is not None else ""
    return " ".join([*parts, module] if module else parts)


class _Around:
    """Finds matched nodes near a hunk."""

    def __init__(self, delta: GraphDelta) -> None:
        assert delta.a is not None
        assert delta.b is not None
        self.graphs = delta.a, delta.b
        self.users = delta.a.consumers(), delta.b.consumers()
        self.matched = dict(delta.pairs)
        self.back = {j: i for i, j in delta.pairs}

    def of(self, hunk: Hunk, steps: int) -> tuple[list[int], list[int]]:
        """Matched nodes of `a` up to `steps` edges before a hunk, and after it."""
        before = self._kept(self._above(0, hunk.removed) + self._in_a(self._above(1, hunk.added)))
        after = self._kept(self._below(0, hunk.removed) + self._in_a(self._below(1, hunk.added)))
        for _ in range(steps - 1):
            before = self._kept(before + self._above(0, before))
            after = self._kept(after + self._below(0, after))
        return sorted(set(before) - set(after)), sorted(set(after))

    def _kept(self, nodes: Sequence[int]) -> list[int]:
        return [node for node in dict.fromkeys(nodes) if node in self.matched]

    def _in_a(self, nodes: Sequence[int]) -> list[int]:
        return [self.back[node] for node in nodes if node in self.back]

    def _above(self, side: int, nodes: Sequence[int]) -> list[int]:
        graph = self.graphs[side]
        return [made for node in nodes for value in graph.reads[node] if (made := graph.producers[value]) >= 0]

    def _below(self, side: int, nodes: Sequence[int]) -> list[int]:
        graph, users = self.graphs[side], self.users[side]
        return [use for node in nodes for value in graph.makes[node] for use in users[value]]
