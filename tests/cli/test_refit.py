"""`graphkit refit`: what it refuses, and that nothing appears unproved."""

from __future__ import annotations

import json
from importlib.util import find_spec

import pytest

from tests.engine.test_inspect_engine import described, engine, small_network


@pytest.fixture
def here(tmp_path):
    (tmp_path / "new.onnx").write_bytes(small_network().SerializeToString())
    return tmp_path


def test_an_engine_of_tensorrt_rtx_takes_no_weights(run, here):
    described(engine(here / "m.engine"))
    said = run("refit", "m.engine", "new.onnx", "-o", "out.engine", "--json")
    assert (said.code, json.loads(said.out)["error"]["code"]) == (2, "GK212")
    assert "m.engine takes no new weights" in said.err
    assert not (here / "out.engine").exists()


def test_a_foreign_engine_is_never_loaded(run, here):
    engine(here / "m.engine")
    said = run("refit", "m.engine", "new.onnx", "-o", "out.engine")
    assert (said.code, said.err.startswith("error[GK204]")) == (2, True)


def tensorrt_engine(path, weights):
    """A header as TensorRT writes it, and a description with those weights."""
    data = bytearray(engine(path).read_bytes())
    data[:4] = b"ftrt"
    path.write_bytes(data)
    described(path, weights=weights)


def test_weights_of_another_shape_are_named(run, here):
    tensorrt_engine(here / "m.engine", {"w": {"dtype": "float16", "shape": [9, 9], "parameter": None}})
    said = run("refit", "m.engine", "new.onnx", "-o", "out.engine")
    assert said.code == 2
    assert said.err.startswith("error[GK215]: 1 of the 1 weights of m.engine do not fit: `w` is float16[8, 8, 3, 3]")


@pytest.mark.skipif(find_spec("tensorrt") is not None, reason="tensorrt is installed")
def test_without_tensorrt_the_extra_is_named(run, here):
    tensorrt_engine(here / "m.engine", {"w": {"dtype": "float16", "shape": [8, 8, 3, 3], "parameter": None}})
    said = run("refit", "m.engine", "new.onnx", "-o", "out.engine")
    assert (said.code, said.err.startswith("error[GK301]")) == (3, True)


def test_what_could_not_be_compared_is_not_written(run, here, monkeypatch):
    """Without a GPU the new engine cannot be run: it does not get its name."""

    def made(_engine, _weights, output):
        described(engine(output))
        return output

    monkeypatch.setattr("graphkit.engine.refit.refit", made)
    monkeypatch.setattr("graphkit.engine.builder.visible_gpus", lambda: ())
    said = run("refit", "m.engine", "new.onnx", "-o", "out.engine")
    assert said.code != 0
    assert sorted(path.name for path in here.iterdir()) == ["new.onnx"]
