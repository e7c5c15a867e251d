"""Statistics of weights, a megabyte at a time: a model of any size in constant memory."""

from __future__ import annotations

import math
from dataclasses import asdict, dataclass
from typing import TYPE_CHECKING, Any

from graphkit.errors import CorruptFile
from graphkit.view import WeightView
from graphkit.view.payload import as_array

if TYPE_CHECKING:
    from numpy.typing import NDArray


@dataclass(frozen=True, slots=True)
class WeightStats:
    """Statistics of one weight, in float64; min to deviation are of the finite elements.

    Attributes:
        elements: How many there are.
        minimum, maximum, mean, deviation: None without a finite element. The deviation is that of the population.
        zeros, nan, infinite: How many elements are 0, NaN, and infinite.
    """

    elements: int
    minimum: float | None
    maximum: float | None
    mean: float | None
    deviation: float | None
    zeros: int
    nan: int
    infinite: int

    def to_json(self) -> dict[str, Any]:
        return asdict(self)


def stats_of(weight: WeightView) -> WeightStats | None:
    """The statistics of a weight; None for strings and complex numbers.

    Raises:
        FileMissing, UnsafePath, CorruptFile: as `WeightView.read`.
    """
    dtype = weight.known_dtype()
    if not dtype.bits or dtype.name.startswith("complex"):
        return None
    running = _Running()
    rest = b""
    for piece in weight.pieces():
        data = rest + piece
        whole = len(data) * 8 // dtype.bits
        if dtype.bits == 6:  # four elements lie in three bytes
            whole -= whole % 4
        whole = min(whole, weight.size - running.elements)
        size = -(-whole * dtype.bits // 8)
        running.add(as_array(dtype, (whole,), data[:size], weight.name))
        rest = data[size:]
    if rest:
        whole = weight.size - running.elements
        running.add(as_array(dtype, (whole,), rest, weight.name))
    if running.elements != weight.size:
        raise CorruptFile(f"weight `{weight.name}` has {running.elements} values instead of {weight.size}")
    return running.result()


class _Running:
    """Mean and squared deviations of what came so far (Chan, Golub and LeVeque, 1979)."""

    def __init__(self) -> None:
        self.elements = self.finite = self.zeros = self.nan = self.infinite = 0
        self.mean = self.squares = 0.0
        self.low, self.high = math.inf, -math.inf

    def add(self, values: NDArray[Any]) -> None:
        import numpy as np

        self.elements += values.size
        numbers = values.astype(np.float64)
        finite = numbers[np.isfinite(numbers)]
        self.zeros += int(np.count_nonzero(numbers == 0))
        self.nan += int(np.count_nonzero(np.isnan(numbers)))
        self.infinite += int(np.count_nonzero(np.isinf(numbers)))
        if not finite.size:
            return
        mean = float(finite.mean())
        squares = float(((finite - mean) ** 2).sum())
        apart, total = mean - self.mean, self.finite + finite.size
        self.squares += squares + apart * apart * self.finite * finite.size / total
        self.mean += apart * finite.size / total
        self.finite = total
        self.low, self.high = min(self.low, float(finite.min())), max(self.high, float(finite.max()))

    def result(self) -> WeightStats:
        counted = (self.zeros, self.nan, self.infinite)
        if not self.finite:
            return WeightStats(self.elements, None, None, None, None, *counted)
        deviation = math.sqrt(self.squares / self.finite)
        return WeightStats(self.elements, self.low, self.high, self.mean, deviation, *counted)
