"""How far two outputs are apart, in the measures that people gate on; and the conditions that they set.

All are taken over the positions where both sides are finite; where NaN and infinities stand is `compare`'s business.
r is the reference, c the candidate, e = |c - r|, sums run over all elements, in float64.

| name | formula | source |
|---|---|---|
| `mean_abs`, `p999_abs` | mean and 99.9th percentile (the next element above it) of e | |
| `mean_rel`, `p999_rel` | the same of e / abs(r), where r is not 0 | |
| `ulp` | most floats from r to c; 1 is the next float | Dawson, Comparing Floating Point Numbers, 2012 |
| `cosine` | sum(r c) / sqrt(sum(r^2) sum(c^2)) | |
| `snr` | 10 log10(sum(r^2) / sum(e^2)), in dB | |
| `l2` | sqrt(sum(e^2) / sum(r^2)) | |
| `argmax` | share of rows (last axis) whose argmax in c is a largest element in r | |
| `topK` | mean share of c's K largest elements of a row that are among the K largest in r, ties in r included | |
"""

from __future__ import annotations

import math
import re
from collections.abc import Collection, Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from graphkit.errors import BadOption

if TYPE_CHECKING:
    import numpy as np

    Array = np.ndarray[Any, Any]

ERRORS = ("max_abs", "mean_abs", "p999_abs", "max_rel", "mean_rel", "p999_rel", "ulp", "l2")
"""Metrics that are better when small."""

LIKENESSES = ("cosine", "snr", "argmax")
"""Metrics that are better when large; `topK` is another, for any K."""

DEFAULT_K = 5

_CONDITION = re.compile(r"^(?:(?P<output>.+):)?(?P<metric>[a-z_0-9]+)\s*(?P<op>>=|<=)\s*(?P<bound>[^\s=<>]+)$")
_INTEGERS = {"float16": "uint16", "float32": "uint32", "float64": "uint64"}


@dataclass(frozen=True, slots=True)
class Condition:
    """What a metric has to be: at most `bound` for an error, at least `bound` for a likeness.

    Attributes:
        metric: `snr`, `cosine`, `top5`, `max_abs`, ...
        bound: dB for `snr`, a share in [0, 1] for `argmax` and `topK`, floats for `ulp`.
        output: The one output that it is set for; None for every output.
    """

    metric: str
    bound: float
    output: str | None = None

    @property
    def k(self) -> int | None:
        """The K of `topK`; None for other metrics."""
        return int(self.metric[3:]) if self.metric.startswith("top") else None

    def __str__(self) -> str:
        sign = "<=" if self.metric in ERRORS else ">="
        return f"{self.output + ':' if self.output else ''}{self.metric}{sign}{self.bound:g}"

    def failure(self, values: Mapping[str, float | None]) -> str | None:
        """Why it does not hold; None where it does. A metric that an output does not have does not hold."""
        value = values.get(self.metric)
        if value is None:
            return f"{self.metric} cannot be computed for it ({self} was asked for)"
        good = value <= self.bound if self.metric in ERRORS else value >= self.bound  # False for NaN
        return None if good else f"{self.metric} is {value:.6g}, {self} was asked for"


def parse_condition(text: str) -> Condition:
    """`snr>=40`, `ulp<=16`, `logits:top5>=0.99` as a Condition.

    Raises:
        BadOption: the text is malformed, there is no such metric, or the sign is the wrong way round.
    """
    match = _CONDITION.match(text.strip())
    bound = _number(match["bound"]) if match else None
    if match is None or bound is None:
        raise BadOption(f"--metric {text!r} is not metric>=number", remedy="--metric 'snr>=40', --metric 'out:ulp<=16'")
    metric = match["metric"]
    if metric not in (*ERRORS, *LIKENESSES) and not re.fullmatch(r"top[1-9][0-9]{0,5}", metric):
        known = ", ".join((*ERRORS, *LIKENESSES, "top5"))
        raise BadOption(f"--metric {text!r}: there is no metric `{metric}`", remedy=f"one of {known}")
    wanted = "<=" if metric in ERRORS else ">="
    if match["op"] != wanted:
        better = "smaller" if metric in ERRORS else "larger"
        raise BadOption(f"--metric {text!r}: `{metric}` is better when {better}", remedy=f"{metric}{wanted}{bound:g}")
    return Condition(metric, bound, match["output"])


