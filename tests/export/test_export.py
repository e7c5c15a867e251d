"""`--to saved_model` and `--to tflite`: what TensorFlow writes, read back by TensorFlow alone, equals the source."""

from __future__ import annotations

import json
import shutil
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import tensorflow as tf
import torch

import graphkit as gk
from fixtures.tflite_files import adding
from graphkit.errors import (
    BadOption,
    CannotWrite,
    ParityFailed,
    StateMutated,
    TargetUnsupported,
    UnknownTarget,
)
from graphkit.pipeline import ConvertRequest, run

pytestmark = [pytest.mark.slow, pytest.mark.filterwarnings("ignore")]  # TensorFlow warns of its own deprecations

COMMAND = shutil.which("graphkit", path=str(Path(sys.executable).parent)) or "graphkit"
TARGETS = ["saved_model", "tflite"]


@pytest.fixture(scope="module")
def network() -> tf.keras.Model:
    tf.keras.utils.set_random_seed(0)
    layers = tf.keras.layers
    image = tf.keras.Input((8, 8, 3), name="image")
    hidden = layers.GlobalAveragePooling2D()(layers.Conv2D(4, 3, activation="relu")(image))
    return tf.keras.Model(image, {"class": layers.Dense(5)(hidden), "box": layers.Dense(4)(hidden)})


def images(batch: int) -> np.ndarray:
    return np.random.default_rng(batch).standard_normal((batch, 8, 8, 3)).astype(np.float32)


def read_back(path: Path, to: str, **inputs: np.ndarray) -> dict[str, np.ndarray]:
    if to == "saved_model":
        found = tf.saved_model.load(str(path)).signatures["serving_default"](**inputs)
        return {name: value.numpy() for name, value in found.items()}
    return tf.lite.Interpreter(str(path)).get_signature_runner("serving_default")(**inputs)


def left(folder: Path) -> list[str]:
    return sorted(path.name for path in folder.iterdir())


@pytest.mark.parametrize("to", TARGETS)
def test_what_is_written_has_the_sources_names_and_numbers_at_every_batch(to, network, tmp_path):
    output = tmp_path / "m"
    result = gk.convert(network, to=to, output=output)
    assert (result.target, result.output, result.model) == (to, output, None)
    assert [s.name for s in result.stages] == ["export", "validate"]
    for batch in (1, 3, 8):
        wanted = network(images(batch))
        found = read_back(output, to, image=images(batch))
        assert found.keys() == wanted.keys() == {"class", "box"}
        for name, values in wanted.items():
            np.testing.assert_allclose(found[name], values.numpy(), atol=1e-6, rtol=1e-5)
    assert len({c.sizes["batch"] for c in result.parity.comparisons}) == 3
    report = json.loads((tmp_path / "m.parity.json").read_text())
    assert report["status"] == "pass"
    assert left(tmp_path) == ["m", "m.parity.json"]
    assert all(f.is_file() for f in result.files)


@pytest.mark.parametrize("to", TARGETS)
def test_names_that_a_signature_cannot_spell_are_still_paired(to, tmp_path):
    @tf.function(input_signature=[{"a": tf.TensorSpec([None, 2]), "b": tf.TensorSpec([None, 2])}])
    def combined(both):
        return {"sum": both["a"] + both["b"], "parts": (both["a"], both["b"] * 2.0)}

    result = gk.convert(combined, to=to, output=tmp_path / "m", dims={"batch": (1, 2, 4)})
    outputs = [o.output for o in result.parity.comparisons[0].outputs]
    assert outputs == ["sum", "parts.0", "parts.1"]
    assert result.parity.status == "pass"


def test_the_command_line_writes_a_tflite_file_from_a_keras_file(network, tmp_path):
    network.save(tmp_path / "m.keras")
    command = [COMMAND, "convert", "m.keras", "--to", "tflite", "--json", "-q"]
    said = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, check=False)
    assert said.returncode == 0, said.stderr
    answer = json.loads(said.stdout)
    assert (answer["target"], answer["output"], answer["parity"]["status"]) == ("tflite", "m.tflite", "pass")
    found = read_back(tmp_path / "m.tflite", "tflite", image=images(2))
    np.testing.assert_allclose(found["box"], network(images(2))["box"].numpy(), atol=1e-6, rtol=1e-5)


