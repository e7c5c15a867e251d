"""`locate`: it names the node where two models part, and says nothing where they do not."""

from __future__ import annotations

import json
import xml.etree.ElementTree as ET
from pathlib import Path

import numpy as np
import onnx
import pytest
from onnx import helper, numpy_helper, parser

from graphkit.capture.request import CaptureRequest
from graphkit.errors import BadOption, BadRequest, BadSample, FileMissing, GraphkitError, UnknownName
from graphkit.location import locate
from graphkit.parity import chunks, localize, taps
from graphkit.parity.divergence import Location
from graphkit.report.location import to_json, to_text
from graphkit.report.location_plot import to_svg
from graphkit.shapes import DimRange, Sample

pytestmark = pytest.mark.filterwarnings("ignore::DeprecationWarning", "ignore::FutureWarning")


def write(path: Path, text: str, **weights: np.ndarray) -> Path:
    proto = parser.parse_model(f'<ir_version: 10, opset_import: ["" : 20]>\n{text}')
    proto.graph.initializer.extend(numpy_helper.from_array(np.asarray(w), n) for n, w in weights.items())
    onnx.save(proto, path)
    return path


@pytest.fixture
def pair(tmp_path):
    """Two graphs of different text, on the same weights where the candidate's are not given."""

    def make(reference: str, candidate: str, candidate_weights: dict | None = None, **weights) -> Location:
        return locate(
            write(tmp_path / "reference.onnx", reference, **weights),
            write(tmp_path / "candidate.onnx", candidate, **{**weights, **(candidate_weights or {})}),
        )

    return make


EYE = np.eye(4, dtype=np.float32)
THREE = """g (float[n, 4] x) => (float[n, 4] y) {{
    a = MatMul (x, w)
    b = {op} (a)
    y = Sub ({operands})
}}"""


def three(op: str = "Tanh", operands: str = "b, a") -> str:
    return THREE.format(op=op, operands=operands)


# --- where -------------------------------------------------------------------------------------------------------


def test_equal_files_are_equal(pair):
    location = pair(three(), three(), w=EYE)
    assert (location.status, location.divergence) == ("equal", None)
    assert len(location.shapes) >= 3


def test_the_node_is_named_with_the_errors_around_it(pair):
    location = pair(three(), three(operands="a, b"), w=EYE)
    assert (location.divergence.op, location.divergence.tensor) == ("Sub", "y")
    assert [(t.tensor, t.error) for t in location.inputs] == [("a", 0.0), ("b", 0.0)]
    assert location.divergence.l2 == pytest.approx(2.0)
    low, high = location.divergence.reference_range
    assert location.divergence.candidate_range == pytest.approx((-high, -low))


def test_a_weight_that_differs_is_told(pair):
    location = pair(three(), three(), {"w": EYE * np.float32(1.01)}, w=EYE)
    assert (location.divergence.op, location.divergence.tensor) == ("MatMul", "a")
    assert [(w.name, w.max_abs) for w in location.weights] == [("w", pytest.approx(0.01, rel=1e-4))]


def test_where_nan_appears_is_the_divergence(pair):
    location = pair(three(), three(op="Log"), w=EYE)
    assert (location.divergence.op, location.divergence.tensor) == ("Log", "b")
    assert location.divergence.error == np.inf
    assert [(d.what, d.reference, d.candidate) for d in location.differences] == [("op", "Tanh", "Log")]


FULL = "g (float[n, 4] x) => (float[n, 4] y) { a = Mul (x, scale)  b = MatMul (a, w)  y = Tanh (b) }"
HALF = """g (float[n, 4] x) => (float[n, 4] y) {
    h = Cast <to = 10> (x)
    s = Cast <to = 10> (scale)
    v = Cast <to = 10> (w)
    a = Mul (h, s)
    b = MatMul (a, v)
    t = Tanh (b)
    y = Cast <to = 1> (t)
}"""


def test_a_float16_graph_is_judged_by_the_tolerance_of_float16(pair):
    location = pair(FULL, HALF, w=EYE, scale=np.float32(1.1))
    assert location.status == "equal"


