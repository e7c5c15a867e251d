"""float16 and bfloat16: what is lowered is right, and what is not has a reason."""

from __future__ import annotations

import numpy as np
import onnx
import onnx_ir as ir
import pytest
from onnx import TensorProto, helper, numpy_helper

from fixtures.precision_models import HALF_MODELS, Builder, control_flow, float_sizes, guarded, overflowing, rotary, vit
from graphkit import model as model_module
from graphkit.errors import BadSample, PrecisionRefused, ShapeMismatch, UnknownName
from graphkit.model import Model, Origin, SourceLine, load, provenance, set_provenance
from graphkit.parity.check import cases_of
from graphkit.parity.inputs import choose_sizes, plan_inputs
from graphkit.parity.runners import OrtRunner
from graphkit.precision import half, half_rounded
from graphkit.precision.half_keep import SAFETY
from graphkit.shapes import DimRange

SIZES = {"float_sizes": (DimRange("height", 10, 16, 33), DimRange("width", 10, 16, 33))}


def as_model(proto, dims=()):
    model = Model(ir.from_proto(proto), Origin("onnx file"), dims)
    for node in model.ir.graph.all_nodes():
        set_provenance(node, [SourceLine(file="net.py", line=1 + len(node.name), function="forward")])
    return model


def parity(model, lowering):
    cases = cases_of(plan_inputs(model), choose_sizes(model.signature, model.dims, ()), seed=100)
    return half_rounded.check(model, lowering, cases)


def run(model, inputs, reference=None):
    twin = model if reference is None else half_rounded.rounded(model, reference)
    with OrtRunner(twin, optimize=False) as runner:
        return runner.run(inputs)


def normal(*shape, seed=0):
    return np.random.default_rng(seed).standard_normal(shape, np.float32)


def kept(lowering):
    return {k.node.removeprefix("node."): k for k in lowering.kept}


@pytest.fixture(scope="module", params=[(n, p) for n in HALF_MODELS for p in ("fp16", "bf16")], ids="-".join)
def lowered(request):
    name, precision = request.param
    model = as_model(HALF_MODELS[name](), SIZES.get(name, ()))
    before = model.to_proto().SerializeToString(deterministic=True)
    lowering = half.lower(model, precision)
    assert model.to_proto().SerializeToString(deterministic=True) == before
    return model, lowering


# --- every model -------------------------------------------------------------------------------------------------


def test_a_lowered_model_is_valid_and_within_the_tolerance_of_its_precision(lowered):
    model, lowering = lowered
    onnx.checker.check_model(lowering.model.to_proto(), full_check=True)
    assert [(c.status, c.reason) for c in parity(model, lowering)] == [("pass", None)] * len(parity(model, lowering))


def test_its_inputs_and_outputs_are_what_they_were(lowered):
    model, lowering = lowered
    assert lowering.model.signature == model.signature


def test_no_tensor_is_cast_twice_to_one_type_and_none_to_its_own(lowered):
    _, lowering = lowered
    casts = [n for n in lowering.model.ir.graph.all_nodes() if n.op_type == "Cast"]
    pairs = [(n.inputs[0].name, n.attributes["to"].as_int()) for n in casts]
    assert len(set(pairs)) == len(pairs)
    assert all(n.inputs[0].dtype is None or n.inputs[0].dtype.value != n.attributes["to"].as_int() for n in casts)
    weights = set(lowering.model.ir.graph.initializers)
    assert not [name for name, _ in pairs if name in weights]


def test_every_node_in_float32_is_named_with_a_reason_and_a_line(lowered):
    _, lowering = lowered
    float32 = {
        n.name
        for n in lowering.model.ir.graph.all_nodes()
        if any(v.dtype == ir.DataType.FLOAT for v in n.outputs) and n.op_type not in ("Cast", "Loop", "If")
    }
    assert float32 <= {k.node for k in lowering.kept}
    assert all(k.why and k.where and k.where[0].file == "net.py" for k in lowering.kept)


def test_casts_know_where_they_come_from(lowered):
    _, lowering = lowered
    assert all(provenance(n) for n in lowering.model.ir.graph.all_nodes() if n.op_type == "Cast")


def test_what_is_claimed_to_be_low_is(lowered):
    _, lowering = lowered
    dtype = ir.DataType.FLOAT16 if lowering.precision == "fp16" else ir.DataType.BFLOAT16
    products = [n for n in lowering.model.ir.graph.all_nodes() if n.op_type in ("MatMul", "Conv", "Gemm")]
    assert lowering.nodes_low == sum(all(v.dtype == dtype for v in n.inputs) for n in products)
    assert lowering.nodes_total == len(products)
    assert 0 < lowering.share <= 1


