"""A benchmark as a picture: at every point a bar for each side, as a self-contained SVG."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING

from graphkit.report import svg
from graphkit.report.bench import time_text

if TYPE_CHECKING:
    from collections.abc import Iterator

    from graphkit.timing.result import BenchPoint, BenchResult
    from graphkit.timing.statistics import Latency

_WIDTH, _LEFT, _RIGHT, _TOP, _BOTTOM = 960, 240, 90, 50, 40
_ROW, _GAP = 22, 30
_COLOURS = ("#06c", "#c60", "#393", "#936", "#666", "#099")


def to_svg(result: BenchResult) -> str:
    """Median times on a logarithmic scale, with a line from the fastest run to the 90th percentile (to the median where
    there were too few runs for one). A side that was not timed at a point is named there without a bar."""
    known = [t.latency for p in result.points for t in p.sides if t.latency is not None]
    low, high = _decades(known)
    parts, y = [svg.text(20, 28, "median time of a run; line: fastest run to p90", "start", size=15)], float(_TOP)
    for point in result.points:
        parts += _rows(point, result, y, low, high)
        y += _GAP + _ROW * len(point.sides)
    height = int(y) + _BOTTOM
    return svg.document(_WIDTH, height, [parts[0], *_grid(low, high, height), *parts[1:]])


def _decades(known: list[Latency]) -> tuple[float, float]:
    """Powers of ten around all times; one decade at least."""
    least = min((each.least for each in known if each.least > 0), default=1e-3)
    most = max((each.p90 or each.p50 for each in known), default=1e-3)
    low = 10.0 ** math.floor(math.log10(least))
    return low, max(10.0 ** math.ceil(math.log10(max(most, low))), 10 * low)


def _grid(low: float, high: float, height: int) -> Iterator[str]:
    for power in range(round(math.log10(low)), round(math.log10(high)) + 1):
        x = _x(10.0**power, low, high)
        yield f'<line x1="{x:.1f}" x2="{x:.1f}" y1="{_TOP - 8}" y2="{height - _BOTTOM}" stroke="#ddd"/>'
        yield svg.text(x, height - _BOTTOM + 18, time_text(10.0**power), "middle")


def _rows(point: BenchPoint, result: BenchResult, top: float, low: float, high: float) -> Iterator[str]:
    yield svg.text(20, top + 6, ", ".join(f"{s}={n}" for s, n in point.sizes.items()) or "the fixed shapes", "start")
    for number, each in enumerate(point.sides):
        y = top + _ROW * (number + 1)
        yield svg.text(_LEFT - 8, y + 4, result.sides[each.side].name, "end")
        if each.latency is None:
            yield svg.text(_LEFT + 4, y + 4, "not timed", "start")
            continue
        yield _bar(each.latency, _COLOURS[each.side % len(_COLOURS)], y, low, high)


def _bar(mine: Latency, colour: str, y: float, low: float, high: float) -> str:
    middle, end = _x(mine.p50, low, high), _x(mine.p90 or mine.p50, low, high)
    title = f"p50 {time_text(mine.p50)}, min {time_text(mine.least)}, mean {time_text(mine.mean)}, {mine.runs} runs"
    return (
        f'<rect x="{_LEFT}" y="{y - 6:.1f}" width="{max(middle - _LEFT, 1):.1f}" height="12" fill="{colour}">'
        f"<title>{svg.said(title)}</title></rect>"
        f'<line x1="{_x(mine.least, low, high):.1f}" x2="{end:.1f}" y1="{y:.1f}" y2="{y:.1f}" stroke="black"/>'
        + svg.text(max(middle, end) + 6, y + 4, time_text(mine.p50), "start")
    )


def _x(seconds: float, low: float, high: float) -> float:
    share = math.log(min(max(seconds, low), high) / low) / math.log(high / low)
    return _LEFT + (_WIDTH - _LEFT - _RIGHT) * share
