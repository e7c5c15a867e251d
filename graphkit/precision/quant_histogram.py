"""How large the values of a tensor are: a histogram of |x| that grows with the data, and the clipping that it suggests.

Used for `entropy` and `percentile`; `minmax` needs the largest |x| alone.
"""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    import numpy as np

    Array = np.ndarray[Any, Any]

BINS = 2048
LEVELS = 128
"""Magnitudes that int8 can tell apart."""

_CLIPPINGS = 256
"""Clippings that `entropy` tries at most, evenly spread: all 1,921 take 0.1 s and more for each tensor."""


class Histogram:
    """Counts of |x| in `BINS` bins of equal width from 0; when a larger value comes, the width doubles, so that counts
    stay exact.

    Attributes:
        counts: int64 [BINS].
        width: Of a bin; 0 before the first value that is not 0.
        amax: The largest |x| seen.
    """

    def __init__(self) -> None:
        import numpy as np

        self.counts: Array = np.zeros(BINS, np.int64)
        self.width = 0.0
        self.amax = 0.0

    def add(self, values: Array) -> None:
        """Count the values of an array; they are finite."""
        import numpy as np

        sizes = np.abs(values.reshape(-1)).astype(np.float32, copy=False)
        if not sizes.size:
            return
        self.amax = max(self.amax, float(sizes.max()))
        if self.amax > 0 and self.width == 0:
            zeros, self.counts = self.counts[0], np.zeros(BINS, np.int64)
            self.counts[0] = zeros
            self.width = max(self.amax / BINS, float(np.finfo(np.float32).tiny))  # float32 divides by it
        while self.amax > self.width * BINS * (1 + 1e-6):
            halves = self.counts.reshape(-1, 2).sum(1)
            self.counts = np.concatenate([halves, np.zeros(BINS // 2, np.int64)])
            self.width *= 2
        places = np.minimum(sizes / self.width if self.width else sizes, BINS - 1).astype(np.int32)
        self.counts += np.bincount(places, minlength=BINS)


def percentile(histogram: Histogram, percent: float) -> float:
    """The size below which `percent` % of the values lie, at the upper edge of its bin; at most the largest |x|."""
    import numpy as np

    reached = np.cumsum(histogram.counts)
    if not reached[-1]:
        return 0.0
    place = int(np.searchsorted(reached, percent / 100 * reached[-1]))
    return min(histogram.amax, (place + 1) * histogram.width)


def entropy(histogram: Histogram) -> float:
    """The clipping whose quantised distribution diverges least from the original, by Kullback and Leibler.

    Migacz, 8-bit Inference with TensorRT, GTC 2017: for every clipping at i bins, P is the first i bins with the rest
    added to the last; Q the same bins in `LEVELS` levels, each spread evenly over those of its bins that are not empty.
    """
    import numpy as np

    counts = histogram.counts.astype(np.float64)
    counts[0] = 0.0  # exact zeros (ReLU, padding) cost nothing at any scale, and would drown the rest
    filled = np.flatnonzero(counts)
    if not filled.size:
        return histogram.amax
    last = int(filled[-1]) + 1
    best, chosen = math.inf, last
    first = min(LEVELS, last)
    for clip in range(last, first - 1, -max(1, (last - first) // _CLIPPINGS)):
        found = _divergence(counts, clip)
        if found < best:
            best, chosen = found, clip
    return min(histogram.amax, (chosen + 0.5) * histogram.width)


def _divergence(counts: Array, clip: int) -> float:
    import numpy as np

    inside = counts[:clip]
    original = inside.copy()
    original[-1] += counts[clip:].sum()
    edges = np.arange(min(LEVELS, clip)) * clip // min(LEVELS, clip)
    sums = np.add.reduceat(inside, edges)
    filled = inside > 0
    kept = np.add.reduceat(filled.astype(np.float64), edges)
    level = np.repeat(sums / np.maximum(kept, 1), np.diff(np.append(edges, clip)))
    quantised = np.where(filled, level, 0.0)
    p, q = original / original.sum(), quantised / max(quantised.sum(), 1e-300)
    both = p > 0
    # A bin that only the clipped tail fills has no partner in Q: it counts as the smallest share that there is.
    return float(np.sum(p[both] * np.log(p[both] / np.maximum(q[both], 1e-9))))
