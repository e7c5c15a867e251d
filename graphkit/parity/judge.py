"""What makes two sets of outputs equal: a tolerance, metrics, and which output belongs to which."""

from __future__ import annotations

import functools
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, Any

from graphkit.errors import ShapeMismatch, UnknownName
from graphkit.parity.compare import Tolerance, compare_outputs, in_tf32, is_float, tolerance_for
from graphkit.parity.metrics import DEFAULT_K, Condition, measure
from graphkit.parity.verdict import OutputComparison

if TYPE_CHECKING:
    import numpy as np

    Tensors = Mapping[str, np.ndarray[Any, Any]]


@dataclass(frozen=True, slots=True)
class Judgement:
    """The outputs of one run, and what a reader has to know about them."""

    outputs: tuple[OutputComparison, ...]
    notes: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class ByName:
    """Outputs of one name belong together; one without a partner fails. No metrics. For two forms of one model."""

    tolerance: Tolerance | None = None

    def __call__(self, expected: Tensors, found: Tensors) -> Judgement:
        return Judgement(compare_outputs(expected, found, self.tolerance))


@dataclass(frozen=True, slots=True)
class Judge:
    """Outputs belong together by name, else by position; measured, and held to the user's own conditions too.

    Attributes:
        atol, rtol: The user's tolerance by output; "" is for every floating-point output that is not named.
        conditions: What else has to hold.
        tf32: Whether the candidate's float32 products may be rounded to TF32, as an engine's are by default.
    """

    atol: Mapping[str, float] = field(default_factory=dict)
    rtol: Mapping[str, float] = field(default_factory=dict)
    conditions: tuple[Condition, ...] = ()
    tf32: bool = False

    def __call__(self, expected: Tensors, found: Tensors) -> Judgement:
        """Judge one run.

        Raises:
            ShapeMismatch: the outputs differ in name and number.
            UnknownName: a tolerance or a condition names an output that is not there.
        """
        self._check_names(expected)
        partners = _paired(expected, found)
        outputs = tuple(self._one(name, expected[name], found[other]) for name, other in partners.items())
        moved = [f"`{theirs}` as `{ours}`" for ours, theirs in partners.items() if ours != theirs]
        notes = [f"outputs matched by position: {', '.join(moved)}"] if moved else []
        return Judgement(outputs, (*notes, *_not_a_number(expected)))

    def _one(self, name: str, reference: Any, candidate: Any) -> OutputComparison:
        (output,) = compare_outputs({name: reference}, {name: candidate}, functools.partial(self._tolerance, name))
        conditions = [c for c in self.conditions if c.output in (None, name)]
        ks = {DEFAULT_K, *(c.k for c in conditions if c.k is not None)}
        output = replace(output, metrics=measure(reference, candidate, ks))
        values: dict[str, float | None] = {"max_abs": output.max_abs, "max_rel": output.max_rel, **output.metrics}
        unmet = [why for why in (c.failure(values) for c in conditions) if why is not None]
        if not unmet:
            return output
        return replace(output, status="fail", reason="; ".join(filter(None, [output.reason, *unmet])))

    def _tolerance(self, name: str, reference: str, candidate: str, scale: float) -> tuple[float, float]:
        atol, rtol = (in_tf32 if self.tf32 else tolerance_for)(reference, candidate, scale)
        loose = "" if (atol, rtol) != (0.0, 0.0) else name  # integers are equal unless their own output is named
        return self.atol.get(name, self.atol.get(loose, atol)), self.rtol.get(name, self.rtol.get(loose, rtol))

    def _check_names(self, expected: Tensors) -> None:
        named = {*self.atol, *self.rtol, *(c.output for c in self.conditions if c.output)} - {""}
        unknown = sorted(named - set(expected))
        if unknown:
            raise UnknownName(
                f"the reference has no output `{unknown[0]}`", remedy=f"its outputs: {', '.join(expected)}"
            )


def pair_names(ours: Iterable[str], theirs: Iterable[str]) -> dict[str, str] | None:
    """Which of `theirs` belongs to each of `ours`: the same name, else the same place among the rest; None where
    their numbers differ."""
    ours, theirs = list(ours), list(theirs)
    if len(ours) != len(theirs):
        return None
    rest = iter([name for name in theirs if name not in ours])
    return {name: name if name in theirs else next(rest) for name in ours}


def _paired(expected: Tensors, found: Tensors) -> dict[str, str]:
    partners = pair_names(expected, found)
    if partners is None:
        raise ShapeMismatch(
            f"the reference has {len(expected)} outputs, the candidate {len(found)}",
            details=(f"reference: {_listed(expected)}", f"candidate: {_listed(found)}"),
            remedy="compare models with the same outputs",
        )
    return partners


def _listed(tensors: Tensors) -> str:
    return ", ".join(f"{n}: {v.dtype.name}{list(v.shape)}" for n, v in tensors.items()) or "none"


def _not_a_number(expected: Tensors) -> list[str]:
    """Values of the reference that prove nothing, because a broken candidate has them too."""
    import numpy as np

    notes = []
    for name, values in expected.items():
        count = int(np.isnan(values).sum()) if is_float(values.dtype) else 0
        if count:
            notes.append(f"{count} of {values.size} values of the reference's own `{name}` are NaN")
    return notes
