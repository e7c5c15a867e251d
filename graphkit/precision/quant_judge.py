"""How far a quantised model may be from the float32 one it was made from: the tolerance of its precision.

Element by element, rounding in b bits of a symmetric range is off by at most half a step, 2^-b of the range, and errors
of a deep network's layers add up like a random walk; 8-bit networks lose about a percent (Wu et al., arXiv 2004.09602,
table 2). So the measures that judge the whole tensor decide, and the largest single difference is reported.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, Any

from graphkit.errors import BadOption
from graphkit.parity.judge import Judge, Judgement
from graphkit.parity.metrics import Condition

if TYPE_CHECKING:
    import numpy as np

    Tensors = Mapping[str, np.ndarray[Any, Any]]

LIMITS: Mapping[str, tuple[float, float]] = {"int8": (0.98, 0.2), "fp8": (0.98, 0.2), "int4": (0.95, 0.33)}
"""precision -> (least cosine, largest relative L2 error)."""


@dataclass(frozen=True, slots=True)
class QuantisedJudge:
    """Judges outputs of a quantised model: float outputs by cosine and L2, where NaN and infinities stand, and shapes.
    Integers and booleans (a class, an index) are reported and not judged: one step of rounding may move them.

    Attributes:
        precision: `int8`, `fp8` or `int4`.
        conditions: The user's own, instead of those of the precision.
    """

    precision: str
    conditions: tuple[Condition, ...] = field(default=())

    def __post_init__(self) -> None:
        if self.precision not in LIMITS:
            raise BadOption(f"{self.precision!r} is no quantised precision", remedy=f"one of {', '.join(LIMITS)}")

    def __call__(self, expected: Tensors, found: Tensors) -> Judgement:
        """Judge one run. Raises: as `parity.judge.Judge`."""
        floats = {name for name, values in expected.items() if values.dtype.kind == "f"}
        cosine, l2 = LIMITS[self.precision]
        limits = self.conditions or tuple(
            condition for name in floats for condition in (Condition("cosine", cosine, name), Condition("l2", l2, name))
        )
        largest = {name: _room(values) for name, values in expected.items()}
        judged = Judge(atol=largest, conditions=limits)(expected, found)
        shapes = {name: values.shape for name, values in found.items()}
        others = [
            o.output
            for o in judged.outputs
            if o.output not in floats and o.status == "fail" and shapes.get(o.output) == expected[o.output].shape
        ]
        outputs = tuple(replace(o, status="pass", reason=None) if o.output in others else o for o in judged.outputs)
        notes = (f"not judged, since quantisation may move them: {', '.join(others)}",) if others else ()
        return Judgement(outputs, (*judged.notes, *notes))


def _room(values: np.ndarray[Any, Any]) -> float:
    """Twice the largest |x|: what the conditions judge, the elements must not judge again."""
    import numpy as np

    finite = values[np.isfinite(values)] if values.dtype.kind == "f" else np.zeros(0)
    return 2.0 * float(np.abs(finite).max(initial=0.0)) + 1e-6
