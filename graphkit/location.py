"""`locate`: two models on the same inputs, and the first tensor at which they part."""

from __future__ import annotations

import tempfile
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from importlib.metadata import version
from pathlib import Path
from typing import Any

from graphkit.capture.registry import recognise
from graphkit.capture.request import CaptureRequest, RunnableSource
from graphkit.capture.taps import Tap, TappedSource
from graphkit.engine import builder, sidecar
from graphkit.errors import BadOption, ExtraMissing, GpuRequired, Refused
from graphkit.model import Model, load
from graphkit.parity import runners
from graphkit.parity.aligned import aligned
from graphkit.parity.by_value import Run, part
from graphkit.parity.check import check
from graphkit.parity.compare import compare_outputs
from graphkit.parity.divergence import Location
from graphkit.parity.flow import Step, steps_of
from graphkit.parity.inputs import InputPlan, fixed_sizes, make_inputs, plan_inputs
from graphkit.parity.judge import pair_names
from graphkit.parity.localize import Trial, localize
from graphkit.parity.marked import localize_marked
from graphkit.parity.sizes import SizePoint, choose_sizes
from graphkit.parity.taps import split
from graphkit.parity.value_matches import Probes
from graphkit.shapes import DimRange, evaluate
from graphkit.sides import NamedRunner, is_engine, open_all


def locate(reference: Any, candidate: Any, request: CaptureRequest | None = None) -> Location:
    """Find the first tensor of `candidate` whose error its inputs do not explain.

    Args:
        reference: An ONNX file, or what a framework runs: this is captured, shown to equal its capture, and the capture
            is compared; where it cannot be captured faithfully, its own intermediate values are.
        candidate: An ONNX file; shapes and ranges that the request leaves open are its. Or an engine that graphkit
            built, with its `.engine.json` and `.engine.onnx` beside it: that graph is looked into first, and where it
            agrees with the reference, the engine is held against it.
        request: Shapes, ranges and values of the reference's inputs, and how to load it.

    Raises:
        BadRequest: a file or the request is bad. `Refused`: a side cannot be captured, loaded or run.
        GpuRequired, ExtraMissing: the candidate is an engine, which this machine cannot build and run.
    """
    asked = request or CaptureRequest()
    if is_engine(reference):
        raise BadOption(
            f"the reference {Path(reference).name} is an engine, whose inner tensors were fused away",
            remedy=f"graphkit locate {Path(reference).name}.onnx CAND: the model that it was built from",
        )
    if is_engine(candidate):
        return _in_engine(reference, Path(candidate), asked)
    runners.warm_up()
    wanted = recognise(candidate, CaptureRequest())
    if isinstance(wanted, RunnableSource):
        raise BadOption(f"CAND is {wanted.name}, which is no ONNX file", remedy="graphkit convert it, then locate")
    theirs = wanted.capture(CaptureRequest())
    source = recognise(reference, asked)
    labels = _label(source.name, captured=isinstance(source, RunnableSource)), _label(wanted.name)
    if not isinstance(source, RunnableSource):
        return _between(source.capture(asked), theirs, asked, labels)
    shapes, dims = asked.shapes or theirs.signature.inputs, asked.dims
    asked = replace(asked, shapes=shapes, dims=dims if asked.shapes or dims else theirs.dims)
    try:
        ours = source.capture(asked)
    except Refused as refused:
        found = _in_framework(source, theirs, asked, labels[1], f"it cannot be captured: {refused.message}")
        if found is None:
            raise
        return found
    return _between(ours, theirs, asked, labels, source)


def _between(
    ours: Model, theirs: Model, asked: CaptureRequest, labels: tuple[str, str], source: RunnableSource | None = None
) -> Location:
    """Two graphs; `source` is what ours was captured from."""
    theirs, notes = aligned(ours, theirs)
    clash = _clash(ours, theirs)
    if clash is not None:
        return Location("not comparable", clash, *labels)
    plans = plan_inputs(ours)
    given = {s.name: s.value for s in asked.samples}
    points = _points(ours, theirs, plans, given)
    if source is not None:
        unfaithful = _unfaithful(source, ours, plans, points, given, asked.seed)
        if unfaithful is not None:
            found = _in_framework(source, theirs, asked, labels[1], unfaithful)
            return found or Location("not comparable", unfaithful, *labels)
    found = localize(ours, theirs, _trials(plans, points, asked, given), labels)
    return replace(found, notes=(*notes, *found.notes))


def _label(name: str, *, captured: bool = False) -> str:
    return f"{name}{', captured' if captured else ''}: onnxruntime {version('onnxruntime')} (cpu, optimisations off)"


def _trials(
    plans: Sequence[InputPlan], points: Sequence[SizePoint], asked: CaptureRequest, given: Mapping[str, Any]
) -> list[Trial]:
    return [
        Trial(make_inputs(plans, p.sizes, asked.seed + p.draw, given), p.sizes, asked.seed + p.draw) for p in points
    ]


