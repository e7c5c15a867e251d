"""What a benchmark found: its sides, and at every point their times, their outputs and how they compare."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Literal

from graphkit.errors import GpuRequired, GraphkitError, Lacking
from graphkit.parity.verdict import OutputComparison
from graphkit.timing.roofline import Work
from graphkit.timing.statistics import Latency, Ratio

Status = Literal["measured", "failed", "not run"]
Agreement = Literal["reference", "agree", "differ", "not compared"]


@dataclass(frozen=True, slots=True)
class BenchSide:
    """One side.

    Attributes:
        name: What it is called.
        label: What runs it.
        status: `failed` where it failed at one point at least; `not run` where this machine cannot run it.
        reason: Why it is not `measured`.
        threads: That one operator may use; None where it does not say, or runs on a GPU.
        load_seconds: From the file to ready, in a process whose imports were done; None where it was ready before.
        memory_before: Bytes of its process before the model was loaded, where that is known.
        memory_peak: The most bytes of its process, imports and loading included.
        gpu_memory: Bytes of the GPU's memory that went while it was loaded and run; other programs are not told apart.
        notes: What limits the figures.
        error: How it failed.
    """

    name: str
    label: str
    status: Status
    reason: str | None = None
    threads: int | None = None
    load_seconds: float | None = None
    memory_before: int | None = None
    memory_peak: int | None = None
    gpu_memory: int | None = None
    notes: tuple[str, ...] = ()
    error: GraphkitError | None = None

    def to_json(self) -> dict[str, Any]:
        data = {name: getattr(self, name) for name in self.__slots__ if name not in ("notes", "error")}
        error = self.error.to_json() if self.error is not None else None
        return {**data, "notes": list(self.notes), "error": error}


@dataclass(frozen=True, slots=True)
class BenchOutputs:
    """Whether a side computes at this point what the first one does.

    Attributes:
        status: `reference` for the first side that ran.
        reason: Why they differ, or were not compared.
        outputs: The comparison, by output.
    """

    status: Agreement
    reason: str | None = None
    outputs: tuple[OutputComparison, ...] = ()

    def to_json(self) -> dict[str, Any]:
        return {
            "status": self.status,
            "reason": self.reason,
            "outputs": [each.to_json() for each in self.outputs],
        }


@dataclass(frozen=True, slots=True)
class Timed:
    """One side at one point.

    Attributes:
        side: Its number.
        first_seconds: Of its first run here, before the warm-up; copies included.
        latency: None where it was not timed.
        throughput: Items per second, at the mean latency.
        work: What its graph has to do; None for what is no graph.
        outputs: Whether it computes what the first side does.
        ratio: Its time over that of the first side; None for that one.
        error: Why it was not timed.
    """

    side: int
    outputs: BenchOutputs
    first_seconds: float | None = None
    latency: Latency | None = None
    throughput: float | None = None
    work: Work | None = None
    ratio: Ratio | None = None
    error: GraphkitError | None = None

    def to_json(self) -> dict[str, Any]:
        return {
            "side": self.side,
            "first_seconds": self.first_seconds,
            "latency": self.latency.to_json() if self.latency is not None else None,
            "items_per_second": self.throughput,
            "roofline": self.work.to_json(self.latency.p50) if self.work is not None and self.latency else None,
            "outputs": self.outputs.to_json(),
            "time_ratio": self.ratio.to_json() if self.ratio is not None else None,
            "error": self.error.to_json() if self.error is not None else None,
        }


@dataclass(frozen=True, slots=True)
class BenchPoint:
    """One set of sizes.

    Attributes:
        sizes: Value of each symbolic dimension.
        shapes: Of the inputs.
        items: How many are counted in one run, for the throughput.
        item: The dimension that counts them; None where a run is one item.
        sides: Those that could be tried, in order.
    """

    sizes: Mapping[str, int]
    shapes: Mapping[str, tuple[int, ...]]
    items: int
    item: str | None
    sides: tuple[Timed, ...]

    def to_json(self) -> dict[str, Any]:
        return {
            "sizes": dict(self.sizes),
            "inputs": {name: list(shape) for name, shape in self.shapes.items()},
            "items": self.items,
            "item": self.item,
            "sides": [each.to_json() for each in self.sides],
        }


@dataclass(frozen=True, slots=True)
class BenchResult:
    """A benchmark.

    Attributes:
        sides, points: What was timed, and where.
        threads: That were asked for, for every side.
        warm_up: Runs of each side at each point that are not counted.
        seed: Of the drawn inputs.
        inputs: How each input's values were made.
        notes: What a reader should know about the inputs.
        machine: What it ran on.
    """

    sides: tuple[BenchSide, ...]
    points: tuple[BenchPoint, ...]
    threads: int
    warm_up: int
    seed: int
    inputs: Mapping[str, str]
    notes: tuple[str, ...] = ()
    machine: Mapping[str, Any] = field(default_factory=dict)

    def error(self) -> GraphkitError | None:
        """Why not every side was timed: how the first one failed, or what this machine lacks; None if all were."""
        for status in ("failed", "not run"):
            side = next((s for s in self.sides if s.status == status), None)
            if side is not None and isinstance(side.error, GraphkitError):
                return side.error
            if side is not None:
                return GpuRequired(
                    f"{side.name} was not run: {side.reason}",
                    remedy="run it on a machine with an NVIDIA GPU: `graphkit doctor` says what is missing here",
                )
        return None

    def to_json(self) -> dict[str, Any]:
        return {
            "threads": self.threads,
            "warm_up": self.warm_up,
            "seed": self.seed,
            "machine": dict(self.machine),
            "inputs": dict(self.inputs),
            "notes": list(self.notes),
            "sides": [each.to_json() for each in self.sides],
            "points": [each.to_json() for each in self.points],
        }


def status_of(error: GraphkitError) -> Status:
    """`not run` for what the machine lacks, else `failed`."""
    return "not run" if isinstance(error, Lacking) else "failed"
