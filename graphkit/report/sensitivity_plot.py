"""A sensitivity search as a picture: the error of every set that was run against its share of low-precision FLOPs, as a
self-contained SVG."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING

from graphkit.report import svg

if TYPE_CHECKING:
    from collections.abc import Iterator

    from graphkit.precision.search import SearchResult, Trial

_WIDTH, _HEIGHT = 960, 420
_LEFT, _RIGHT, _TOP, _BOTTOM = 80, 30, 50, 50


def to_svg(result: SearchResult) -> str:
    """Errors on a logarithmic scale; those that are not finite stand on the upper edge, zero on the lower.

    The line is the bound; the set that was chosen is marked.
    """
    known = [t.error for t in result.trials if 0 < t.error < math.inf]
    low = 10.0 ** math.floor(math.log10(min([*known, result.max_drop])))
    high = 10.0 ** math.ceil(math.log10(max([*known, result.max_drop]) * 1.01))
    chosen = max((t for t in result.trials if t.error == result.error), key=lambda t: t.share)
    name = {"cosine": "1 - cosine", "l2": "relative L2 error"}[result.metric]
    title = (
        f"{result.lowering.precision}: {100 * chosen.share:.0f} % of the FLOPs at {name} {result.error:.3g} "
        f"(bound {result.max_drop:g}, {len(result.trials)} trials)"
    )
    parts = [
        svg.text(_LEFT, 28, title, "start", size=15),
        *_grid(low, high, result.max_drop),
        *(_dot(t, low, high, result.max_drop, marked=t is chosen) for t in result.trials),
        svg.text((_LEFT + _WIDTH - _RIGHT) / 2, _HEIGHT - 12, "share of the layers' FLOPs in low precision", "middle"),
    ]
    return svg.document(_WIDTH, _HEIGHT, parts)


def _grid(low: float, high: float, bound: float) -> Iterator[str]:
    for power in range(round(math.log10(low)), round(math.log10(high)) + 1):
        yield from _line(_y(10.0**power, low, high), "#ddd", f"1e{power}")
    yield from _line(_y(bound, low, high), "#c00", "bound")
    for percent in range(0, 101, 20):
        yield svg.text(_x(percent / 100), _HEIGHT - _BOTTOM + 18, f"{percent} %", "middle")


def _line(y: float, colour: str, label: str) -> Iterator[str]:
    yield f'<line x1="{_LEFT}" x2="{_WIDTH - _RIGHT}" y1="{y:.1f}" y2="{y:.1f}" stroke="{colour}"/>'
    yield svg.text(_LEFT - 6, y + 4, label, "end")


def _dot(trial: Trial, low: float, high: float, bound: float, *, marked: bool) -> str:
    colour = "#c00" if trial.error > bound else "#06c"
    said = svg.said(f"{trial.kept} layers kept: error {trial.error:.3g}")
    ring = ' stroke="black" stroke-width="2"' if marked else ""
    return (
        f'<circle cx="{_x(trial.share):.1f}" cy="{_y(trial.error, low, high):.1f}" r="{6 if marked else 3}" '
        f'fill="{colour}"{ring}><title>{said}</title></circle>'
    )


def _x(share: float) -> float:
    return _LEFT + (_WIDTH - _LEFT - _RIGHT) * share


def _y(error: float, low: float, high: float) -> float:
    share = math.log(min(max(error, low), high) / low) / math.log(high / low)
    return _HEIGHT - _BOTTOM - share * (_HEIGHT - _TOP - _BOTTOM)