def _clash(reference: Model, candidate: Model) -> str | None:
    """Why no input of the reference fits the candidate."""
    theirs = {t.name: t for t in candidate.signature.inputs}
    for spec in reference.signature.inputs:
        other = theirs.get(spec.name)
        if other is None or spec.shape is None or other.shape is None:
            continue
        pairs = zip(spec.shape, other.shape, strict=False)
        fixed = any(isinstance(a, int) and isinstance(b, int) and a != b for a, b in pairs)
        if fixed or len(spec.shape) != len(other.shape):
            return f"the inputs differ: the reference has {spec}, the candidate {other}"
    return None


def _points(
    reference: Model, candidate: Model, plans: Sequence[InputPlan], given: Mapping[str, Any]
) -> list[SizePoint]:
    """Sizes inside the ranges of both; a dimension that is a number in the candidate has that size."""
    static = {s: n for s, n in _static(reference, candidate).items() if n is not None}
    fixed = {**static, **fixed_sizes(plans, given)}
    symbols = reference.signature.symbols
    declared = {d.symbol: d for d in (*candidate.dims, *reference.dims) if d.symbol in symbols}
    ranges: list[DimRange] = [d for s, d in declared.items() if s not in static]
    points = choose_sizes(reference.signature, ranges, [reference.origin.sizes], fixed=fixed)
    return [replace(p, sizes={**p.sizes, **fixed}) for p in points]


def _static(reference: Model, candidate: Model) -> dict[str, int | None]:
    theirs = {t.name: t.shape or () for t in candidate.signature.inputs}
    return {
        ours: evaluate(other, {})
        for spec in reference.signature.inputs
        for ours, other in zip(spec.shape or (), theirs.get(spec.name, ()), strict=False)
        if isinstance(ours, str) and ours in reference.signature.symbols and isinstance(other, int)
    }


def _unfaithful(
    source: RunnableSource,
    captured: Model,
    plans: Sequence[InputPlan],
    points: Sequence[SizePoint],
    given: Mapping[str, Any],
    seed: int,
) -> str | None:
    """Why the captured graph cannot stand for its source; None where their outputs are equal."""
    with runners.OrtRunner(captured, optimize=False) as runner:
        done = check(source, [runner], plans, points, given, seed)
    bad = next((c for c in done if c.status != "pass"), None)
    return None if bad is None else f"{source.name} and its own capture differ already: {bad.reason}"


# --- in an engine ------------------------------------------------------------------------------------------------

_TF32 = (
    "TF32, which keeps 10 bits of mantissa, is allowed in the engine: what it alone explains is gone after convert "
    "--no-tf32"
)


def _in_engine(reference: Any, path: Path, asked: CaptureRequest) -> Location:
    """The graph that an engine was built from is looked into first; the engine is then held against that."""
    if not builder.visible_gpus():
        raise GpuRequired(
            f"{path.name} is an engine: to look into it, its inner tensors have to be marked as outputs, built in, and "
            "run, and no CUDA device is visible here",
            remedy=f"graphkit locate REF {path.name}.onnx, the model that it was built from",
        )
    runners.warm_up()
    side = open_all([path], CaptureRequest(trust=asked.trust), optimize=False)[1]
    inner = side.runner.inner if isinstance(side.runner, NamedRunner) else None
    if not isinstance(inner, builder.EngineRunner):
        raise ExtraMissing(
            f"{path.name} cannot be run here: {side.lacks}", remedy="graphkit doctor says what to install"
        )
    file = sidecar.graph_of(path)
    model = load(file)
    found = locate(reference, file, asked)
    if found.status != "equal":
        return replace(
            found, notes=(*found.notes, f"{path.name} was built from {file.name}, and not looked into itself")
        )
    names = [t.name for t in model.signature.inputs]
    given = {s.name: s.value for s in asked.samples if s.name in names}
    plans = plan_inputs(model)
    points = choose_sizes(model.signature, side.dims, [model.origin.sizes], fixed=fixed_sizes(plans, given))
    with tempfile.TemporaryDirectory(prefix="graphkit-locate-") as folder:
        run = _Marked(model, inner, side.dims, Path(folder))
        located = localize_marked(model, run, _trials(plans, points, asked, given), (_label(file.name), side.label))
    said = (f"{file.name} is equal to {found.reference}", *([_TF32] if inner.engine.tf32 else []))
    return replace(located, notes=(*found.notes, *said, *located.notes))


_DTYPES = {"float32": "FLOAT", "float16": "FLOAT16", "bfloat16": "BFLOAT16"}


