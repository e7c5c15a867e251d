"""A running conversion: what it has made so far, and its stages as they happen."""

from __future__ import annotations

import contextlib
import time
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING

from graphkit import events
from graphkit.errors import GraphkitError, TargetsLeftOut
from graphkit.lowering import Lowering
from graphkit.model import Finding, Model
from graphkit.request import ConvertRequest
from graphkit.result import ConvertResult, Stage

if TYPE_CHECKING:
    from graphkit.parity.verdict import ParityReport


@dataclass(slots=True)
class Conversion:
    """What a running conversion has made so far."""

    request: ConvertRequest
    source: str = ""
    output: Path | None = None
    stages: list[Stage] = field(default_factory=list)
    files: list[Path] = field(default_factory=list)
    model: Model | None = None
    parity: ParityReport | None = None
    lowering: Lowering | None = None
    warnings: list[Finding] = field(default_factory=list)

    def result(self, error: GraphkitError | None) -> ConvertResult:
        """The outcome, ended by `error` if there is one."""
        return ConvertResult(
            source=self.source,
            target=self.request.to,
            output=self.output if error is None or isinstance(error, TargetsLeftOut) else None,
            files=tuple(self.files),
            stages=tuple(self.stages),
            warnings=tuple(self.warnings),
            parity=self.parity,
            lowering=self.lowering,
            model=self.model,
            error=error,
        )


@dataclass(slots=True)
class StageNotes:
    """What a stage says about itself when it ends."""

    detail: str = ""
    status: str = "done"
    nodes: int | None = None
    size: int | None = None

    def describe(self, detail: str, model: Model) -> None:
        """What was done, and the graph it left."""
        self.detail, self.nodes, self.size = detail, model.node_count, model.weight_bytes

    def skip(self, reason: str) -> None:
        """Why nothing was done."""
        self.detail, self.status = reason, "skipped"


@contextlib.contextmanager
def stage(state: Conversion, name: str) -> Iterator[StageNotes]:
    """Time a stage, record it, and tell the listener."""
    events.emit("stage", name=name, state="start")
    notes = StageNotes()
    started = time.perf_counter()
    try:
        yield notes
    except BaseException:
        notes.status = "failed"
        raise
    finally:
        seconds = time.perf_counter() - started
        done = Stage(name, notes.status, seconds, notes.detail, notes.nodes, notes.size)  # type: ignore[arg-type]
        state.stages.append(done)
        events.emit("stage", state=done.status, **{k: v for k, v in done.to_json().items() if k != "status"})
