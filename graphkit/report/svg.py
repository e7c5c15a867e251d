"""What the pictures of the reports have in common: a self-contained SVG on white, and text in it."""

from __future__ import annotations

from collections.abc import Iterable
from xml.sax.saxutils import escape

from graphkit.report.wording import printable


def document(width: int, height: int, parts: Iterable[str]) -> str:
    """A whole SVG file of these parts; sizes in pixels."""
    opening = (
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {width} {height}" font-family="sans-serif" '
        f'font-size="12"><rect width="{width}" height="{height}" fill="white"/>'
    )
    return "\n".join([opening, *parts, "</svg>"]) + "\n"


def text(x: float, y: float, words: str, anchor: str, *, size: int = 12) -> str:
    """Words at a place; names in them may come from an untrusted file."""
    return f'<text x="{x:.1f}" y="{y:.1f}" text-anchor="{anchor}" font-size="{size}">{said(words)}</text>'


def said(words: str) -> str:
    """Words as they may stand in a tag or a `title`."""
    return escape(printable(words))