@dataclass(slots=True)
class _Marked:
    """Builds and runs the graph of an engine with more outputs, with the options of that engine."""

    model: Model
    runner: builder.EngineRunner
    dims: tuple[DimRange, ...]
    folder: Path
    built: int = 0

    def __call__(self, marks: Mapping[str, str], inputs: Mapping[str, Any]) -> Mapping[str, Any]:
        if not marks:
            return self.runner.run(inputs)
        self.built += 1
        target = self.folder / f"{self.built}.engine"
        made = self.runner.builder.build(self._request(marks), target, durable=False)
        try:
            return self.runner.builder.run(made, inputs)
        finally:
            target.unlink(missing_ok=True)

    def _request(self, marks: Mapping[str, str]) -> builder.BuildRequest:
        import onnx_ir as ir

        graph = self.model.ir.clone()
        values = {v.name: v for node in graph.graph for v in node.outputs}
        for name, dtype in marks.items():
            values[name].dtype = ir.DataType[_DTYPES[dtype]]  # TensorRT's parser takes no output without a type
            graph.graph.outputs.append(values[name])
        engine = self.runner.engine
        # TensorRT builds for the GPU that is here; "later" stands in what TensorRT-RTX builds where nothing is named.
        named = engine.kind == "tensorrt-rtx" and "later" not in engine.targets
        return builder.BuildRequest(
            replace(self.model, ir=graph), self.dims, engine.targets if named else (), engine.tf32
        )


# --- in the framework itself -------------------------------------------------------------------------------------


def _in_framework(
    source: RunnableSource, theirs: Model, asked: CaptureRequest, label: str, why: str
) -> Location | None:
    """Hold the source's own intermediate values against the candidate's; None where its framework shows none.

    Args:
        label: What to call the candidate.
        why: Why its capture cannot stand for it.
    """
    if not isinstance(source, TappedSource):
        return None
    own = [spec.name for spec in source.prepare(asked)]
    partners = pair_names(own, [t.name for t in theirs.signature.inputs])
    blank = Location("not comparable", "", f"{source.name}: {source.label}", label, notes=(why,))
    if partners is None:
        return replace(blank, reason=f"the inputs differ: the reference has {', '.join(own)}")
    plans = plan_inputs(theirs)
    given = {partners.get(s.name, s.name): s.value for s in asked.samples}
    points = choose_sizes(theirs.signature, asked.dims or theirs.dims, [], fixed=fixed_sizes(plans, given))
    with runners.OrtRunner(theirs, optimize=False) as runner:
        for position, trial in enumerate(_trials(plans, points, asked, given)):
            mine = {ours: trial.inputs[name] for ours, name in partners.items()}
            shapes = tuple(dict(p.sizes) for p in points[: position + 1])
            here = replace(blank, sizes=dict(trial.sizes), seed=trial.seed, shapes=shapes)
            expected, found = source.run(mine), runner.run(trial.inputs)
            outputs = pair_names(expected, found)
            if outputs is None:
                return replace(here, reason=f"the outputs differ: {', '.join(expected)} and {', '.join(found)}")
            aligned_outputs = {ours: found[name] for ours, name in outputs.items()}
            bad = next((o.output for o in compare_outputs(expected, aligned_outputs) if o.status == "fail"), None)
            if bad is not None:
                return _on_tape(here, source, theirs, mine, trial, (bad, outputs[bad]))
    reason = f"every output is within its tolerance at {len(points)} set{'s' * (len(points) > 1)} of inputs"
    return replace(here, status="equal", reason=reason)


def _on_tape(
    here: Location,
    source: TappedSource,
    theirs: Model,
    mine: Mapping[str, Any],
    trial: Trial,
    bad: tuple[str, str],
) -> Location | None:
    from graphkit.tensor_files import write_tensors

    with tempfile.TemporaryDirectory(prefix="graphkit-locate-") as folder:
        recorded, fed = Path(folder, "recorded"), Path(folder, "inputs")
        recorded.mkdir()
        fed.mkdir()
        tape = source.tap(mine, recorded)
        if tape is None:
            return None
        steps = tuple(_step(tap) for tap in tape.taps)
        candidate = Run(steps_of(theirs), tuple(t.name for t in theirs.signature.inputs), bad[1])
        if bad[0] not in tape.outputs or bad[1] not in candidate.names:
            return replace(here, reason=f"output `{bad[0]}` differs, and is no tensor that one of the sides computes")
        entries = [dict(file) for tap in tape.taps for file in tap.files]
        probes = Probes(entries, str(split(theirs, Path(folder, "candidate"))), write_tensors(trial.inputs, fed))
        return part(here, Run(steps, tape.inputs, tape.outputs[bad[0]]), candidate, probes).location


def _step(tap: Tap) -> Step:
    lines = (tap.source,) if tap.source is not None else ()
    return Step(tap.op, tap.source.module if tap.source is not None else "", tap.reads, tap.makes, lines)
