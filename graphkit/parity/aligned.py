"""A candidate whose inputs and outputs have the reference's names, where only their places tell which is which."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING

from graphkit.parity.judge import pair_names

if TYPE_CHECKING:
    from graphkit.model import Model


def aligned(reference: Model, candidate: Model) -> tuple[Model, tuple[str, ...]]:
    """The candidate under the reference's names, and what a reader should know.

    Unchanged where every name is known, or where the numbers of inputs or outputs differ.
    """
    sides = reference.signature, candidate.signature
    pairs = (pair_names(*([t.name for t in s.inputs] for s in sides)) or {},
             pair_names(*([t.name for t in s.outputs] for s in sides)) or {})  # fmt: skip
    moved = [{theirs: ours for ours, theirs in each.items() if ours != theirs} for each in pairs]
    if not any(moved):
        return candidate, ()
    graph = candidate.ir.clone()
    new = {**moved[0], **moved[1]}
    values = (*graph.graph.inputs, *graph.graph.initializers.values(), *(o for n in graph.graph for o in n.outputs))
    for value in values:  # an inner tensor that bears a name that an outer one is to have makes room for it
        if value.name in new.values() and value.name not in new:
            value.name = f"{value.name}__candidate"
    for value, name in [(v, new[v.name]) for v in values if v.name in new]:
        value.name = name
    notes = [
        f"{what} matched by position: {', '.join(f'`{theirs}` as `{ours}`' for theirs, ours in each.items())}"
        for what, each in zip(("inputs", "outputs"), moved, strict=True)
        if each
    ]
    return replace(candidate, ir=graph), tuple(notes)
