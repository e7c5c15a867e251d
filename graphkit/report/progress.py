"""Progress of a long run on stderr: a live line for the running stage, one lasting line for each finished one."""

from __future__ import annotations

import contextlib
import os
from collections.abc import Callable, Iterator
from typing import TYPE_CHECKING, Any, TextIO

from graphkit import events
from graphkit.report.wording import bytes_text, printable, seconds_text

if TYPE_CHECKING:
    from rich.progress import Progress, TaskID

Print = Callable[[str], None]


@contextlib.contextmanager
def shown_on(stream: TextIO, *, quiet: bool = False) -> Iterator[None]:
    """Show the events that the block emits on `stream`.

    On a terminal the running stage is a line that moves, with a bar where the stage reports its progress; elsewhere
    only finished stages are printed, in plain text. `quiet` shows nothing.
    """
    with contextlib.ExitStack() as stack:
        listener: Callable[[events.Event], None]
        if quiet:
            listener = _nothing
        elif stream.isatty() and os.environ.get("TERM") != "dumb":
            listener = stack.enter_context(_live(stream))
        else:
            listener = _Plain(stream)
        stack.enter_context(events.listening(listener))
        yield


def stage_line(event: events.Event) -> str:
    """A finished stage in one line: `capture     2.1 s  torch.export, opset 20; 142 nodes; 44.8 MB`."""
    state, detail = event["state"], str(event.get("detail") or "")
    facts = [detail] if detail else []
    nodes, size = event.get("nodes"), event.get("size")
    if nodes is not None and f"{nodes} nodes" not in detail:  # `142 -> 98 nodes` has said it
        facts.append(f"{nodes} node{'' if nodes == 1 else 's'}")
    if size is not None:
        facts.append(bytes_text(size))
    took = seconds_text(event.get("seconds") or 0.0) if state == "done" else state
    return printable(f"{event['name']:<9} {took:>10}  {'; '.join(facts)}".rstrip().replace("\n", " "))


def _nothing(_event: events.Event) -> None:
    """`-q`: what matters is in the result."""


class _Plain:
    """One line per finished stage."""

    def __init__(self, stream: TextIO) -> None:
        self._stream = stream

    def __call__(self, event: events.Event) -> None:
        line = _lasting(event)
        if line is not None:
            print(line, file=self._stream, flush=True)


def _lasting(event: events.Event) -> str | None:
    if event["event"] == "note":
        return printable(f"note: {event['message']}")
    if event["event"] == "stage" and event["state"] != "start":
        return stage_line(event)
    return None


@contextlib.contextmanager
def _live(stream: TextIO) -> Iterator[Callable[[events.Event], None]]:
    from rich.console import Console
    from rich.progress import BarColumn, Progress, SpinnerColumn, TextColumn, TimeElapsedColumn

    columns = (
        SpinnerColumn(),
        TextColumn("{task.fields[stage]:<9}", markup=False),
        BarColumn(bar_width=24),
        TimeElapsedColumn(),
        TextColumn("{task.description}", markup=False),
    )
    console = Console(file=stream, highlight=False)
    # redirect_stdout would put what a command prints on stderr: the answer belongs on stdout.
    with Progress(*columns, console=console, transient=True, redirect_stdout=False) as progress:
        yield _Live(progress)


class _Live:
    """The running stage as a moving line above which finished ones are printed."""

    def __init__(self, progress: Progress) -> None:
        self._progress = progress
        self._task: TaskID | None = None

    def __call__(self, event: events.Event) -> None:
        if event["event"] == "progress" and self._task is not None:
            self._advance(event)
            return
        if event["event"] == "stage":
            self._remove()
            if event["state"] == "start":
                self._task = self._progress.add_task("", total=None, stage=printable(str(event["name"])))
        line = _lasting(event)
        if line is not None:
            from rich.text import Text

            style = {"failed": "red", "skipped": "dim"}.get(str(event.get("state")), "")
            self._progress.console.print(Text(line, style=style), soft_wrap=True)

    def _advance(self, event: events.Event) -> None:
        assert self._task is not None
        facts: dict[str, Any] = {"description": printable(str(event.get("phase") or "")), "completed": event["done"]}
        self._progress.update(self._task, total=event.get("total"), **facts)

    def _remove(self) -> None:
        if self._task is not None:
            self._progress.remove_task(self._task)
            self._task = None
            self._progress.refresh()  # otherwise the next printed line draws the removed one once more
