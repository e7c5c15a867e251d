"""`validate`: faults are found, good conversions pass, whatever is compared with whatever."""

from __future__ import annotations

import json
import struct
from pathlib import Path

import numpy as np
import onnx
import onnx_ir as ir
import pytest
import torch
from onnx import numpy_helper, parser
from torch import Tensor, nn

from graphkit import input_sets
from graphkit.comparison import ValidateRequest, error_of, status_of, validate
from graphkit.engine import builder
from graphkit.errors import BadCallable, BadOption, BadSample, FileMissing, ShapeMismatch, UnknownName, UntrustedSource
from graphkit.model import Model, Origin, SourceLine, file_sha256, set_provenance
from graphkit.parity.metrics import Condition
from graphkit.shapes import DimRange, Sample, TensorSpec

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


# --- inputs ------------------------------------------------------------------------------------------------------


def sets(*batches: int) -> tuple[dict[str, np.ndarray], ...]:
    return tuple({"x": np.full((n, 6), n / 10, np.float32)} for n in batches)


def test_saved_inputs_give_the_same_comparison_again(good, tmp_path):
    close = write(tmp_path / "close.onnx", w=W * np.float32(1.0001))
    first = validate(good, [close], ValidateRequest(save_inputs=tmp_path / "in.npz", seed=7))
    bytes_of = (tmp_path / "in.npz").read_bytes()
    again = validate(good, [close], ValidateRequest(sets=input_sets.read(tmp_path / "in.npz")))
    assert [c.outputs for c in again.comparisons] == [c.outputs for c in first.comparisons]
    validate(good, [close], ValidateRequest(save_inputs=tmp_path / "in.npz", seed=7))
    assert (tmp_path / "in.npz").read_bytes() == bytes_of


def test_small_floats_can_be_saved_too(tmp_path):
    text = "g (bfloat16[batch, 6] x) => (float[batch, 6] y) { c = Cast<to = 1>(x) y = Mul(c, b) }"
    path = write(tmp_path / "m.onnx", text)
    first = validate(path, [path], ValidateRequest(save_inputs=tmp_path / "in.npz"))
    again = validate(path, [path], ValidateRequest(sets=input_sets.read(tmp_path / "in.npz")))
    assert (status_of(first), status_of(again)) == ("pass", "pass")


def test_one_set_is_an_archive_that_numpy_reads(tmp_path):
    input_sets.write(tmp_path / "one.npz", sets(2))
    with np.load(tmp_path / "one.npz", allow_pickle=False) as file:
        assert file["x"].shape == (2, 6)
    assert len(input_sets.read(tmp_path / "one.npz")) == 1


def test_a_set_of_arrays_is_compared_on(good):
    report = validate(good, [good], ValidateRequest(sets=sets(1, 3)))
    assert [c.sizes for c in report.comparisons] == [{"batch": 1}, {"batch": 3}]
    assert [c.note for c in report.comparisons] == ["input set 1 of 2", "input set 2 of 2"]
    assert report.inputs == {"x": "given"}


def test_a_folder_holds_one_set_or_several(tmp_path):
    np.save(tmp_path / "x.npy", np.ones(3))
    (only,) = input_sets.read(tmp_path)
    assert list(only) == ["x"]
    (tmp_path / "x.npy").unlink()
    for number, each in enumerate(sets(1, 2)):
        np.savez(tmp_path / f"{number}.npz", **each)
    assert [len(s["x"]) for s in input_sets.read(tmp_path)] == [1, 2]


def test_sets_that_cannot_be_read_are_refused(tmp_path):
    with pytest.raises(FileMissing):
        input_sets.read(tmp_path / "none.npz")
    with pytest.raises(BadSample, match="neither"):
        input_sets.read(tmp_path)
    (tmp_path / "bad.npz").write_bytes(b"PK\x03\x04 cut off")
    with pytest.raises(BadSample, match=r"bad\.npz"):
        input_sets.read(tmp_path / "bad.npz")
    np.save(tmp_path / "pickled.npy", np.array([{}], object), allow_pickle=True)
    with pytest.raises(BadSample, match="no plain arrays"):
        input_sets.read(tmp_path / "pickled.npy")


def test_a_set_that_lacks_an_input_or_has_another_is_refused(good):
    with pytest.raises(BadSample, match="no values for x"):
        validate(good, [good], ValidateRequest(sets=({"z": np.ones(3)},)))
    with pytest.raises(UnknownName, match="no input `z`"):
        validate(good, [good], ValidateRequest(sets=({**sets(1)[0], "z": np.ones(3)},)))


