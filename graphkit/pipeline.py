"""`convert`: capture -> optimise -> validate -> build, with one report at the end.

Nothing appears under the output's name before it is proved: a conversion that fails leaves the parity report, and
nothing else.
"""

from __future__ import annotations

import importlib
import sys
import threading
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from graphkit import atomic, marks
from graphkit.capture.isolated import IsolatedSource
from graphkit.capture.registry import recognise
from graphkit.capture.request import CaptureRequest, Source
from graphkit.conversion import Conversion, stage
from graphkit.drafts import Drafts
from graphkit.errors import GraphkitError, OptimizationFailed, ParityFailed
from graphkit.model import Finding, Model
from graphkit.request import EXPORTS, TARGETS, ConvertRequest, as_ranges, as_specs, check_options
from graphkit.result import ConvertResult
from graphkit.shapes import Sample, TensorSpec

if TYPE_CHECKING:
    from graphkit.engine.builder import Builder, BuildRequest
    from graphkit.proof import Proof


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
        to: `onnx` or `trt`; for a TensorFlow or Keras source also `saved_model` or `tflite`.
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


def capture_model(source: Any, request: CaptureRequest | None = None) -> Model:
    """Capture a model without converting it further; see `Source.capture` for what is raised."""
    asked = request or CaptureRequest()
    return recognise(source, asked).capture(asked)


def run(source: Any, request: ConvertRequest) -> ConvertResult:
    """As `convert`, but what ended the conversion is in `result.error`, beside the stages that went well."""
    state = Conversion(request)
    try:
        _convert(source, request, state)
    except GraphkitError as error:
        return state.result(error)
    return state.result(None)


# --- the line ----------------------------------------------------------------------------------------------------


def _convert(source: Any, request: ConvertRequest, state: Conversion) -> None:
    state.source = _name_of(source)
    check_options(request)
    output = state.output = request.output or Path(_stem(state.source) + TARGETS[request.to])
    if request.to in EXPORTS:
        _export(source, request, state)
        return
    _keep(source, output, request.to)
    atomic.check_writable(output)
    captured_as = recognise(source, request.for_capture())
    builder = _warm_up(request)
    state.source = captured_as.name
    with stage(state, "capture") as notes:
        whole = captured_as.capture(request.for_capture())
        captured = state.model = _frozen(whole, request)
        state.warnings.extend(captured.origin.findings)
        way = captured.origin.rungs[-1].name if captured.origin.rungs else captured.origin.kind
        notes.describe(f"{way}, opset {captured.opset}", captured)
        if builder is not None:
            builder.check(_build_request(builder, captured, request))
    from graphkit import proof as proofs  # the rooms of parity and engines, which what fails earlier does not need

    with Drafts() as drafts:
        if isinstance(captured_as, IsolatedSource) and captured_as.file is not None:
            drafts.adopt(whole, captured_as.file)
        model, proof = _proved(captured_as, whole, captured, builder, drafts, state)
        assert state.parity is not None
        model = state.model = proofs.with_true_outputs(model, state.parity)
        model = _lowered(model, state)
        complaint: GraphkitError | None = None
        if builder is None:
            state.files.extend(drafts.publish(model, output))
        else:
            complaint = _publish_engine(builder, model, drafts, proof, state)
    proofs.write_report(state, output, captured)
    if complaint is not None:  # what could be built is there; what was asked for is not
        raise complaint


def _frozen(model: Model, request: ConvertRequest) -> Model:
    """The model with the inputs that are to be constants as constants."""
    if not request.freeze:
        return model
    from graphkit.rewrite.surgery import interface

    return interface.freeze(model, {sample.name: sample.value for sample in request.freeze})


def _export(source: Any, request: ConvertRequest, state: Conversion) -> None:
    """What a framework writes itself."""
    from graphkit.export import run as exports

    assert state.output is not None
    exports.check_writable(state.output, request.to)
    captured_as = recognise(source, request.for_capture())
    state.source = captured_as.name
    exports.export(captured_as, request, state)


def _optimise(captured: Model, builder: Builder | None, state: Conversion, *, careful: bool = False) -> Model:
    """The rewritten graph; with `careful`, without the rules that break it."""
    from graphkit import optimization

    request = state.request
    with stage(state, "optimise") as notes:
        if not request.optimize:
            notes.skip("--no-optimize")
            return captured
        options = optimization.Options(
            target="onnx" if builder is None else "trt" if builder.name == "tensorrt" else "rtx",
            opset=request.opset or (captured.opset if builder is None else None),
        )
        if careful:
            names = {t.name for t in captured.signature.inputs}
            samples = tuple(s for s in request.samples if s.name in names)
            found = optimization.optimize(captured, options, samples=samples, seed=request.seed)
        else:
            found = optimization.rewrite_model(captured, options)
        for each in found.rolled_back:
            message = f"the rewriting `{each.rule}` was left out, because it breaks this model: {each.reason}"
            state.warnings.append(Finding(OptimizationFailed.code, message, remedy="please report it"))
        if not found.changes.done:
            notes.describe("nothing to rewrite", captured)
            return captured
        state.warnings.extend(Finding("optimise.padding", text) for text in found.caveats)
        before, after = sum(found.before.values()), sum(found.after.values())
        rules = len(found.changes.by_rule())
        notes.describe(f"{before} -> {after} nodes by {rules} rule{'s' if rules != 1 else ''}", found.model)
        state.model = found.model
        return found.model