def measure(reference: Array, candidate: Array, ks: Collection[int] = (DEFAULT_K,)) -> dict[str, float]:
    """Every metric that two arrays have; {} for strings, unequal shapes and empty arrays.

    Args:
        ks: The K of `topK`; one that is not smaller than the last axis says nothing, and is left out.
    """
    import numpy as np

    if reference.shape != candidate.shape or not reference.size or "O" in (reference.dtype.kind, candidate.dtype.kind):
        return {}
    if {reference.dtype.kind, candidate.dtype.kind} & set("US"):
        return {}
    with np.errstate(all="ignore"):
        r, c = _wide(reference), _wide(candidate)
        both = np.isfinite(r) & np.isfinite(c)
        found = _distances(r[both], c[both]) if both.any() else {}
        if reference.dtype == candidate.dtype and reference.dtype.name in _INTEGERS and found:
            found["ulp"] = _ulp(reference[both], candidate[both])
        if r.dtype.kind == "f" and r.ndim:
            found |= _ranks(r, c, ks)
    return found


def _wide(values: Array) -> Array:
    import numpy as np

    return values.astype(np.complex128 if values.dtype.kind == "c" else np.float64)


def _distances(r: Array, c: Array) -> dict[str, float]:
    import numpy as np

    error = np.abs(c - r)
    size = np.abs(r)
    relative = error[size > 0] / size[size > 0]
    found = {"mean_abs": float(error.mean()), "p999_abs": _p999(error)}
    if relative.size:
        found |= {"mean_rel": float(relative.mean()), "p999_rel": _p999(relative)}
    noise, rr, cc = (_norm(a) for a in (error, size, np.abs(c)))
    found["cosine"] = _cosine(r, c, rr, cc)
    found["snr"] = math.inf if noise == 0 else -math.inf if rr == 0 else 20 * (math.log10(rr) - math.log10(noise))
    found["l2"] = 0.0 if noise == 0 else math.inf if rr == 0 else noise / rr
    return found


def _norm(sizes: Array) -> float:
    """Root of the sum of squares, scaled so that the squares neither overflow nor vanish."""
    import numpy as np

    largest = float(sizes.max())
    if largest == 0 or not math.isfinite(largest):
        return largest
    return largest * math.sqrt(float(np.sum((sizes / largest) ** 2)))


def _cosine(r: Array, c: Array, rr: float, cc: float) -> float:
    import numpy as np

    if rr == 0 or cc == 0:
        return 1.0 if rr == cc else 0.0
    return max(-1.0, min(1.0, float(np.sum((np.conj(r / rr) * (c / cc)).real))))


def _p999(values: Array) -> float:
    import numpy as np

    return float(np.quantile(values, 0.999, method="higher"))


def _ulp(r: Array, c: Array) -> float:
    """Floats are ordered as their bits are, read as sign and magnitude."""
    import numpy as np

    kind = np.dtype(_INTEGERS[r.dtype.name])
    half = kind.type(1 << (8 * kind.itemsize - 1))
    a, b = (np.ascontiguousarray(v).view(kind) for v in (r, c))
    a, b = (np.where(v >= half, half - (v - half), half + v) for v in (a, b))
    return float(np.where(a > b, a - b, b - a).max())


def _ranks(r: Array, c: Array, ks: Collection[int]) -> dict[str, float]:
    """Agreement of the largest elements of each row; NaN counts as the smallest."""
    import numpy as np

    width = r.shape[-1]
    if width < 2:
        return {}
    r, c = (np.where(np.isnan(v), -np.inf, v).reshape(-1, width) for v in (r, c))
    best = np.take_along_axis(r, c.argmax(-1)[:, None], -1)[:, 0]
    found = {"argmax": float(np.mean(best >= r.max(-1)))}
    for k in sorted(set(ks)):
        if k < width:
            top = np.argpartition(c, width - k, axis=-1)[:, width - k :]
            least = np.partition(r, width - k, axis=-1)[:, width - k]
            found[f"top{k}"] = float(np.mean(np.take_along_axis(r, top, -1) >= least[:, None]))
    return found


def _number(text: str) -> float | None:
    try:
        value = float(text)
    except ValueError:
        return None
    return value if math.isfinite(value) else None
