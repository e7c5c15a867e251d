"""What is asked of every candidate, and how often it may be asked."""

from __future__ import annotations

import time
from dataclasses import dataclass, field
from pathlib import Path

from graphkit.errors import GraphkitError
from graphkit.shrink.failure import Failure
from graphkit.shrink.trial import Check, Trial


class BudgetSpent(Exception):
    """No further trial is allowed."""


@dataclass(slots=True)
class Budget:
    """How often, and for how long, candidates may be checked.

    Attributes:
        trials: Most trials.
        seconds: Most time; None for any.
        spent: Trials so far.
    """

    trials: int
    seconds: float | None = None
    spent: int = 0
    _started: float = field(default_factory=time.monotonic)

    @property
    def over(self) -> bool:
        """Whether nothing more may be tried."""
        late = self.seconds is not None and time.monotonic() - self._started > self.seconds
        return late or self.spent >= self.trials

    def spend(self) -> None:
        """Raises: BudgetSpent."""
        if self.over:
            raise BudgetSpent
        self.spent += 1


@dataclass(frozen=True, slots=True)
class Question:
    """Does it fail in the same way?

    Attributes:
        check: What decides.
        reason: Of the whole model's failure.
        budget: How much may be tried.
        folder: For temporary files.
    """

    check: Check
    reason: str
    budget: Budget
    folder: Path

    def judge(self, trial: Trial) -> tuple[Failure, ...]:
        """The failures of a trial on its samples, if all of them have the reason; else ()."""
        numbers = range(len(trial.samples)) if self.check.each_sample and trial.samples else (None,)
        found = []
        for number in numbers:
            try:
                failure = self.check.run(trial, number)
            except GraphkitError:  # it cannot be told: not the failure that is looked for
                return ()
            if failure is None or self.reason not in failure.reasons:
                return ()
            found.append(failure)
        return tuple(found)
