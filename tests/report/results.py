"""Hand-made results of conversions."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

from graphkit.errors import ParityFailed
from graphkit.model import Finding, Model, Origin
from graphkit.parity.verdict import Comparison, OutputComparison, ParityReport
from graphkit.result import ConvertResult, Stage
from graphkit.shapes import DimRange

ORT_OFF = "onnxruntime 1.32.0 (cpu, optimisations off)"
ORT_ON = "onnxruntime 1.32.0 (cpu, optimised model)"


def tiny_model() -> Model:
    """`logits = Relu(x)`, with a dynamic batch."""
    import onnx
    import onnx_ir as ir

    x = onnx.helper.make_tensor_value_info("x", onnx.TensorProto.FLOAT, ["batch", 3])
    y = onnx.helper.make_tensor_value_info("logits", onnx.TensorProto.FLOAT, ["batch", 3])
    graph = onnx.helper.make_graph([onnx.helper.make_node("Relu", ["x"], ["logits"])], "g", [x], [y])
    model = onnx.helper.make_model(graph, opset_imports=[onnx.helper.make_opsetid("", 20)])
    return Model(ir.from_proto(model), Origin("torch module"), (DimRange("batch", 1, 4, 8),))


def compared(candidate: str, batch: int, *, max_abs: float = 1.2e-7, seen: bool = False, **failing) -> Comparison:
    """The output `logits` at one batch size; `failing` are fields of an output that differs."""
    output = OutputComparison(
        "logits", "pass", "float32", (batch, 3), max_abs=max_abs, max_rel=max_abs * 10, atol=1e-5, rtol=1e-4
    )
    if failing:
        output = replace(output, status="fail", **failing)
    return Comparison("torch 2.13.0 (cpu)", candidate, {"batch": batch}, 0, seen, output.status, (output,))


def passing_parity() -> ParityReport:
    return ParityReport(
        tuple(compared(c, b, seen=b == 4, max_abs=1e-7 * b) for c in (ORT_OFF, ORT_ON) for b in (4, 1, 8)),
        engine_reason="no CUDA device",
        inputs={"x": "N(0, 1)"},
        versions={"torch": "2.13.0"},
    )


def passing(folder: Path) -> ConvertResult:
    """An engine of 1500 bytes and its parity report."""
    engine, report = folder / "m.engine", folder / "m.engine.parity.json"
    engine.write_bytes(b"vtrt" + bytes(1496))
    report.write_text("{}")
    return ConvertResult(
        "m.pt",
        "trt",
        output=Path("m.engine"),
        files=(Path("m.engine"), Path("m.engine.parity.json")),
        stages=(Stage("capture", "done", 1.25, "torch.export, opset 20", nodes=1, size=0),),
        warnings=(
            Finding("GK105", "right for `batch` up to 8 only", where="m.py:3 in forward", remedy="--via script"),
        ),
        parity=passing_parity(),
        model=tiny_model(),
    )


def failing_parity() -> ConvertResult:
    """A conversion that was wrong at one element of one batch size; only the report was written."""
    worse = compared(
        ORT_ON,
        8,
        max_abs=0.125,
        worst_index=(7, 2),
        reference_value=0.5,
        candidate_value=0.625,
        mismatches=3,
        reason="3 of 24 elements differ",
    )
    return ConvertResult(
        "m.pt",
        "onnx",
        files=(Path("m.onnx.parity.json"),),
        parity=ParityReport((compared(ORT_ON, 4, seen=True), worse), engine_reason="an engine was not asked for"),
        model=tiny_model(),
        error=ParityFailed("`logits` is not equal", remedy="graphkit convert m.pt --no-optimize"),
    )


def with_warnings(count: int) -> ConvertResult:
    """A result with `count` warnings and nothing else to say."""
    findings = tuple(Finding("GK105", f"finding {i}") for i in range(count))
    return ConvertResult("m.pt", "onnx", output=Path("m.onnx"), warnings=findings, parity=passing_parity())
