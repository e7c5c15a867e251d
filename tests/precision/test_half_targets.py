"""bfloat16 where TensorRT-RTX lacks it, and a real sentence encoder in fp16 and bf16; `test_matrix` has the rest."""

from __future__ import annotations

from importlib.util import find_spec

import numpy as np
import pytest

import graphkit as gk
from fixtures import minilm
from fixtures.torch_models import EXAMPLES
from graphkit.capture.request import CaptureRequest
from graphkit.engine.builder import BuildRequest
from graphkit.engine.rtx import RtxBuilder
from graphkit.parity.check import cases_of
from graphkit.parity.inputs import choose_sizes, plan_inputs
from graphkit.parity.runners import OrtRunner
from graphkit.precision import half, half_rounded
from graphkit.rewrite.simplify import simplify
from graphkit.shapes import DimRange, TensorSpec

pytestmark = [
    pytest.mark.slow,
    pytest.mark.skipif(find_spec("tensorrt_rtx") is None, reason="tensorrt-rtx is not installed"),
]
LOWEST = {"gru_tagger": 0.01, "detector": 1}
"""Share of the FLOPs that is low in bfloat16: TensorRT-RTX has no bfloat16 GRU."""

REORDERED = {"detector"}
"""What TopK chooses among scores that are one rounding apart differs in bfloat16, and parity says so."""


def made(name):
    example = EXAMPLES[name]
    shapes = tuple(TensorSpec(n, "int64" if n in example.below else None, s) for n, s in example.shapes.items())
    dims = tuple(DimRange(d, *r) for d, r in example.dims.items())
    return simplify(gk.capture_model(example.factory(), CaptureRequest(shapes=shapes, dims=dims)))


@pytest.fixture(scope="module")
def sentence_encoder():
    shapes = tuple(TensorSpec(n, "int64", s) for n, s in minilm.SHAPES.items())
    dims = tuple(DimRange(d, *r) for d, r in minilm.DIMS.items())
    return simplify(gk.capture_model(minilm.minilm(), CaptureRequest(shapes=shapes, dims=dims)))


@pytest.mark.parametrize("name", LOWEST)
def test_what_tensorrt_lacks_in_bfloat16_stays_and_the_rest_is_built(name, tmp_path):
    model = made(name)
    lowering = half.lower(model, "bf16")
    assert LOWEST[name] <= lowering.share <= (1 if LOWEST[name] == 1 else 0.999)
    request = BuildRequest(lowering.model, model.dims, compute_capabilities=("8.6",), find_ranges=True)
    engine = RtxBuilder().build(request, tmp_path / "m.engine")
    assert "bfloat16" in engine.precision["compute"]
    assert ("float32" in engine.precision["compute"]) == (lowering.nodes_low < lowering.nodes_total)
    cases = cases_of(plan_inputs(model), choose_sizes(model.signature, model.dims, ()), seed=100)
    verdicts = {c.status for c in half_rounded.check(model, lowering, cases)}
    assert ("fail" in verdicts) == (name in REORDERED)
    assert "not run" not in verdicts


@pytest.mark.parametrize("precision", ["fp16", "bf16"])
def test_a_real_sentence_encoder_is_low_all_through_and_its_embeddings_stay(precision, sentence_encoder):
    generator = np.random.default_rng(0)
    sample = {
        "input_ids": generator.integers(1000, 30000, (2, 16)),
        "attention_mask": np.array([[1] * 16, [1] * 9 + [0] * 7]),
    }
    lowering = half.lower(sentence_encoder, precision, [sample])
    assert (lowering.share, lowering.nodes_low) == (1, 48)
    # The masked mean, whose count max(count, 1e-9) keeps from zero; the masks of the attention are made smaller.
    assert len(lowering.kept) == (6 if precision == "fp16" else 0)
    assert [f.code for f in lowering.findings] == ["precision.mask"]
    other = {"input_ids": generator.integers(1000, 30000, (3, 11)), "attention_mask": np.ones((3, 11), np.int64)}
    with (
        OrtRunner(sentence_encoder, optimize=False) as reference,
        OrtRunner(half_rounded.rounded(lowering.model, sentence_encoder), optimize=False) as candidate,
    ):
        expected, found = (r.run(other)["sentence_embedding"] for r in (reference, candidate))
    cosines = (expected * found).sum(1) / np.linalg.norm(expected, axis=1) / np.linalg.norm(found, axis=1)
    assert cosines.min() > (0.99999 if precision == "fp16" else 0.999)
