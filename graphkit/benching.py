"""`bench`: how long framework's model, ONNX file and engine take on the same inputs, side by side."""

from __future__ import annotations

import contextlib
import os
import platform
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field, fields, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from graphkit import events, isolate
from graphkit.capture.request import CaptureRequest, RunnableSource
from graphkit.engine import builder
from graphkit.errors import BadOption, Broken, GraphkitError, ShapeMismatch
from graphkit.fitting import fitted, ranges
from graphkit.parity.inputs import InputPlan, fixed_sizes, make_inputs, plan_inputs, plan_specs
from graphkit.parity.judge import Judge
from graphkit.parity.runners import OrtRunner
from graphkit.shapes import DimRange, Sample, TensorSpec
from graphkit.sides import NamedRunner, Side, closing, open_all, tf32_in
from graphkit.timing.points import choose_points, item_of
from graphkit.timing.result import BenchOutputs, BenchPoint, BenchResult, BenchSide, Timed, status_of
from graphkit.timing.roofline import work_of
from graphkit.timing.rounds import Budget, interleaved
from graphkit.timing.source_file import source_beside
from graphkit.timing.statistics import latency, ratio
from graphkit.timing.stopwatch import EngineStopwatch, FrameworkStopwatch, Loaded, OrtStopwatch, Stopwatch

if TYPE_CHECKING:
    import numpy as np

    Tensors = dict[str, np.ndarray[Any, Any]]

PROVIDERS = ("cpu", "cuda")
MOST_THREADS = 1024
"""ONNX Runtime starts what it is told to, and a hundred thousand of them take minutes."""


@dataclass(frozen=True, slots=True)
class BenchRequest:
    """What to time, and for how long.

    Attributes:
        shapes, dims: Shapes of inputs and ranges of their dimensions; where None, as the first ONNX side has them.
        samples: The user's own value for some inputs.
        seed: Of the drawn values.
        at: Sizes of symbolic dimensions, one set for each point. A size that is not given is the one to optimise for
            of its range, else the one that was captured, else 1 for a first dimension.
        budget: Runs or seconds, and the warm-up.
        threads: That one operator may use, on every side; None for as many as there are processors.
        providers: What ONNX files run on: `cpu`, `cuda`; one side for each.
        against_source: Whether the file that the first ONNX file was converted from is a side too, the first one.
        submodule, architecture, signature, state, layout, outputs, trust: Of what frameworks run; see
            `CaptureRequest`. `trust` is for engines too.
    """

    shapes: tuple[TensorSpec, ...] = ()
    dims: tuple[DimRange, ...] = ()
    samples: tuple[Sample, ...] = ()
    seed: int = 0
    at: tuple[Mapping[str, int], ...] = ()
    budget: Budget = field(default_factory=Budget)
    threads: int | None = None
    providers: tuple[str, ...] = ("cpu",)
    against_source: bool = False
    submodule: str | None = None
    architecture: str | None = None
    signature: str | None = None
    state: str | None = None
    layout: tuple[str, ...] = ()
    outputs: tuple[str, ...] = ()
    trust: bool = False

    def for_capture(self) -> CaptureRequest:
        """The part of the request that sides are opened with."""
        own = {each.name for each in fields(self)} & {each.name for each in fields(CaptureRequest)}
        return CaptureRequest(**{name: getattr(self, name) for name in own})


def bench(targets: Sequence[Any], request: BenchRequest | None = None) -> BenchResult:
    """Time every target on the same inputs, each in the child process where it lives, in rounds that take turns.

    The clock runs around the model's own work alone: inputs are in place before, outputs stay where they were made.
    At every point the outputs are compared too, with the first side's; that they differ is said, and no error.

    Args:
        targets: Paths of ONNX files, engines, or what `convert` reads, `package.module:callable`, `Model`s, or objects
            of a framework (these run in this process).

    Raises:
        BadOption: nothing to time, or no runs. `ShapeMissing`: a dimension has no size. `UnknownName`: a size is given
            for a dimension that is not there. And what `sides.open_all` raises. A side that cannot be loaded or run
            is in the result, with the reason.

    Example:
        >>> bench(["net.pt", "net.onnx"]).points[0].sides[1].ratio.verdict
    """
    asked = request or BenchRequest()
    _refuse(targets, asked)
    targets = [*source_beside(targets), *targets] if asked.against_source else list(targets)
    threads = asked.threads or _processors()
    with isolate.own_workers(_environment(threads)), contextlib.ExitStack() as stack:
        with events.stage("open"):
            sides, base = open_all(targets, asked.for_capture(), optimize=True)
            stack.enter_context(closing(sides))
            sides, fixed, notes = fitted(sides, base)
            plans = plan_inputs(base.model) if base.model is not None else plan_specs(base.inputs or ())
            given = _given(plans, sides, asked)
            seen = base.model.origin.sizes if base.model is not None else {}
            fixed = {**fixed, **fixed_sizes(plans, given)}
            points = choose_points(base.inputs or (), ranges(base, sides), asked.at, seen, fixed)
            contestants = [c for side in sides for c in _contestants(side, asked.providers, threads)]
            for each in contestants:
                stack.callback(each.close)
        with events.stage("load"):
            for each in contestants:
                each.load()
        found = []
        for sizes, said in points:
            notes += said
            with events.stage("time") as done:
                inputs = make_inputs(plans, sizes, asked.seed, given)
                found.append(_point(contestants, inputs, sizes, base, asked.budget))
                done.append(", ".join(f"{s}={n}" for s, n in sizes.items()) or "the fixed shapes")
        return BenchResult(
            tuple(each.report(threads, contestants) for each in contestants),
            tuple(found),
            threads,
            asked.budget.warm_up,
            asked.seed,
            {p.spec.name: "given" if p.spec.name in given else p.how for p in plans},
            tuple(dict.fromkeys(notes)),
            {"system": platform.system(), "machine": platform.machine(), "processors": _processors()},
        )


