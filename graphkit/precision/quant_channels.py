"""What calibration keeps of a tensor whose channels can be moved: how far each reaches, and some rows.

In two halves, sample by sample in turn, so that what is chosen by one can be tried on the other.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    import numpy as np

    Array = np.ndarray[Any, Any]

ROWS = 256
"""Kept of each half, evenly spread over a sample; at most `PER_SAMPLE` of one."""

PER_SAMPLE = 64


@dataclass(frozen=True, slots=True)
class Half:
    """One half of the samples.

    Attributes:
        low, high: float32 [channels].
        rows: float32 [rows, channels].
    """

    low: Array
    high: Array
    rows: Array


class Log:
    """Takes a tensor of each sample; the last axis counts channels."""

    def __init__(self) -> None:
        self._halves: list[Half | None] = [None, None]
        self._count = 0

    def add(self, values: Array) -> None:
        """A sample's tensor, float32 and finite; one without elements is left out."""
        import numpy as np

        rows = values.reshape(-1, values.shape[-1])
        if not rows.size:
            return
        at, self._count = self._count % 2, self._count + 1
        low, high, before = rows.min(0), rows.max(0), self._halves[at]
        room = min(PER_SAMPLE, ROWS - (len(before.rows) if before is not None else 0), len(rows))
        kept = rows[np.linspace(0, len(rows) - 1, room).astype(int)].astype(np.float32) if room else rows[:0]
        if before is not None:
            low, high = np.minimum(low, before.low), np.maximum(high, before.high)
            kept = np.concatenate([before.rows, kept])
        self._halves[at] = Half(low, high, kept)

    def tensors(self, name: str) -> dict[str, Array]:
        """All of it by name, for the way between processes."""
        found: dict[str, Array] = {}
        for at, half in enumerate(self._halves):
            if half is not None:
                found |= {f"{name}/{at}/{part}": getattr(half, part) for part in ("low", "high", "rows")}
        return found


def halves(tensors: dict[str, Array], name: str) -> tuple[Half, ...]:
    """Inverse of `Log.tensors`: two halves, one where there was one sample."""
    return tuple(
        Half(*(tensors[f"{name}/{at}/{part}"] for part in ("low", "high", "rows")))
        for at in range(2)
        if f"{name}/{at}/low" in tensors
    )
