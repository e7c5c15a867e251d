"""Inputs and outputs of two models: which is which, and what changed for those who call it."""

from __future__ import annotations

from collections.abc import Collection, Sequence

from graphkit.delta.canonical import Canon
from graphkit.delta.labels import Labels
from graphkit.delta.matching import Ends
from graphkit.delta.result import PortChange
from graphkit.numbering import plain_type
from graphkit.view import GraphView, TypeView

Couples = list[tuple[int, int]]


def couple(a: Canon, b: Canon) -> tuple[Couples, Couples]:
    """Inputs and outputs of two main graphs, as pairs of values: by name, then by position and type.

    An output is a position in the list of outputs, for one value may be given out twice.
    """
    inputs = _coupled(a.graph, b.graph, a.inputs, b.inputs)
    outputs = _coupled(a.graph, b.graph, a.outputs, b.outputs)
    return [(a.inputs[i], b.inputs[j]) for i, j in inputs], outputs


def couple_by_position(a: Canon, b: Canon) -> tuple[Couples, Couples]:
    """Inputs and outputs of two subgraphs, or functions."""
    outputs = [(k, k) for k in range(min(len(a.outputs), len(b.outputs)))]
    return list(zip(a.inputs, b.inputs, strict=False)), outputs


def ends(labels: Labels, inputs: Couples, outputs: Couples, a: Canon, b: Canon) -> Ends:
    """What matching begins with: coupled inputs (or values from outside) and outputs."""
    values = dict(inputs)
    given: tuple[dict[int, int], dict[int, int]] = ({}, {})
    for count, (i, j) in enumerate(inputs):
        given[0][i] = given[1][j] = labels.leaf(("input", count))
    for side, graph in enumerate((a, b)):
        for value in (*graph.inputs, *graph.outer()):
            if value not in given[side]:
                given[side][value] = labels.leaf(("alone", side, value))
    wanted: tuple[dict[int, list[int]], dict[int, list[int]]] = ({}, {})
    for count, (i, j) in enumerate(outputs):
        wanted[0].setdefault(a.outputs[i], []).append(count)
        wanted[1].setdefault(b.outputs[j], []).append(count)
    return Ends(values, given, wanted)


def ports(a: GraphView, b: GraphView, ignore: Collection[str]) -> list[PortChange]:
    """Changes of inputs and outputs; `ignore` may hold `names` and `order`."""
    found: list[PortChange] = []
    for side in ("input", "output"):
        mine, others = _declared(a, side), _declared(b, side)
        coupled = _coupled(a, b, mine, others)
        left, right = {i for i, _ in coupled}, {j for _, j in coupled}
        found.extend(
            PortChange(side, "removed", _text(a, value), None) for i, value in enumerate(mine) if i not in left
        )
        found.extend(
            PortChange(side, "added", None, _text(b, value)) for j, value in enumerate(others) if j not in right
        )
        for i, j in coupled:
            kind = _changed(a, b, mine[i], others[j], ignore)
            if kind is None and i != j and "order" not in ignore and len(mine) == len(others):
                kind = "moved"
            if kind is not None:
                before, after = _text(a, mine[i]), _text(b, others[j])
                if kind == "moved":
                    before, after = f"{before} at {i}", f"{after} at {j}"
                found.append(PortChange(side, kind, before, after))
    return found


def type_text(type_: TypeView | None) -> str:
    """`float32[batch,3,?]`, `sequence(float32[?])`, `?` for an unknown one."""
    if type_ is None:
        return "?"
    shape = "" if type_.shape is None else "[" + ",".join("?" if d is None else str(d) for d in type_.shape) + "]"
    if type_.element is not None:
        return f"{type_.kind}({type_text(type_.element)})"
    plain = f"{type_.dtype or '?'}{shape}"
    return plain if type_.kind in ("tensor", "") else f"{type_.kind} {plain}"


def _declared(graph: GraphView, side: str) -> Sequence[int]:
    return graph.outputs if side == "output" else [v for v in graph.inputs if v not in graph.initializers]


def _coupled(a: GraphView, b: GraphView, mine: Sequence[int], others: Sequence[int]) -> list[tuple[int, int]]:
    """Positions of ports that are the same: equal names, then equal types in order, then what is left in order."""
    free = {b.values[value]: j for j, value in reversed(list(enumerate(others)))}
    found = [(i, free.pop(a.values[v])) for i, v in enumerate(mine) if a.values[v] in free]
    for with_type in (True, False):
        taken, taken_b = {i for i, _ in found}, {j for _, j in found}
        left = [i for i in range(len(mine)) if i not in taken]
        right = [j for j in range(len(others)) if j not in taken_b]
        if not with_type and len(left) != len(right):
            break
        for i in left:
            same = (j for j in right if not with_type or _kind(a, mine[i]) == _kind(b, others[j]))
            j = next(same, -1)
            if j >= 0:
                right.remove(j)
                found.append((i, j))
    return sorted(found)


def _kind(graph: GraphView, value: int) -> object:
    return plain_type(graph.types.get(value), {})


def _changed(a: GraphView, b: GraphView, value: int, other: int, ignore: Collection[str]) -> str | None:
    before, after = a.types.get(value), b.types.get(other)
    if type_text(before) != type_text(after) and ("names" not in ignore or _kind(a, value) != _kind(b, other)):
        return "retyped"
    return "renamed" if a.values[value] != b.values[other] and "names" not in ignore else None


def _text(graph: GraphView, value: int) -> str:
    return f"{graph.values[value]}: {type_text(graph.types.get(value))}"
