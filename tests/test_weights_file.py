"""Weights beside a model: copied, never shared with the file they came from, and named after their content."""

import hashlib
import os

import numpy as np
import onnx_ir as ir
import pytest

from graphkit import model as room
from graphkit import weights_file
from graphkit.model import Model, Origin, load

WEIGHTS = {name: np.arange(size, dtype=np.float32) for name, size in (("a", 64), ("b", 3000), ("c", 100))}


def made(weights: dict[str, np.ndarray]) -> Model:
    """y = a + 1 of a model that holds all the weights."""
    held = [ir.Value(name=n, const_value=ir.tensor(w, name=n), shape=ir.Shape(w.shape)) for n, w in weights.items()]
    for value in held:
        value.type = ir.TensorType(ir.DataType.FLOAT)
    node = ir.node("Identity", [held[0]], name="n")
    node.outputs[0].name, node.outputs[0].type = "y", ir.TensorType(ir.DataType.FLOAT)
    graph = ir.Graph([], node.outputs, nodes=[node], initializers=held, opset_imports={"": 20}, name="g")
    return Model(ir.Model(graph, ir_version=10), Origin("test"))


@pytest.fixture
def model(monkeypatch) -> Model:
    monkeypatch.setattr(room, "INLINE_LIMIT", 16)
    return made(WEIGHTS)


def weights_of(model: Model) -> dict[str, np.ndarray]:
    return {n: v.const_value.numpy().copy() for n, v in model.ir.graph.initializers.items()}


def test_what_is_written_is_what_is_read(model, tmp_path):
    model.save(tmp_path / "m.onnx")
    again = weights_of(load(tmp_path / "m.onnx"))
    assert again.keys() == WEIGHTS.keys()
    for name, weight in WEIGHTS.items():
        np.testing.assert_array_equal(again[name], weight)


def test_the_name_is_of_the_content_whatever_the_pieces(model, tmp_path, monkeypatch):
    monkeypatch.setattr(weights_file, "_PIECE", 1000)
    monkeypatch.setattr(weights_file, "_BUFFER", 300)
    _, data = model.save(tmp_path / "m.onnx")
    content = data.read_bytes()
    pieces = [hashlib.sha256(content[at : at + 1000]).digest() for at in range(0, len(content), 1000)]
    assert data.name == f"m.{hashlib.sha256(b''.join(pieces)).hexdigest()[:12]}.data"
    assert content == b"".join(weight.tobytes() for weight in WEIGHTS.values())


def test_the_same_weights_have_the_same_name_and_others_another(model, tmp_path):
    first, second = (model.save(tmp_path / f"{n}" / "m.onnx")[1].name for n in map(folder(tmp_path), "ab"))
    changed = made({**WEIGHTS, "b": WEIGHTS["b"] + 1}).save(tmp_path / "m.onnx")[1].name
    assert first == second != changed


def folder(parent):
    def make(name: str) -> str:
        (parent / name).mkdir()
        return name

    return make


def test_who_writes_the_source_anew_in_place_changes_no_finished_model(model, tmp_path):
    _, source = model.save(tmp_path / "m.onnx")
    copied = load(tmp_path / "m.onnx").save(tmp_path / "n.onnx")
    assert copied[1] != source
    with source.open("r+b") as file:
        file.write(b"\xff" * source.stat().st_size)
    np.testing.assert_array_equal(weights_of(load(copied[0]))["b"], WEIGHTS["b"])


@pytest.mark.skipif(os.name != "posix", reason="rights are POSIX ones")
def test_others_may_read_the_weights_as_far_as_they_may_read_the_model(model, tmp_path):
    graph, data = model.save(tmp_path / "m.onnx")
    assert data.stat().st_mode == graph.stat().st_mode


def test_a_source_that_became_shorter_is_an_error_and_leaves_nothing(model, tmp_path):
    _, source = model.save(tmp_path / "m.onnx")
    short = load(tmp_path / "m.onnx")
    os.truncate(source, 300)
    with pytest.raises(OSError, match="shorter"):
        short.save(tmp_path / "n.onnx")
    assert not [*tmp_path.glob("*n.*")]
