"""The proof of a conversion: source against ONNX, optimised ONNX and engine, and the report beside the output."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from importlib.metadata import version
from pathlib import Path
from typing import Any

from graphkit import __version__, atomic
from graphkit.capture.audit import output_shapes
from graphkit.capture.request import RunnableSource, Source
from graphkit.conversion import Conversion
from graphkit.drafts import Drafts
from graphkit.engine.builder import Builder, Engine, EngineRunner, visible_gpus
from graphkit.errors import ParityFailed
from graphkit.model import Model, file_sha256, provenance
from graphkit.parity.check import check, engine_status
from graphkit.parity.inputs import InputPlan, fixed_sizes, plan_inputs, read_given
from graphkit.parity.judge import Judgement
from graphkit.parity.quanta import WithinOneStep, is_quantised, steps_of
from graphkit.parity.runners import OrtRunner, Runner, WithValues
from graphkit.parity.sizes import SizePoint, choose_sizes
from graphkit.parity.verdict import Comparison, ParityReport
from graphkit.shapes import evaluate

REWRITTEN = "optimised ONNX"
"""What the rewritten graph is called in a report."""


@dataclass(frozen=True, slots=True)
class Proof:
    """What validation leaves for the engine's own comparison."""

    reference: Runner
    plans: Sequence[InputPlan]
    points: Sequence[SizePoint]
    given: Mapping[str, Any]
    summary: str


def validate(
    captured_as: Source, whole: Model, captured: Model, model: Model, drafts: Drafts, state: Conversion
) -> Proof:
    """Compare the source with the captured and with the optimised graph.

    Args:
        captured_as: The source; where its framework cannot run it, the graph as it was captured is the reference.
        whole: The graph as it was captured; `captured` may have inputs of it frozen.
        drafts: The files that ONNX Runtime loads.

    Raises:
        ParityFailed: they differ, or one could not run. The report is written all the same.
        InvalidExport: ONNX Runtime cannot load what was captured.
    """
    request = state.request

    plans = plan_inputs(captured)
    names = {t.name for t in captured.signature.inputs}
    given = {s.name: s.value for s in request.samples if s.name in names}
    fixed = fixed_sizes(plans, given)
    points = choose_sizes(captured.signature, captured.dims, [captured.origin.sizes], fixed=fixed)
    as_captured = OrtRunner(drafts.path(captured), optimize=False, name="captured ONNX")
    as_captured.load()  # an export that cannot even be loaded is no question of parity
    runnable = isinstance(captured_as, RunnableSource)
    reference: Runner = captured_as if isinstance(captured_as, RunnableSource) else as_captured
    if whole is not captured:
        if not runnable:
            reference = OrtRunner(drafts.path(whole), optimize=False, name="captured ONNX")
        values = {sample.name: sample.value for sample in request.freeze}
        reference = WithValues(reference, read_given(plan_inputs(whole), values))
    candidates = [as_captured] if reference is not as_captured else []
    what = REWRITTEN if model is not captured else "ONNX"
    # ONNX Runtime's int8 kernels saturate on x64 without VNNI (24 of 256 steps off on an AMD EPYC, ORT 1.32): that is
    # no property of the graph, so a quantised one is run as it stands.
    candidates.append(OrtRunner(drafts.path(model), optimize=not is_quantised(model), name=what))
    steps = steps_of(captured)
    judge = WithinOneStep(steps) if steps else None
    comparisons = check(reference, candidates, plans, points, given, request.seed, judge=judge)
    state.parity = ParityReport(
        comparisons=comparisons,
        engine="not run",
        engine_reason=None if request.to == "trt" else "no engine was asked for",
        inputs={p.spec.name: p.how for p in plans},
        versions=_versions(captured),
    )
    require_parity(state)
    return Proof(reference, plans, points, given, f"{len(comparisons)} comparisons at {len(points)} shapes, all equal")


def with_true_outputs(model: Model, parity: ParityReport) -> Model:
    """The model with output shapes that agree with what was seen to come out, where its own say less or something else.

    An ONNX file may name no dimension of its outputs, or each by a name of its own.
    """
    import onnx_ir as ir

    observed = [(c.sizes, {o.output: o.shape for o in c.outputs}) for c in parity.comparisons if c.outputs]
    declared = {t.name: t.shape for t in model.signature.outputs}
    shapes = output_shapes(declared, observed)
    if not observed or all(shapes.get(name) in (None, shape) for name, shape in declared.items()):
        return model
    graph = model.ir.clone()
    for value in graph.graph.outputs:
        if value.name in shapes:
            value.shape = ir.Shape(shapes[value.name])
    return replace(model, ir=graph)


