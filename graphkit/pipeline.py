"""`convert`: capture -> optimise -> validate -> build, with one report at the end.

Nothing appears under the output's name before it is proved: a conversion that fails leaves the parity report, and
nothing else.
"""

from __future__ import annotations

import contextlib
import tempfile
import time
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from graphkit import atomic, events
from graphkit.capture.registry import recognise
from graphkit.capture.request import CaptureRequest, RunnableSource, Source
from graphkit.errors import BadOption, GraphkitError, UnknownTarget
from graphkit.model import Model
from graphkit.result import ConvertResult, Stage
from graphkit.shapes import DimRange, Sample, TensorSpec

if TYPE_CHECKING:
    from graphkit.engine.builder import Builder, BuildRequest, Engine
    from graphkit.parity.runners import Runner
    from graphkit.parity.verdict import ParityReport

TARGETS = {"onnx": ".onnx", "trt": ".engine"}


@dataclass(frozen=True, slots=True)
class ConvertRequest:
    """What to convert to, and how.

    Attributes:
        to: `onnx` or `trt`.
        output: The file to write; the source's name with the target's suffix, in the working directory, if None.
        shapes, dims, samples, opset, via, submodule, architecture, trust, seed: see `CaptureRequest`.
        optimize: Whether onnxsim runs.
        backend: `rtx` or `tensorrt` to insist on one; None for the best that this machine has.
        compute_capabilities: Targets of the engine (`8.6`); () for the backend's portable default.
        tf32: Whether the engine may use TF32 for float32 matrix products.
    """

    to: str = "onnx"
    output: Path | None = None
    shapes: tuple[TensorSpec, ...] = ()
    dims: tuple[DimRange, ...] = ()
    samples: tuple[Sample, ...] = ()
    opset: int | None = None
    via: str | None = None
    submodule: str | None = None
    architecture: str | None = None
    trust: bool = False
    optimize: bool = True
    backend: str | None = None
    compute_capabilities: tuple[str, ...] = ()
    tf32: bool = True
    seed: int = 0

    def for_capture(self) -> CaptureRequest:
        """The part of the request that capture is concerned with."""
        return CaptureRequest(
            self.shapes,
            self.dims,
            self.samples,
            self.opset,
            self.via,
            self.submodule,
            self.architecture,
            self.trust,
            self.seed,
        )


def convert(
    source: Any,
    *,
    to: str = "onnx",
    output: Path | str | None = None,
    shapes: Mapping[str, Sequence[int | str] | TensorSpec] | None = None,
    dims: Mapping[str, tuple[int, int, int] | int] | None = None,
    inputs: Mapping[str, Path | str | float | bool] | None = None,
    **options: Any,
) -> ConvertResult:
    """Convert a model, and prove that the result computes the same.

    Args:
        source: Path, `package.module:callable`, nn.Module, TorchScript, GraphModule or ExportedProgram.
        to: `onnx` or `trt`.
        output: File to write.
        shapes: Shape of each input; strings are dynamic dimensions: `{"x": ("batch", 3, 224, 224)}`. A `TensorSpec`
            says the dtype too; without one it is float32.
        dims: Range of each dynamic dimension: `{"batch": (1, 4, 8)}` (min, opt, max).
        inputs: Sample values: `.npy` files, or numbers.
        options: The other fields of `ConvertRequest`.

    Raises:
        GraphkitError: what ended the conversion.

    Example:
        >>> convert(module, to="trt", shapes={"x": ("batch", 8)}, dims={"batch": (1, 4, 8)}, output="m.engine")
    """
    request = ConvertRequest(
        to=to,
        output=Path(output) if output is not None else None,
        shapes=as_specs(shapes or {}),
        dims=as_ranges(dims or {}),
        samples=tuple(Sample(n, Path(v) if isinstance(v, str) else v) for n, v in (inputs or {}).items()),
        **options,
    )
    result = run(source, request)
    if result.error is not None:
        raise result.error
    return result


def capture(source: Any, request: CaptureRequest | None = None) -> Model:
    """Capture a model without converting it further; see `Source.capture` for what is raised."""
    asked = request or CaptureRequest()
    return recognise(source, asked).capture(asked)


