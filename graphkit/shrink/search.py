"""The order in which parts of a model are tried."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from graphkit.shrink.graph import Region
from graphkit.shrink.inline import conditions, inlined
from graphkit.shrink.laboratory import Laboratory
from graphkit.shrink.minimise import bisect_ends, ddmin
from graphkit.shrink.question import BudgetSpent, Question
from graphkit.shrink.trial import Trial


@dataclass(frozen=True, slots=True)
class Reached:
    """Where a search ended.

    Attributes:
        trial: The smallest candidate that failed; the whole model where nothing smaller did.
        minimal: Whether it was shown to be 1-minimal.
        notes: What was replaced on the way.
    """

    trial: Trial
    minimal: bool
    notes: tuple[str, ...] = ()


def search(whole: Trial, question: Question) -> Reached:
    """Find a part of a model that fails and is 1-minimal.

    First as few outputs as possible, then the least stretch of nodes in topological order (two bisections), then
    `ddmin` over its nodes, until neither a node nor an output can be left out. Then the same inside the branches of
    Ifs whose condition is the same on all samples.

    Args:
        whole: The model, on the samples on which it fails.
    """
    lab = Laboratory(whole.model, whole.samples, question, whole.other)
    minimal = _shrink(lab)
    reached = Reached(lab.best or whole, minimal)
    return reached if whole.other is not None else _inside_branches(reached, question)


def _inside_branches(reached: Reached, question: Question) -> Reached:
    while reached.minimal and conditions(reached.trial.model):
        model, samples = reached.trial.model, reached.trial.samples
        lab = Laboratory(model, samples, question)
        chosen = lab.known_conditions()
        if not chosen:
            break
        taken = [(lab.graph.nodes[i], "then" if then else "else") for i, then in chosen.items()]
        notes = [f"If `{n.name or n.outputs[0].name}` was replaced by its {b} branch, which it takes" for n, b in taken]
        lab = Laboratory(inlined(model, chosen), samples, question)
        if not _holds(lab):
            break
        minimal = _shrink(lab)
        reached = Reached(lab.best or reached.trial, minimal, (*reached.notes, *notes))
    return reached


def _holds(lab: Laboratory) -> bool:
    try:
        return lab.fails(lab.graph.whole)
    except BudgetSpent:
        return False


def _shrink(lab: Laboratory) -> bool:
    """Whether `lab.best` is 1-minimal now; False where the budget ended before that, or nothing fails."""
    try:
        return _search(lab)
    except BudgetSpent:
        return False


def _search(lab: Laboratory) -> bool:
    region: Region | None = _fewer_outputs(lab, lab.graph.whole)
    first = True
    while region is not None:
        region = _smaller(lab, region, first=first)
        first = False
    return lab.best is not None


def _smaller(lab: Laboratory, region: Region, *, first: bool) -> Region | None:
    """A part of `region` that fails; None where that is 1-minimal."""

    def fails(units: Sequence[tuple[int, ...]]) -> bool:
        return lab.fails(lab.graph.part(region, [i for unit in units for i in unit]))

    units: Sequence[tuple[int, ...]] = lab.graph.units(region.nodes, lab.uncut)
    kept = bisect_ends(units, fails) if first else units
    kept = ddmin(kept, fails)
    if len(kept) == len(units):
        smaller = _fewer_outputs(lab, region)
    else:
        smaller = _fewer_outputs(lab, lab.graph.part(region, [i for unit in kept for i in unit]))
    return smaller if smaller != region else None


def _fewer_outputs(lab: Laboratory, region: Region) -> Region:
    """A part with as few outputs as fail, and what they depend on."""
    if not lab.fails(lab.graph.leading_to(region, region.outputs)):
        return region
    kept = ddmin(region.outputs, lambda outputs: lab.fails(lab.graph.leading_to(region, outputs)))
    return lab.graph.leading_to(region, kept)
