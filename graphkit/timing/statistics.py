"""What a list of times says, and what it does not.

Medians and their intervals, not means and standard deviations: times have a floor and a long tail. See T. Hoefler and
R. Belli, Scientific Benchmarking of Parallel Computing Systems (SC 2015), rules 5 to 8.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from statistics import median
from typing import Any, Literal

CONFIDENCE = 0.95

Verdict = Literal["faster", "slower", "no difference seen"]


@dataclass(frozen=True, slots=True)
class Latency:
    """Times of one side at one point, in seconds.

    Attributes:
        runs: How many were timed, in `rounds` rounds.
        mean, least, p50: Of all runs.
        p90, p99: None where fewer than 10, or 100, runs were timed: it would be the slowest run, or invented.
        spread: Interquartile range over the median.
        medians: Of each round.
    """

    runs: int
    rounds: int
    mean: float
    least: float
    p50: float
    p90: float | None
    p99: float | None
    spread: float
    medians: tuple[float, ...]

    def to_json(self) -> dict[str, Any]:
        return {
            "runs": self.runs,
            "rounds": self.rounds,
            "mean": self.mean,
            "min": self.least,
            "p50": self.p50,
            "p90": self.p90,
            "p99": self.p99,
            "spread": self.spread,
            "round_medians": list(self.medians),
        }


@dataclass(frozen=True, slots=True)
class Ratio:
    """The time of a side over that of another.

    Attributes:
        value: Median over the rounds of the ratio of the two sides' medians in that round.
        low, high: Its interval; None with too few rounds.
        rounds: Pairs.
    """

    value: float
    low: float | None
    high: float | None
    rounds: int

    @property
    def verdict(self) -> Verdict:
        """A claim only where the whole interval lies on one side of 1."""
        if self.low is None or self.high is None or self.low <= 1 <= self.high:
            return "no difference seen"
        return "faster" if self.high < 1 else "slower"

    def to_json(self) -> dict[str, Any]:
        return {
            "ratio": self.value,
            "low": self.low,
            "high": self.high,
            "confidence": CONFIDENCE,
            "rounds": self.rounds,
            "verdict": self.verdict,
        }


def latency(rounds: Sequence[Sequence[int]]) -> Latency:
    """Sum up nanoseconds by round; at least one run."""
    import numpy as np

    times = np.concatenate([np.asarray(each, dtype=np.float64) for each in rounds]) / 1e9
    quarter, middle, three, p90, p99 = (float(q) for q in np.percentile(times, (25, 50, 75, 90, 99)))
    return Latency(
        runs=len(times),
        rounds=len(rounds),
        mean=float(times.mean()),
        least=float(times.min()),
        p50=middle,
        p90=p90 if len(times) >= 10 else None,
        p99=p99 if len(times) >= 100 else None,
        spread=(three - quarter) / middle if middle else 0.0,
        medians=tuple(median(each) / 1e9 for each in rounds),
    )


def ratio(side: Latency, other: Latency) -> Ratio:
    """The time of `side` over that of `other`, paired by round: what slows the machine for a round slows both."""
    pairs = [a / b for a, b in zip(side.medians, other.medians, strict=True) if b]
    if not pairs:  # a clock too coarse to see the other
        return Ratio(1.0, None, None, 0)
    low, high = median_interval(pairs) or (None, None)
    return Ratio(median(pairs), low, high, len(pairs))


def median_interval(values: Sequence[float], confidence: float = CONFIDENCE) -> tuple[float, float] | None:
    """The interval of order statistics that holds the median of what the values are drawn from with at least this
    probability, whatever the distribution; None where there are too few values.

    J.-Y. Le Boudec, Performance Evaluation of Computer and Communication Systems (2010), theorem 2.1: the k-th smallest
    to the k-th largest of n values hold it with probability 1 - 2 P(Binomial(n, 1/2) < k).
    """
    ordered, count = sorted(values), len(values)
    outside, found = 0.0, None
    for k in range(1, count // 2 + 1):
        outside += math.comb(count, k - 1) / 2**count
        if 1 - 2 * outside < confidence:
            break
        found = ordered[k - 1], ordered[count - k]
    return found
