"""To be written."""

from __future__ import annotations

from pathlib import Path

from graphkit.capture.request import CaptureRequest, Source


def recognise(path: Path, head: bytes, request: CaptureRequest) -> Source | None:
    """None: not written yet."""
    return None
