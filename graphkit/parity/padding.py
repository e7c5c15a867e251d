"""Padding, measured: what a rewritten graph gives on the places that a mask hides, and on those that it keeps.

Attention over keys that are all masked out has no result that ONNX defines, so that two right graphs may differ there:
`Attention` gives something else than a Softmax over equal sums does. On the places that the mask keeps they may not.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, TypeAlias

from graphkit.parity.inputs import InputPlan, make_inputs

if TYPE_CHECKING:
    import numpy as np

    from graphkit.parity.compare import Tolerance
    from graphkit.parity.runners import Runner
    from graphkit.parity.sizes import SizePoint

Array: TypeAlias = "np.ndarray[Any, Any]"


@dataclass(frozen=True, slots=True)
class Padding:
    """The largest differences with padded sequences.

    Attributes:
        mask: The input that hides.
        places: How many places it kept, and how many it hid.
        kept: Largest difference on those that it kept, of the largest magnitude there; infinite where a number is
            finite on one side only.
        hidden: The same on those that it hid, of the same magnitude.
        holds: Whether what it kept is equal within the tolerance.
    """

    mask: str
    places: tuple[int, int]
    kept: float
    hidden: float
    holds: bool

    def to_json(self) -> dict[str, Any]:
        differences = {name: _finite(value) for name, value in (("kept", self.kept), ("hidden", self.hidden))}
        return {"mask": self.mask, "places": {"kept": self.places[0], "hidden": self.places[1]}, **differences}


def measure_padding(
    reference: Runner,
    candidate: Runner,
    plans: Sequence[InputPlan],
    points: Sequence[SizePoint],
    given: Mapping[str, Any],
    seed: int,
    tolerance: Tolerance,
) -> Padding | None:
    """Run both with sequences that are padded on the left, the first of several with nothing but padding.

    Args:
        points: Sizes at which both run; the most places of several sequences are taken, or else of one.
        given: Values that are not drawn.
        tolerance: (dtype, dtype, scale) -> atol, rtol.

    Returns:
        None where no input is a mask [batch, length] whose values are drawn, no output has its places, or one of the
        two does not run so.
    """
    from graphkit.errors import GraphkitError

    plan = next((p for p in plans if p.kind == "mask" and len(p.spec.shape or ()) == 2), None)
    if plan is None or plan.spec.name in given or not points:
        return None
    name = plan.spec.name
    drawn = [make_inputs(plans, point.sizes, seed, given) for point in points]
    inputs = max(drawn, key=lambda each: (min(each[name].shape) > 1, each[name].size))
    shown = _on_the_left(inputs[name].shape)
    inputs = {**inputs, name: (shown ^ plan.ones_are_padding).astype(inputs[name].dtype)}
    lengths = {array.shape[1] for array in inputs.values() if array.ndim == 2 and array.shape[0] == shown.shape[0]}
    try:
        expected, found = reference.run(inputs), candidate.run(inputs)
    except GraphkitError:
        return None
    kept, hidden, places, holds = 0.0, 0.0, (0, 0), True
    for output, left in expected.items():
        visible = _places(left, shown, lengths)
        if visible is None or left.dtype.kind != "f":
            continue
        right, scale = found[output], _scale(left[visible])
        differs = _difference(left[visible], right[visible], scale)
        atol, rtol = tolerance(left.dtype.name, right.dtype.name, scale)
        kept, holds = max(kept, differs), holds and differs <= atol / scale + rtol
        hidden = max(hidden, _difference(left[~visible], right[~visible], scale))
        places = max(places, (int(visible.sum()), int((~visible).sum())))
    return Padding(name, places, kept, hidden, holds) if any(places) else None


def _on_the_left(shape: tuple[int, ...]) -> Array:
    """True where a place is shown: a longer tail in every row, none at all in the first of several."""
    import numpy as np

    batch, length = shape
    tails = np.array([1 + (row * length) // (batch + 1) for row in range(batch)])[:, None]
    if batch > 1:
        tails[0] = 0
    return np.asarray(np.arange(length) >= length - tails)


def _places(output: Array, shown: Array, lengths: set[int]) -> Array | None:
    """Which places [batch, length, ...] of an output are shown, moved as its axes are; None where it has none.

    The mask of a decoder with a cache is longer than what it is asked for, which are the last places.
    """
    import numpy as np

    if output.ndim < 2 or output.shape[0] != shown.shape[0]:
        return None
    if output.shape[1] in lengths and output.shape[1] <= shown.shape[1]:
        return shown[:, shown.shape[1] - output.shape[1] :]
    if output.ndim == 4 and output.shape[2] == shown.shape[1]:  # keys or values of a cache: [batch, heads, length, ...]
        return np.asarray(np.broadcast_to(shown[:, None, :], output.shape[:3]))
    return None


def _scale(values: Array) -> float:
    import numpy as np

    finite = values[np.isfinite(values)]
    return float(np.abs(finite).max(initial=0.0)) or 1.0


def _difference(left: Array, right: Array, scale: float) -> float:
    import numpy as np

    finite = np.isfinite(left)
    if not np.array_equal(finite, np.isfinite(right)):
        return float("inf")
    gap = np.abs(left[finite].astype(np.float64) - right[finite].astype(np.float64))
    return float(gap.max(initial=0.0)) / scale


def _finite(value: float) -> float | None:
    return value if value != float("inf") else None
