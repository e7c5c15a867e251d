"""Paths of nodes that match a pattern: `MatMul > Add > Gelu`.

Each step is an operator, with `*` and `?` as in file names and `|` between alternatives; `>` or `->` leads to a node
that reads an output of the one before; `**` stands for any nodes, or none.
"""

from __future__ import annotations

import fnmatch
import re
from collections.abc import Iterator
from dataclasses import dataclass
from typing import TypeAlias

from graphkit.errors import BadOption
from graphkit.view import GraphView, ModelView

MOST_MATCHES = 1000
"""Paths that are listed; there can be exponentially many."""

_MOST_STEPS = 32


@dataclass(frozen=True, slots=True)
class Match:
    """A path that matches.

    Attributes:
        graph: The graph that it is in.
        nodes: Indices of the nodes of its steps; those that `**` stands for are left out.
    """

    graph: GraphView
    nodes: tuple[int, ...]


def find(view: ModelView, pattern: str, most: int = MOST_MATCHES) -> tuple[tuple[Match, ...], bool]:
    """The paths that match, in all graphs of a model, in their order; and whether these are all.

    Raises:
        BadOption: the pattern is malformed.
    """
    steps = _steps(pattern)
    found: list[Match] = []
    for graph in view.graphs():
        search = _Search(graph, steps, most - len(found) + 1)
        found.extend(Match(graph, nodes) for nodes in search.run())
        if len(found) > most:
            return tuple(found[:most]), False
    return tuple(found), True


def _steps(pattern: str) -> list[re.Pattern[str] | None]:
    """A pattern's steps; None for `**`."""
    steps: list[re.Pattern[str] | None] = []
    for part in (part.strip() for part in re.split(r"->|>", pattern)):
        if not part or len(steps) == _MOST_STEPS or re.search(r"[^\w*?|.\[\]:\- ]", part):
            raise BadOption(
                f"{pattern!r} is no pattern of operators",
                remedy="write operators with > between: 'MatMul > Add > Gelu'",
            )
        names = [fnmatch.translate(name.strip().lower()) for name in part.split("|")]
        steps.append(None if part == "**" else re.compile("|".join(names)))
    if steps[0] is None or steps[-1] is None:
        raise BadOption(f"{pattern!r} begins or ends with **", remedy="begin and end with an operator, or *")
    return steps


_State: TypeAlias = tuple[int, int]
"""A node, and the step of the pattern that it stands for."""


@dataclass(slots=True)
class _Step:
    """Where a search stands: the nodes of the named steps so far, and whether a match was reached from here."""

    state: _State
    nodes: tuple[int, ...]
    pending: Iterator[_State]
    reached: bool = False


class _Search:
    """Depth first; where nothing was found from a node and a step on, nothing is looked for again."""

    def __init__(self, graph: GraphView, steps: list[re.Pattern[str] | None], most: int) -> None:
        self.graph = graph
        self.steps = steps
        self.most = most
        self.dead: set[_State] = set()
        self.matches: dict[tuple[str, int], bool] = {}
        consumers = graph.consumers()
        self.users = [list(dict.fromkeys(u for v in makes for u in consumers[v])) for makes in graph.makes]

    def run(self) -> list[tuple[int, ...]]:
        found: dict[tuple[int, ...], None] = {}
        for index in range(len(self.graph)):
            if len(found) < self.most and self._is(index, 0):
                self._follow(index, found)
        return list(found)

    def _is(self, index: int, step: int) -> bool:
        key = (self.graph.ops[index], step)
        if key not in self.matches:
            pattern = self.steps[step]
            self.matches[key] = pattern is None or pattern.match(key[0].lower()) is not None
        return self.matches[key]

    def _follow(self, first: int, found: dict[tuple[int, ...], None]) -> None:
        """All paths from one node; its own stack, since paths can be as long as the graph.

        A state is looked at once for each way of the named steps to it: through `**` lead exponentially many.
        """
        if len(self.steps) == 1:
            found[(first,)] = None
            return
        seen: set[tuple[tuple[int, ...], _State]] = set()
        path = [_Step((first, 0), (first,), iter(self._next(first, 0)))]
        while path and len(found) < self.most:
            here = path[-1]
            following = next(here.pending, None)
            if following is None:
                path.pop()
                if not here.reached:
                    self.dead.add(here.state)
                elif path:
                    path[-1].reached = True
                continue
            if following in self.dead:
                continue
            if following[1] == len(self.steps) - 1:
                found[(*here.nodes, following[0])] = None
                here.reached = True
            elif (here.nodes, following) in seen:
                here.reached = True  # it is not dead: it led to a match, or is being followed
            else:
                seen.add((here.nodes, following))
                nodes = here.nodes if self.steps[following[1]] is None else (*here.nodes, following[0])
                path.append(_Step(following, nodes, iter(self._next(*following))))

    def _next(self, index: int, step: int) -> list[_State]:
        """Nodes and steps that can come after this one; a node at a `**` has been passed."""
        states: list[_State] = []
        for user in self.users[index]:
            for after in (step, step + 1) if self.steps[step] is None else (step + 1,):
                if self.steps[after] is None:
                    states.append((user, after))
                    if self._is(user, after + 1):
                        states.append((user, after + 1))
                elif self._is(user, after):
                    states.append((user, after))
        return list(dict.fromkeys(states))