# --- what goes wrong without a look ------------------------------------------------------------------------------


def test_an_overflow_keeps_its_layer_in_float32_and_nothing_else(monkeypatch):
    model, inputs = as_model(overflowing()), {"x": normal(4, 16)}
    lowering = half.lower(model, "fp16", [inputs])
    assert set(kept(lowering)) == {"scaled", "mean", "shifted", "back"}
    assert "reaches 2.37e+06" in kept(lowering)["shifted"].why
    assert kept(lowering)["shifted"].figure > 1e6
    expected = run(model, inputs)["y"]
    np.testing.assert_allclose(run(lowering.model, inputs, model)["y"], expected, atol=5e-3)
    np.testing.assert_allclose(run(lowering.model, inputs)["y"], expected, atol=5e-3)

    monkeypatch.setattr(half, "reasons", lambda *_, **__: {})
    naive = half.lower(model, "fp16", [inputs])
    assert naive.kept == ()
    assert np.isnan(run(naive.model, inputs, model)["y"]).all()


def test_flops_are_counted_by_hand_and_by_us():
    lowering = half.lower(as_model(overflowing()), "fp16")
    assert lowering.flops_total == lowering.flops_low == 2 * (16 * 32 + 32 * 32 + 32 * 32 + 32 * 16)
    assert (lowering.share, lowering.share_of) == (1.0, "FLOPs")


def test_a_guard_against_zero_still_guards(monkeypatch):
    model = as_model(guarded())
    samples = [{"x": normal(2, 6, 16), "mask": np.ones((2, 6, 1), np.float32)}]
    empty = {"x": normal(1, 6, 16), "mask": np.zeros((1, 6, 1), np.float32)}
    expected = run(model, empty)["y"]
    lowering = half.lower(model, "fp16", samples)
    assert "1e-09" in kept(lowering)["pooled"].why
    np.testing.assert_allclose(run(lowering.model, empty, model)["y"], expected, atol=1e-3)

    monkeypatch.setattr(half, "reasons", lambda *_, **__: {})
    naive = half.lower(model, "fp16", samples, io_types=True)
    assert np.isnan(run(naive.model, empty, model)["y"]).all()


def test_angles_of_large_positions_are_right(monkeypatch):
    model = as_model(rotary())
    samples, long = [{"x": normal(1, 4, 8)}], {"x": normal(1, 5000, 8)}
    expected = run(model, long)["y"]
    error = lambda lowering: np.abs(run(lowering.model, long, model)["y"] - expected).max()  # noqa: E731
    lowering = half.lower(model, "fp16", samples)
    assert lowering.share < 1
    assert error(lowering) < 0.01
    monkeypatch.setattr(half, "reasons", lambda *_, **__: {})
    monkeypatch.setattr(half, "has_macs", lambda op, domain: op == "MatMul")
    assert error(half.lower(model, "fp16", samples, io_types=True)) > 0.1


def test_sizes_that_are_computed_in_floats_stay_exact():
    model = as_model(float_sizes())
    lowering = half.lower(model, "bf16", [{"x": normal(1, 3, 16, 16)}])
    for size in (257, 1001):
        inputs = {"x": normal(1, 3, size, 12)}
        assert run(lowering.model, inputs, model)["y"].shape == run(model, inputs)["y"].shape


def test_an_overflow_inside_a_loop_is_seen():
    model = as_model(control_flow(gain=1e6))
    lowering = half.lower(model, "fp16")
    assert {"large", "small"} <= set(kept(lowering)) <= {"large", "small", "next", "seen"}
    assert lowering.nodes_low == 4
    assert {c.status for c in parity(model, lowering)} == {"pass"}


def test_a_branch_that_no_sample_took_stays_in_float32():
    sample = {"x": normal(2, 8), "steps": np.array(2), "flip": np.array(True)}
    lowering = half.lower(as_model(control_flow()), "fp16", [sample])
    assert "no sample" in kept(lowering)["m"].why
    assert lowering.nodes_low == 3