def as_specs(shapes: Mapping[str, Sequence[int | str] | TensorSpec]) -> tuple[TensorSpec, ...]:
    """`{"x": ("batch", 8)}` as TensorSpecs."""
    return tuple(s if isinstance(s, TensorSpec) else TensorSpec(n, None, tuple(s)) for n, s in shapes.items())


def as_ranges(dims: Mapping[str, tuple[int, int, int] | int]) -> tuple[DimRange, ...]:
    """`{"batch": (1, 4, 8), "seq": 16}` as DimRanges."""
    return tuple(DimRange(s, r, r, r) if isinstance(r, int) else DimRange(s, *r) for s, r in dims.items())


def run(source: Any, request: ConvertRequest) -> ConvertResult:
    """As `convert`, but what ended the conversion is in `result.error`, beside the stages that went well."""
    state = _Progress(request)
    try:
        _convert(source, request, state)
    except GraphkitError as error:
        return state.result(error)
    return state.result(None)


# --- the line ----------------------------------------------------------------------------------------------------


@dataclass(slots=True)
class _Progress:
    """What a running conversion has made so far."""

    request: ConvertRequest
    source: str = ""
    output: Path | None = None
    stages: list[Stage] = field(default_factory=list)
    files: list[Path] = field(default_factory=list)
    model: Model | None = None
    parity: ParityReport | None = None
    warnings: list[Any] = field(default_factory=list)

    def result(self, error: GraphkitError | None) -> ConvertResult:
        return ConvertResult(
            source=self.source,
            target=self.request.to,
            output=self.output if error is None else None,
            files=tuple(self.files),
            stages=tuple(self.stages),
            warnings=tuple(self.warnings),
            parity=self.parity,
            model=self.model,
            error=error,
        )


def _convert(source: Any, request: ConvertRequest, state: _Progress) -> None:
    state.source = _name_of(source)
    _check_options(request)
    output = state.output = request.output or Path(_stem(state.source) + TARGETS[request.to])
    atomic.check_writable(output)
    captured_as = recognise(source, request.for_capture())
    builder = _warm_up(request)
    state.source = captured_as.name
    with _stage(state, "capture") as stage:
        captured = captured_as.capture(request.for_capture())
        state.model = captured
        state.warnings.extend(captured.origin.findings)
        way = captured.origin.rungs[-1].name if captured.origin.rungs else captured.origin.kind
        stage.describe(f"{way}, opset {captured.opset}", captured)
        if builder is not None:
            builder.check(_build_request(captured, request))
    model = _optimise(captured, request, state)
    with tempfile.TemporaryDirectory(prefix="graphkit-") as folder:
        with _stage(state, "validate") as stage:
            proof = _validate(captured_as, captured, model, request, Path(folder), state)
            stage.detail = proof.summary
        if request.to == "onnx":
            _publish_onnx(model, output, state)
        else:
            assert builder is not None
            _publish_engine(builder, model, output, request, proof, state)
    _write_parity(state, output, captured)


def _optimise(captured: Model, request: ConvertRequest, state: _Progress) -> Model:
    from graphkit.rewrite import simplify

    with _stage(state, "optimise") as stage:
        reason = "--no-optimize" if not request.optimize else simplify.why_not(captured)
        if reason is not None:
            stage.skip(reason)
            return captured
        model = simplify.simplify(captured)
        change = f"{model.origin.steps[-1]}: {captured.node_count} -> {model.node_count} nodes"
        if model.node_count > captured.node_count:  # it takes newer operators (Gelu) apart
            stage.describe(f"{change}, not kept", captured)
            return captured
        stage.describe(change, model)
        state.model = model
        return model


@dataclass(frozen=True, slots=True)
class _Proof:
    """What validation leaves for the engine's own comparison."""

    reference: Any
    plans: Any
    points: Any
    given: Mapping[str, Any]
    summary: str


