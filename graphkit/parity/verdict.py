"""What was compared with what, under which conditions, with what result: and what was not run."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from typing import Any, Literal

from graphkit.model import SourceLine

Status = Literal["pass", "fail", "not run"]


@dataclass(frozen=True, slots=True)
class OutputComparison:
    """One output of one run.

    Attributes:
        output: Name of the output.
        status: `pass` or `fail`.
        dtype, shape: Of the reference.
        max_abs, max_rel: Largest absolute and relative difference over positions where both are finite; None for
            outputs that cannot be subtracted (strings), or where shapes differ.
        worst_index: Position that is furthest outside the tolerance, or nearest to leaving it; () for a scalar, None
            where nothing differs.
        reference_value, candidate_value: The values there.
        mismatches: Number of elements outside the tolerance.
        atol, rtol: The tolerance: |candidate - reference| <= atol + rtol * |reference|.
        reason: Why it failed, in one line.
        metrics: Further measures by name (see `metrics`), where they were asked for.
        source: The line of the user's code that makes the output, where it failed and the graph knows.
    """

    output: str
    status: Literal["pass", "fail"]
    dtype: str
    shape: tuple[int, ...]
    max_abs: float | None = None
    max_rel: float | None = None
    worst_index: tuple[int, ...] | None = None
    reference_value: float | None = None
    candidate_value: float | None = None
    mismatches: int = 0
    atol: float = 0.0
    rtol: float = 0.0
    reason: str | None = None
    metrics: Mapping[str, float] = field(default_factory=dict)
    source: SourceLine | None = None

    def to_json(self) -> dict[str, Any]:
        """Strict JSON values; `metrics` and `source` only where there are any."""
        data = {name: _strict(getattr(self, name)) for name in self.__slots__ if name not in ("metrics", "source")}
        if self.metrics:
            data["metrics"] = {name: _strict(value) for name, value in self.metrics.items()}
        if self.source is not None:
            data["source"] = asdict(self.source)
        return data


@dataclass(frozen=True, slots=True)
class Comparison:
    """One candidate against the reference on one set of inputs.

    Attributes:
        reference, candidate: What ran: `torch 2.13.0 (cpu)`, `onnxruntime 1.32.0 (cpu, optimisations off)`.
        sizes: Value of each symbolic dimension.
        seed: Seed of the generated values.
        seen_in_capture: Whether capture used these sizes too.
        status: `pass`, `fail` or `not run`.
        reason: Why it failed or was not run.
        outputs: One entry per output.
        note: What was not tried here, and why: sizes too large for a check.
    """

    reference: str
    candidate: str
    sizes: dict[str, int]
    seed: int
    seen_in_capture: bool
    status: Status
    outputs: tuple[OutputComparison, ...] = ()
    reason: str | None = None
    note: str | None = None

    def to_json(self) -> dict[str, Any]:
        return {
            "reference": self.reference,
            "candidate": self.candidate,
            "sizes": dict(self.sizes),
            "seed": self.seed,
            "seen_in_capture": self.seen_in_capture,
            "status": self.status,
            "reason": self.reason,
            "note": self.note,
            "outputs": [o.to_json() for o in self.outputs],
        }


@dataclass(frozen=True, slots=True)
class ParityReport:
    """The verdict of one conversion.

    Attributes:
        comparisons: Everything that was compared.
        engine: Verdict on the engine: `not run` where no GPU can execute it.
        engine_reason: Why the engine was not run, or failed.
        inputs: How each input's values were made: `x` -> `N(0, 1)`, `ids` -> `integers in [0, 30522) (Gather)`.
        versions: Of the libraries that ran.
        files: sha256 of every file this report speaks of, by file name.
    """

    comparisons: tuple[Comparison, ...]
    engine: Status = "not run"
    engine_reason: str | None = None
    inputs: Mapping[str, str] = field(default_factory=dict)
    versions: Mapping[str, str] = field(default_factory=dict)
    files: Mapping[str, str] = field(default_factory=dict)

    @property
    def status(self) -> Literal["pass", "fail"]:
        """`pass` only if something was compared, all of it passed, and the engine did not fail."""
        ran = [c for c in self.comparisons if c.status != "not run"]
        good = bool(ran) and all(c.status == "pass" for c in self.comparisons) and self.engine != "fail"
        return "pass" if good else "fail"

    def worst(self) -> OutputComparison | None:
        """The output that is furthest outside its tolerance, else the one with the largest difference."""
        outputs = [o for c in self.comparisons for o in c.outputs]
        key = lambda o: (o.status == "fail", o.mismatches, o.max_abs if o.max_abs is not None else -1.0)  # noqa: E731
        return max(outputs, key=key, default=None)

    def to_json(self) -> dict[str, Any]:
        """Strict JSON values; the same report gives the same bytes."""
        return {
            "schema": "graphkit.parity/1",
            "status": self.status,
            "engine": self.engine,
            "engine_reason": self.engine_reason,
            "inputs": dict(self.inputs),
            "comparisons": [c.to_json() for c in self.comparisons],
            "versions": dict(self.versions),
            "files": dict(self.files),
        }


def _strict(value: Any) -> Any:
    """JSON has no infinity and no NaN: they become strings."""
    if isinstance(value, float) and not math.isfinite(value):
        return str(value)
    return list(value) if isinstance(value, tuple) else value