def test_an_operator_that_tflite_lacks_is_named_and_nothing_is_left(tmp_path):
    @tf.function(input_signature=[tf.TensorSpec([3, 3])])
    def decomposed(x):
        return tf.linalg.svd(x)[0] + tf.linalg.det(x)

    with pytest.raises(TargetUnsupported, match="`Svd`") as caught:
        gk.convert(decomposed, to="tflite", output=tmp_path / "m.tflite")
    assert "Svd" in caught.value.data["operators"]
    assert left(tmp_path) == []


@pytest.mark.parametrize("to", TARGETS)
def test_a_copy_that_computes_something_else_is_not_published(to, network, tmp_path, monkeypatch):
    from graphkit.export import saved_model

    def other(signature, folder):
        def call(image):
            return {name: value * 1.01 for name, value in signature.concrete(image).items()}

        spec = tf.TensorSpec([None, 8, 8, 3], name="image")
        function = tf.function(call, autograph=False).get_concrete_function(spec)
        tf.saved_model.save(signature.holder, str(folder), signatures={"serving_default": function})

    monkeypatch.setattr(saved_model, "write", other)
    with pytest.raises(ParityFailed):
        gk.convert(network, to=to, output=tmp_path / "m")
    assert left(tmp_path) == ["m.parity.json"]
    assert json.loads((tmp_path / "m.parity.json").read_text())["status"] == "fail"


@pytest.mark.parametrize("to", TARGETS)
def test_a_function_that_assigns_a_variable_is_refused(to, tmp_path):
    counter = tf.Variable(0.0, name="counter")

    @tf.function(input_signature=[tf.TensorSpec([2])])
    def counting(x):
        counter.assign_add(1.0)
        return x + counter

    with pytest.raises(StateMutated, match="counter"):
        gk.convert(counting, to=to, output=tmp_path / "m")
    assert left(tmp_path) == []


@pytest.mark.parametrize("to", TARGETS)
@pytest.mark.parametrize("kind", ["torch", "onnx", "tflite"])
def test_only_what_tensorflow_runs_can_be_written_by_it(kind, to, tmp_path):
    folder = tmp_path / "out"
    folder.mkdir()
    source = torch.nn.Linear(3, 2)
    if kind == "onnx":
        from onnx import parser, save

        text = "g (float[n, 4] x) => (float[n, 4] y) { y = Neg (x) }"
        save(parser.parse_model(f'<ir_version: 10, opset_import: ["" : 20]>\n{text}'), tmp_path / "m.onnx")
        source = tmp_path / "m.onnx"
    elif kind == "tflite":
        source = tmp_path / "m.tflite"
        source.write_bytes(adding())
    shapes = {"input": ("batch", 3)} if kind == "torch" else {}
    with pytest.raises(UnknownTarget, match=f"--to {to}") as caught:
        gk.convert(source, to=to, output=folder / "m", shapes=shapes)
    assert "--to onnx" in caught.value.remedy
    assert left(folder) == []


@pytest.mark.parametrize(
    "option",
    [{"opset": 18}, {"via": "trace"}, {"submodule": "a"}, {"optimize": False}, {"backend": "rtx"},
     {"compute_capabilities": ("8.6",)}, {"state": "inputs"}, {"layout": ("nchw",)}],
    ids=lambda option: next(iter(option)),
)  # fmt: skip
def test_options_of_the_onnx_graph_and_of_engines_are_refused(option, tmp_path):
    result = run(tmp_path / "none.keras", ConvertRequest(to="tflite", output=tmp_path / "m", **option))
    assert isinstance(result.error, BadOption)
    assert left(tmp_path) == []


def test_a_saved_model_is_replaced_and_any_other_folder_left_alone(network, tmp_path):
    output = tmp_path / "m"
    gk.convert(network, to="saved_model", output=output)
    (output / "assets").mkdir(exist_ok=True)
    (output / "assets" / "old.txt").write_text("of the old one")
    gk.convert(network, to="saved_model", output=output)
    assert not (output / "assets" / "old.txt").exists()
    (tmp_path / "mine").mkdir()
    (tmp_path / "mine" / "thesis.txt").write_text("years")
    with pytest.raises(CannotWrite, match="no SavedModel"):
        gk.convert(network, to="saved_model", output=tmp_path / "mine")
    assert left(tmp_path / "mine") == ["thesis.txt"]
    with pytest.raises(CannotWrite):
        gk.convert(network, to="saved_model", output=tmp_path / "no" / "m")
    assert left(tmp_path) == ["m", "m.parity.json", "mine"]