def test_a_float16_overflow_that_no_output_shows_is_found(pair):
    """ONNX Runtime computes the chain in float32: its output is right here, and NaN on a GPU."""
    location = pair(FULL, HALF, w=EYE * np.float32(1e-4), scale=np.float32(6e4))
    assert (location.status, location.divergence.op, location.divergence.tensor) == ("located", "Mul", "a")
    assert "infinity differs" in location.reason
    assert "the outputs agree" in location.notes[0]


def test_a_fault_that_no_output_shows_is_no_difference(pair):
    text = "g (float[n, 4] x) => (float[n, 4] y) {{ a = Neg (x)  b = Mul (a, {w})  z = Mul (b, zero)  y = Add (x, z) }}"
    weights = {"one": np.float32(1), "two": np.float32(2), "zero": np.float32(0)}
    location = pair(text.format(w="one"), text.format(w="two"), **weights)
    assert location.status == "equal"


def test_a_small_error_that_a_later_node_makes_large_belongs_to_the_earlier_one(pair):
    """Half a tolerance at `b`, a few at `y`: `b` is where it comes from."""
    text = "g (float[n, 4] x) => (float[n, 4] y) {{ a = Abs (x)  b = Mul (a, {w})  c = Sub (b, a)  y = Mul (c, two) }}"
    weights = {"one": np.float32(1.3), "off": np.float32(1.3 * 1.0008), "two": np.float32(2)}
    location = pair(text.format(w="one"), text.format(w="off"), **weights)
    assert location.divergence.tensor == "b"
    assert 0.3 < location.divergence.error < 1 < location.measured[-1].error


def test_a_fused_node_is_named_with_what_lies_before_it(pair):
    reference = "g (float[n, 4] x) => (float[n, 4] y) { a = Neg (x)  b = Exp (a)  y = Mul (a, b) }"
    candidate = "g (float[n, 4] x) => (float[n, 4] y) { a = Neg (x)  other = Abs (a)  y = Mul (a, other) }"
    location = pair(reference, candidate)
    assert location.divergence.tensor == "y"
    assert [t.tensor for t in location.inputs] == ["a"]
    assert location.between == ("Abs 'other'",)
    assert (location.counts.common, location.counts.unmatched) == (2, 1)


def test_a_convolution_that_absorbed_a_normalization_is_no_false_alarm(pair):
    """onnxsim keeps the convolution's name for it."""
    ones = np.ones(2, np.float32)
    before = """g (float[n, 2, 3, 3] x) => (float[n, 2, 3, 3] y) {
        c = Conv (x, w)  d = BatchNormalization (c, s, z, z, s)  y = Relu (d) }"""
    after = "g (float[n, 2, 3, 3] x) => (float[n, 2, 3, 3] y) { c = Conv (x, w)  y = Sigmoid (c) }"
    w = np.ones((2, 2, 1, 1), np.float32)
    location = pair(before, after, {"w": w * 3 / np.sqrt(np.float32(1 + 1e-5))}, w=w * 3, s=ones, z=ones * 0)
    assert location.divergence.op == "Sigmoid"
    assert [(t.tensor, t.error < 1) for t in location.inputs] == [("c", True)]


def test_bodies_of_if_are_one_node_and_said_not_to_be_looked_into(pair):
    text = """g (float[4] x, bool flag) => (float[4] y) {{
        a = Neg (x)
        b = If (flag) <then_branch = t () => (float[4] p) {{ p = {op} (a) }},
                       else_branch = e () => (float[4] q) {{ q = Abs (a) }}>
        y = Relu (b)
    }}"""
    location = pair(text.format(op="Exp"), text.format(op="Abs"))
    assert (location.divergence.op, location.divergence.tensor) == ("If", "b")
    assert [d.what for d in location.differences] == ["then_branch"]
    assert location.counts.inside == 2
    assert "If" in location.notes[0]


# --- large graphs ------------------------------------------------------------------------------------------------


