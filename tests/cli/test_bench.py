"""`graphkit bench`: exit codes, what goes where, and what is refused. No test looks at how long it took."""

from __future__ import annotations

import json

import onnx
import pytest
from onnx import parser

QUICK = ("--runs", "6", "--warm-up", "1", "-q")


@pytest.fixture
def file(tmp_path):
    def make(name: str, op: str = "Neg", text: str = "float[n, 4]") -> str:
        graph = f"g ({text} x) => ({text} y) {{ y = {op} (x) }}"
        onnx.save(parser.parse_model(f'<ir_version: 10, opset_import: ["" : 20]>\n{graph}'), tmp_path / name)
        return str(tmp_path / name)

    return make


def test_models_are_timed_at_every_point_printed_and_drawn(run, file, tmp_path):
    said = run("bench", file("a.onnx"), file("b.onnx", "Abs"), *QUICK, "--at", "n=2", "--at", "n=3", "--plot", "p.svg")
    assert (said.code, said.err) == (0, "wrote p.svg\n")
    assert "n=2; per s: n items" in said.out
    assert "n=3; per s: n items" in said.out
    assert said.out.count("outputs differ: `y`") == 2  # said, and no error: that is what validate is for
    assert (tmp_path / "p.svg").read_text().startswith("<svg")


def test_json_has_what_was_timed_and_under_which_conditions(run, file):
    said = run("bench", file("a.onnx"), *QUICK, "--threads", "1", "--seed", "5", "--json")
    read = json.loads(said.out, parse_constant=pytest.fail)
    assert (said.code, read["schema"], read["status"], read["error"]) == (0, "graphkit.bench/1", "measured", None)
    assert (read["threads"], read["warm_up"], read["seed"], read["inputs"]) == (1, 1, 5, {"x": "N(0, 1)"})
    assert read["notes"] == ["n=1, since nothing says its size: --at n=N"]
    ((point,), (side,)) = read["points"], read["sides"]
    assert (point["sizes"], point["inputs"], side["threads"]) == ({"n": 1}, {"x": [1, 4]}, 1)
    assert (point["sides"][0]["latency"]["runs"], len(point["sides"][0]["latency"]["round_medians"])) == (6, 6)
    assert point["sides"][0]["time_ratio"] is None


def test_what_this_machine_cannot_run_ends_with_3_and_the_others_are_timed(run, file):
    import onnxruntime

    if "CUDAExecutionProvider" in onnxruntime.get_available_providers():
        pytest.skip("this onnxruntime has CUDA")
    said = run("bench", file("a.onnx"), *QUICK, "--provider", "cpu", "--provider", "cuda")
    assert said.code == 3
    assert "a.onnx (cpu)" in said.out
    assert "not run: the installed onnxruntime has no CUDAExecutionProvider" in said.out
    assert "pip install onnxruntime-gpu" in said.err


@pytest.mark.parametrize(
    ("options", "code", "words"),
    [
        (("--runs", "0"), "GK212", "nothing would be timed"),
        (("--seconds", "0"), "GK212", "nothing would be timed"),
        (("--seconds", "inf"), "GK212", "nothing would be timed"),
        (("--runs", "5", "--seconds", "1"), "GK212", "exclude one another"),
        (("--threads", "0"), "GK212", "0 threads"),
        (("--at", "n"), "GK212", "is not name=size"),
        (("--at", "n=2", "--at", "n=2"), "GK212", "an --at is given twice"),
        (("--at", "m=2"), "GK208", "no input has a dimension called `m`"),
        (("--provider", "tpu"), "GK212", "tpu"),
        (("--against-source",), "GK212", "no ONNX file here says what it was converted from"),
        (("--plot", "none/p.svg"), "GK211", "none"),
    ],
)
def test_bad_requests_end_with_2(run, file, options, code, words):
    said = run("bench", file("a.onnx"), *options)
    assert (said.code, said.out) == (2, "")
    assert code in said.err
    assert words in said.err


def test_a_model_without_shape_is_refused_with_the_option_to_write(run, file):
    said = run("bench", file("a.onnx", text="float[n, length]"), *QUICK)
    assert (said.code, "GK206" in said.err, "--at length=N" in said.err) == (2, True, True)


def test_models_with_different_inputs_are_refused(run, file):
    said = run("bench", file("a.onnx"), file("b.onnx", text="float[n, 5]"), *QUICK, "--json")
    read = json.loads(said.out, parse_constant=pytest.fail)
    assert (said.code, read["status"], read["error"]["code"]) == (2, "error", "GK207")


def test_a_file_that_is_not_there_ends_with_2(run):
    said = run("bench", "none.onnx", *QUICK)
    assert (said.code, "GK201" in said.err) == (2, True)
