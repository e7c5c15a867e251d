"""A `Location` as a picture: the error of each tensor along the candidate's depth, as a self-contained SVG."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING

from graphkit.report import svg

if TYPE_CHECKING:
    from collections.abc import Iterator

    from graphkit.parity.divergence import Location, TensorError

_WIDTH, _HEIGHT = 960, 420
_LEFT, _RIGHT, _TOP, _BOTTOM = 70, 30, 50, 50
_LEAST = 1e-6  # errors below it, zero too, stand on the axis


def to_svg(location: Location) -> str:
    """Errors in units of the tolerance, on a logarithmic scale; infinite ones stand on the upper edge.

    The line at 1 is the tolerance; the located tensor is marked. Without measured tensors the picture says why.
    """
    known = [t.error for t in location.measured if math.isfinite(t.error)]
    high = 10.0 ** math.ceil(math.log10(max([10.0, *known]) * 1.01))
    deepest = max([1, *(t.depth for t in location.measured)])
    found = location.divergence
    title = (
        f"first divergence: {found.op} '{found.node}' -> '{found.tensor}'"
        if found is not None
        else f"{location.status}: {location.reason}"
    )
    parts = [
        svg.text(_LEFT, 28, title, "start", size=15),
        *_grid(high),
        *(_dot(t, deepest, high, marked=t == found) for t in location.measured),
        svg.text((_LEFT + _WIDTH - _RIGHT) / 2, _HEIGHT - 14, f"position of the node, 0 to {deepest}", "middle"),
    ]
    return svg.document(_WIDTH, _HEIGHT, parts)


def _grid(high: float) -> Iterator[str]:
    for power in range(round(math.log10(_LEAST)), round(math.log10(high)) + 1):
        y = _y(10.0**power, high)
        colour, label = ("#c00", "tolerance") if power == 0 else ("#ddd", f"1e{power}")
        yield f'<line x1="{_LEFT}" x2="{_WIDTH - _RIGHT}" y1="{y:.1f}" y2="{y:.1f}" stroke="{colour}"/>'
        yield svg.text(_LEFT - 6, y + 4, label, "end")


def _dot(tensor: TensorError, deepest: int, high: float, *, marked: bool) -> str:
    x = _LEFT + (_WIDTH - _LEFT - _RIGHT) * tensor.depth / deepest
    colour = "#c00" if tensor.error > 1 else "#06c"
    said = svg.said(f"{tensor.op} {tensor.tensor}: {tensor.error:.3g} tolerances")
    ring = ' stroke="black" stroke-width="2"' if marked else ""
    return (
        f'<circle cx="{x:.1f}" cy="{_y(tensor.error, high):.1f}" r="{6 if marked else 3}" fill="{colour}"{ring}>'
        f"<title>{said}</title></circle>"
    )


def _y(error: float, high: float) -> float:
    share = math.log(min(max(error, _LEAST), high) / _LEAST) / math.log(high / _LEAST)
    return _HEIGHT - _BOTTOM - share * (_HEIGHT - _TOP - _BOTTOM)
