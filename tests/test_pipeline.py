"""`convert`: nothing appears under the output's name before it is proved, and what went wrong is one error."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import numpy as np
import onnx_ir as ir
import onnxruntime
import pytest
import torch
from torch import Tensor, nn

import graphkit as gk
from fixtures.torch_models import EXAMPLES, mlp, residual_cnn
from graphkit.errors import (
    BadOption,
    CannotWrite,
    ParityFailed,
    UnknownTarget,
)
from graphkit.events import listening
from graphkit.model import file_sha256, load, provenance
from graphkit.pipeline import ConvertRequest, as_ranges, as_specs, run
from graphkit.rewrite import original, rules
from graphkit.rewrite.rule import Change, Rule

pytestmark = pytest.mark.filterwarnings("ignore::DeprecationWarning", "ignore::FutureWarning")

CNN = EXAMPLES["residual_cnn"]
MLP = EXAMPLES["mlp"]


def request(output: Path, **options) -> ConvertRequest:
    return ConvertRequest(output=output, shapes=as_specs(MLP.shapes), dims=as_ranges(MLP.dims), **options)


@pytest.fixture(scope="module")
def converted(tmp_path_factory) -> gk.ConvertResult:
    output = tmp_path_factory.mktemp("converted") / "cnn.onnx"
    return gk.convert(residual_cnn(), output=output, shapes=CNN.shapes, dims=CNN.dims)


def test_the_file_computes_what_the_module_computes(converted):
    session = onnxruntime.InferenceSession(str(converted.output))
    for batch in (1, 4, 8):
        x = CNN.sample(seed=batch, batch=batch)["input"]
        with torch.no_grad():
            wanted = residual_cnn()(x).numpy()
        np.testing.assert_allclose(session.run(None, {"input": x.numpy()})[0], wanted, atol=1e-4, rtol=1e-4)


def test_the_stages_say_what_they_did(converted):
    assert [(s.name, s.status) for s in converted.stages] == [(n, "done") for n in ("capture", "optimise", "validate")]
    assert all(s.seconds >= 0 for s in converted.stages)
    assert "opset" in converted.stages[0].detail
    assert converted.stages[0].nodes > 10
    assert "nodes by" in converted.stages[1].detail or converted.stages[1].detail == "nothing to rewrite"


def test_the_report_tells_what_was_compared_and_the_digests_of_the_files(converted):
    report = json.loads((converted.output.parent / "cnn.onnx.parity.json").read_text(), parse_constant=pytest.fail)
    assert (report["schema"], report["status"], report["engine"]) == ("graphkit.parity/1", "pass", "not run")
    assert report["files"]["cnn.onnx"] == file_sha256(converted.output)
    batches = {c["sizes"]["batch"] for c in report["comparisons"]}
    assert {1, 4, 8} <= batches
    assert len(batches) >= 4
    assert any(not c["seen_in_capture"] for c in report["comparisons"])
    assert {c["candidate"].partition(":")[0] for c in report["comparisons"]} >= {"captured ONNX"}


def test_only_the_files_that_are_named_were_written(converted):
    assert sorted(converted.output.parent.iterdir()) == sorted(converted.files)
    assert converted.files[0] == converted.output


def test_dimensions_and_source_lines_are_in_the_file(converted):
    model = load(converted.output)
    assert model.signature.inputs[0].shape == ("batch", 3, 64, 64)
    assert model.signature.outputs[0].shape == ("batch", 10)
    nodes = list(model.ir.graph.all_nodes())
    own = [n for n in nodes if any("torch_models.py" in str(s.file) for s in provenance(n))]
    assert len(own) >= 0.8 * len(nodes)


def test_the_result_is_strict_json(converted):
    again = json.loads(json.dumps(converted.to_json(), allow_nan=False))
    assert (again["schema"], again["status"], again["error"]) == ("graphkit.convert/1", "ok", None)


# --- a wrong model is not left behind ----------------------------------------------------------------------------


@pytest.fixture
def perturbed(monkeypatch):
    """The optimiser changes one weight by a hundredth."""
    real = original.rewrite

    def wrong(graph, *arguments, **options):
        changes = real(graph, *arguments, **options)
        for value in graph.graph.initializers.values():
            array = value.const_value.numpy()
            if array.dtype == np.float32 and array.ndim == 2:
                value.const_value = ir.tensor(array + np.float32(0.01), name=value.name)
                return replace(changes, done=(*changes.done, Change("perturb", (), ())))
        raise AssertionError("no weight to change")

    monkeypatch.setattr(original, "rewrite", wrong)


@pytest.mark.usefixtures("perturbed")
def test_a_planted_difference_is_refused_and_only_the_report_is_left(tmp_path):
    result = run(mlp(), request(tmp_path / "m.onnx"))
    assert isinstance(result.error, ParityFailed)
    assert (result.error.code, result.error.exit_code, result.status, result.output) == ("GK112", 1, "no", None)
    assert [p.name for p in tmp_path.iterdir()] == ["m.onnx.parity.json"]
    report = json.loads((tmp_path / "m.onnx.parity.json").read_text())
    assert report["status"] == "fail"
    by_candidate = {c["candidate"].partition(":")[0]: set() for c in report["comparisons"]}
    for comparison in report["comparisons"]:
        by_candidate[comparison["candidate"].partition(":")[0]].add(comparison["status"])
    assert by_candidate == {"captured ONNX": {"pass"}, "optimised ONNX": {"fail"}}
    assert "optimised ONNX" in result.error.where


@pytest.mark.usefixtures("perturbed")
def test_an_old_output_survives_a_failed_conversion(tmp_path):
    (tmp_path / "m.onnx").write_bytes(b"the model of yesterday")
    assert run(mlp(), request(tmp_path / "m.onnx")).status == "no"
    assert (tmp_path / "m.onnx").read_bytes() == b"the model of yesterday"


def test_the_same_difference_passes_nowhere_without_the_optimiser(tmp_path):
    result = run(mlp(), request(tmp_path / "m.onnx", optimize=False))
    assert result.error is None
    assert (result.stages[1].status, result.stages[1].detail) == ("skipped", "--no-optimize")


def test_a_rewriting_that_breaks_the_model_is_left_out_and_said(tmp_path, monkeypatch):
    def apply(editor, node):
        editor.replace(node.outputs[0], node.inputs[0])
        return True

    right = rules.every()
    wrong = Rule("relu-is-nothing", "structure", ("Relu",), apply, "Relu is taken out, which is wrong")
    monkeypatch.setattr(rules, "every", lambda: (*right, wrong))
    result = run(mlp(), request(tmp_path / "m.onnx"))
    assert result.error is None
    assert result.parity.status == "pass"
    assert any("`relu-is-nothing` was left out" in w.message for w in result.warnings)
    assert any(n.op_type == "Relu" for n in result.model.ir.graph)


def test_a_source_that_fails_inside_the_declared_range_is_no_proof(tmp_path):
    class Limited(nn.Module):
        def forward(self, x: Tensor) -> Tensor:
            if x.shape[0] > 3:
                raise ValueError("at most three")
            return x * 2.0

    shapes = as_specs({"x": ("batch", 4)})
    wide = ConvertRequest(output=tmp_path / "m.onnx", shapes=shapes, dims=as_ranges({"batch": (1, 2, 8)}))
    result = run(Limited(), wide)
    assert result.status == "no"
    assert "at most three" in result.error.render()
    narrow = ConvertRequest(output=tmp_path / "m.onnx", shapes=shapes, dims=as_ranges({"batch": (1, 2, 3)}))
    assert run(Limited(), narrow).status == "ok"


def test_a_model_whose_output_is_called_like_its_input_is_converted(tmp_path):
    class Same(nn.Module):
        def forward(self, x: Tensor) -> dict[str, Tensor]:
            return {"x": x * 2.0}

    result = gk.convert(Same(), output=tmp_path / "m.onnx", shapes={"x": ("batch", 4)})
    assert [t.name for t in result.model.signature.outputs] == ["x_out"]


def test_bfloat16_is_compared_too(tmp_path):
    result = run(
        nn.ReLU(),
        ConvertRequest(output=tmp_path / "m.onnx", shapes=(gk.TensorSpec("input", "bfloat16", ("batch", 4)),)),
    )
    assert result.error is None or result.error.exit_code == 1, result.error
    if result.error is None:
        assert load(tmp_path / "m.onnx").signature.outputs[0].dtype == "bfloat16"


# --- bad requests ------------------------------------------------------------------------------------------------


def test_a_folder_as_output_is_refused_before_any_work(tmp_path):
    result = run(mlp(), request(tmp_path))
    assert isinstance(result.error, CannotWrite)
    assert result.stages == ()
    assert list(tmp_path.iterdir()) == []


def test_an_output_in_a_folder_that_is_missing_is_refused_before_any_work(tmp_path):
    result = run(mlp(), request(tmp_path / "no" / "m.onnx"))
    assert isinstance(result.error, CannotWrite)
    assert result.stages == ()


def test_an_unknown_target_is_refused(tmp_path):
    with pytest.raises(UnknownTarget, match="coreml") as caught:
        gk.convert(mlp(), to="coreml", output=tmp_path / "m", shapes=MLP.shapes)
    assert "onnx" in caught.value.remedy


@pytest.mark.parametrize("options", [{"compute_capabilities": ("8.6",)}, {"backend": "rtx"}])
def test_options_of_an_engine_are_refused_for_onnx(tmp_path, options):
    assert isinstance(run(mlp(), request(tmp_path / "m.onnx", **options)).error, BadOption)


@pytest.mark.parametrize("cc", ["9.9", "1.0", "x"])
def test_a_compute_capability_that_the_library_does_not_know_is_refused_without_a_file(tmp_path, cc):
    pytest.importorskip("tensorrt_rtx", reason="needs TensorRT-RTX")
    result = run(mlp(), request(tmp_path / "m.engine", to="trt", backend="rtx", compute_capabilities=(cc,)))
    assert result.error.code == "GK210", result.error.render()
    assert result.error.exit_code == 2
    assert cc in result.error.message
    assert [p for p in tmp_path.iterdir() if not p.name.endswith(".parity.json")] == []


def test_two_shapes_for_one_input_are_refused(tmp_path):
    twice = as_specs(MLP.shapes) * 2
    assert isinstance(run(mlp(), ConvertRequest(output=tmp_path / "m.onnx", shapes=twice)).error, BadOption)


def test_stages_are_told_while_they_run(tmp_path):
    heard = []
    with listening(heard.append):
        gk.convert(mlp(), output=tmp_path / "m.onnx", shapes=MLP.shapes)
    stages = [(e["name"], e["state"]) for e in heard if e["event"] == "stage"]
    names = ["capture", "optimise", "validate"]
    assert stages == [(n, s) for n in names for s in ("start", "done")]
