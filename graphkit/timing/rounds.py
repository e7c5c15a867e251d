"""Rounds in which every side runs for a while, one after another, so that what changes on the machine hits all."""

from __future__ import annotations

import statistics
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

from graphkit.errors import GraphkitError
from graphkit.timing.stopwatch import Stopwatch

FEWEST, MOST = 6, 20
"""Rounds: with fewer than 6 there is no 95 % interval for a median (see `statistics.median_interval`)."""

_REST = 0.02
"""Seconds between two blocks. OpenMP's threads wait for more work at full speed for some milliseconds after a run."""


@dataclass(frozen=True, slots=True)
class Budget:
    """How long each side is timed at each point.

    Attributes:
        runs: Timed runs of each side; None for as many as fit `seconds`.
        seconds: Time for each side.
        warm_up: Runs before that, which are not counted.
    """

    runs: int | None = None
    seconds: float = 2.0
    warm_up: int = 3


@dataclass(slots=True)
class Rounds:
    """What was timed.

    Attributes:
        times: Nanoseconds of every run, by side and round.
        errors: Sides that failed, and how.
    """

    times: dict[int, list[list[int]]] = field(default_factory=dict)
    errors: dict[int, GraphkitError] = field(default_factory=dict)


def interleaved(watches: Mapping[int, Stopwatch], budget: Budget) -> Rounds:
    """Time sides that have their inputs: A B A B, each a block of runs at a time. One that fails is left out from
    then on, and what was timed of it is dropped.

    Args:
        watches: By the number of the side.
    """
    found = Rounds()
    warm = {n: _block(n, watch, budget.warm_up, 0.0, found) for n, watch in watches.items()}
    slowest = max((statistics.median(times) for times in warm.values() if times), default=0) / 1e9
    for runs, seconds in _blocks(budget, slowest):
        for number, watch in watches.items():
            if number not in found.errors:
                time.sleep(_REST)
                found.times.setdefault(number, []).append(_block(number, watch, runs, seconds, found))
    for number in found.errors:
        found.times.pop(number, None)
    return found


def _block(number: int, watch: Stopwatch, runs: int, seconds: float, found: Rounds) -> list[int]:
    if not runs:
        return []
    try:
        return watch.block(runs, seconds)
    except GraphkitError as error:
        found.errors[number] = error
        return []


def _blocks(budget: Budget, slowest: float) -> Sequence[tuple[int, float]]:
    """Least runs and seconds of each block."""
    if budget.runs is not None:
        rounds = min(budget.runs, MOST)
        each, more = divmod(budget.runs, rounds)
        return [(each + (number < more), 0.0) for number in range(rounds)]
    rounds = MOST if slowest <= 0 else min(max(int(budget.seconds / slowest), FEWEST), MOST)
    return [(1, budget.seconds / rounds)] * rounds
