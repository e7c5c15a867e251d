"""Spotify's basic-pitch, whose wheel holds one network as SavedModel, TFLite and ONNX. Needs the network once."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import onnxruntime
import pytest
import tensorflow as tf
from tensorflow.python.saved_model import load_v1_in_v2

import graphkit as gk
from fixtures.fetch import fetch
from graphkit.errors import FileMissing

pytestmark = [pytest.mark.slow, pytest.mark.filterwarnings("ignore")]  # TensorFlow warns of its own deprecations

OUTPUTS = ("note", "onset", "contour")
FORMS = {"SavedModel": "nmp", "TFLite": "nmp.tflite", "ONNX": "nmp.onnx"}


@pytest.fixture(scope="module")
def folder() -> Path:
    try:
        return fetch("basic_pitch")
    except FileMissing as missing:
        pytest.skip(f"basic-pitch cannot be fetched: {missing.message}")


@pytest.fixture(scope="module")
def converted(folder, tmp_path_factory) -> dict[str, gk.ConvertResult]:
    made = tmp_path_factory.mktemp("basic_pitch")
    named = {"ONNX": {"serving_default_input_2:0": ("batch", 43844, 1)}}  # the file has unk__749 there
    return {
        kind: gk.convert(folder / file, output=made / f"{kind}.onnx", shapes=named.get(kind))
        for kind, file in FORMS.items()
    }


@pytest.fixture(scope="module")
def audio() -> np.ndarray:
    """Two windows of 43844 samples at 22050 Hz: a decaying chord over a floor of noise, and noise.

    Without the floor, as no microphone is, the network takes the logarithm of rounding errors: TensorFlow and ONNX
    then differ by 4e-4.
    """
    time = np.arange(43844) / 22050
    chord = sum(np.sin(2 * np.pi * f * n * time) / n**2 for f in (220.0, 277.2, 329.6) for n in (1, 2, 3))
    noise = np.random.default_rng(0).standard_normal(43844)
    return np.stack([chord / 4 * np.exp(-time) + noise / 100, noise / 8]).astype(np.float32)[..., None]


def outputs_of(result: gk.ConvertResult, audio: np.ndarray) -> dict[str, np.ndarray]:
    session = onnxruntime.InferenceSession(str(result.output))
    names = [o.name for o in session.get_outputs()]
    return dict(zip(names, session.run(None, {session.get_inputs()[0].name: audio}), strict=True))


def test_all_three_forms_are_converted_with_a_dynamic_batch(converted):
    for kind, result in converted.items():
        assert result.parity.status == "pass", kind
        (given,) = result.model.signature.inputs
        assert given.shape == ("batch", 43844, 1), kind
        assert {t.shape for t in result.model.signature.outputs} == {("batch", 172, 88), ("batch", 172, 264)}, kind
    for kind in ("SavedModel", "TFLite"):
        assert {t.name for t in converted[kind].model.signature.outputs} == set(OUTPUTS)


def test_all_three_agree_with_tensorflow(converted, folder, audio):
    # tf.saved_model.load cannot read the optimizer of a compiled Keras 2 model; the loader of TensorFlow 1 ignores it.
    signature = load_v1_in_v2.load(str(folder / "nmp"), ["serve"]).signatures["serving_default"]
    (given,) = signature.structured_input_signature[1]
    wanted = {name: value.numpy() for name, value in signature(**{given: tf.constant(audio)}).items()}
    assert set(wanted) == set(OUTPUTS)
    assert wanted["note"].max() > 0.3, "it hears notes in the chord"
    for kind, result in converted.items():
        found: dict[str, Any] = outputs_of(result, audio)
        if kind == "ONNX":  # its outputs are StatefulPartitionedCall:0 to :2, of which two have the same shape
            found = paired(found, wanted)
        for name in OUTPUTS:
            np.testing.assert_allclose(found[name], wanted[name], atol=1e-4, rtol=0, err_msg=f"{kind} {name}")


def paired(found: dict[str, np.ndarray], wanted: dict[str, np.ndarray]) -> dict[str, np.ndarray]:
    """Each output beside the one of the same shape that it is nearest to; none is taken twice."""
    rest = dict(found)
    made = {}
    for name, values in wanted.items():
        near = min((n for n in rest if rest[n].shape == values.shape), key=lambda n: np.abs(rest[n] - values).max())
        made[name] = rest.pop(near)
    return made


def test_the_tflite_file_agrees_with_the_saved_model(folder):
    assert gk.validate(folder / "nmp", [folder / "nmp.tflite"]).status == "pass"


def test_the_saved_model_becomes_tflite_again(folder, tmp_path, audio):
    result = gk.convert(folder / "nmp", to="tflite", output=tmp_path / "again.tflite")
    assert result.parity.status == "pass"
    runners = [tf.lite.Interpreter(str(p)).get_signature_runner() for p in (result.output, folder / "nmp.tflite")]
    ours, theirs = (r(**{next(iter(r.get_input_details())): audio}) for r in runners)
    for name in OUTPUTS:
        np.testing.assert_allclose(ours[name], theirs[name], atol=1e-4, rtol=0)
