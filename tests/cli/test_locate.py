"""`graphkit locate`: exit codes, and what goes where."""

from __future__ import annotations

import json

import onnx
import pytest
from onnx import parser


@pytest.fixture
def files(tmp_path):
    def make(name: str, op: str, kind: str = "float") -> str:
        text = f"g ({kind}[n, 4] x) => ({kind}[n, 4] y) {{ a = Neg (x)  b = {op} (a)  y = Abs (b) }}"
        onnx.save(parser.parse_model(f'<ir_version: 10, opset_import: ["" : 20]>\n{text}'), tmp_path / name)
        return str(tmp_path / name)

    return make


def test_equal_files_end_with_0(run, files):
    said = run("locate", files("a.onnx", "Tanh"), files("b.onnx", "Tanh"), "-q")
    assert (said.code, said.err) == (0, "")
    assert said.out.startswith("equal: ")


def test_a_place_that_is_found_ends_with_1_and_is_drawn(run, files, tmp_path):
    said = run("locate", files("a.onnx", "Tanh"), files("b.onnx", "Exp"), "-q", "--plot", "p.svg")
    assert said.code == 1
    assert said.out.startswith("first divergence: Exp '' -> 'b'\n")
    assert "p.svg" in said.err
    assert (tmp_path / "p.svg").read_text().startswith("<svg")


def test_what_cannot_be_compared_ends_with_2(run, files):
    said = run("locate", files("a.onnx", "Tanh"), files("b.onnx", "Tanh", "double"), "-q")
    assert said.code == 2
    assert said.out.startswith("not comparable: the inputs differ")


def test_json_has_the_answer_also_where_there_is_none(run, files):
    said = run("locate", files("a.onnx", "Tanh"), files("b.onnx", "Exp"), "-q", "--json")
    read = json.loads(said.out, parse_constant=pytest.fail)
    assert (said.code, read["status"], read["divergence"]["tensor"]) == (1, "located", "b")
    said = run("locate", files("a.onnx", "Tanh"), "none.onnx", "-q", "--json")
    read = json.loads(said.out, parse_constant=pytest.fail)
    assert (said.code, read["status"], read["error"]["code"]) == (2, "error", "GK201")


def test_verbose_lists_every_tensor(run, files):
    short, long = (run("locate", files("a.onnx", "Tanh"), files("b.onnx", "Exp"), "-q", *v).out for v in ([], ["-v"]))
    assert "every tensor that was compared" not in short
    assert "every tensor that was compared" in long


def test_a_plot_that_cannot_be_written_is_refused_first(run, files):
    said = run("locate", files("a.onnx", "Tanh"), files("b.onnx", "Exp"), "--plot", "none/p.svg")
    assert (said.code, "GK211" in said.err) == (2, True)


def test_an_engine_without_a_gpu_ends_with_3_and_the_reason(run, files, tmp_path, monkeypatch):
    monkeypatch.setattr("graphkit.engine.builder.visible_gpus", lambda: ())
    (tmp_path / "m.engine").write_bytes(b"vtrt" + bytes(124))
    said = run("locate", files("a.onnx", "Tanh"), "m.engine", "-q")
    assert (said.code, said.out) == (3, "")
    assert "GK302" in said.err
    assert "no CUDA device is visible here" in said.err
    assert "graphkit locate REF m.engine.onnx" in said.err