def test_a_mask_of_a_constant_is_as_large_on_any_data():
    b = Builder()
    mask = b.op("Mul", [b.op("Cast", ["mask"], "mask.f", to=TensorProto.FLOAT), b.constant("minus", -1e4)], "bias")
    scores = b.op("Add", [b.linear("x", "scores", 8, 8), mask], "masked")
    b.linear(b.op("Softmax", [scores], "softmax", axis=-1), "y", 8, 8)
    proto = b.model({"x": ["batch", 8], "mask": ["batch", 8]}, {"y": ["batch", 8]}, mask=TensorProto.INT64)
    assert half.lower(as_model(proto), "fp16").kept == ()


def attention(scale=1.0, behind="Softmax"):
    """x, keep -> y: scores from x, masked by float32's least number where `keep` is 0, Softmax, a product."""
    b = Builder()
    absent = b.op("Equal", ["keep", b.constant("zero", 0, np.int64)], "absent")
    least, nothing = b.constant("least", np.finfo(np.float32).min), b.constant("nothing", 0.0)
    mask = b.op("Where", [absent, least, nothing], "mask")
    scores = b.op("Mul", [b.linear("x", "linear", 8, 8), b.constant("scale", scale)], "scores")
    weights = b.op(behind, [b.op("Add", [scores, mask], "masked")], "weights")
    b.linear(weights, "y", 8, 8)
    return b.model({"x": ["batch", 8], "keep": ["batch", 8]}, {"y": ["batch", 8]}, keep=TensorProto.INT64)


@pytest.mark.parametrize("precision", ["fp16", "bf16"])
def test_a_mask_that_the_type_cannot_hold_is_made_smaller(precision):
    model = as_model(attention())
    lowering = half.lower(model, precision)
    assert lowering.kept == ()
    assert "-3.4e+38 (`least`)" in next(f.message for f in lowering.findings if f.code == "precision.mask")
    rows = np.array([[1, 1, 0, 0, 1, 0, 1, 1], [0] * 8, [1] * 8], np.int64)  # in part, as a whole, not at all
    inputs = {"x": normal(3, 8), "keep": rows}
    expected = run(model, inputs)["y"]
    np.testing.assert_allclose(
        run(lowering.model, inputs, model)["y"], expected, atol=2e-3 if precision == "fp16" else 2e-2
    )


@pytest.mark.parametrize("changes", [{"scale": 1e4}, {"behind": "Relu"}])
def test_a_mask_stays_where_scores_are_large_or_no_softmax_follows(changes):
    model = as_model(attention(**changes))
    lowering = half.lower(model, "fp16")
    assert "precision.mask" not in [f.code for f in lowering.findings]
    assert "least" in kept(lowering)["mask"].why
    assert lowering.model.ir.graph.initializers["least"].const_value.numpy() == np.finfo(np.float32).min
    assert {c.status for c in parity(model, lowering)} == {"pass"}


@pytest.mark.parametrize(("gain", "stays"), [(SAFETY * 65504 * 0.9, False), (SAFETY * 65504 * 1.1, True)])
def test_the_margin_is_half_of_the_largest_float16_on_the_users_data(gain, stays):
    b = Builder()
    b.op("MatMul", [b.op("Mul", ["x", b.constant("gain", gain)], "large"), b.weight("w", 4, 4)], "y")
    proto = b.model({"x": ["batch", 4]}, {"y": ["batch", 4]})
    sample = [{"x": np.array([[1, 0.5, 1e-3, 0]], np.float32)}]
    if stays:
        with pytest.raises(PrecisionRefused, match=r"its input `large` reaches 3\.6e"):
            half.lower(as_model(proto), "fp16", sample)
    else:
        assert half.lower(as_model(proto), "fp16", sample).nodes_low == 1


def test_a_sum_of_more_terms_than_the_type_counts_stays():
    b = Builder()
    total = b.op("ReduceMean", [b.linear("x", "h", 4, 4096), b.constant("axis", [1], np.int64)], "total")
    b.linear(total, "y", 1, 4)
    proto = b.model({"x": ["batch", 4]}, {"y": ["batch", 4]})
    reason = kept(half.lower(as_model(proto), "fp16"))["total"]
    assert (reason.figure, "4096 terms" in reason.why) == (4096, True)


@pytest.mark.parametrize(("scale", "word"), [(1e6, "reaches"), (1e-7, "subnormal")])
def test_weights_that_the_type_cannot_hold_stay(scale, word):
    b = Builder()
    b.op("MatMul", [b.linear("x", "h", 8, 8), b.constant("w", normal(8, 8) * scale)], "big")
    b.op("Div", ["big", b.constant("back", np.full(8, scale))], "y")
    lowering = half.lower(as_model(b.model({"x": ["batch", 8]}, {"y": ["batch", 8]})), "fp16")
    assert word in kept(lowering)["big"].why
    assert (lowering.nodes_low, lowering.nodes_total) == (1, 2)


