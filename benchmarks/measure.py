"""Times two whole commands against one another, and weighs them.

They run in alternation (A B A B ...), and the ratio is the median of the ratios pair by pair, so that a machine that
slows down for a while slows down both sides. Memory is taken in the warm-up runs: sampling would disturb the timing.
"""

from __future__ import annotations

import os
import statistics
import subprocess
import threading
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path

SAMPLED_EVERY = 0.01
"""Seconds between two samples of memory; a shorter peak may be missed."""


class CommandFailed(RuntimeError):
    """A measured command ended with an error: what it took says nothing."""


@dataclass(frozen=True, slots=True)
class Command:
    """A command to measure.

    Attributes:
        label: What to call it, without paths.
        argv: Program and arguments.
        env: Environment variables over those of this process.
        cwd: Where it runs; here, if None.
        reading: Seconds from its standard output and error, for a part of the command; None for its whole wall time.
    """

    label: str
    argv: tuple[str, ...]
    env: Mapping[str, str] = field(default_factory=dict)
    cwd: Path | None = None
    reading: Callable[[str, str], float] | None = None


@dataclass(frozen=True, slots=True)
class Series:
    """What the runs of one command took.

    Attributes:
        seconds: Of each timed run, in order.
        peak_bytes: Largest sum of the resident memory of the command and its children (shared pages count once for
            each process); 0 where it was not measured.
    """

    seconds: tuple[float, ...]
    peak_bytes: int = 0

    @property
    def median(self) -> float:
        return statistics.median(self.seconds)


@dataclass(frozen=True, slots=True)
class Comparison:
    """Two commands that ran in alternation, as often as one another."""

    ours: Series
    peer: Series

    @property
    def ratios(self) -> tuple[float, ...]:
        """Ours over the peer's, pair by pair."""
        return tuple(a / b for a, b in zip(self.ours.seconds, self.peer.seconds, strict=True))

    @property
    def ratio(self) -> float:
        """Median of `ratios`: below 1, ours is faster."""
        return statistics.median(self.ratios)


def compare(ours: Command, peer: Command, *, runs: int, warm_up: int = 1) -> Comparison:
    """Run both commands in alternation, first `warm_up` times untimed, then `runs` times.

    Raises:
        CommandFailed: one of them ended with an error.
        ValueError: `runs` is not positive, or `warm_up` is negative.
    """
    if runs < 1 or warm_up < 0:
        raise ValueError(f"runs must be at least 1 and warm_up at least 0, not {runs} and {warm_up}")
    peaks = [0, 0]
    for _ in range(warm_up):
        peaks = [max(known, peak(command)) for known, command in zip(peaks, (ours, peer), strict=True)]
    pairs = [(seconds(ours), seconds(peer)) for _ in range(runs)]
    return Comparison(Series(tuple(a for a, _ in pairs), peaks[0]), Series(tuple(b for _, b in pairs), peaks[1]))


def seconds(command: Command) -> float:
    """Seconds of one run: the wall time from start to exit, or what `command.reading` finds.

    Raises:
        CommandFailed: it ended with an error.
    """
    started = time.perf_counter()
    process = _start(command)
    output, errors = process.communicate()
    taken = time.perf_counter() - started
    _require_success(command, process, errors)
    return command.reading(output, errors) if command.reading is not None else taken


def peak(command: Command) -> int:
    """Bytes of memory that one run held at its peak, children included.

    Raises:
        CommandFailed: it ended with an error.
    """
    process = _start(command)
    ended = threading.Event()
    found = [0]
    watcher = threading.Thread(target=_watch, args=(process.pid, ended, found))
    watcher.start()
    try:
        _, errors = process.communicate()
    finally:
        ended.set()
        watcher.join()
    _require_success(command, process, errors)
    return found[0]


def _start(command: Command) -> subprocess.Popen[str]:
    return subprocess.Popen(
        command.argv,
        env={**os.environ, **command.env},
        cwd=command.cwd,
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )


def _require_success(command: Command, process: subprocess.Popen[str], errors: str) -> None:
    if process.returncode != 0:
        said = "\n".join(errors.strip().splitlines()[-8:])
        raise CommandFailed(f"`{command.label}` ended with exit code {process.returncode}:\n{said}")


def _watch(pid: int, ended: threading.Event, found: list[int]) -> None:
    """Keep the largest sum of resident memory of a process and its children in `found[0]`."""
    import psutil  # type: ignore[import-untyped, unused-ignore]

    try:
        root = psutil.Process(pid)
    except psutil.NoSuchProcess:
        return
    while not ended.wait(SAMPLED_EVERY):
        total = 0
        try:
            for process in (root, *root.children(recursive=True)):
                try:
                    total += process.memory_info().rss
                except psutil.NoSuchProcess:
                    continue  # it ended between being listed and being read
        except psutil.NoSuchProcess:
            return
        found[0] = max(found[0], total)