def _proved(
    captured_as: Source, whole: Model, captured: Model, builder: Builder | None, drafts: Drafts, state: Conversion
) -> tuple[Model, Proof]:
    """The rewritten graph and its proof. Where only the rewritten one differs, the rule that breaks it is left out."""
    from graphkit import proof as proofs

    model = _optimise(captured, builder, state)
    try:
        with stage(state, "validate") as notes:
            proof = proofs.validate(captured_as, whole, captured, model, drafts, state)
            notes.detail = proof.summary
    except ParityFailed as failure:
        bad = [c for c in state.parity.comparisons if c.status != "pass"] if state.parity is not None else []
        if model is captured or not bad or any(not c.candidate.startswith(proofs.REWRITTEN) for c in bad):
            raise
        try:
            model = _optimise(captured, builder, state, careful=True)
        except OptimizationFailed:
            raise failure from None
        with stage(state, "validate") as notes:
            proof = proofs.validate(captured_as, whole, captured, model, drafts, state)
            notes.detail = proof.summary
    return model, proof


def _lowered(model: Model, state: Conversion) -> Model:
    """The model in the precision that was asked for, compared with the one that was proved.

    Raises:
        PrecisionRefused: nothing would run in it. ParityFailed: it differs by more than it may.
    """
    asked = state.request.precision
    if asked is None:
        return model
    from graphkit import quantization
    from graphkit.proof import require_parity

    assert state.parity is not None
    with stage(state, "lower") as notes:
        found = quantization.lower(model, replace(asked, seed=state.request.seed))
        state.lowering = found.lowering
        state.parity = replace(state.parity, comparisons=(*state.parity.comparisons, *found.comparisons))
        state.warnings.extend(found.lowering.findings)
        notes.describe(found.lowering.summary, found.model)
        require_parity(state)
    state.model = found.model
    return found.model


def _publish_engine(
    builder: Builder, model: Model, drafts: Drafts, proof: Proof, state: Conversion
) -> GraphkitError | None:
    """Build under another name; the engine gets its own once it has passed, or cannot be run here.

    Returns what is to be said of targets that it was asked to have and has not.
    """
    from graphkit.engine import cache, sidecar
    from graphkit.engine.make import key_for, make
    from graphkit.proof import prove_engine
    from graphkit.quantization import engine_judge

    assert state.output is not None
    output = state.output
    file = drafts.path(marks.mark(model) if marks.needs_mark(model.ir) else model)
    asked = replace(_build_request(builder, model, state.request), file=file)
    kept = key_for(builder, asked, cache.digest(file)) if state.request.cache else None
    with atomic.replacing(output) as temporary:
        with stage(state, "build") as notes:
            made = make(builder, asked, temporary, kept=kept, durable=False)
            engine = made.built.engine
            origin = ", from the cache" if made.cached else ""
            notes.detail = f"{engine.kind} {engine.version} for {', '.join(engine.targets)}{origin}"
            notes.size = engine.size
            state.warnings.extend(made.findings)
        prove_engine(builder, engine, proof, state, engine_judge(state.request.precision, tf32=engine.tf32))
    state.files.append(output)
    state.files.append(sidecar.write(replace(engine, path=output), asked))
    state.files.extend(drafts.publish(model, output.with_name(f"{output.name}.onnx")))
    return made.built.complaint()


def _keep(source: Any, output: Path, to: str) -> None:
    """Refuse an output, or the graph beside an engine, that would replace the file that is converted."""
    if not isinstance(source, (str, Path)):
        return
    places = (output, output.with_name(f"{output.name}.onnx")) if to == "trt" else (output,)
    atomic.keep(Path(source), *places)


def _warm_up(request: ConvertRequest) -> Builder | None:
    """Start the children that will be needed, so that their imports overlap with capture."""
    from graphkit.engine.builder import choose
    from graphkit.parity import runners

    # TensorRT builds for the GPU of this machine alone; named targets are TensorRT-RTX's business.
    backend = request.backend or ("rtx" if request.compute_capabilities else None)
    builder = choose(backend) if request.to == "trt" else None
    runners.warm_up()
    if builder is not None:
        builder.warm_up()
    if "torch" not in sys.modules:  # capture runs in a child, so this process has nothing to do but wait for it
        threading.Thread(target=_import_rooms, args=(builder is not None,)).start()
    return builder


def _import_rooms(engine: bool) -> None:
    """Import meanwhile what the later stages need; importing onnx_ir alone takes 0.7 s."""
    for module in ("onnx_ir", "graphkit.proof"):
        importlib.import_module(module)
    if engine:
        from graphkit.engine.builder import visible_gpus

        visible_gpus()


def _build_request(builder: Builder, model: Model, request: ConvertRequest) -> BuildRequest:
    from graphkit.engine.builder import BuildRequest
    from graphkit.engine.targets import expand

    return BuildRequest(
        model,
        model.dims,
        expand(builder, request.compute_capabilities),
        request.tf32,
        profiles=request.profiles,
        settings=request.settings,
        find_ranges=request.find_ranges,
    )


def _name_of(source: Any) -> str:
    return Path(source).name if isinstance(source, str | Path) else type(source).__name__


def _stem(name: str) -> str:
    return name.rpartition(":")[2] if ":" in name else Path(name).stem


__all__ = ["ConvertRequest", "ConvertResult", "as_ranges", "as_specs", "capture_model", "convert", "run"]
