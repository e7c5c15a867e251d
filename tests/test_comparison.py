"""`validate`: faults are found, good conversions pass, whatever is compared with whatever."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import onnx
import onnx_ir as ir
import pytest
import torch
from onnx import numpy_helper, parser
from torch import Tensor, nn

from graphkit.certificate import recheck
from graphkit.comparison import ValidateRequest, error_of, status_of, validate
from graphkit.errors import BadOption, CannotWrite, ShapeMismatch, UnknownName
from graphkit.model import Model, Origin, SourceLine, file_sha256, set_provenance
from graphkit.parity.metrics import Condition
from graphkit.shapes import DimRange, Sample, TensorSpec
from graphkit.sides import Side, files_of

pytestmark = pytest.mark.filterwarnings("ignore::DeprecationWarning", "ignore::FutureWarning")

GRAPH = """g (float[batch, 6] x) => (float[batch, 6] y, float[batch, 6] p)
{ h = MatMul(x, w) y = Add(h, b) p = Softmax<axis = 1>(y) }"""
DIMS = (DimRange("batch", 1, 4, 8),)


def weights() -> dict[str, np.ndarray]:
    rng = np.random.default_rng(3)
    return {"w": rng.standard_normal((6, 6), dtype=np.float32), "b": rng.standard_normal(6, dtype=np.float32)}


def write(path: Path, text: str = GRAPH, line: SourceLine | None = None, **changed: np.ndarray) -> Path:
    """An ONNX file of `text`; the node that makes `h` comes from `line`."""
    proto = parser.parse_model(f'<ir_version: 10, opset_import: ["" : 20]>\n{text}')
    for name, value in (weights() | changed).items():
        proto.graph.initializer.append(numpy_helper.from_array(value, name))
    graph = ir.from_proto(proto)
    if line is not None:
        set_provenance(next(n for n in graph.graph if n.outputs[0].name == "h"), [line])
    Model(graph, Origin("onnx text")).save(path)
    return path


class Net(nn.Module):
    """The same in PyTorch."""

    def __init__(self) -> None:
        super().__init__()
        self.w, self.b = (nn.Parameter(torch.from_numpy(v)) for v in weights().values())

    def forward(self, x: Tensor) -> tuple[Tensor, Tensor]:
        y = x @ self.w + self.b
        return y, torch.softmax(y, 1)


class Scaled(Net):
    """Takes other names, and a Python number."""

    def forward(self, rows: Tensor, times: int = 1) -> tuple[Tensor, Tensor]:
        y = rows @ self.w + self.b
        return y * times, torch.softmax(y, 1)


@pytest.fixture(scope="module")
def good(tmp_path_factory) -> Path:
    return write(tmp_path_factory.mktemp("good") / "good.onnx")


# --- faults and clean conversions --------------------------------------------------------------------------------

W = weights()["w"]
OFF = W.copy()
OFF[2, 3] += 0.01 * np.abs(W).max()
FAULTS = {
    "a weight off by a hundredth": {"w": OFF},
    "a transposed weight": {"w": np.ascontiguousarray(W.T)},
    "a wrong axis": {"text": GRAPH.replace("axis = 1", "axis = 0")},
    "swapped operands": {"text": GRAPH.replace("Add(h, b)", "Sub(b, h)")},
    "a bias that is lost": {"text": GRAPH.replace("Add(h, b)", "Identity(h)")},
    "swapped outputs": {
        "text": GRAPH.replace("y = Add(h, b)", "p = Add(h, b)").replace("p = S", "y = S").replace(">(y", ">(p")
    },
}


@pytest.mark.parametrize("fault", FAULTS)
def test_a_planted_fault_is_found(fault, good, tmp_path):
    report = validate(good, [write(tmp_path / "bad.onnx", **FAULTS[fault])])
    assert status_of(report) == "fail"
    assert error_of(report).exit_code == 1


@pytest.mark.parametrize("optimize", [True, False])
def test_the_same_graph_passes_at_several_shapes(good, tmp_path, optimize):
    report = validate(good, [write(tmp_path / "same.onnx")], ValidateRequest(dims=DIMS, optimize=optimize))
    assert (status_of(report), error_of(report)) == ("pass", None)
    assert [c.sizes["batch"] for c in report.comparisons] == [1, 4, 3, 8]
    assert {c.candidate.rpartition(" ")[2] for c in report.comparisons} == {"all)" if optimize else "off)"}
    assert all(c.reference.endswith("(cpu, optimisations off)") for c in report.comparisons)
    assert report.files == {"good.onnx": file_sha256(good), "same.onnx": file_sha256(tmp_path / "same.onnx")}
    json.dumps(report.to_json(), allow_nan=False)


def test_every_candidate_is_compared_and_the_bad_one_named(good, tmp_path):
    bad = write(tmp_path / "bad.onnx", w=OFF)
    report = validate(good, [good, bad])
    by_name = {c.candidate.partition(":")[0]: c.status for c in report.comparisons if c.sizes["batch"] > 1}
    assert by_name == {"good.onnx (2)": "pass", "bad.onnx": "fail"}


def test_the_order_of_outputs_does_not_matter(good, tmp_path):
    turned = GRAPH.replace("(float[batch, 6] y, float[batch, 6] p)", "(float[batch, 6] p, float[batch, 6] y)")
    assert status_of(validate(good, [write(tmp_path / "turned.onnx", turned)])) == "pass"


def test_renamed_inputs_and_outputs_are_matched_by_position_and_it_is_said(good, tmp_path):
    renamed = GRAPH.replace("] x)", "] rows)").replace("(x, w)", "(rows, w)").replace(" p", " scores")
    report = validate(good, [write(tmp_path / "renamed.onnx", renamed)])
    assert status_of(report) == "pass"
    assert "outputs matched by position: `scores` as `p`" in report.comparisons[0].note
    assert "inputs matched by position: `rows` of renamed.onnx is `x`" in report.comparisons[0].note


def test_a_side_with_a_fixed_size_is_compared_at_that_size(good, tmp_path):
    fixed = write(tmp_path / "fixed.onnx", GRAPH.replace("batch", "4"))
    report = validate(good, [fixed])
    assert status_of(report) == "pass"
    assert {c.sizes["batch"] for c in report.comparisons} == {4}
    assert "fixed.onnx takes batch=4 alone" in report.comparisons[0].note


def test_the_line_that_makes_a_wrong_output_is_known(good, tmp_path):
    """The nodes of the outputs themselves have none: the nearest one above them counts."""
    line = SourceLine("head", "net.py", 12, "Net.forward")
    report = validate(good, [write(tmp_path / "bad.onnx", line=line, w=OFF)])
    failed = [o for c in report.comparisons for o in c.outputs if o.status == "fail"]
    assert {o.source for o in failed} == {line}
    assert failed[0].to_json()["source"]["line"] == 12
    assert error_of(report).where == "net.py:12 in Net.forward (module `head`)"


def test_metrics_and_conditions_are_in_the_report(good, tmp_path):
    close = write(tmp_path / "close.onnx", w=W * np.float32(1.0001))
    assert status_of(validate(good, [close])) == "pass"
    report = validate(good, [close], ValidateRequest(conditions=(Condition("snr", 120, "y"),)))
    assert status_of(report) == "fail"
    assert "snr>=120 was asked for" in report.comparisons[0].reason
    assert report.comparisons[0].outputs[0].metrics["snr"] == pytest.approx(80, abs=15)


def test_a_reference_that_is_nan_proves_nothing(tmp_path):
    nan = write(tmp_path / "nan.onnx", b=np.full(6, np.nan, np.float32))
    report = validate(nan, [nan])
    assert error_of(report).exit_code == 1
    assert "all NaN: nothing is proven" in report.comparisons[0].reason


def test_a_reference_that_is_partly_nan_is_compared_and_it_is_said(tmp_path):
    text = "g (float[batch, 6] x) => (float[batch, 6] y) { y = Mul(x, b) }"
    part = write(tmp_path / "nan.onnx", text, b=np.array([1, 1, 1, 1, 1, np.nan], np.float32))
    report = validate(part, [part])
    assert status_of(report) == "pass"
    assert "values of the reference's own `y` are NaN" in report.comparisons[0].note


# --- PyTorch -----------------------------------------------------------------------------------------------------


def test_a_module_is_compared_with_a_graph_at_the_graphs_shapes(good):
    report = validate(Net(), [good], ValidateRequest(dims=DIMS))
    assert status_of(report) == "pass"
    assert report.comparisons[0].reference.startswith("Net: torch ")
    assert {"torch", "onnxruntime", "graphkit"} <= set(report.versions)


def test_a_module_that_differs_from_the_graph_fails(tmp_path):
    assert status_of(validate(Net(), [write(tmp_path / "bad.onnx", w=OFF)])) == "fail"


def test_a_module_with_other_names_is_fed_by_position(good):
    report = validate(Scaled(), [good])
    assert status_of(report) == "pass"
    assert "`rows` of Scaled is `x`" in report.comparisons[0].note


def test_a_python_number_of_the_module_can_be_given(good):
    assert status_of(validate(Scaled(), [good], ValidateRequest(samples=(Sample("times", 2),)))) == "fail"


def test_two_modules_need_shapes_alone():
    request = ValidateRequest(shapes=(TensorSpec("x", None, ("batch", 6)),), dims=DIMS)
    report = validate(Net(), [Net()], request)
    assert status_of(report) == "pass"
    assert report.inputs == {"x": "N(0, 1)"}


def test_an_exported_program_is_compared_inside_its_own_ranges():
    batch = torch.export.Dim("batch", min=3, max=6)
    program = torch.export.export(Net(), (torch.ones(4, 6),), dynamic_shapes={"x": {0: batch}})
    report = validate(program, [Net()])
    assert status_of(report) == "pass"
    assert {min(c.sizes["batch"] for c in report.comparisons), max(c.sizes["batch"] for c in report.comparisons)} == {
        3,
        6,
    }


def test_a_module_with_other_inputs_is_refused_with_both_signatures(tmp_path):
    text = GRAPH.replace("(float[batch, 6] x)", "(float[batch, 6] x, float[6] c)").replace("Add(h, b)", "Add(h, c)")
    with pytest.raises(ShapeMismatch) as caught:
        validate(Net(), [write(tmp_path / "two.onnx", text)])
    assert caught.value.details == ("two.onnx: x: float32[batch, 6], c: float32[6]", "Net: x")


@pytest.mark.slow
def test_a_torchscript_file_is_compared_with_a_graph(good, tmp_path):
    torch.jit.script(Net().eval()).save(str(tmp_path / "net.pt"))
    report = validate(tmp_path / "net.pt", [good, str(tmp_path / "net.pt")], ValidateRequest(dims=DIMS))
    assert status_of(report) == "pass"
    assert set(report.files) == {"net.pt", "good.onnx"}


# --- signatures --------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "text",
    [
        GRAPH.replace("(float[batch, 6] x)", "(float[batch, 6] x, float[6] c)"),
        GRAPH.replace("(float[batch, 6] x)", "(float[batch, 5] x)"),
        GRAPH.replace("(float[batch, 6] x)", "(double[batch, 6] x)"),
        GRAPH.replace("(float[batch, 6] x)", "(float[batch, 1, 6] x)"),
    ],
    ids=["number", "size", "dtype", "rank"],
)
def test_other_inputs_are_refused_with_both_signatures(text, good, tmp_path):
    with pytest.raises(ShapeMismatch) as caught:
        validate(good, [write(tmp_path / "other.onnx", text)])
    assert caught.value.exit_code == 2
    assert caught.value.details[0] == "good.onnx: x: float32[batch, 6]"
    assert caught.value.details[1].startswith("other.onnx: x: ")


def test_another_number_of_outputs_is_refused(good, tmp_path):
    fewer = GRAPH.replace(", float[batch, 6] p)", ")")
    with pytest.raises(ShapeMismatch, match="2 outputs, the candidate 1"):
        validate(good, [write(tmp_path / "fewer.onnx", fewer)])


def test_nothing_to_compare_with_and_idle_options_are_refused(good):
    with pytest.raises(BadOption, match="nothing to compare"):
        validate(good, [])
    with pytest.raises(BadOption, match="--submodule"):
        validate(good, [good], ValidateRequest(submodule="head"))
    with pytest.raises(UnknownName, match="`z`"):
        validate(good, [good], ValidateRequest(samples=(Sample("z", 1),)))


# --- the certificate -------------------------------------------------------------------------------------------


def test_a_file_with_external_weights_is_certified_with_them(tmp_path):
    path = write(tmp_path / "m.onnx")
    proto = onnx.load(path)
    onnx.save(proto, path, save_as_external_data=True, location="m.data", size_threshold=0)
    assert set(validate(path, [path]).files) >= {"m.onnx", "m.data"}


def test_a_certificate_is_kept_beside_a_candidate_and_read_again(tmp_path):
    (tmp_path / "models").mkdir()
    (tmp_path / "other").mkdir()
    reference, candidate = write(tmp_path / "other" / "a.onnx"), write(tmp_path / "models" / "b.onnx")
    kept = tmp_path / "models" / "b.onnx.parity.json"
    report = validate(reference, [candidate], ValidateRequest(save_certificate=kept))
    again = recheck(kept)
    assert (again.status, {f.name: f.state for f in again.files}) == (
        "pass",
        {"source: a.onnx": "not here", "b.onnx": "same"},
    )
    assert set(report.files) == {"a.onnx", "b.onnx"}
    write(candidate, w=OFF)
    assert recheck(kept).status == "fail"
    assert error_of(validate(reference, [candidate], ValidateRequest(save_certificate=kept))).exit_code == 1
    assert recheck(kept).verdict == "fail"


def test_a_certificate_that_would_speak_of_nothing_beside_it_is_refused_first(good, tmp_path):
    with pytest.raises(BadOption, match="no candidate lies in the folder"):
        validate(good, [good], ValidateRequest(save_certificate=tmp_path / "c.json"))
    with pytest.raises(CannotWrite):
        validate(good, [good], ValidateRequest(save_certificate=tmp_path / "none" / "c.json"))


def test_every_file_of_a_folder_is_certified(tmp_path):
    (tmp_path / "saved" / "variables").mkdir(parents=True)
    for name in ("saved_model.pb", "variables/data"):
        (tmp_path / "saved" / name).write_bytes(name.encode())
    found = files_of([tmp_path / "saved"], [Side("saved", "tensorflow")])
    assert {name: path.name for name, path in found.items()} == {
        "saved/saved_model.pb": "saved_model.pb",
        "saved/variables/data": "data",
    }
