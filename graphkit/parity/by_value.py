"""Finds where two runs part when their tensors have other names: what has an equal on the other side is right, and the
first that has none, though all that it is made from has, is where they part."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

from graphkit.parity.divergence import Location, TensorError
from graphkit.parity.flow import Flow, Step
from graphkit.parity.value_matches import Matches, Print, Probes, layout, match

_RIVALS = 8  # tensors of the reference that the located one is held against
_FEW = 0.1
_NEARLY = 0.3  # L2 of the difference over the reference's: what is nearer is the same tensor, somewhat wrong


@dataclass(frozen=True, slots=True)
class Run:
    """One side.

    Attributes:
        steps: What it computes, in topological order.
        inputs: Names of what it is fed.
        target: The output that differs.
    """

    steps: tuple[Step, ...]
    inputs: tuple[str, ...]
    target: str

    @property
    def names(self) -> list[str]:
        """Everything that it makes."""
        return [name for step in self.steps for name in step.makes]


@dataclass(frozen=True, slots=True)
class Parting:
    """Where two runs part.

    Attributes:
        location: The answer, but for what only the graphs tell.
        candidate, reference: The two steps that make the located tensor and its counterpart, if that has one.
    """

    location: Location
    candidate: Step
    reference: Step | None


def names_tell_little(common: int, reference: int, candidate: int) -> bool:
    """Whether too few tensors inside have the same name in both graphs for names to lead anywhere."""
    return common < _FEW * min(reference, candidate)


def part(blank: Location, reference: Run, candidate: Run, probes: Probes) -> Parting:
    """Match the tensors of both runs by their values and find the first without an equal.

    Args:
        blank: Labels, sizes and seed.

    Raises:
        GraphkitError: one side does not run.
    """
    found = match(probes, reference.names, candidate.names)
    flows = Flow(reference.steps, reference.inputs), Flow(candidate.steps, candidate.inputs)
    judged = [{n for n, p in prints.items() if not p.plain} for prints in (found.reference, found.candidate)]
    matched = set(found.partners.values()), set(found.partners)
    rivals, suspects = (
        flow.suspects(m, j, run.target)
        for flow, m, j, run in zip(flows, matched, judged, (reference, candidate), strict=True)
    )
    first = suspects[0]
    tensors, between = flows[1].nearest(first, found.partners)
    wanted = {found.partners[n] for n in tensors}, len(between)
    if first == candidate.target:
        rivals = rivals[-1:]  # an output is held against the output
    rival, errors = _counterpart(
        probes, found, first, rivals[:_RIVALS], lambda r: _unlikeness(flows[0], r, wanted, matched[0])
    )
    before = tuple(_error(flows[1], n, found.errors[n]) for n in tensors)
    here = _error(flows[1], first, errors)
    theirs = flows[0].makers.get(rival)
    location = replace(
        blank,
        reason=_why(here, before, suspects, matched[1]),
        divergence=here,
        reference_op=theirs.op if theirs else "",
        reference_node=theirs.node if theirs else "",
        source=(theirs.source if theirs else ()) or flows[1].makers[first].source,
        inputs=before,
        between=tuple(f"{s.op} '{s.node or s.makes[0]}'" for s in between),
        notes=(*blank.notes, *_transposed(found)),
    )
    return Parting(_counted(location, flows[1], found, judged[1]), flows[1].makers[first], theirs)


def _counted(location: Location, flow: Flow, found: Matches, judged: set[str]) -> Location:
    assert location.divergence is not None
    measured = [*(_error(flow, n, e) for n, e in found.errors.items()), location.divergence]
    counts = replace(
        location.counts, common=len(found.partners), measured=len(measured), unmatched=len(judged - set(found.partners))
    )
    ordered = tuple(sorted(measured, key=lambda e: (e.depth, e.tensor)))
    return replace(location, status="located", matched_by="value", counts=counts, measured=ordered)


def _counterpart(
    probes: Probes, found: Matches, first: str, rivals: Sequence[str], unlikeness: Callable[[str], tuple[int, int]]
) -> tuple[str, dict[str, Any]]:
    """The reference's tensor that the located one should have been, and how far they are apart.

    The one whose values are nearly the same, else the one that is made from the same tensors in as many steps.
    """
    mine = found.candidate.get(first)
    fitting = [r for r in rivals if mine and r in found.reference and found.reference[r].size == mine.size]
    fitting = fitting or list(rivals) * (len(rivals) == 1)
    size = mine.nbytes if mine else 0
    measured = probes.apart(
        [(r, first, _order(found, r, first)) for r in fitting],
        lambda r, _: size + (found.reference[r].nbytes if r in found.reference else 0),
    )
    known = []
    for position, (rival, errors) in enumerate(zip(fitting, measured, strict=True)):
        l2 = float("inf") if errors is None or errors["l2"] is None else errors["l2"]
        known.append(((l2 >= _NEARLY, *((0, 0) if l2 < _NEARLY else unlikeness(rival)), l2), position))
    best = min(known, default=(None, 0))[1]
    errors = measured[best] if measured else None
    return (fitting[best] if errors else rivals[0]), errors or _unlike(mine)


def _unlikeness(flow: Flow, rival: str, wanted: tuple[set[str], int], matched: set[str]) -> tuple[int, int]:
    if rival not in flow.makers:
        return 1, 0
    tensors, between = flow.nearest(rival, matched)
    return int(set(tensors) != wanted[0]), abs(len(between) - wanted[1])


def _order(found: Matches, reference: str, candidate: str) -> tuple[int, ...] | None:
    prints = found.reference.get(reference), found.candidate.get(candidate)
    return layout(prints[0].shape, prints[1].shape) if prints[0] and prints[1] else None


def _unlike(mine: Print | None) -> dict[str, Any]:
    """What is known of a tensor that no tensor of the reference can be held against."""
    bounds = [mine.statistics[0], mine.statistics[1]] if mine else None
    return {
        "dtype": mine.dtype if mine else "", "shape": mine.shape if mine else (), "error": float("inf"),
        "max_abs": None, "l2": None, "atol": 0.0, "rtol": 0.0, "reference_range": None, "candidate_range": bounds,
        "reason": "no tensor of the reference has its values or its number of elements",
    }  # fmt: skip


def _error(flow: Flow, name: str, found: Mapping[str, Any]) -> TensorError:
    step = flow.makers[name]
    ranges = {k: tuple(found[k]) if found[k] else None for k in ("reference_range", "candidate_range")}
    fields = {k: v for k, v in found.items() if k != "nbytes"}
    return TensorError(name, step.op, step.node, flow.depth[name], **{**fields, **ranges, "shape": (*found["shape"],)})


def _why(here: TensorError, before: Sequence[TensorError], suspects: Sequence[str], matched: set[str]) -> str:
    if here.reason is not None and here.max_abs is None and here.l2 is None:
        return f"`{here.tensor}`: {here.reason}"
    if not matched:
        return f"`{here.tensor}` has no equal in the reference; nor has any other tensor"
    reads = "all that its node reads has one" if before else "its node reads nothing but inputs and weights"
    more = f"; {len(suspects) - 1} more after it have none" if len(suspects) > 1 else ""
    return f"`{here.tensor}` has no equal in the reference, though {reads}{more}"


def _transposed(found: Matches) -> tuple[str, ...]:
    count = len(found.transposed)
    return (f"{count} of the equal tensors have channels first in one and last in the other",) if count else ()