def _refuse(targets: Sequence[Any], asked: BenchRequest) -> None:
    """What needs no model to be seen."""
    if not targets:
        raise BadOption("there is nothing to time", remedy="graphkit bench MODEL...")
    budget = asked.budget
    if budget.runs is not None and budget.runs < 1:
        raise BadOption(f"{budget.runs} runs: nothing would be timed", remedy="--runs 100")
    if budget.runs is None and not 0 < budget.seconds < float("inf"):
        raise BadOption(f"{budget.seconds:g} s: nothing would be timed", remedy="--seconds 2")
    if budget.warm_up < 0:
        raise BadOption(f"{budget.warm_up} runs of warm-up", remedy="--warm-up 3")
    if asked.threads is not None and asked.threads < 1:
        raise BadOption(f"{asked.threads} threads", remedy=f"--threads {_processors()}")
    if asked.threads is not None and asked.threads > MOST_THREADS:
        raise BadOption(f"{asked.threads} threads on {_processors()} processors", remedy=f"--threads {_processors()}")
    unknown = [p for p in asked.providers if p not in PROVIDERS]
    if unknown or not asked.providers:
        raise BadOption(f"there is no provider {unknown[:1]}", remedy=f"one of {', '.join(PROVIDERS)}")
    if len(set(asked.providers)) < len(asked.providers):
        raise BadOption("--provider is given twice for the same one", remedy="give it once")


def _processors() -> int:
    """That this process may use."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def _environment(threads: int) -> dict[str, str]:
    """Of the children of frameworks. TensorFlow computes as it does for its users there, and not, as in a comparison,
    in one fixed order."""
    count = str(threads)
    names = ("OMP_NUM_THREADS", "MKL_NUM_THREADS", "TF_NUM_INTRAOP_THREADS")
    return {**dict.fromkeys(names, count), "TF_NUM_INTEROP_THREADS": "1", "TF_ENABLE_ONEDNN_OPTS": "1"}


# --- inputs ------------------------------------------------------------------------------------------------------


def _given(plans: Sequence[InputPlan], sides: Sequence[Side], asked: BenchRequest) -> dict[str, Any]:
    """Values for the base's inputs; a Python number that its graph holds as a constant is for the framework alone."""
    names, framework = {p.spec.name for p in plans}, any(s.framework for s in sides)
    alone = {s.name for s in asked.samples if framework and s.name not in names and not isinstance(s.value, Path)}
    return {s.name: s.value for s in asked.samples if s.name not in alone}


# --- sides -------------------------------------------------------------------------------------------------------


@dataclass(slots=True)
class _Contestant:
    """A side under the clock, and how it has fared so far."""

    name: str
    side: Side
    watch: Stopwatch | None
    loaded: Loaded | None = None
    error: GraphkitError | None = None

    def load(self) -> None:
        if self.watch is not None:
            try:
                self.loaded = self.watch.load()
            except GraphkitError as error:
                self.error = error

    def close(self) -> None:
        if self.watch is not None:
            self.watch.close()

    def own(self, inputs: Tensors) -> Tensors:
        """The inputs under its own names."""
        return {self.side.partners.get(name, name): value for name, value in inputs.items()}

    def report(self, threads: int, others: Sequence[_Contestant]) -> BenchSide:
        if self.watch is None:
            return BenchSide(self.name, self.side.label, "not run", self.side.lacks)
        label = self.watch.label
        if self.loaded is None:
            assert self.error is not None
            return BenchSide(self.name, label, status_of(self.error), self.error.message, error=self.error)
        blank = BenchSide(
            self.name,
            label,
            status_of(self.error) if self.error is not None else "measured",
            self.error.message if self.error is not None else None,
            self.loaded.threads,
            self.loaded.seconds,
            self.loaded.before,
            notes=tuple(self._notes(threads, others)),
            error=self.error,
        )
        with contextlib.suppress(GraphkitError):  # a child that died took its memory with it
            used = self.watch.used()
            return replace(blank, memory_peak=used.peak, gpu_memory=used.gpu)
        return blank

    def _notes(self, threads: int, others: Sequence[_Contestant]) -> Iterator[str]:
        assert self.loaded is not None
        if self.loaded.note:
            yield self.loaded.note
        if self.loaded.threads not in (None, threads):
            yield f"runs on {self.loaded.threads} threads, where {threads} were asked for"
        if isinstance(self.watch, FrameworkStopwatch):
            shared = [o.name for o in others if isinstance(o.watch, FrameworkStopwatch) and o is not self]
            mine = self.watch.process
            same = [o.name for o in others if o.name in shared and o.watch.process == mine]  # type: ignore[union-attr]
            if mine is None:
                yield "runs in this process: the memory is that of all it holds"
            elif same:
                yield f"shares its process, and so its memory, with {', '.join(same)}"


