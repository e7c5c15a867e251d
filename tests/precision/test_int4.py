"""int4: blocks of weights, packed in the graph, whose error is the least of the scales that are tried."""

from __future__ import annotations

import numpy as np
import onnx
import onnx_ir as ir
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from fixtures.precision_models import vit
from graphkit.errors import BadOption, UnknownName
from graphkit.model import load, provenance
from graphkit.precision import int4
from tests.precision.quantised import cosine, model, operators, outputs, producer, samples, text

F = np.float32


def matrix(seed: int, k: int, n: int) -> np.ndarray:
    rng = np.random.default_rng(seed)
    return (rng.standard_normal((k, n)) * rng.lognormal(0, 1, (k, 1))).astype(F)


def restored(numbers: np.ndarray, scale: np.ndarray, axis: int, block: int) -> np.ndarray:
    return numbers.astype(F) * np.repeat(scale, block, axis)


@given(st.integers(0, 1000), st.sampled_from([16, 32]), st.integers(1, 3), st.integers(1, 5), st.sampled_from([0, 1]))
@settings(max_examples=40, deadline=None)
def test_round_to_nearest_is_off_by_half_a_step_and_clipping_never_loses_more(seed, block, blocks, width, axis):
    weight = matrix(seed, block * blocks, width)
    weight = weight if axis == 0 else np.ascontiguousarray(weight.T)
    plain, scale = int4.quantise(weight, axis, block, clip=False)
    off = np.abs(restored(plain, scale, axis, block) - weight)
    assert (off <= 0.5001 * np.repeat(scale, block, axis)).all()
    clipped, other = int4.quantise(weight, axis, block)
    assert plain.min() >= -7
    assert clipped.min() >= -8
    assert max(plain.max(), clipped.max()) <= 7
    lost = np.square(restored(clipped, other, axis, block) - weight).sum()
    assert lost <= np.square(off).sum() * (1 + 1e-5)


def test_zeros_stay_zeros():
    numbers, scale = int4.quantise(np.zeros((32, 2), F), 0, 32)
    assert not numbers.any()
    assert (scale == 1).all()


@pytest.fixture(scope="module")
def both():
    weights = {"w": matrix(0, 64, 5), "v": np.ascontiguousarray(matrix(1, 64, 3).T), "odd": matrix(2, 24, 3)}
    source = text(
        "g (float[batch, 64] x, float[batch, 24] z) => (float[batch, 5] a, float[batch, 3] b, float[batch, 3] c)"
        "{ a = MatMul(x, w) b = Gemm <transB = 1> (x, v) c = MatMul(z, odd) }",
        opset=17,
        **weights,
    )
    return source, weights


def test_the_graph_holds_packed_int4_and_computes_what_the_numbers_say(both, tmp_path):
    source, weights = both
    lowered = int4.lower(source, block=32)
    assert (lowered.model.opset, lowered.precision) == (21, "int4")
    (path,) = lowered.model.save(tmp_path / "m.onnx")
    onnx.checker.check_model(path, full_check=True)
    again = load(path)
    stored = {n: v.const_value for n, v in again.ir.graph.initializers.items()}
    assert stored["w_quantized"].dtype == ir.DataType.INT4
    assert stored["w_quantized"].nbytes == 64 * 5 // 2
    assert stored["v_quantized"].nbytes == -(-64 * 3 // 2)
    assert stored["w_scale"].shape == (2, 5)
    assert stored["v_scale"].shape == (3, 2)
    assert "w" not in stored
    sample = samples(source, 1)[0]
    found = outputs(again, sample)
    wanted = restored(*int4.quantise(weights["w"], 0, 32), 0, 32)
    np.testing.assert_allclose(found["a"], sample["x"] @ wanted, rtol=1e-4, atol=1e-4)
    wanted = restored(*int4.quantise(weights["v"], 1, 32), 1, 32)
    np.testing.assert_allclose(found["b"], sample["x"] @ wanted.T, rtol=1e-4, atol=1e-4)


def test_a_length_that_blocks_do_not_divide_is_kept_and_said(both):
    lowered = int4.lower(both[0], block=32)
    assert [(k.op, k.why) for k in lowered.kept] == [
        ("MatMul", "it sums over 24 weights, which blocks of 32 do not divide")
    ]
    assert (lowered.nodes_low, lowered.nodes_total) == (2, 3)
    assert lowered.share == pytest.approx(64 * 8 / (64 * 8 + 24 * 3))


def test_a_transformer_keeps_its_names_lines_and_values():
    source = model(vit())
    lowered = int4.lower(source, block=16)
    assert lowered.model.signature == source.signature
    assert operators(lowered.model)["DequantizeLinear"] == lowered.nodes_low == 13
    assert {k.op for k in lowered.kept} == {"Conv", "MatMul"}
    assert all(provenance(node) for node in lowered.model.ir.graph)
    assert producer(lowered.model, "logits.product", 1).attributes.get_int("block_size") == 16
    sample = samples(source, 1)[0]
    before, after = outputs(source, sample)["logits"], outputs(lowered.model, sample)["logits"]
    assert 0.97 < cosine(before, after)[0] < 1


def test_clipping_helps_the_whole_model():
    source = model(vit())
    sample = samples(source, 1)[0]
    wanted = outputs(source, sample)["logits"]
    lost = [
        float(np.linalg.norm(outputs(int4.lower(source, clip=clip).model, sample)["logits"] - wanted))
        for clip in (True, False)
    ]
    assert lost[0] < lost[1]


def test_bad_requests_name_what_is_wrong(both):
    with pytest.raises(BadOption, match="blocks of 20"):
        int4.lower(both[0], block=20)
    with pytest.raises(UnknownName, match="nowhere"):
        int4.lower(both[0], keep=frozenset({"nowhere"}))
