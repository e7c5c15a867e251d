"""Progress, as values: rooms emit, whoever listens (the command line, a test) shows it."""

from __future__ import annotations

import contextlib
import time
from collections.abc import Callable, Iterator
from contextvars import ContextVar
from typing import Any

Event = dict[str, Any]
"""`{"event": "progress", "phase": "...", "done": 3, "total": 10}`; JSON values only, for events cross processes."""

_listener: ContextVar[Callable[[Event], None] | None] = ContextVar("graphkit_listener", default=None)


def emit(event: str, **data: Any) -> None:
    """Tell the current listener, if any."""
    listener = _listener.get()
    if listener is not None:
        listener({"event": event, **data})


@contextlib.contextmanager
def listening(listener: Callable[[Event], None]) -> Iterator[None]:
    """Send what is emitted inside the block to `listener`."""
    token = _listener.set(listener)
    try:
        yield
    finally:
        _listener.reset(token)


@contextlib.contextmanager
def stage(name: str) -> Iterator[list[str]]:
    """Tell the listener that a piece of work has begun and ended; the block appends what it did."""
    emit("stage", name=name, state="start")
    started, said, state = time.perf_counter(), list[str](), "failed"
    try:
        yield said
        state = "done"
    finally:
        emit("stage", name=name, state=state, seconds=time.perf_counter() - started, detail="; ".join(said))
