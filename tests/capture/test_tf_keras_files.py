"""`.keras` and `.h5` files: loaded in a child, told by content, and never run for the code they name."""

from __future__ import annotations

import json
import shutil
import zipfile
from pathlib import Path

import keras
import numpy as np
import pytest
from keras import layers

from fixtures.keras_models import mlp
from graphkit.capture.registry import recognise
from graphkit.capture.request import CaptureRequest
from graphkit.errors import ArchitectureMissing, BadOption, CorruptFile, UnknownFormat, UntrustedSource
from graphkit.model import file_sha256

pytestmark = pytest.mark.filterwarnings("ignore::UserWarning", "ignore::DeprecationWarning")

X = np.random.default_rng(0).standard_normal((3, 16)).astype(np.float32)


@pytest.fixture(scope="module")
def folder(tmp_path_factory) -> Path:
    folder = tmp_path_factory.mktemp("keras")
    mlp().save(folder / "mlp.keras")
    mlp().save(folder / "mlp.h5")
    mlp().save_weights(folder / "mlp.weights.h5")
    return folder


@pytest.mark.parametrize("file", ["mlp.keras", "mlp.h5"])
def test_a_keras_file_computes_what_the_model_does(file, folder, onnx_run):
    source = recognise(folder / file, CaptureRequest())
    model = source.capture(CaptureRequest())
    assert model.origin.sha256 == file_sha256(folder / file)
    assert model.origin.name == file
    assert model.origin.versions.keys() == {"tensorflow", "keras", "tf2onnx"}
    [found] = onnx_run(model, input=X).values()
    np.testing.assert_allclose(found, mlp()(X), atol=1e-5)
    np.testing.assert_allclose(source.run({"input": X})["output"], mlp()(X), atol=1e-5)
    assert source.label.startswith("tensorflow ")


@pytest.mark.parametrize("file", ["mlp.keras", "mlp.h5"])
def test_the_name_of_a_file_plays_no_part(file, folder, tmp_path, captured):
    other = tmp_path / "model.pt"
    shutil.copy(folder / file, other)
    assert captured(other).signature.inputs[0].shape == ("batch", 16)


@pytest.mark.parametrize("file", ["mlp.keras", "mlp.h5"])
def test_a_truncated_file_is_corrupt(file, folder, tmp_path, captured):
    data = (folder / file).read_bytes()
    for size in (len(data) // 2, len(data) - 40):
        cut = tmp_path / file
        cut.write_bytes(data[:size])
        with pytest.raises(CorruptFile):
            captured(cut)


def test_an_empty_file_is_no_model(tmp_path, captured):
    (tmp_path / "empty.keras").write_bytes(b"")
    with pytest.raises(UnknownFormat, match="is empty"):
        captured(tmp_path / "empty.keras")


def test_an_archive_without_its_weights_is_corrupt(folder, tmp_path, captured):
    _rewritten(folder / "mlp.keras", tmp_path / "m.keras", without="model.weights.h5")
    with pytest.raises(CorruptFile, match=r"without model\.weights\.h5"):
        captured(tmp_path / "m.keras")


def test_a_configuration_that_is_no_json_is_corrupt(folder, tmp_path, captured):
    _rewritten(folder / "mlp.keras", tmp_path / "m.keras", config=lambda text: text[:-20])
    with pytest.raises(CorruptFile):
        captured(tmp_path / "m.keras")


def test_weights_alone_need_an_architecture(folder, captured):
    with pytest.raises(ArchitectureMissing, match="holds weights but no Keras model"):
        captured(folder / "mlp.weights.h5")


@pytest.mark.parametrize("suffix", [".keras", ".h5"])
def test_a_lambda_is_refused_by_name_and_runs_when_trusted(suffix, tmp_path, captured, onnx_run):
    x = keras.Input((4,), name="x")
    path = tmp_path / f"lambda{suffix}"
    keras.Model(x, layers.Lambda(lambda value: value * 3.0, output_shape=(4,))(x)).save(path)
    with pytest.raises(UntrustedSource, match="Lambda") as caught:
        captured(path)
    assert "--trust" in caught.value.remedy
    [found] = onnx_run(captured(path, trust=True), x=np.ones((2, 4), np.float32)).values()
    np.testing.assert_array_equal(found, np.full((2, 4), 3.0))


def test_a_class_of_somebody_else_is_refused_before_it_is_imported(folder, tmp_path, captured, monkeypatch):
    (tmp_path / "evil_layers.py").write_text("raise SystemExit('imported')")

    def point_elsewhere(text: str) -> str:
        config = json.loads(text)
        layer = config["config"]["layers"][1]
        layer["module"], layer["class_name"], layer["registered_name"] = "evil_layers", "Dense", "Custom>Dense"
        return json.dumps(config)

    _rewritten(folder / "mlp.keras", tmp_path / "m.keras", config=point_elsewhere)
    with pytest.raises(UntrustedSource, match=r"evil_layers\.Dense"):
        captured(tmp_path / "m.keras")


@pytest.mark.parametrize("name", ["TFSMLayer", "TorchModuleWrapper", "__lambda__", "function"])
def test_layers_that_load_or_run_something_else_are_refused(name, folder, tmp_path, captured):
    def replaced(text: str) -> str:
        config = json.loads(text)
        config["config"]["layers"][1]["class_name"] = name
        return json.dumps(config)

    _rewritten(folder / "mlp.keras", tmp_path / "m.keras", config=replaced)
    with pytest.raises(UntrustedSource, match=name):
        captured(tmp_path / "m.keras")


def test_a_signature_says_nothing_about_a_keras_file(folder, captured):
    with pytest.raises(BadOption, match="--signature"):
        captured(folder / "mlp.keras", signature="serving_default")


def _rewritten(path: Path, target: Path, *, without: str = "", config=lambda text: text) -> None:
    """A copy of a `.keras` file without a member, or with another configuration."""
    with zipfile.ZipFile(path) as old, zipfile.ZipFile(target, "w") as new:
        for name in old.namelist():
            data = old.read(name)
            if name == "config.json":
                data = config(data.decode()).encode()
            if name != without:
                new.writestr(name, data)
