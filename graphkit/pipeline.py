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

from graphkit import atomic
from graphkit.capture.isolated import IsolatedSource
from graphkit.capture.registry import recognise
from graphkit.capture.request import CaptureRequest
from graphkit.conversion import Conversion, stage
from graphkit.drafts import Drafts
from graphkit.errors import GraphkitError
from graphkit.model import Model
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
    atomic.check_writable(output)
    captured_as = recognise(source, request.for_capture())
    builder = _warm_up(request)
    state.source = captured_as.name
    with stage(state, "capture") as notes:
        captured = captured_as.capture(request.for_capture())
        state.model = captured
        state.warnings.extend(captured.origin.findings)
        way = captured.origin.rungs[-1].name if captured.origin.rungs else captured.origin.kind
        notes.describe(f"{way}, opset {captured.opset}", captured)
        if builder is not None:
            builder.check(_build_request(captured, request))
    from graphkit import proof as proofs  # the rooms of parity and engines, which what fails earlier does not need

    with Drafts() as drafts:
        if isinstance(captured_as, IsolatedSource) and captured_as.file is not None:
            drafts.adopt(captured, captured_as.file)
        model = _optimise(captured, drafts, state)
        with stage(state, "validate") as notes:
            proof = proofs.validate(captured_as, captured, model, drafts, state)
            notes.detail = proof.summary
            assert state.parity is not None
            model = state.model = proofs.with_true_outputs(model, state.parity)
        if builder is None:
            state.files.extend(drafts.publish(model, output))
        else:
            _publish_engine(builder, model, drafts, proof, state)
    proofs.write_report(state, output, captured)


def _export(source: Any, request: ConvertRequest, state: Conversion) -> None:
    """What a framework writes itself."""
    from graphkit.export import run as exports

    assert state.output is not None
    exports.check_writable(state.output, request.to)
    captured_as = recognise(source, request.for_capture())
    state.source = captured_as.name
    exports.export(captured_as, request, state)


def _optimise(captured: Model, drafts: Drafts, state: Conversion) -> Model:
    from graphkit.rewrite import recurrent, simplify

    with stage(state, "optimise") as notes:
        if not state.request.optimize:
            notes.skip("--no-optimize")
            return captured
        model = recurrent.fuse(captured)
        said = [] if model is captured else [_change(captured, model)]
        reason = simplify.why_not(model)
        if reason is not None and model is captured:
            notes.skip(reason)
            return captured
        if reason is not None:
            said.append(f"onnxsim: {reason}")
        else:
            simpler = simplify.simplify(model, drafts.path(model))
            if simpler.node_count > model.node_count:  # it takes newer operators (Gelu) apart
                said.append(f"{_change(model, simpler)}, not kept")
            else:
                said.append(_change(model, simpler))
                model = simpler
        notes.describe("; ".join(said), model)
        state.model = model
        return model


def _change(before: Model, after: Model) -> str:
    return f"{after.origin.steps[-1]}: {before.node_count} -> {after.node_count} nodes"


def _publish_engine(builder: Builder, model: Model, drafts: Drafts, proof: Proof, state: Conversion) -> None:
    """Build under another name; the engine gets its own once it has passed, or cannot be run here."""
    from graphkit.engine import sidecar
    from graphkit.proof import prove_engine

    assert state.output is not None
    output = state.output
    asked = replace(_build_request(model, state.request), file=drafts.path(model))
    with atomic.replacing(output) as temporary:
        with stage(state, "build") as notes:
            engine = builder.build(asked, temporary, durable=False)
            notes.detail = f"{engine.kind} {engine.version} for {', '.join(engine.targets)}"
            notes.size = engine.size
            state.warnings.extend(engine.findings)
        prove_engine(builder, engine, proof, state)
    state.files.append(output)
    state.files.append(sidecar.write(replace(engine, path=output), asked))
    state.files.extend(drafts.publish(model, output.with_name(f"{output.name}.onnx")))


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


def _build_request(model: Model, request: ConvertRequest) -> BuildRequest:
    from graphkit.engine.builder import BuildRequest

    return BuildRequest(model, model.dims, request.compute_capabilities, request.tf32)


def _name_of(source: Any) -> str:
    return Path(source).name if isinstance(source, str | Path) else type(source).__name__


def _stem(name: str) -> str:
    return name.rpartition(":")[2] if ":" in name else Path(name).stem


__all__ = ["ConvertRequest", "ConvertResult", "as_ranges", "as_specs", "capture_model", "convert", "run"]
