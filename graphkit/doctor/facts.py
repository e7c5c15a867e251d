"""What a diagnosis is made of: plain frozen values, and their JSON."""

from __future__ import annotations

from dataclasses import asdict, dataclass, field
from typing import Any, Literal

SCHEMA = "graphkit.doctor/1"

ProbeStatus = Literal["ok", "not installed", "failed", "crashed", "timed out"]
FitStatus = Literal["fits", "conflicts", "not checked"]


@dataclass(frozen=True, slots=True)
class Machine:
    """Python and the operating system: facts about the kind of machine, never about this one's user or paths."""

    python: str
    implementation: str
    system: str
    architecture: str
    cpus: int


@dataclass(frozen=True, slots=True)
class Library:
    """An installed library, or one that could be (`version` is None).

    `distribution` is what provides it, where that is not `name` itself (`onnxruntime-gpu` provides `onnxruntime`).
    """

    name: str
    version: str | None
    distribution: str | None = None


@dataclass(frozen=True, slots=True)
class Conflict:
    """Two things on this machine that don't fit each other, and the command that settles it, if there is one."""

    what: str
    remedy: str | None


@dataclass(frozen=True, slots=True)
class Fit:
    """Whether the installed libraries fit each other, by their own metadata.

    `checked` counts the requirements that were compared; `reason` says what was not checked and why.
    """

    status: FitStatus
    checked: int
    conflicts: tuple[Conflict, ...] = ()
    reason: str | None = None


@dataclass(frozen=True, slots=True)
class Gpu:
    """A GPU as one observer sees it; `memory` in bytes."""

    name: str
    compute_capability: str | None
    memory: int | None


@dataclass(frozen=True, slots=True)
class Probe:
    """What one library, asked in a process of its own, sees of this machine.

    `detail` is one line: what was found, or how the probe ended. `facts` are the library's own answers.
    """

    name: str
    status: ProbeStatus
    detail: str
    gpus: tuple[Gpu, ...] = ()
    facts: dict[str, Any] = field(default_factory=dict)

    @property
    def ok(self) -> bool:
        """Whether the probe came back with an answer."""
        return self.status == "ok"


@dataclass(frozen=True, slots=True)
class Verdict:
    """Whether one thing can be done here, why, and the one command that would change a no.

    `target` is as in `--to`; `by` is what does it: the source's framework for `onnx`, the provider for `ort`, the
    `--backend` for `trt`.
    """

    target: str
    by: str
    can: bool
    reason: str
    remedy: str | None = None
    compute_capabilities: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class Diagnosis:
    """What this machine can do."""

    machine: Machine
    libraries: tuple[Library, ...]
    fit: Fit
    probes: tuple[Probe, ...]
    build: tuple[Verdict, ...]
    run: tuple[Verdict, ...]

    @property
    def remedies(self) -> tuple[str, ...]:
        """Every command that fixes a lack or a conflict, once each, in the order of the report."""
        found = [*(c.remedy for c in self.fit.conflicts), *(v.remedy for v in (*self.build, *self.run))]
        return tuple(dict.fromkeys(remedy for remedy in found if remedy))

    def to_json(self) -> dict[str, Any]:
        """Strict JSON values: no floats, no times, no paths; the same machine gives the same bytes."""
        return {"schema": SCHEMA, "status": "ok", **asdict(self), "remedies": list(self.remedies)}
