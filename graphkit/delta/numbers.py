"""Numbers of nodes such that equal numbers, in two graphs, mean equal surroundings: below, above, or near.

Down and up are value numbering (Cocke and Schwartz, 1970), from inputs and from outputs; `near` is the refinement of
Weisfeiler and Leman (1968). Keys are interned, not hashed: there are no collisions. Each is linear in nodes and edges.
"""

from __future__ import annotations

from collections.abc import Hashable, Mapping, Sequence

from graphkit.delta.canonical import Canon

Table = dict[Hashable, int]
"""Numbers of keys; both graphs use one."""


def down(graph: Canon, operators: Sequence[int], leaves: Sequence[int], table: Table) -> list[int]:
    """For each node the number of all that it is computed from."""
    codes = list(leaves)
    found = [0] * len(graph)
    reads, own, commutative, makes = graph.reads, graph.own, graph.commutative, graph.makes
    for node in graph.order:
        row = [codes[value] for value in reads[node]]
        if commutative[node]:
            row.sort()
        elif own[node] < len(row):
            row[own[node] :] = sorted(row[own[node] :])
        key = (operators[node], *row)
        found[node] = code = table.setdefault(key, len(table))
        for slot, value in enumerate(makes[node]):
            codes[value] = code if not slot else table.setdefault((-1, code, slot), len(table))
        codes[0] = leaves[0]
    return found


def up(graph: Canon, labels: Sequence[int], outputs: Mapping[int, Sequence[int]], table: Table) -> list[int]:
    """For each node the number of all that is computed from it: `labels` of its users, and the slots they read.

    Args:
        outputs: Numbers of the graph's outputs, by value.
    """
    found = [0] * len(graph)
    users, makes = graph.users, graph.makes
    for node in reversed(graph.order):
        items = []
        for slot, value in enumerate(makes[node]):
            place = slot << 2 * _BITS
            items.extend([place + (found[use] << _BITS) + at for use, at in users[value]])
            if value in outputs:
                items.extend([place + (number << _BITS) + _OUTPUT for number in outputs[value]])
        if len(items) > 1:
            items.sort()
        key = (labels[node], *items)
        found[node] = table.setdefault(key, len(table))
    return found


_BITS = 32
"""An edge is one integer, so that edges sort and hash fast: a node's number, and below it, in 32 bits, a slot."""

_OUTPUT = -2
"""The slot in which a graph's caller reads; `canonical.CAPTURED` is -1."""


def own_labels(graph: Canon, operators: Sequence[int], leaves: Sequence[int], table: Table) -> list[int]:
    """For each node the number of its operator and, slot by slot, of its weights; values from nodes are alike."""
    found = []
    held = [leaf if producer < 0 else 0 for leaf, producer in zip(leaves, graph.producers, strict=True)]
    for node, row in enumerate(graph.reads):
        slots = [held[value] for value in row]
        if graph.commutative[node]:
            slots.sort()
        elif graph.own[node] < len(slots):
            slots[graph.own[node] :] = sorted(slots[graph.own[node] :])
        key = (operators[node], len(graph.makes[node]), *slots)
        found.append(table.setdefault(key, len(table)))
    return found


def near(graph: Canon, codes: Sequence[int], table: Table) -> list[int]:
    """One round of refinement: the number of each node's code together with those of its neighbours."""
    found = []
    users, makes, commutative, own = graph.users, graph.makes, graph.commutative, graph.own
    after = (*codes, -1)  # of producer -1
    made = [after[producer] for producer in graph.producers]
    for value, place in graph.places.items():
        made[value] = -2 - table.setdefault((_OUTPUT, made[value], place), len(table))
    for node, row in enumerate(graph.reads):
        above = [made[value] for value in row]
        if commutative[node]:
            above.sort()
        elif own[node] < len(row):
            above[own[node] :] = sorted(above[own[node] :])
        below = [(codes[use] << _BITS) + at for value in makes[node] for use, at in users[value]]
        if len(below) > 1:
            below.sort()
        key = (codes[node], *above, None, *below)
        found.append(table.setdefault(key, len(table)))
    return found