def test_operators_that_are_not_onnxs_own_stay_and_so_does_what_shares_their_type():
    b = Builder()
    b.op("FusedMatMul", [b.linear("x", "h", 8, 8), b.weight("w", 8, 8)], "fused", domain="com.microsoft")
    b.linear(b.op("Add", ["fused", "h"], "sum"), "y", 8, 4)
    proto = b.model({"x": ["batch", 8]}, {"y": ["batch", 4]})
    proto.opset_import.append(helper.make_opsetid("com.microsoft", 1))
    model = as_model(proto)
    lowering = half.lower(model, "fp16")
    assert "not ONNX's own" in kept(lowering)["fused"].why
    assert "not known" in kept(lowering)["sum"].why
    assert {c.status for c in parity(model, lowering)} == {"pass"}


# --- options -----------------------------------------------------------------------------------------------------


def test_inputs_and_outputs_are_low_where_that_is_asked_for():
    model = as_model(vit())
    lowering = half.lower(model, "fp16", io_types=True)
    assert [t.dtype for t in (*lowering.model.signature.inputs, *lowering.model.signature.outputs)] == ["float16"] * 2
    assert not [n for n in lowering.model.ir.graph if n.op_type == "Cast"]
    assert {c.status for c in parity(model, lowering)} == {"pass"}


def test_named_nodes_stay_and_weights_that_both_sides_read_are_there_twice():
    b = Builder()
    w = b.weight("w", 8, 8)
    b.op("MatMul", [b.op("MatMul", ["x", w], "a"), w], "y")
    lowering = half.lower(as_model(b.model({"x": [2, 8]}, {"y": [2, 8]})), "fp16", keep=frozenset({"node.a"}))
    assert kept(lowering)["a"].why == "asked for"
    dtypes = {n: v.dtype.name for n, v in lowering.model.ir.graph.initializers.items()}
    assert dtypes == {"w": "FLOAT", "w_as_float16": "FLOAT16"}


def test_drawn_samples_are_said():
    model, sample = as_model(vit()), {"image": normal(1, 3, 32, 32)}
    assert [f.code for f in half.lower(model, "fp16").findings] == ["precision.drawn"]
    assert half.lower(model, "fp16", [sample]).findings == ()


def test_functions_are_inlined_and_that_is_said():
    proto = HALF_MODELS["vit"]()
    twice = helper.make_function(
        "local", "Twice", ["a"], ["b"], [helper.make_node("Add", ["a", "a"], ["b"])], [helper.make_opsetid("", 20)]
    )
    proto.functions.append(twice)
    proto.opset_import.append(helper.make_opsetid("local", 1))
    proto.graph.node[-1].output[0] = "logits.half"
    proto.graph.node.append(helper.make_node("Twice", ["logits.half"], ["logits"], "twice", domain="local"))
    model = as_model(proto)
    lowering = half.lower(model, "fp16")
    assert "precision.inlined" in [f.code for f in lowering.findings]
    assert lowering.kept == ()
    assert {c.status for c in parity(model, lowering)} == {"pass"}


def test_external_weights_stay_outside_until_they_are_saved(tmp_path, monkeypatch):
    monkeypatch.setattr(model_module, "INLINE_LIMIT", 10_000)
    as_model(vit()).save(tmp_path / "given.onnx")
    given = load(tmp_path / "given.onnx")
    lowering = half.lower(given, "fp16")
    files = lowering.model.save(tmp_path / "made.onnx")
    assert len(files) == 2
    assert files[1].stat().st_size < 0.6 * given.weight_bytes
    onnx.checker.check_model(str(files[0]))
    inputs = {"image": normal(1, 3, 32, 32)}
    np.testing.assert_allclose(run(load(files[0]), inputs)["logits"], run(given, inputs)["logits"], atol=0.02)


