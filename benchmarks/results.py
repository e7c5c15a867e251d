"""What was claimed, what was measured, on what machine: as the tables of RESULTS.md."""

from __future__ import annotations

import os
import platform
import re
import subprocess
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path

from benchmarks.measure import Command, Comparison, compare

LIBRARIES = (
    "click",
    "keras",
    "numpy",
    "onnx",
    "onnx-ir",
    "onnxruntime",
    "onnxscript",
    "onnxsim",
    "polygraphy",
    "tensorflow-cpu",
    "tensorrt-rtx",
    "tf2onnx",
    "torch",
    "transformers",
)
_HEAD = """# Benchmarks

Written by `python -m benchmarks [ROOM ...]`, which rewrites the sections of the rooms that it measures; do not edit.
Seconds are the median of the timed runs (fastest - slowest). The ratio is the median of the ratios pair by pair
(smallest - largest): below 1, graphkit is faster. Sections are from different days where their last lines say so.
"""
FEW_RUNS = 5
"""Below this many timed runs a median says little, and the table is marked as no measurement."""


@dataclass(frozen=True, slots=True)
class Claim:
    """A comparison, and what it has to show.

    Attributes:
        what: What is compared.
        ours, peer: The commands.
        most: Largest ratio (ours over the peer's) that is good enough; None where no target is set.
        limit: Seconds that ours may take at most; None for any.
        most_memory: Largest share of the peer's peak memory that ours may take; None for any.
        note: What one side does that the other does not.
        room: Module of the benchmarks that measures it.
        found: What was measured; None before.
    """

    what: str
    ours: Command
    peer: Command
    most: float | None
    limit: float | None = None
    most_memory: float | None = None
    note: str = ""
    room: str = ""
    found: Comparison | None = None

    def measured(self, *, runs: int, warm_up: int) -> Claim:
        """This claim with what was found. Raises: `CommandFailed`."""
        return replace(self, found=compare(self.ours, self.peer, runs=runs, warm_up=warm_up))

    @property
    def met(self) -> bool | None:
        """Whether the target is met; None where there is none, or nothing was measured."""
        if self.found is None or (self.most is None and self.limit is None and self.most_memory is None):
            return None
        within_ratio = self.most is None or self.found.ratio <= self.most
        within_limit = self.limit is None or self.found.ours.median <= self.limit
        return within_ratio and within_limit and self._within_memory(self.found)

    def _within_memory(self, found: Comparison) -> bool:
        """Without a warm-up run no memory was measured, and none is judged."""
        if self.most_memory is None or not (found.ours.peak_bytes and found.peer.peak_bytes):
            return True
        return found.ours.peak_bytes <= self.most_memory * found.peer.peak_bytes


def page(claims: Sequence[Claim], *, runs: int, warm_up: int, load: float | None, before: str = "") -> str:
    """RESULTS.md: a section for each room, with one row a claim, notes, when and where it was measured, and how.

    Args:
        before: The page as it was: sections of rooms that are not among the claims stay as they are, each with its own
            date, revision and machine.
    """
    rooms = dict(_sections(before))
    for name in dict.fromkeys(claim.room for claim in claims):
        measured = [claim for claim in claims if claim.room == name]
        rooms[name] = _section(measured, runs=runs, warm_up=warm_up, load=load)
    body = (f"## {name}\n\n{text}" for name, text in rooms.items())
    return "\n".join([_HEAD, *body])


def _section(claims: Sequence[Claim], *, runs: int, warm_up: int, load: float | None) -> str:
    head = "| what | ours | peer | ratio | target | met | peak memory, ours / peer | reproduce |"
    lines = []
    if runs < FEW_RUNS:
        lines += [f"**{runs} timed run(s): this shows that the benchmarks run, and measures nothing.**", ""]
    lines += [head, "|---|---|---|---|---|---|---|---|", *map(_row, claims), ""]
    notes = [f"- {c.what}: {c.note}" for c in claims if c.note]
    lines += ["What the two sides do differently:", "", *notes, ""] if notes else []
    lines += [f"- {fact}" for fact in (_when(), *machine(load))]
    lines += [
        f"- {warm_up} warm-up run(s) a side, in which memory is sampled; "
        f"then {runs} timed runs a side in alternation (more of the shortest commands)"
    ]
    return "\n".join(lines) + "\n"


def _sections(text: str) -> Iterator[tuple[str, str]]:
    """Rooms of a page and what it says of them."""
    for part in re.split(r"^## ", text, flags=re.MULTILINE)[1:]:
        name, _, body = part.partition("\n")
        yield name.strip(), body.strip("\n") + "\n"


def _when() -> str:
    """The day (UTC), and the revision that was measured."""
    day = datetime.now(UTC).date().isoformat()
    root = Path(__file__).resolve().parent.parent
    try:
        said = subprocess.run(
            ("git", "describe", "--always", "--dirty", "--exclude=*"),
            cwd=root,
            capture_output=True,
            text=True,
            check=True,
        ).stdout.strip()
    except (OSError, subprocess.CalledProcessError):
        said = "unknown"
    return f"measured on {day} (UTC), revision {said}"


def machine(load: float | None) -> Iterable[str]:
    """The machine in words, without its name: cores, memory, Python, libraries, how busy it was."""
    import psutil  # type: ignore[import-untyped, unused-ignore]

    memory = psutil.virtual_memory().total / 2**30
    usable = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count()
    yield f"{usable} cores ({platform.machine()}), {memory:.0f} GiB of memory, {platform.system()}, no GPU used"
    if load is not None:
        yield f"processes waiting or running when it began (1-minute load): {load:.2f}"
    yield f"Python {platform.python_version()}"
    yield ", ".join(f"{name} {_version(name)}" for name in LIBRARIES)


def _version(name: str) -> str:
    try:
        return version(name)
    except PackageNotFoundError:
        return "not installed"


def _row(claim: Claim) -> str:
    found = claim.found
    if found is None:
        return f"| {claim.what} | not run | not run | - | {_target(claim)} | not run | - | {_command(claim)} |"
    spread = f"{min(found.ratios):.2f} - {max(found.ratios):.2f}"
    memory = f"{_mebibytes(found.ours.peak_bytes)} / {_mebibytes(found.peer.peak_bytes)}"
    verdict = {True: "yes", False: "**missed**", None: "no target"}[claim.met]
    cells = [
        claim.what,
        f"`{claim.ours.label}`: {_seconds(found.ours.seconds, found.ours.median)}",
        f"`{claim.peer.label}`: {_seconds(found.peer.seconds, found.peer.median)}",
        f"{found.ratio:.2f}x ({spread})",
        _target(claim),
        verdict,
        memory,
        _command(claim),
    ]
    return f"| {' | '.join(cells)} |"


def _target(claim: Claim) -> str:
    parts = [f"at most {claim.most:g}x"] if claim.most is not None else []
    parts += [f"under {claim.limit:g} s"] if claim.limit is not None else []
    parts += [f"at most {claim.most_memory:.2g}x the memory"] if claim.most_memory is not None else []
    return ", ".join(parts) or "none"


def _seconds(values: Sequence[float], median: float) -> str:
    return f"{median:.3f} s ({min(values):.3f} - {max(values):.3f})"


def _mebibytes(size: int) -> str:
    return f"{size / 2**20:.0f} MiB" if size else "not measured"


def _command(claim: Claim) -> str:
    return f"`python -m benchmarks {claim.room}`"