def test_a_users_generator_gives_sets(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    Path("gk_feed.py").write_text(
        "import numpy as np\n"
        "def forever():\n    while True:\n        yield {'x': np.ones(3)}\n"
        "def broken():\n    yield {'x': np.ones(3)}\n    raise RuntimeError('no more')\n"
        "def wrong():\n    yield 3\n"
    )
    found, more = input_sets.generated("gk_feed:forever")
    assert (len(found), more) == (input_sets.MOST, True)
    for name, why in (("broken", "no more"), ("wrong", "yields a int")):
        with pytest.raises(BadCallable, match=why):
            input_sets.generated(f"gk_feed:{name}")


# --- engines -----------------------------------------------------------------------------------------------------


def engine(folder: Path, *, vouched: bool = True) -> Path:
    """The header of an engine of TensorRT-RTX for compute capability 8.6, and its description."""
    path = folder / "m.engine"
    header = bytearray(128)
    header[:4] = b"vtrt"
    struct.pack_into("<Q", header, 16, len(header))
    header[24:28], header[32] = bytes((1, 7, 1, 116)), 4
    path.write_bytes(header)
    signature = {"inputs": [{"name": "x", "dtype": "float32", "shape": ["batch", 6]}], "outputs": []}
    facts = {
        "schema": "graphkit.engine/1",
        "engine": {"sha256": file_sha256(path) if vouched else "0" * 64},
        "model": {"signature": signature},
        "tf32": True,
    }
    (folder / "m.engine.json").write_text(json.dumps(facts))
    return path


def test_an_engine_without_a_gpu_is_not_run_and_that_is_no_pass(good, tmp_path, monkeypatch):
    monkeypatch.setattr(builder, "visible_gpus", lambda: ())
    report = validate(good, [good, engine(tmp_path)])
    assert status_of(report) == "not run"
    assert (report.engine, report.engine_reason) == ("not run", "no CUDA device")
    assert error_of(report).exit_code == 3
    statuses = {c.candidate.partition(":")[0]: c.status for c in report.comparisons}
    assert statuses == {"good.onnx (2)": "pass", "m.engine": "not run"}


def test_a_difference_counts_more_than_an_engine_that_was_not_run(good, tmp_path, monkeypatch):
    monkeypatch.setattr(builder, "visible_gpus", lambda: ())
    report = validate(good, [engine(tmp_path), write(tmp_path / "bad.onnx", w=OFF)])
    assert error_of(report).exit_code == 1


def test_nothing_is_proven_where_the_reference_is_an_engine_that_was_not_run(good, tmp_path, monkeypatch):
    monkeypatch.setattr(builder, "visible_gpus", lambda: ())
    report = validate(engine(tmp_path), [good])
    assert {c.status for c in report.comparisons} == {"not run"}


def test_an_engine_tells_a_module_its_inputs(tmp_path, monkeypatch):
    monkeypatch.setattr(builder, "visible_gpus", lambda: ())
    report = validate(Net(), [engine(tmp_path), Net()], ValidateRequest(dims=DIMS))
    assert [c.status for c in report.comparisons] == ["not run", "pass"] * 4


def test_options_that_engines_do_not_listen_to_are_refused(tmp_path, monkeypatch):
    monkeypatch.setattr(builder, "visible_gpus", lambda: ())
    path = engine(tmp_path)
    with pytest.raises(BadOption, match="--shape"):
        validate(path, [path], ValidateRequest(shapes=(TensorSpec("x", None, (1, 6)),)))
    with pytest.raises(UnknownName, match="`seq`"):
        validate(path, [path], ValidateRequest(dims=(DimRange("seq", 1, 2, 3),)))


def test_an_engine_that_its_description_does_not_vouch_for_is_refused(good, tmp_path, monkeypatch):
    monkeypatch.setattr(builder, "visible_gpus", lambda: ())
    path = engine(tmp_path, vouched=False)
    with pytest.raises(UntrustedSource, match=r"m\.engine\.json does not vouch"):
        validate(good, [path])
    assert status_of(validate(good, [path], ValidateRequest(trust=True))) == "not run"
    (tmp_path / "m.engine.json").unlink()
    with pytest.raises(UntrustedSource):
        validate(good, [path])


def test_an_engine_for_another_gpu_is_a_bad_request(good, tmp_path, monkeypatch):
    monkeypatch.setattr(builder, "visible_gpus", lambda: ("12.0",))
    with pytest.raises(Exception, match=r"was built for 8\.6; this machine's GPU is 12\.0") as caught:
        validate(good, [engine(tmp_path)])
    assert caught.value.exit_code == 2


def test_a_file_with_external_weights_is_certified_with_them(tmp_path):
    path = write(tmp_path / "m.onnx")
    proto = onnx.load(path)
    onnx.save(proto, path, save_as_external_data=True, location="m.data", size_threshold=0)
    assert set(validate(path, [path]).files) >= {"m.onnx", "m.data"}
