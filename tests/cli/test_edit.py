"""`graphkit edit`, as it is run."""

from __future__ import annotations

import onnx

from tests.test_optimization import network


def test_a_part_is_written(run, tmp_path):
    network(tmp_path / "m.onnx")
    said = run("edit", "extract", "m.onnx", "--inputs", "product", "--outputs", "turn", "-o", "part.onnx")
    assert said.code == 0, said.err
    assert said.out == "wrote part.onnx\n"
    part = onnx.load(tmp_path / "part.onnx")
    onnx.checker.check_model(part, full_check=True)
    assert [i.name for i in part.graph.input] == ["product"]
    assert [o.name for o in part.graph.output] == ["negative"]


def test_two_parts_and_back(run, tmp_path):
    network(tmp_path / "m.onnx")
    assert run("edit", "split", "m.onnx", "--at", "positive", "-o", "half.onnx").code == 0
    joined = run("edit", "merge", "half.1.onnx", "half.2.onnx", "--map", "positive=positive", "-o", "both.onnx")
    assert joined.code == 0, joined.err
    assert run("diff", "m.onnx", "both.onnx", "--name-status").out.count("\nD ") == 0


def test_what_cannot_be_done_is_refused(run, tmp_path):
    network(tmp_path / "m.onnx")
    for words in (
        ("freeze", "m.onnx", "z=1"),
        ("set-dim", "m.onnx", "batch=0"),
        ("rename", "m.onnx", "x"),
        ("cut", "m.onnx", "--after", "nowhere"),
        ("layout", "m.onnx", "x", "nhwc"),
    ):
        said = run("edit", *words, "-o", "out.onnx")
        assert said.code == 2, words
    assert not (tmp_path / "out.onnx").exists()
