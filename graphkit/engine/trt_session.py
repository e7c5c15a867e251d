"""The child's hold on one library: its module, its only logger, its progress."""

from __future__ import annotations

import contextvars
import importlib
import sys
import threading
import time
from dataclasses import dataclass, field
from typing import Any

from graphkit import events
from graphkit.errors import InternalError

SECONDS_BETWEEN_EVENTS = 0.05


@dataclass(slots=True)
class Log:
    """What the library said since the last `clear`; warnings without repetition."""

    errors: list[str] = field(default_factory=list)
    warnings: list[str] = field(default_factory=list)

    def clear(self) -> None:
        self.errors, self.warnings = [], []

    def add(self, *, error: bool, message: str) -> None:
        print(message, file=sys.stderr, flush=True)  # the child's last lines, should it crash
        lines = self.errors if error else self.warnings
        if message not in lines:
            lines.append(message)


@dataclass(frozen=True, slots=True)
class Session:
    """One of the two libraries in this process.

    Attributes:
        trt: Its module.
        log: What it says.
        rtx: Whether it is TensorRT-RTX.
    """

    trt: Any
    log: Log
    rtx: bool


_logs: dict[str, Log] = {}


def open_session(rtx: bool) -> Session:
    """The library, ready for a new call; its log is empty.

    Raises:
        InternalError: this child's environment chose the other library.
    """
    from polygraphy import config
    from polygraphy.backend.trt import util as polygraphy_trt
    from polygraphy.logger import G_LOGGER

    if bool(config.USE_TENSORRT_RTX) != rtx:
        raise InternalError(f"POLYGRAPHY_USE_TENSORRT_RTX is {config.USE_TENSORRT_RTX} in this child, expected {rtx}")
    name = "tensorrt_rtx" if rtx else "tensorrt"
    trt = importlib.import_module(name)
    if name not in _logs:
        _logs[name] = Log()
        # TensorRT keeps the first logger of the process for good, so Polygraphy must hand it this one.
        polygraphy_trt.TRT_LOGGER = _make_logger(trt, _logs[name])
        G_LOGGER.module_severity = G_LOGGER.CRITICAL
    _logs[name].clear()
    return Session(trt, _logs[name], rtx)


def _make_logger(trt: Any, log: Log) -> Any:
    class Logger(trt.ILogger):  # type: ignore[misc]
        def __init__(self) -> None:
            trt.ILogger.__init__(self)

        def log(self, severity: Any, message: str) -> None:
            if severity in (trt.Logger.ERROR, trt.Logger.INTERNAL_ERROR):
                log.add(error=True, message=message)
            elif severity == trt.Logger.WARNING:
                log.add(error=False, message=message)

    return Logger()


def make_monitor(trt: Any) -> Any:
    """The library's progress as events; they reach this call's listener from whatever thread the library uses."""
    context = contextvars.copy_context()
    lock = threading.Lock()
    totals: dict[str, int] = {}
    last = [0.0]

    def tell(phase: str, done: int, *, always: bool = False) -> None:
        with lock:
            now = time.monotonic()
            if always or now - last[0] >= SECONDS_BETWEEN_EVENTS:
                last[0] = now
                context.copy().run(events.emit, "progress", phase=phase, done=done, total=totals.get(phase, done))

    class Monitor(trt.IProgressMonitor):  # type: ignore[misc]
        def __init__(self) -> None:
            trt.IProgressMonitor.__init__(self)

        def phase_start(self, phase_name: str, parent_phase: str | None, num_steps: int) -> None:
            totals[phase_name] = num_steps
            tell(phase_name, 0, always=parent_phase is None)

        def step_complete(self, phase_name: str, step: int) -> bool:
            tell(phase_name, step + 1)
            return True

        def phase_finish(self, phase_name: str) -> None:
            tell(phase_name, totals.get(phase_name, 0), always=True)

    return Monitor()
