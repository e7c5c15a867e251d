"""The line of `inspect` that says what stands in the way of each target, by rules alone."""

from __future__ import annotations

import json

import pytest
from onnx import parser

PLAIN = '<ir_version: 10, opset_import: ["": 18]> g (float[batch, 4] x) => (float[batch, 4] y) { y = Relu(x) }'
RANDOM = (
    '<ir_version: 10, opset_import: ["": 18]> g (float[batch, 4] x) => (float[batch, 4] y) '
    "{ r = RandomNormalLike(x) d = Det(r) y = Add(x, r) }"
)


@pytest.fixture
def file(tmp_path):
    def written(text):
        path = tmp_path / "m.onnx"
        path.write_bytes(parser.parse_model(text).SerializeToString())
        return path

    return written


def ways(run, path):
    return {
        each["target"]: each["in_the_way"] for each in json.loads(run("inspect", str(path), "--json").out)["readiness"]
    }


def test_a_plain_graph_has_nothing_in_the_way(run, file):
    assert ways(run, file(PLAIN)) == {"trt": {}, "rtx": {}, "ort": {}}


def test_an_operator_that_tensorrt_does_not_take_is_counted_by_its_rule(run, file):
    path = file(RANDOM)
    found = ways(run, path)
    errors = json.loads(run("check", str(path), "--target", "trt", "--json").out)
    assert found["trt"]
    assert found["ort"] == {}
    assert sum(found["trt"].values()) == sum(f["severity"] == "error" for f in errors["findings"])
    assert "TensorRT: GKC" in run("inspect", str(path)).out