def chain(path: Path, wrong: int | None = None, length: int = 500) -> Path:
    nodes, weights, last = [], [], "x"
    for i in range(length):
        factor = np.float32(1.01 if i == wrong else 1.0)
        weights.append(numpy_helper.from_array(factor * np.ones(8, np.float32), f"w{i}"))
        nodes.append(helper.make_node("Mul", [last, f"w{i}"], [f"m{i}"], f"mul{i}"))
        nodes.append(helper.make_node("Neg", [f"m{i}"], [f"n{i}"], f"neg{i}"))
        last = f"n{i}"
    nodes.append(helper.make_node("Identity", [last], ["y"], "end"))
    info = [helper.make_tensor_value_info(n, 1, ["b", 8]) for n in ("x", "y")]
    graph = helper.make_graph(nodes, "g", info[:1], info[1:], weights)
    onnx.save(helper.make_model(graph, opset_imports=[helper.make_opsetid("", 20)], ir_version=10), path)
    return path


@pytest.mark.parametrize("wrong", [0, 313, 499])
def test_a_large_graph_is_narrowed_down(wrong, tmp_path):
    location = locate(chain(tmp_path / "a.onnx"), chain(tmp_path / "b.onnx", wrong))
    assert location.divergence.node == f"mul{wrong}"
    assert location.counts.common == 1001
    assert location.counts.measured <= 100


def test_tensors_are_measured_in_chunks(tmp_path, monkeypatch):
    monkeypatch.setattr(chunks, "TENSORS_AT_ONCE", 7)
    sizes, real = [], taps.ort_worker().call
    monkeypatch.setattr(taps.ort_worker(), "call", lambda f, **k: (sizes.append(len(k["pairs"])), real(f, **k))[1])
    location = locate(chain(tmp_path / "a.onnx", length=20), chain(tmp_path / "b.onnx", 11, length=20))
    assert location.divergence.node == "mul11"
    assert (max(sizes), sum(sizes)) == (7, 41)


def test_a_chunk_is_bounded_by_bytes(tmp_path, monkeypatch):
    monkeypatch.setattr(chunks, "BYTES_AT_ONCE", 200)
    sizes, real = [], taps.ort_worker().call
    monkeypatch.setattr(taps.ort_worker(), "call", lambda f, **k: (sizes.append(len(k["pairs"])), real(f, **k))[1])
    locate(chain(tmp_path / "a.onnx", length=20), chain(tmp_path / "b.onnx", 11, length=20))
    assert max(sizes[1:]) <= 3  # 64 bytes each, both sides together


def test_an_exact_search_finds_the_same_node(tmp_path, monkeypatch):
    files = chain(tmp_path / "a.onnx"), chain(tmp_path / "b.onnx", 313)
    narrowed = locate(*files)
    monkeypatch.setattr(localize, "WHOLE", 10_000)
    assert locate(*files).divergence == narrowed.divergence


# --- what cannot be compared -------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("candidate", "reason"),
    [
        (
            "g (float[n, 4] x, float[n, 4] z) => (float[n, 4] y) { y = Add (x, z) }",
            "x: float32, the candidate x: float32, z: float32",
        ),
        ("g (double[n, 4] x) => (double[n, 4] y) { y = Neg (x) }", "x: float32, the candidate x: float64"),
        ("g (float[n, 5] x) => (float[n, 5] y) { y = Neg (x) }", "x: float32[n, 4], the candidate x: float32[n, 5]"),
        (
            "g (float[n, 4] x) => (float[n, 4] u, float[n, 4] v) { u = Neg (x) v = Abs (x) }",
            "the reference has y, the candidate u, v",
        ),
    ],
)
def test_what_has_nothing_in_common_is_not_comparable(candidate, reason, pair):
    location = pair(three(), candidate, w=EYE)
    assert location.status == "not comparable"
    assert reason in location.reason


def test_an_output_that_the_candidate_lacks_is_not_passed_over(pair):
    text = "g (float[n, 4] x) => (float[n, 4] y{more}) {{ y = Neg (x)  z = Abs (x) }}"
    both, one = text.format(more=", float[n, 4] z"), text.format(more="")
    assert (pair(both, one).status, pair(both, one).reason[-8:]) == ("not comparable", "output z")
    assert (pair(one, both).status, pair(one, both).notes[0][-9:]) == ("equal", "outputs z")


