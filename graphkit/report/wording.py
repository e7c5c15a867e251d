"""How sizes, durations and names from untrusted files are spelled for people."""

from __future__ import annotations

import unicodedata


def bytes_text(size: int) -> str:
    """`0 B`, `982 B`, `12.4 MB`, `1.5 GB`: decimal units, three digits or so."""
    value = float(size)
    for unit in ("B", "kB", "MB", "GB"):
        if value < 999.95 or unit == "GB":
            break
        value /= 1000
    return f"{size} B" if unit == "B" else f"{value:.1f} {unit}"


def seconds_text(seconds: float) -> str:
    """`0.4 s`, `12.3 s`, `2 min 05 s`."""
    if seconds < 99.95:
        return f"{seconds:.1f} s"
    return f"{int(seconds) // 60} min {int(seconds) % 60:02d} s"


def printable(text: str) -> str:
    """`text` with control characters spelled out: a name in a model file must not steer the terminal."""
    return "".join(c if c in "\n\t" or not unicodedata.category(c).startswith("C") else ascii(c)[1:-1] for c in text)


def counted(count: int, what: str) -> str:
    """`1 layer`, `3 layers`."""
    return f"{count} {what}{'' if count == 1 else 's'}"
