"""`validate`: any two or more of framework's model, ONNX file and engine on the same inputs, with a verdict."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field, fields, replace
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import TYPE_CHECKING, Any

from graphkit import __version__, certificate, events, input_sets
from graphkit.capture.request import CaptureRequest
from graphkit.errors import BadOption, BadSample, GpuRequired, GraphkitError, ParityFailed, ShapeMismatch
from graphkit.fitting import fitted, ranges
from graphkit.model import Model, SourceLine, file_sha256, provenance
from graphkit.parity import check as parity
from graphkit.parity import runners
from graphkit.parity.inputs import InputPlan, fixed_sizes, make_inputs, plan_inputs, plan_specs
from graphkit.parity.judge import Judge, pair_names
from graphkit.parity.metrics import Condition
from graphkit.parity.sizes import SizePoint, choose_sizes
from graphkit.parity.verdict import Comparison, OutputComparison, ParityReport, Status
from graphkit.shapes import DimRange, Sample, Signature, TensorSpec
from graphkit.sides import Side, closing, files_of, listed, open_all, tf32_in

if TYPE_CHECKING:
    import numpy as np
    import onnx_ir as ir

    Given = Mapping[str, Any]

_STEPS_BACK = 32
"""Nodes without a source line (a Cast that an optimiser added) that are looked past."""


@dataclass(frozen=True, slots=True)
class ValidateRequest:
    """How to compare.

    Attributes:
        shapes, dims: Shapes of inputs and ranges of their dimensions; where None, as the first ONNX side has them.
        samples: The user's own value for some inputs.
        sets: The user's own values for all inputs, any number of times; nothing is drawn then.
        save_inputs: `.npz` file for the inputs that were compared on.
        save_certificate: File for the report, which `certificate.recheck` takes; a candidate has to lie in its folder.
        seed: Of the drawn values.
        optimize: Whether ONNX Runtime may rewrite the candidates' graphs. The reference always runs as it stands.
        atol, rtol: Tolerance by output, "" for all floating-point outputs; else it follows from the dtypes.
        conditions: Metrics that have to hold too.
        submodule, architecture, signature, state, layout, outputs, trust: Of what frameworks run; see
            `CaptureRequest`. `trust` is for engines too.
        notes: What a reader should know about the inputs.
    """

    shapes: tuple[TensorSpec, ...] = ()
    dims: tuple[DimRange, ...] = ()
    samples: tuple[Sample, ...] = ()
    sets: tuple[Mapping[str, np.ndarray[Any, Any]], ...] = ()
    save_inputs: Path | None = None
    save_certificate: Path | None = None
    seed: int = 0
    optimize: bool = True
    atol: Mapping[str, float] = field(default_factory=dict)
    rtol: Mapping[str, float] = field(default_factory=dict)
    conditions: tuple[Condition, ...] = ()
    submodule: str | None = None
    architecture: str | None = None
    signature: str | None = None
    state: str | None = None
    layout: tuple[str, ...] = ()
    outputs: tuple[str, ...] = ()
    trust: bool = False
    notes: tuple[str, ...] = ()

    def for_capture(self) -> CaptureRequest:
        """The part of the request that sides are opened with."""
        own = {each.name for each in fields(self)} & {each.name for each in fields(CaptureRequest)}
        return CaptureRequest(**{name: getattr(self, name) for name in own})


def validate(reference: Any, candidates: Sequence[Any], request: ValidateRequest | None = None) -> ParityReport:
    """Run the reference and every candidate on the same inputs, at several sizes, and say whether they agree.

    Args:
        reference, candidates: Paths of ONNX files, engines, or what `convert` reads, `package.module:callable`,
            `Model`s, or objects of a framework.

    Raises:
        ShapeMismatch: their inputs or outputs do not correspond.
        BadRequest: a side or a value cannot be read. `UntrustedSource`: an engine without its description.

    Example:
        >>> validate("m.onnx", ["m.fp16.onnx"]).status
    """
    asked = request or ValidateRequest()
    targets = [reference, *candidates]
    _refuse(asked, candidates)
    runners.warm_up()
    shapes = _specs_of(asked.sets) if asked.sets else ()
    sides, base = open_all(targets, asked.for_capture(), optimize=asked.optimize, otherwise=shapes)
    with events.stage("validate") as done, closing(sides):
        sides, fixed, notes = fitted(sides, base)
        runs = list(_runs(base, ranges(base, sides), asked, fixed, any(s.framework for s in sides)))
        if asked.save_inputs is not None:
            input_sets.write(asked.save_inputs, [i for run in runs for i in _inputs(run, asked.seed)])
        judge = Judge(asked.atol, asked.rtol, asked.conditions)
        comparisons = list(_compared(sides, runs, judge, asked.seed))
        comparisons = [_annotated(c, (*asked.notes, *notes), sides) for c in comparisons]
        done.append(f"{len(comparisons)} comparisons")
    files = files_of(targets, sides)
    report = ParityReport(
        tuple(comparisons),
        *_engine_status(comparisons, sides),
        inputs={p.spec.name: "given" if p.spec.name in runs[0].given else p.how for p in runs[0].plans},
        versions=_versions(sides),
        files={name: file_sha256(path) for name, path in files.items()},
    )
    if asked.save_certificate is not None:
        certificate.write(asked.save_certificate, report, files)
    return report


def _refuse(asked: ValidateRequest, candidates: Sequence[Any]) -> None:
    """What needs no model to be seen."""
    if not candidates:
        raise BadOption("there is nothing to compare with", remedy="graphkit validate REFERENCE CANDIDATE...")
    if asked.samples and asked.sets:
        raise BadOption("values for single inputs and whole sets of inputs exclude one another", remedy="give one")
    if asked.save_certificate is not None:
        certificate.check_place(asked.save_certificate, candidates)


def status_of(report: ParityReport) -> Status:
    """`fail` where something differs, `not run` where something could not run, else `pass`."""
    statuses = {c.status for c in report.comparisons}
    return "fail" if "fail" in statuses else "not run" if "not run" in statuses or not statuses else "pass"


def error_of(report: ParityReport) -> GraphkitError | None:
    """The verdict as an error with its exit code: None, ParityFailed (1), or GpuRequired (3)."""
    status = status_of(report)
    bad = [c for c in report.comparisons if c.status == status]
    if status == "pass":
        return None
    if status == "not run":
        why = bad[0].reason if bad else "nothing was compared"
        return GpuRequired(
            f"{len(bad)} of {len(report.comparisons)} comparisons were not run: {why}",
            remedy="run it on a machine with an NVIDIA GPU: `graphkit doctor` says what is missing here",
        )
    source = next((o.source for c in bad for o in c.outputs if o.source is not None), None)
    return ParityFailed(
        f"{len(bad)} of {len(report.comparisons)} comparisons failed: {bad[0].reason}",
        where=str(source) if source else f"{bad[0].candidate} against {bad[0].reference}",
    )


# --- one and the same inputs for all -----------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class _Run:
    """Points that share their given values."""

    plans: tuple[InputPlan, ...]
    points: tuple[SizePoint, ...]
    given: Given


def _runs(
    base: Side, dims: tuple[DimRange, ...], request: ValidateRequest, fixed: Mapping[str, int], framework: bool
) -> Iterator[_Run]:
    assert base.inputs is not None
    plans = plan_inputs(base.model) if base.model is not None else plan_specs(base.inputs)
    if not request.sets:
        names = {p.spec.name for p in plans}
        # A Python number that the graph holds as a constant is an input of the framework's side alone.
        alone = {s.name for s in request.samples if framework and s.name not in names and not isinstance(s.value, Path)}
        given = {s.name: s.value for s in request.samples if s.name not in alone}
        signature = Signature(tuple(p.spec for p in plans), ())
        seen = [base.model.origin.sizes] if base.model is not None else []
        sizes = {**fixed, **fixed_sizes(plans, given)}
        yield _Run(plans, tuple(choose_sizes(signature, dims, seen, fixed=sizes)), given)
    for number, each in enumerate(request.sets):
        lacking = [p.spec.name for p in plans if p.spec.name not in each]
        if lacking:
            raise BadSample(
                f"input set {number + 1} has no values for {', '.join(lacking)}",
                remedy=f"a set has every input: {listed(base.inputs)}",
            )
        note = f"input set {number + 1} of {len(request.sets)}"
        yield _Run(plans, (SizePoint(fixed_sizes(plans, each), note, draw=number, note=note),), each)


def _inputs(run: _Run, seed: int) -> Iterator[dict[str, Any]]:
    """What `check` runs on."""
    for point in run.points:
        yield make_inputs(run.plans, point.sizes, seed + point.draw, run.given)


def _specs_of(sets: Sequence[Mapping[str, np.ndarray[Any, Any]]]) -> tuple[TensorSpec, ...]:
    """Inputs as whole sets have them; a dimension whose size varies is a symbol."""
    specs = []
    for name, first in sets[0].items():
        shapes = [each[name].shape for each in sets if name in each]
        if len({len(s) for s in shapes}) > 1:
            raise ShapeMismatch(f"the sets have `{name}` with different numbers of dimensions: {shapes[0]}, ...")
        dims = [{s[axis] for s in shapes} for axis in range(first.ndim)]
        shape = tuple(next(iter(d)) if len(d) == 1 else f"{name}_dim{axis}" for axis, d in enumerate(dims))
        specs.append(TensorSpec(name, first.dtype.name, shape))
    return tuple(specs)


# --- running -----------------------------------------------------------------------------------------------------


def _compared(sides: Sequence[Side], runs: Sequence[_Run], judge: Judge, seed: int) -> Iterator[Comparison]:
    """At each point the candidates in their order, those that nothing here can run included."""
    reference, *candidates = sides
    cases = [case for run in runs for case in parity.cases_of(run.plans, run.points, run.given, seed)]
    able = [s.runner for s in candidates if s.runner is not None]
    judges = [replace(judge, tf32=tf32_in(reference) or tf32_in(s)) for s in candidates if s.runner is not None]
    found: Iterator[Comparison] = iter(())
    if reference.runner is not None and able:
        found = iter(parity.check_cases(reference.runner, able, cases, judges))
    for case in cases:
        for side in candidates:
            if reference.runner is not None and side.runner is not None:
                yield next(found)
                continue
            label = reference.runner.label if reference.runner is not None else reference.label
            point, why = case.point, reference.lacks or side.lacks
            yield Comparison(
                label, side.label, dict(point.sizes), case.seed, point.seen, "not run", reason=why, note=point.note
            )


def _engine_status(comparisons: Sequence[Comparison], sides: Sequence[Side]) -> tuple[Status, str | None]:
    labels = {s.label if s.runner is None else s.runner.label for s in sides if s.engine}
    mine = [c for c in comparisons if c.candidate in labels or c.reference in labels]
    if not mine:
        return "not run", "no engine was given"
    for status in ("fail", "not run"):
        first = next((c for c in mine if c.status == status), None)
        if first is not None:
            return first.status, first.reason
    return "pass", None


def _versions(sides: Sequence[Side]) -> dict[str, str]:
    """Of what took part."""
    found = {"graphkit": __version__}
    for name in ("onnx", "onnx-ir", "onnxruntime", "polygraphy", "numpy"):
        try:
            found[name] = version(name)
        except PackageNotFoundError:
            continue  # imported from a folder: it has no version to tell
    for side in sides:  # `torch 2.13.0 (cpu)`; TensorFlow's distribution has several names
        if side.framework:
            framework, number, *_ = side.label.removeprefix(f"{side.name}: ").split()
            found[framework] = number
    return found


# --- where in the user's code ------------------------------------------------------------------------------------


def _annotated(comparison: Comparison, notes: Sequence[str], sides: Sequence[Side]) -> Comparison:
    """The comparison with the notes that hold for all, and the source line of each output that failed."""
    note = "; ".join(filter(None, [comparison.note, *notes])) or None
    if comparison.status != "fail":
        return replace(comparison, note=note)
    mine = [s for s in sides if s.runner is not None and s.runner.label == comparison.candidate]
    models = [s.model for s in (*mine, *sides) if s.model is not None]
    names = [o.output for o in comparison.outputs]
    outputs = tuple(_sourced(o, models, names) if o.status == "fail" else o for o in comparison.outputs)
    return replace(comparison, note=note, outputs=outputs)


def _sourced(output: OutputComparison, models: Sequence[Model], names: Sequence[str]) -> OutputComparison:
    """The output with its line, from the first graph that knows it; `names` are the reference's outputs."""
    for model in models:
        values = {value.name or "": value for value in model.ir.graph.outputs}
        partners = pair_names(names, values) or {}
        value = values.get(partners.get(output.output, output.output))
        line = _line_of(value.producer()) if value is not None else None
        if line is not None:
            return replace(output, source=line)
    return output


def _line_of(node: ir.Node | None) -> SourceLine | None:
    """The line of the nearest node upstream that has one; else the nearest module."""
    module: SourceLine | None = None
    for _ in range(_STEPS_BACK):
        if node is None:
            break
        for line in provenance(node):
            if line.file:
                return line
            module = module or line
        node = next((p for p in (v.producer() for v in node.inputs if v is not None) if p is not None), None)
    return module
