"""Where a run stands under the roofline: work and traffic that the graph implies, over the time that it took.

S. Williams, A. Waterman and D. Patterson, Roofline: an insightful visual performance model (CACM 52/4, 2009).
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from graphkit.model import Model


@dataclass(frozen=True, slots=True)
class Work:
    """What one run of a graph has to do, as the graph says it: an estimate, for runtimes rewrite graphs.

    Attributes:
        flops: Twice the multiplications that are summed (`analyze.cost.DEFINITION`).
        at_least: Whether some operators' are unknown.
        moved: Bytes that all nodes read and write, weights included, if nothing stays in a cache.
    """

    flops: int
    at_least: bool
    moved: int

    @property
    def intensity(self) -> float | None:
        """FLOPs per byte."""
        return self.flops / self.moved if self.moved else None

    def achieved(self, seconds: float) -> float | None:
        """FLOPs per second."""
        return self.flops / seconds if seconds and self.flops else None

    def to_json(self, seconds: float) -> dict[str, Any]:
        return {
            "estimated": True,
            "flops": self.flops,
            "at_least": self.at_least,
            "bytes_moved": self.moved,
            "flops_per_byte": self.intensity,
            "flops_per_second": self.achieved(seconds),
        }


def work_of(model: Model, sizes: Mapping[str, int]) -> Work | None:
    """The work of a graph at these sizes of its own dimensions; None where it cannot be told."""
    from graphkit.analyze.summary import summarise
    from graphkit.errors import GraphkitError
    from graphkit.view import of

    try:
        summary = summarise(of(model), sizes)
    except GraphkitError:  # the graph runs; that it cannot be summed up is no fault of the measurement
        return None
    macs = summary.macs
    return None if macs.at is None else Work(2 * macs.at, macs.status == "at least", summary.memory.moved)