def _validate(
    captured_as: Source, captured: Model, model: Model, request: ConvertRequest, folder: Path, state: _Progress
) -> _Proof:
    from graphkit.parity.check import check
    from graphkit.parity.inputs import fixed_sizes, plan_inputs
    from graphkit.parity.runners import OrtRunner
    from graphkit.parity.sizes import choose_sizes
    from graphkit.parity.verdict import ParityReport

    plans = plan_inputs(captured)
    names = {t.name for t in captured.signature.inputs}
    given = {s.name: s.value for s in request.samples if s.name in names}
    fixed = fixed_sizes(plans, given)
    points = choose_sizes(captured.signature, captured.dims, [captured.origin.sizes], fixed=fixed)
    as_captured = OrtRunner(_saved(captured, folder / "captured.onnx"), optimize=False, name="captured ONNX")
    runnable = isinstance(captured_as, RunnableSource)
    reference: Runner = captured_as if isinstance(captured_as, RunnableSource) else as_captured
    candidates = [as_captured] if runnable else []
    path = _saved(model, folder / "model.onnx")
    what = "optimised ONNX" if model is not captured else "ONNX"
    candidates.append(OrtRunner(path, optimize=True, name=what))
    comparisons = check(reference, candidates, plans, points, given, request.seed)
    state.parity = ParityReport(
        comparisons=comparisons,
        engine="not run",
        engine_reason=None if request.to == "trt" else "no engine was asked for",
        inputs={p.spec.name: p.how for p in plans},
        versions=_versions(captured),
    )
    _require_parity(state)
    return _Proof(reference, plans, points, given, f"{len(comparisons)} comparisons at {len(points)} shapes, all equal")


def _publish_onnx(model: Model, output: Path, state: _Progress) -> None:
    state.files.extend(model.save(output))


def _publish_engine(
    builder: Builder, model: Model, output: Path, request: ConvertRequest, proof: _Proof, state: _Progress
) -> None:
    """Build under another name; the engine gets its own once it has passed, or cannot be run here."""
    from graphkit.engine import sidecar

    asked = _build_request(model, request)
    with atomic.replacing(output) as temporary:
        with _stage(state, "build") as stage:
            engine = builder.build(asked, temporary)
            stage.detail = f"{engine.kind} {engine.version} for {', '.join(engine.targets)}"
            stage.size = engine.size
            state.warnings.extend(engine.findings)
        _prove_engine(builder, engine, proof, request, state)
    state.files.append(output)
    state.files.append(sidecar.write(replace(engine, path=output), asked))
    state.files.extend(model.save(output.with_name(f"{output.name}.onnx")))


def _prove_engine(builder: Builder, engine: Engine, proof: _Proof, request: ConvertRequest, state: _Progress) -> None:
    from graphkit.engine.builder import visible_gpus
    from graphkit.parity.check import engine_status

    assert state.parity is not None
    runner = _EngineRunner(builder, engine) if visible_gpus() else "no CUDA device"
    verdict = engine_status(proof.reference, runner, proof.plans, proof.points, proof.given, request.seed)
    state.parity = replace(
        state.parity,
        comparisons=(*state.parity.comparisons, *verdict.comparisons),
        engine=verdict.status,
        engine_reason=verdict.reason,
    )
    _require_parity(state)


@dataclass(frozen=True, slots=True)
class _EngineRunner:
    """An engine as a Runner of the parity room."""

    builder: Builder
    engine: Engine

    @property
    def label(self) -> str:
        return f"{self.engine.kind} {self.engine.version} (cuda{', TF32' if self.engine.tf32 else ''})"

    def run(self, inputs: Mapping[str, Any]) -> dict[str, Any]:
        return self.builder.run(self.engine, inputs)


def _require_parity(state: _Progress) -> None:
    from graphkit.errors import ParityFailed

    assert state.parity is not None
    if state.parity.status == "pass":
        return
    bad = [c for c in state.parity.comparisons if c.status != "pass"]
    if state.output is not None:
        _write_parity(state, state.output, state.model)
    first = bad[0] if bad else None
    outputs = [o for c in bad for o in c.outputs if o.status == "fail"]
    why = (first.reason if first else None) or (
        f"output `{outputs[0].output}`: {outputs[0].reason}" if outputs else "nothing could be compared"
    )
    raise ParityFailed(
        f"{len(bad)} of {len(state.parity.comparisons)} comparisons failed: {why}",
        where=f"{first.candidate} against {first.reference}" if first else None,
        details=tuple(_failure(c) for c in bad[:4]),
        remedy=f"{_parity_path(state.output)} has every number" if state.output else None,
    )


