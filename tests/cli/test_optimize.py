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