def prove_engine(
    builder: Builder,
    engine: Engine,
    proof: Proof,
    state: Conversion,
    judge: Callable[[Mapping[str, Any], Mapping[str, Any]], Judgement],
) -> None:
    """Compare the engine with the source where a GPU can run it; say `not run` where none can.

    Args:
        judge: What decides on a run's outputs: an engine of float16 is not held to the tolerance of float32.

    Raises:
        ParityFailed
    """
    assert state.parity is not None
    runner: EngineRunner | str = EngineRunner(builder, engine) if visible_gpus() else "no CUDA device"
    if state.request.settings.strip_weights:
        runner = "its weights were left out; `graphkit refit` puts them back and compares"
    points = [point for point in proof.points if _in_a_profile(engine, proof.plans, point)] or proof.points
    verdict = engine_status(proof.reference, runner, proof.plans, points, proof.given, state.request.seed, judge=judge)
    state.parity = replace(
        state.parity,
        comparisons=(*state.parity.comparisons, *verdict.comparisons),
        engine=verdict.status,
        engine_reason=verdict.reason,
    )
    require_parity(state)


def _in_a_profile(engine: Engine, plans: Sequence[InputPlan], point: SizePoint) -> bool:
    """Whether one of several profiles takes a point: between two profiles there may be sizes that none does."""
    shapes = {p.spec.name: [evaluate(dim, point.sizes) for dim in p.spec.shape or ()] for p in plans}
    known = {name: [n for n in sizes if n is not None] for name, sizes in shapes.items() if None not in sizes}
    return not engine.more_profiles or any(profile.accepts(known) for profile in engine.profiles)


def require_parity(state: Conversion) -> None:
    """End the conversion, with the report beside its output, unless every comparison passed.

    Raises:
        ParityFailed
    """
    assert state.parity is not None
    if state.parity.status == "pass":
        return
    bad = [c for c in state.parity.comparisons if c.status != "pass"]
    if state.output is not None:
        write_report(state, state.output, state.model)
    first = bad[0] if bad else None
    outputs = [o for c in bad for o in c.outputs if o.status == "fail"]
    why = (first.reason if first else None) or (
        f"output `{outputs[0].output}`: {outputs[0].reason}" if outputs else "nothing could be compared"
    )
    raise ParityFailed(
        f"{len(bad)} of {len(state.parity.comparisons)} comparisons failed: {why}",
        where=_random_line(state.model) or (f"{first.candidate} against {first.reference}" if first else None),
        details=tuple(_failure(c) for c in bad[:2]),
        remedy=_remedy(state, bad),
    )


_RANDOM = ("RandomNormal", "RandomNormalLike", "RandomUniform", "RandomUniformLike", "Bernoulli", "Multinomial")


def _random_line(model: Model | None) -> str | None:
    """The user's line that draws random numbers, on which no two runs agree."""
    nodes = model.ir.graph.all_nodes() if model is not None else ()
    lines = [line for n in nodes if n.op_type in _RANDOM for line in provenance(n)]
    return str(lines[0]) if lines else None


def _remedy(state: Conversion, bad: Sequence[Comparison]) -> str | None:
    declared = {d.symbol for d in (state.model.dims if state.model else ())}
    undeclared = [s for s in (bad[0].sizes if bad else ()) if s not in declared]
    if undeclared and all(not c.outputs for c in bad):
        flags = " ".join(f"--dim {s}=MIN:OPT:MAX" for s in undeclared)
        return f"{flags}, the sizes that the model takes"
    return f"{_parity_path(state.output)} has every number" if state.output else None


def _failure(comparison: Comparison) -> str:
    sizes = ", ".join(f"{k}={v}" for k, v in comparison.sizes.items()) or "static shapes"
    worst = next((o for o in comparison.outputs if o.status == "fail"), None)
    text = comparison.reason or (f"`{worst.output}` {worst.reason}" if worst else comparison.status)
    return f"{comparison.candidate} at {sizes}: {text}"


def _parity_path(output: Path | None) -> Path:
    assert output is not None
    return output.with_name(f"{output.name}.parity.json")


def write_report(state: Conversion, output: Path, captured: Model | None) -> None:
    """Write `OUT.parity.json`: the verdict, and the digest of every file it speaks of."""
    assert state.parity is not None
    files = {p.name: file_sha256(p) for p in state.files}
    if captured is not None and captured.origin.sha256:
        files[f"source: {captured.origin.name}"] = captured.origin.sha256
    state.parity = replace(state.parity, files=files)
    path = _parity_path(output)
    text = json.dumps(state.parity.to_json(), indent=2, allow_nan=False) + "\n"
    atomic.write_bytes(path, text.encode())
    state.files.append(path)


def _versions(captured: Model) -> dict[str, str]:
    own = {name: version(name) for name in ("onnx", "onnx-ir", "onnxruntime", "onnxsim", "polygraphy")}
    return {"graphkit": __version__, **own, **captured.origin.versions}