def test_an_older_opset_is_raised_for_bfloat16_only_where_nothing_changes_its_meaning():
    b = Builder()
    h = b.op("Conv", ["x", b.weight("k", 4, 4, 1, 1)], "conv")
    b.op("MatMul", [h, b.weight("w", 4, 4)], "y")
    proto = b.model({"x": [1, 4, 4, 4]}, {"y": [1, 4, 4, 4]})
    proto.opset_import[0].version = 18
    lowering = half.lower(as_model(proto), "bf16")
    assert (lowering.model.opset, lowering.nodes_low) == (22, 2)
    assert half.lower(as_model(proto), "fp16").model.opset == 18

    b.op("GridSample", ["y", b.constant("grid", normal(1, 2, 2, 2))], "z")  # opset 20 calls its default mode otherwise
    proto = b.model({"x": [1, 4, 4, 4]}, {"z": [1, 4, 2, 2]})
    proto.opset_import[0].version = 18
    lowering = half.lower(as_model(proto), "bf16")
    assert (lowering.model.opset, lowering.nodes_low, lowering.nodes_total) == (18, 1, 2)
    assert "opset 18" in kept(lowering)["conv"].why
    assert "precision.opset" in [f.code for f in lowering.findings]


# --- refused -----------------------------------------------------------------------------------------------------


def test_a_model_that_is_low_already_is_refused():
    once = half.lower(as_model(vit()), "fp16", io_types=True).model
    with pytest.raises(PrecisionRefused, match="in fp16 already"):
        half.lower(once, "fp16")
    with pytest.raises(PrecisionRefused, match="multiplies in float16, not in float32"):
        half.lower(once, "bf16")


def test_nothing_lowered_is_an_error_and_never_a_success():
    b = Builder()
    b.op("MatMul", ["x", b.constant("w", normal(4, 4) * 1e7)], "y")
    proto = b.model({"x": ["batch", 4]}, {"y": ["batch", 4]})
    with pytest.raises(PrecisionRefused, match="none of the 1 nodes") as caught:
        half.lower(as_model(proto), "fp16")
    assert caught.value.data["kept"][0]["op"] == "MatMul"
    b = Builder()
    b.op("Relu", ["x"], "y")
    with pytest.raises(PrecisionRefused, match="no Conv, Gemm, MatMul"):
        half.lower(as_model(b.model({"x": ["batch", 4]}, {"y": ["batch", 4]})), "fp16")


def test_a_quantised_model_is_refused():
    b = Builder()
    scale, zero = b.constant("scale", 0.1), b.constant("zero", 0, np.int8)
    q = b.op("DequantizeLinear", [b.op("QuantizeLinear", ["x", scale, zero], "q"), scale, zero], "dq")
    b.op("MatMul", [q, b.weight("w", 4, 4)], "y")
    with pytest.raises(PrecisionRefused, match="quantised"):
        half.lower(as_model(b.model({"x": ["batch", 4]}, {"y": ["batch", 4]})), "fp16")


@pytest.mark.parametrize(
    ("samples", "error", "word"),
    [
        ([], BadSample, "no sample"),
        ([{}], BadSample, "no value for x"),
        ([{"x": np.full((1, 16), np.nan, np.float32)}], BadSample, "NaN"),
        ([{"x": np.zeros((1, 16), np.int64)}], BadSample, "dtype|int64"),
        ([{"x": np.zeros((1, 15), np.float32)}], ShapeMismatch, "15"),
        ([{"x": np.zeros((1, 16), np.float32), "z": np.zeros(1, np.float32)}], UnknownName, "z"),
    ],
)
def test_samples_that_do_not_fit_are_refused(samples, error, word):
    with pytest.raises(error, match=word):
        half.lower(as_model(overflowing()), "fp16", samples)


def test_a_name_of_no_node_is_refused():
    with pytest.raises(UnknownName, match="nobody"):
        half.lower(as_model(overflowing()), "fp16", keep=frozenset({"nobody"}))


def test_the_result_is_json():
    data = half.lower(as_model(overflowing()), "fp16").to_json()
    assert data["kept"][0]["where"][0]["file"] == "net.py"
    assert (data["share"], data["share_of"], data["uncalibrated"]) == (1.0, "FLOPs", False)


def test_the_tolerance_is_that_of_outputs_in_the_type():
    for precision, dtype in (("fp16", "float16"), ("bf16", "bfloat16")):
        from graphkit.parity.compare import tolerance_for

        assert half.tolerance(precision)("float32", "float32", 3.0) == tolerance_for("float32", dtype, 3.0)
    assert half.tolerance("fp16")("int64", "int64", 3.0) == (0.0, 0.0)


def test_numpy_weights_of_a_lowered_model_are_read_as_they_were_rounded():
    lowering = half.lower(as_model(overflowing()), "fp16")
    given = {w.name: numpy_helper.to_array(w) for w in overflowing().graph.initializer}
    found = lowering.model.ir.graph.initializers["first.weight"].const_value.numpy()
    np.testing.assert_array_equal(found, given["first.weight"].astype(np.float16))