def test_a_graph_of_one_node_can_be_located_in(pair):
    text = "g (float[n, 4] x) => (float[n, 4] y) {{ y = {op} (x) }}"
    location = pair(text.format(op="Neg"), text.format(op="Abs"))
    assert (location.status, location.divergence.op, location.inputs) == ("located", "Abs", ())


def test_a_reference_of_nothing_but_nan_proves_nothing(pair):
    text = "g (float[n, 4] x) => (float[n, 4] y) { a = Abs (x)  b = Neg (a)  y = Log (b) }"
    location = pair(text, text)
    assert (location.status, "no finite value" in location.reason) == ("not comparable", True)


def test_sizes_are_those_that_the_candidate_can_take(pair):
    location = pair(three(), three(operands="a, b").replace("[n, 4]", "[3, 4]"), w=EYE)
    assert (location.status, dict(location.sizes)) == ("located", {"n": 3})


def test_a_side_that_does_not_run_is_named(pair):
    with pytest.raises(GraphkitError, match=r"the candidate does not run: .*"):
        pair(three(), three(), {"w": np.eye(5, dtype=np.float32)}, w=EYE)


def test_bad_requests_are_refused(tmp_path):
    good = write(tmp_path / "m.onnx", three(), w=EYE)
    with pytest.raises(FileMissing):
        locate(good, tmp_path / "none.onnx")
    with pytest.raises(BadOption, match="no ONNX file"):
        locate(good, "fixtures.torch_models:mlp")
    with pytest.raises(UnknownName):
        locate(good, good, CaptureRequest(samples=(Sample("q", 1),)))
    with pytest.raises(BadRequest):
        locate(good, good, CaptureRequest(dims=(DimRange("q", 1, 2, 3),)))
    np.save(tmp_path / "x.npy", np.zeros((2, 4)))
    with pytest.raises(BadSample, match="float64"):
        locate(good, good, CaptureRequest(samples=(Sample("x", tmp_path / "x.npy"),)))


def test_the_users_own_values_are_used(tmp_path):
    good, bad = (write(tmp_path / f"{n}.onnx", three(op=op), w=EYE) for n, op in (("a", "Tanh"), ("b", "Relu")))
    np.save(tmp_path / "x.npy", np.zeros((2, 4), np.float32))
    location = locate(good, bad, CaptureRequest(samples=(Sample("x", tmp_path / "x.npy"),)))
    assert (location.status, location.sizes) == ("equal", {"n": 2})
    assert locate(good, bad).divergence.op == "Relu"


# --- how it is shown ---------------------------------------------------------------------------------------------


def test_the_text_leads_with_the_node(pair):
    text = to_text(pair(three(), three(op="Log"), w=EYE)).plain
    assert text.splitlines()[0] == "first divergence: Log '' -> 'b'"
    assert "op      Tanh in the reference, Log in the candidate" in text
    assert "compared   3 of 3 tensors" in text
    assert to_text(pair(three(), three(), w=EYE)).plain.startswith("equal: every output is within its tolerance")


def test_the_json_is_strict_and_the_same_each_time(pair):
    first, second = (to_json(pair(three(), three(op="Log"), w=EYE)) for _ in range(2))
    assert first == second
    read = json.loads(first, parse_constant=pytest.fail)
    assert (read["schema"], read["status"], read["divergence"]["error"]) == ("graphkit.locate/1", "located", "inf")


def test_the_picture_has_a_dot_for_every_tensor_and_marks_the_divergence(pair):
    location = pair(three(), three(op="Log"), w=EYE)
    root = ET.fromstring(to_svg(location))
    dots = [e for e in root if e.tag.endswith("circle")]
    assert len(dots) == len(location.measured) == 3
    assert [e[0].text for e in dots if e.get("stroke")] == ["Log b: inf tolerances"]
    assert "http" not in to_svg(location).replace("http://www.w3.org/2000/svg", "")
