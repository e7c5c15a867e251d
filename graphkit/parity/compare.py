"""Two sets of outputs, output by output, against a tolerance that follows from their dtype.

`|candidate - reference| <= atol + rtol * |reference|`, as in numpy; atol grows with the size of the output's values,
because rounding errors of a sum follow its largest terms, not its result.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from graphkit.parity.verdict import OutputComparison

if TYPE_CHECKING:
    import numpy as np

    Array = np.ndarray[Any, Any]

Tolerance = Callable[[str, str, float], tuple[float, float]]
"""(dtype of the reference, dtype of the candidate, size of the reference's values) -> (atol, rtol)."""

_RELATIVE = {
    "float64": (1e-9, 1e-6),
    "complex128": (1e-9, 1e-6),
    "float32": (2e-5, 1e-3),
    "complex64": (2e-5, 1e-3),
    "float16": (2e-3, 1e-2),
    "bfloat16": (1e-2, 3e-2),
    "tf32": (2e-3, 1e-2),
}
"""dtype -> (atol as a share of the size of the values, rtol). `tf32`: float32 whose products have float16's mantissa.

Between the unit roundoff times the root of the terms that a deep network sums (float32: 6e-8 * sqrt(1e5) = 2e-5;
float16: 5e-4 times a few layers; bfloat16: 4e-3 likewise) and the smallest fault worth finding, a weight that is off
by 1 %. The probabilistic bound is Higham and Mary, SIAM J. Sci. Comput. 41(5), 2019; rtol is torch.testing's times
the depth of a network.
"""

_FLOOR = {
    "float64": 1e-14, "complex128": 1e-14, "float32": 1e-6, "complex64": 1e-6, "float16": 1e-3, "bfloat16": 8e-3,
    "tf32": 1e-6,
}  # fmt: skip
"""dtype -> the least atol: a few roundings of numbers of about 1. A probability of 1e-8 is the difference of such
numbers (a sigmoid, a softmax), and two correct programs round them differently."""

_SAMPLE = 1 << 16
_CHUNK = 1 << 20
_GAP = 100.0


def compare_outputs(
    reference: Mapping[str, Array], candidate: Mapping[str, Array], tolerance: Tolerance | None = None
) -> tuple[OutputComparison, ...]:
    """One entry per output of either side, in the reference's order; outputs of one side alone fail.

    NaN and infinities must stand at the same places, with the same sign. Integers, booleans and strings must be
    equal. An empty tensor passes if the shapes are equal.
    """
    done = [
        _compare(name, r, candidate[name], tolerance or tolerance_for)
        if name in candidate
        else _failed(name, r, f"the candidate has no output `{name}`")
        for name, r in reference.items()
    ]
    extra = [name for name in candidate if name not in reference]
    done += [_failed(name, candidate[name], f"the reference has no output `{name}`") for name in extra]
    return tuple(done)


def tolerance_for(reference: str, candidate: str, scale: float) -> tuple[float, float]:
    """(atol, rtol) for two dtypes, given by name: that of the coarser one; (0, 0) for what must be equal.

    Args:
        scale: Size of the reference's values (`magnitude`).
    """
    shares = [_shares(reference), _shares(candidate)]
    if None in shares:
        return 0.0, 0.0
    share, rtol = max(s for s in shares if s is not None)
    return max(share * scale, floor_of(reference), floor_of(candidate)), rtol


def in_tf32(reference: str, candidate: str, scale: float) -> tuple[float, float]:
    """As `tolerance_for`, of a candidate whose float32 products may be rounded to TF32."""
    return tolerance_for(reference, "tf32" if candidate == "float32" else candidate, scale)


def floor_of(dtype: str) -> float:
    """The least absolute tolerance of a dtype: differences below it are never faults."""
    return _FLOOR.get(dtype, 0.0)


def magnitude(values: Array) -> float:
    """The largest finite |value|, without the values that stand for minus infinity; 1 where all are zero.

    A masked logit of -1e9 must not widen the tolerance of the logits beside it: where the magnitudes of the values
    make a jump by a factor of 100, above which they are judged by rtol alone, the largest one below it counts.
    """
    import numpy as np

    flat = values.reshape(-1)
    largest = max((_finite_max(chunk) for _, chunk in _chunks(flat)), default=0.0)
    sample = np.abs(_widen(flat[:: max(1, flat.size // _SAMPLE)])).astype(np.float64)
    sample = np.sort(np.append(sample[np.isfinite(sample) & (sample > 0)], [largest] if largest > 0 else []))
    if not sample.size:
        return 1.0
    sample = sample[sample.size // 100 :]
    jumps = np.flatnonzero(sample[1:] > _GAP * sample[:-1])
    return float(sample[jumps[0]] if jumps.size else sample[-1])


def is_float(dtype: np.dtype[Any]) -> bool:
    """Whether a dtype can hold NaN: also the small floats of ml_dtypes, which numpy does not count as floating."""
    return dtype.kind in "fc" or "float" in dtype.name


def _shares(dtype: str) -> tuple[float, float] | None:
    if dtype in _RELATIVE or "float" not in dtype:
        return _RELATIVE.get(dtype)
    import ml_dtypes

    finfo: Any = ml_dtypes.finfo
    step = float(finfo(getattr(ml_dtypes, dtype)).eps)
    return step, 2 * step  # 8-bit floats: one step of rounding here or there


def _compare(name: str, reference: Array, candidate: Array, tolerance: Tolerance) -> OutputComparison:
    if reference.shape != candidate.shape:
        return _failed(name, reference, f"shape {list(candidate.shape)} instead of {list(reference.shape)}")
    kinds = _name(reference), _name(candidate)
    if "string" in kinds:
        return _compare_strings(name, reference, candidate, kinds)
    floating = is_float(reference.dtype) or is_float(candidate.dtype)
    atol, rtol = tolerance(*kinds, magnitude(reference) if floating and reference.size else 1.0)
    tally = _Tally()
    for start, r in _chunks(reference.reshape(-1)):
        c = candidate.reshape(-1)[start : start + r.size]
        tally.add(start, _widen(r), _widen(c), atol, rtol)
    reasons = [f"dtype {kinds[1]} instead of {kinds[0]}"] if kinds[0] != kinds[1] else []
    reasons += tally.reasons(reference.size)
    return tally.result(name, reference, candidate, atol, rtol, "; ".join(reasons) or None)


@dataclass(slots=True)
class _Tally:
    """What was seen so far, chunk by chunk."""

    max_abs: float = 0.0
    max_rel: float = 0.0
    mismatches: int = 0
    nonfinite: int = 0
    worst: int | None = None
    used: tuple[float, float] = (-math.inf, -math.inf)

    def add(self, start: int, r: Array, c: Array, atol: float, rtol: float) -> None:
        import numpy as np

        with np.errstate(invalid="ignore", over="ignore", divide="ignore"):
            if r.dtype.kind in "iub" and c.dtype.kind in "iub":
                differs = r != c
                # In float64, since an int64 difference may overflow; what differs by rounding alone still counts.
                gap = np.maximum(np.abs(c.astype(np.float64) - r.astype(np.float64)), differs)
                both = np.ones(r.shape, bool)
            else:
                gap = np.abs(c - r)
                both = np.isfinite(r) & np.isfinite(c)
                agree = both | (r == c) | (np.isnan(r) & np.isnan(c))
                self.nonfinite += int(agree.size - np.count_nonzero(agree))
                gap = np.where(agree, np.where(both, gap, 0), np.inf)
            size = np.abs(r.astype(np.float64) if r.dtype.kind in "iub" else r)
            allowed = atol + rtol * np.where(both, size, 0)
        self._take(start, gap, size, both, allowed)

    def _take(self, start: int, gap: Array, size: Array, both: Array, allowed: Array) -> None:
        import numpy as np

        self.mismatches += int(np.count_nonzero(gap > allowed))
        self.max_abs = max(self.max_abs, float(np.max(gap, where=both, initial=0)))
        relative = np.divide(gap, size, where=both & (size > 0), out=np.zeros_like(gap))
        self.max_rel = max(self.max_rel, float(relative.max(initial=0)))
        if gap.any():
            # The worst is what uses most of its own tolerance: the largest gap may be at a large value, that allows it.
            used = np.divide(gap, allowed, where=allowed > 0, out=np.where(gap > 0, np.inf, 0.0))
            index = int(np.where(used == used.max(), gap, -1).argmax())
            found = float(used[index]), float(gap[index])
            if found > self.used:
                self.used, self.worst = found, start + index

    def reasons(self, total: int) -> list[str]:
        if not self.mismatches:
            return []
        where = f"; NaN or infinity differs at {self.nonfinite}" if self.nonfinite else ""
        return [f"{self.mismatches} of {total} elements outside the tolerance{where}"]

    def result(
        self, name: str, reference: Array, candidate: Array, atol: float, rtol: float, reason: str | None
    ) -> OutputComparison:
        import numpy as np

        index = None if self.worst is None else tuple(int(i) for i in np.unravel_index(self.worst, reference.shape))
        return OutputComparison(
            name, "fail" if reason else "pass", _name(reference), tuple(reference.shape), self.max_abs, self.max_rel,
            index, None if index is None else _number(reference[index]),
            None if index is None else _number(candidate[index]), self.mismatches, atol, rtol, reason,
        )  # fmt: skip


def _compare_strings(name: str, reference: Array, candidate: Array, kinds: tuple[str, str]) -> OutputComparison:
    import numpy as np

    if kinds[0] != kinds[1]:
        return _failed(name, reference, f"dtype {kinds[1]} instead of {kinds[0]}")
    bad = np.flatnonzero(reference.reshape(-1) != candidate.reshape(-1))
    if not bad.size:
        return OutputComparison(name, "pass", "string", tuple(reference.shape))
    index = tuple(int(i) for i in np.unravel_index(int(bad[0]), reference.shape))
    reason = f"{bad.size} of {reference.size} strings differ"
    return OutputComparison(
        name, "fail", "string", tuple(reference.shape), worst_index=index, mismatches=int(bad.size), reason=reason
    )


def _failed(name: str, reference: Array, reason: str) -> OutputComparison:
    return OutputComparison(name, "fail", _name(reference), tuple(reference.shape), reason=reason)


def _chunks(flat: Array) -> Iterator[tuple[int, Array]]:
    for start in range(0, flat.size, _CHUNK):
        yield start, flat[start : start + _CHUNK]


def _widen(values: Array) -> Array:
    """Half and smaller floats as float32, in which their differences are exact enough; the rest as it is."""
    import numpy as np

    small = is_float(values.dtype) and values.dtype.itemsize < 4
    return values.astype(np.float32) if small else values


def _finite_max(values: Array) -> float:
    import numpy as np

    size = np.abs(_widen(values))
    return float(np.max(size, where=np.isfinite(size), initial=0))


def _name(values: Array) -> str:
    return "string" if values.dtype.kind in "OUS" else values.dtype.name


def _number(value: Any) -> float:
    return float(abs(value)) if isinstance(value, complex) or value.dtype.kind == "c" else float(value)