def _failure(comparison: Any) -> str:
    sizes = ", ".join(f"{k}={v}" for k, v in comparison.sizes.items()) or "static shapes"
    worst = next((o for o in comparison.outputs if o.status == "fail"), None)
    text = comparison.reason or (f"`{worst.output}` {worst.reason}" if worst else comparison.status)
    return f"{comparison.candidate} at {sizes}: {text}"


# --- details -----------------------------------------------------------------------------------------------------


def _check_options(request: ConvertRequest) -> None:
    if request.to not in TARGETS:
        raise UnknownTarget(f"--to {request.to}: unknown target", remedy=f"one of {', '.join(TARGETS)}")
    if request.to == "onnx" and (request.backend or request.compute_capabilities):
        raise BadOption("--backend and --cc concern engines; with --to onnx they say nothing", remedy="--to trt")
    for what, names in (("--shape", [s.name for s in request.shapes]), ("--input", [s.name for s in request.samples])):
        twice = next((n for n in names if names.count(n) > 1), None)
        if twice is not None:
            raise BadOption(f"{what} is given twice for `{twice}`", remedy="give it once")


def _warm_up(request: ConvertRequest) -> Builder | None:
    """Start the children that will be needed, so that their imports overlap with capture."""
    from graphkit.engine.builder import choose
    from graphkit.parity import runners
    from graphkit.rewrite import simplify

    # TensorRT builds for the GPU of this machine alone; named targets are TensorRT-RTX's business.
    backend = request.backend or ("rtx" if request.compute_capabilities else None)
    builder = choose(backend) if request.to == "trt" else None
    if request.optimize:
        simplify.warm_up()
    runners.warm_up()
    if builder is not None:
        builder.warm_up()
    return builder


def _build_request(model: Model, request: ConvertRequest) -> BuildRequest:
    from graphkit.engine.builder import BuildRequest

    return BuildRequest(model, model.dims, request.compute_capabilities, request.tf32)


@dataclass(slots=True)
class _StageNotes:
    detail: str = ""
    status: str = "done"
    nodes: int | None = None
    size: int | None = None

    def describe(self, detail: str, model: Model) -> None:
        self.detail, self.nodes, self.size = detail, model.node_count, model.weight_bytes

    def skip(self, reason: str) -> None:
        self.detail, self.status = reason, "skipped"


@contextlib.contextmanager
def _stage(state: _Progress, name: str) -> Iterator[_StageNotes]:
    """Time a stage, record it, and tell the listener."""
    events.emit("stage", name=name, state="start")
    notes = _StageNotes()
    started = time.perf_counter()
    try:
        yield notes
    except BaseException:
        notes.status = "failed"
        raise
    finally:
        seconds = time.perf_counter() - started
        stage = Stage(name, notes.status, seconds, notes.detail, notes.nodes, notes.size)  # type: ignore[arg-type]
        state.stages.append(stage)
        events.emit("stage", state=stage.status, **{k: v for k, v in stage.to_json().items() if k != "status"})


def _saved(model: Model, path: Path) -> Path:
    return model.save(path)[0]


def _parity_path(output: Path | None) -> Path:
    assert output is not None
    return output.with_name(f"{output.name}.parity.json")


def _write_parity(state: _Progress, output: Path, captured: Model | None) -> None:
    import json

    from graphkit.model import file_sha256

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
    from importlib.metadata import version

    from graphkit import __version__

    own = {name: version(name) for name in ("onnx", "onnx-ir", "onnxruntime", "onnxsim", "polygraphy")}
    return {"graphkit": __version__, **own, **captured.origin.versions}


def _name_of(source: Any) -> str:
    return Path(source).name if isinstance(source, str | Path) else type(source).__name__


def _stem(name: str) -> str:
    return name.rpartition(":")[2] if ":" in name else Path(name).stem


__all__ = ["ConvertRequest", "ConvertResult", "as_ranges", "as_specs", "capture", "convert", "run"]
