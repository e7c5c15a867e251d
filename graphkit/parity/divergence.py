"""Where two graphs part: the tensor, the node that makes it, and what was measured on the way."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass, field, fields
from typing import Any, Literal

from graphkit.model import SourceLine

LocationStatus = Literal["located", "equal", "not comparable"]


@dataclass(frozen=True, slots=True)
class TensorError:
    """One tensor that both graphs have, on one set of inputs.

    Attributes:
        tensor: Its name in the candidate.
        op, node: The candidate's node that makes it.
        depth: Position of that node in the candidate's order.
        dtype, shape: Of the reference.
        error: Largest difference in units of its tolerance: above 1 the two differ. Infinite where they differ in
            kind: another shape, NaN or infinity at other places, unequal integers.
        max_abs: Largest absolute difference where both are finite; None where it cannot be computed.
        l2: L2 norm of the difference over that of the reference.
        atol, rtol: The tolerance.
        reference_range, candidate_range: Least and largest finite value; None where there is none.
        growth: `error` over the largest error of the node's inputs; None where they were not measured.
        reason: What differs in kind, in one line.
    """

    tensor: str
    op: str
    node: str
    depth: int
    dtype: str
    shape: tuple[int, ...]
    error: float
    max_abs: float | None
    l2: float | None
    atol: float
    rtol: float
    reference_range: tuple[float, float] | None
    candidate_range: tuple[float, float] | None
    growth: float | None = None
    reason: str | None = None

    def to_json(self) -> dict[str, Any]:
        return {f.name: _strict(getattr(self, f.name)) for f in fields(self)}


@dataclass(frozen=True, slots=True)
class WeightDifference:
    """A constant of the node that is not the same in both graphs; `max_abs` is None where the shapes differ or the
    reference has no such constant."""

    name: str
    max_abs: float | None
    note: str = ""

    def to_json(self) -> dict[str, Any]:
        return {f.name: _strict(getattr(self, f.name)) for f in fields(self)}


@dataclass(frozen=True, slots=True)
class NodeDifference:
    """Something about the two producers that differs: `op`, `inputs`, or an attribute's name."""

    what: str
    reference: str
    candidate: str

    def to_json(self) -> dict[str, Any]:
        return {f.name: getattr(self, f.name) for f in fields(self)}


@dataclass(frozen=True, slots=True)
class Counts:
    """How much was seen.

    Attributes:
        common: Tensors made in both top graphs under one name.
        measured: Those of them that were compared at the sizes of the location.
        unmatched: Tensors of the candidate that the reference has under no such name.
        inside: Tensors inside the bodies of If, Loop and Scan, which are not looked into.
    """

    common: int = 0
    measured: int = 0
    unmatched: int = 0
    inside: int = 0

    def to_json(self) -> dict[str, Any]:
        return {f.name: getattr(self, f.name) for f in fields(self)}


@dataclass(frozen=True, slots=True)
class Location:
    """The answer of `locate`.

    Attributes:
        status: `located`; `equal` where all outputs are within their tolerance; `not comparable`.
        reason: Why, in one line.
        reference, candidate: What ran.
        sizes, seed: What it ran at: for `equal` the last of several.
        shapes: All sizes that were tried.
        divergence: The first tensor whose error its inputs do not explain.
        reference_op, reference_node: The reference's node that makes it.
        source: The user's lines that the node comes from.
        inputs: Errors of the nearest tensors before it that both graphs have.
        between: Nodes of the candidate between those inputs and the divergence, beside its own node: the fault may be
            in any of them.
        fused: Nodes of an engine that it fuses, so that none of their tensors can be looked at without changing what it
            computes: the difference arises in their fusion.
        weights, differences: How the two producers differ.
        contributors: Tensors whose error grows most over that of their inputs, the largest growth first.
        measured: Every tensor that was compared, in the candidate's order.
        counts: How much was seen.
        matched_by: `name`; or `value`, where the names of the two tell nothing: `common` are then the tensors of the
            candidate that have an equal in the reference.
        notes: What limits the answer.
    """

    status: LocationStatus
    reason: str
    reference: str
    candidate: str
    sizes: Mapping[str, int] = field(default_factory=dict)
    seed: int = 0
    shapes: tuple[Mapping[str, int], ...] = ()
    divergence: TensorError | None = None
    reference_op: str = ""
    reference_node: str = ""
    source: tuple[SourceLine, ...] = ()
    inputs: tuple[TensorError, ...] = ()
    between: tuple[str, ...] = ()
    fused: tuple[str, ...] = ()
    weights: tuple[WeightDifference, ...] = ()
    differences: tuple[NodeDifference, ...] = ()
    contributors: tuple[TensorError, ...] = ()
    measured: tuple[TensorError, ...] = ()
    counts: Counts = field(default_factory=Counts)
    matched_by: Literal["name", "value"] = "name"
    notes: tuple[str, ...] = ()

    def to_json(self) -> dict[str, Any]:
        """Strict JSON values, schema `graphkit.locate/1`; the same answer gives the same bytes."""
        return {
            "schema": "graphkit.locate/1",
            "status": self.status,
            "reason": self.reason,
            "reference": self.reference,
            "candidate": self.candidate,
            "sizes": dict(self.sizes),
            "seed": self.seed,
            "shapes": [dict(s) for s in self.shapes],
            "divergence": self.divergence.to_json() if self.divergence else None,
            "reference_op": self.reference_op,
            "reference_node": self.reference_node,
            "source": [{"module": s.module, "file": s.file, "line": s.line, "function": s.function}
                       for s in self.source],
            "inputs": [t.to_json() for t in self.inputs],
            "between": list(self.between),
            "fused": list(self.fused),
            "weights": [w.to_json() for w in self.weights],
            "differences": [d.to_json() for d in self.differences],
            "contributors": [t.to_json() for t in self.contributors],
            "measured": [t.to_json() for t in self.measured],
            "counts": self.counts.to_json(),
            "matched_by": self.matched_by,
            "notes": list(self.notes),
        }  # fmt: skip


def _strict(value: Any) -> Any:
    """JSON has no infinity and no NaN: they become strings."""
    if isinstance(value, float) and not math.isfinite(value):
        return str(value)
    return [_strict(v) for v in value] if isinstance(value, tuple) else value
