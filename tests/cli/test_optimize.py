"""`graphkit optimize`, as it is run."""

from __future__ import annotations

import json

import onnx

from tests.test_optimization import network


def test_explain_tells_the_story_and_the_file_is_written(run, tmp_path):
    network(tmp_path / "m.onnx")
    said = run("optimize", "m.onnx", "--explain", "-q")
    assert said.code == 0, said.err
    assert "identity: Identity is taken out (1x, -1 nodes)" in said.out
    assert "parity: pass" in said.out
    assert "wrote m.opt.onnx" in said.out
    onnx.checker.check_model(str(tmp_path / "m.opt.onnx"), full_check=True)


def test_json(run, tmp_path):
    network(tmp_path / "m.onnx")
    answer = json.loads(run("optimize", "m.onnx", "--json", "-q", "--verify", "none").out)
    assert answer["schema"] == "graphkit.optimize/1"
    assert answer["parity"]["status"] == "not run"
    assert answer["nodes"]["after"] < answer["nodes"]["before"] == 5
    assert answer["rules"]["identity"] == 1


def test_the_rules_are_listed(run):
    said = run("optimize", "--rules")
    assert said.code == 0
    assert "Identity is taken out" in said.out


def test_bad_requests(run, tmp_path):
    network(tmp_path / "m.onnx")
    assert run("optimize").code == 2
    assert run("optimize", "none.onnx").code == 2
    assert run("optimize", "m.onnx", "--skip", "identety").code == 2
    assert run("optimize", "m.onnx", "--target", "tpu").code == 2


def test_attention_is_marked_in_the_file_for_tensorrt_which_every_command_takes(run, tmp_path):
    text = (
        '<ir_version: 11, opset_import: ["": 24]> g (float[b, 4, 5, 8] q, float[b, 4, 5, 8] k) '
        "=> (float[b, 4, 5, 8] y) { a = Attention(q, k, k) y = Identity(a) }"
    )
    onnx.save(onnx.parser.parse_model(text), tmp_path / "m.onnx")

    def marks(name):
        nodes = onnx.load(tmp_path / name).graph.node
        return [a.i for n in nodes for a in n.attribute if a.name == "TRT_decomposable"]

    said = run("optimize", "m.onnx", "--target", "rtx", "-o", "rtx.onnx", "-q")
    assert said.code == 0, said.err
    assert "TRT_decomposable" in said.out
    assert marks("rtx.onnx") == [1]
    assert run("validate", "m.onnx", "rtx.onnx").code == 0
    assert run("validate", "rtx.onnx", "m.onnx").code == 0
    assert run("check", "rtx.onnx", "--target", "rtx", "--dim", "b=1:1:2").code == 0
    refused = run("check", "rtx.onnx", "--target", "ort", "--dim", "b=1:1:2")
    assert (refused.code, "TRT_decomposable" in refused.out) == (1, True)
    assert run("optimize", "rtx.onnx", "--target", "rtx", "-o", "again.onnx", "-q").code == 0
    assert marks("again.onnx") == [1]
    assert run("optimize", "rtx.onnx", "-o", "plain.onnx", "-q").code == 0
    assert marks("plain.onnx") == []
    said = json.loads(run("optimize", "m.onnx", "-o", "plain.onnx", "--json", "-q").out)
    assert (said["marked"], marks("plain.onnx")) == (False, [])
    assert run("build", "rtx.onnx", "-o", "m.engine", "--cc", "8.6", "--dim", "b=1:1:2", "-q").code == 0