def _contestants(side: Side, providers: Sequence[str], threads: int) -> Iterator[_Contestant]:
    """The side, once for each provider where it is an ONNX graph."""
    inner = side.runner.inner if isinstance(side.runner, NamedRunner) else None
    if isinstance(inner, OrtRunner):
        for provider in providers:
            name = f"{side.name} ({provider})" if len(providers) > 1 else side.name
            yield _Contestant(name, side, OrtStopwatch(inner.file(), provider, threads))
    elif isinstance(inner, builder.EngineRunner):
        library = _library(inner.engine.kind)
        yield _Contestant(side.name, side, EngineStopwatch(library, inner.engine, inner.label))
    elif isinstance(inner, RunnableSource):
        yield _Contestant(side.name, side, FrameworkStopwatch(inner))
    else:
        yield _Contestant(side.name, side, None)


def _library(kind: str) -> builder.Library:
    if kind == "tensorrt":
        from graphkit.engine.tensorrt import library
    else:
        from graphkit.engine.rtx import library
    return library()


# --- timing ------------------------------------------------------------------------------------------------------


def _point(
    contestants: Sequence[_Contestant], inputs: Tensors, sizes: Mapping[str, int], base: Side, budget: Budget
) -> BenchPoint:
    """All sides at one point: their first run and its outputs, then the rounds."""
    rows: dict[int, Timed] = {}
    expected: Tensors | None = None
    for number, each in enumerate(contestants):
        if each.watch is None or each.loaded is None:
            continue
        try:
            if isinstance(each.error, Broken):  # its child died at an earlier point, and the model with it
                raise each.error
            seconds, outputs = each.watch.put(each.own(inputs))
        except GraphkitError as error:
            rows[number] = Timed(number, BenchOutputs("not compared", "it did not run"), error=error)
            continue
        said = _compared(expected, outputs, tf32=tf32_in(each.side))
        expected = outputs if expected is None else expected
        rows[number] = Timed(number, said, seconds, work=_work(each, inputs))
    running = {n: contestants[n].watch for n, row in rows.items() if row.error is None}
    rounds = interleaved({n: watch for n, watch in running.items() if watch is not None}, budget)
    symbol, items = item_of(base.inputs or (), sizes)
    times = {number: latency(each) for number, each in rounds.times.items()}
    first = min(times, default=None)
    for number, row in rows.items():
        failure = row.error or rounds.errors.get(number)
        if failure is not None:
            contestants[number].error = contestants[number].error or failure
            rows[number] = replace(row, error=failure)
            continue
        mine = times[number]
        against = ratio(mine, times[first]) if first is not None and number != first else None
        rows[number] = replace(row, latency=mine, throughput=items / mine.mean if mine.mean else None, ratio=against)
    shapes = {name: value.shape for name, value in inputs.items()}
    return BenchPoint(dict(sizes), shapes, items, symbol, tuple(rows.values()))


def _compared(expected: Tensors | None, found: Tensors, *, tf32: bool) -> BenchOutputs:
    if expected is None:
        return BenchOutputs("reference")
    try:
        outputs = Judge(tf32=tf32)(expected, found).outputs
    except ShapeMismatch as error:
        return BenchOutputs("differ", error.message)
    failed = next((o for o in outputs if o.status == "fail"), None)
    if failed is not None:
        return BenchOutputs("differ", f"`{failed.output}`: {failed.reason}", outputs)
    return BenchOutputs("agree", None, outputs)


def _work(each: _Contestant, inputs: Tensors) -> Any:
    """What its graph has to do at the sizes that the inputs give its own symbols."""
    if each.side.model is None:
        return None
    own, sizes = each.own(inputs), dict[str, int]()
    for spec in each.side.inputs or ():
        shape = own[spec.name].shape if spec.name in own else ()
        sizes |= {dim: size for dim, size in zip(spec.shape or (), shape, strict=False) if isinstance(dim, str)}
    return work_of(each.side.model, {s: n for s, n in sizes.items() if s.isidentifier()})
