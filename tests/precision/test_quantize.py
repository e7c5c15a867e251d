"""int8 and fp8: what is quantised, where pairs stand, and that the numbers are those of onnxruntime.quantization."""

from __future__ import annotations

import numpy as np
import onnx
import onnx_ir as ir
import pytest
from onnx import TensorProto, helper, numpy_helper

from fixtures.precision_models import QUANT_MODELS, control_flow, residual, vit
from graphkit.errors import BadOption, PrecisionRefused, UnknownName
from graphkit.model import load, provenance
from graphkit.precision import quantize
from tests.precision.quantised import cosine, model, operators, outputs, producer, samples, text


@pytest.fixture(scope="module")
def calibrated():
    """Each model calibrated once for each precision; lowering again is cheap."""
    found = {}
    for name, make in QUANT_MODELS.items():
        source = model(make())
        for kind in ("int8", "fp8"):
            found[name, kind] = quantize.prepare(source, kind, samples(source))
    return found


def lower(source, precision, block=None):
    """With the options that the precision takes."""
    if precision == "int4":
        return quantize.lower(source, precision, block=block)
    return quantize.lower(source, precision, uncalibrated=True)


@pytest.mark.parametrize("kind", ["int8", "fp8"])
@pytest.mark.parametrize("name", QUANT_MODELS)
def test_every_layer_with_a_weight_is_quantised_on_both_sides(calibrated, name, kind):
    lowered = calibrated[name, kind].lower()
    onnx.checker.check_model(lowered.model.to_proto(), full_check=True)
    dtype = ir.DataType.INT8 if kind == "int8" else ir.DataType.FLOAT8E4M3FN
    low = 0
    for node in lowered.model.ir.graph:
        if node.op_type in ("Conv", "ConvTranspose", "Gemm", "MatMul"):
            makers = [value.producer() for value in node.inputs[:2]]
            if all(m is not None and m.op_type == "DequantizeLinear" for m in makers):
                low += 1
                assert {m.inputs[0].dtype for m in makers} == {dtype}
            else:
                assert node.name in {k.node for k in lowered.kept}
    assert lowered.nodes_low == low > 0
    assert lowered.nodes_total == low + len(lowered.kept)
    assert 0 < lowered.share <= 1
    assert (lowered.share == 1) == (not lowered.kept)


@pytest.mark.parametrize(("kind", "least"), [("int8", 0.999), ("fp8", 0.99)])
@pytest.mark.parametrize("name", QUANT_MODELS)
def test_it_computes_nearly_the_same_on_other_inputs(calibrated, name, kind, least):
    done = calibrated[name, kind]
    sample = samples(done.model, 9)[8]
    before, after = outputs(done.model, sample), outputs(done.lower().model, sample)
    for key, value in before.items():
        assert after[key].dtype == np.float32
        assert cosine(value.reshape(1, -1), after[key].reshape(1, -1))[0] > least
        assert not np.array_equal(value, after[key])


def test_scales_and_weights_are_those_of_onnxruntimes_quantiser(tmp_path):
    from onnxruntime.quantization import CalibrationDataReader, QuantFormat, QuantType, quantize_static

    source = model(residual())
    data = samples(source)
    path, made = tmp_path / "m.onnx", tmp_path / "q.onnx"
    source.save(path)

    class Reader(CalibrationDataReader):
        rows = iter(data)

        def get_next(self):
            return next(self.rows, None)

    options = {"ActivationSymmetric": True, "WeightSymmetric": True, "QuantizeBias": False}
    quantize_static(
        path, made, Reader(), quant_format=QuantFormat.QDQ, per_channel=True, activation_type=QuantType.QInt8,
        weight_type=QuantType.QInt8, op_types_to_quantize=["Conv", "Gemm"], extra_options=options,
    )  # fmt: skip
    theirs = {t.name: numpy_helper.to_array(t) for t in onnx.load(made).graph.initializer}
    lowered = quantize.lower(source, "int8", data).model
    ours = {n: v.const_value.numpy() for n, v in lowered.ir.graph.initializers.items()}
    weights = [n for n in ours if n.endswith("_quantized") and n in theirs]
    scales = [n for n in ours if n.endswith("_scale") and n in theirs]
    assert len(weights) == 9
    assert len(scales) >= 9 + 5
    for name in weights:
        np.testing.assert_array_equal(ours[name], theirs[name].reshape(ours[name].shape), err_msg=name)
    shared = {"x", "one.out", "pool"}  # a group of ours: theirs has one scale for each
    for name in scales:
        if name.removesuffix("_scale") not in shared:
            np.testing.assert_allclose(ours[name], theirs[name].reshape(ours[name].shape), rtol=1e-6, err_msg=name)


# --- placement ---------------------------------------------------------------------------------------------------


def test_a_bias_stays_float_and_weights_have_a_scale_per_channel(calibrated):
    lowered = calibrated["residual", "int8"].lower().model
    stem = next(n for n in lowered.ir.graph if n.name == "node.stem")
    assert stem.inputs[2].name == "stem.bias"
    assert stem.inputs[2].const_value.dtype == ir.DataType.FLOAT
    weight = producer(lowered, "stem", 1)
    assert weight.attributes.get_int("axis") == 0
    assert weight.inputs[1].const_value.shape == (8,)
    assert "stem.kernel" not in lowered.ir.graph.initializers


def test_a_shortcut_is_quantised_and_the_convolution_that_it_is_added_to_is_not(calibrated):
    lowered = calibrated["residual", "int8"].lower().model
    for block in ("one", "two"):
        sides = [producer(lowered, f"{block}.sum", slot) for slot in (0, 1)]
        assert [s.op_type for s in sides] == ["Conv", "DequantizeLinear"]
    assert producer(lowered, "two.sum", 1).inputs[0].producer().inputs[0].name == "two.shortcut"
    # What comes after the last sum is not quantised but by the pooled Gemm, so that its shortcut would gain nothing.
    assert producer(lowered, "three.sum", 1).op_type == "Relu"


def test_a_tensor_has_one_pair_for_all_its_readers(calibrated):
    lowered = calibrated["residual", "int8"].lower().model
    counts = operators(lowered)
    pairs = counts["QuantizeLinear"]
    assert counts["DequantizeLinear"] == pairs + 9  # one for each weight
    quantised = [n.inputs[0].name for n in lowered.ir.graph if n.op_type == "QuantizeLinear"]
    assert sorted(quantised) == sorted(
        ["x", "pool", "one.relu", "one.out", "two.relu", "two.shortcut", "two.out", "three.relu", "flat"]
    )


def test_both_sides_of_a_concatenation_share_a_scale(calibrated):
    lowered = calibrated["branched", "int8"].lower().model
    weights = lowered.ir.graph.initializers
    scale = {n: float(weights[f"{n}_scale"].const_value.numpy()) for n in ("small.scaled", "turned", "x")}
    assert scale["small.scaled"] == scale["turned"] != scale["x"]


def test_what_is_not_quantisable_reads_the_float_tensor(calibrated):
    lowered = calibrated["branched", "int8"].lower().model
    gate = next(n for n in lowered.ir.graph if n.name == "node.gate")
    assert gate.inputs[0].name == "x"


def test_a_transposed_convolution_in_groups_has_one_scale(calibrated):
    lowered = calibrated["branched", "int8"].lower().model
    assert producer(lowered, "y", 1).inputs[1].const_value.shape == ()
    assert producer(lowered, "up", 1).attributes.get_int("axis") == 1


@pytest.mark.parametrize("precision", ["int8", "fp8", "int4"])
def test_a_weight_with_a_leading_one_is_a_matrix(precision):
    weight = np.random.default_rng(0).standard_normal((1, 32, 4)).astype(np.float32)
    source = text("g (float[2, 5, 32] x) => (float[2, 5, 4] y) { y = MatMul(x, w) }", w=weight)
    lowered = lower(source, precision)
    onnx.checker.check_model(lowered.model.to_proto(), full_check=True)
    assert lowered.share == 1
    sample = samples(source, 6)[5]
    a, b = (outputs(m, sample)["y"].reshape(1, -1) for m in (source, lowered.model))
    assert 0.98 < cosine(a, b)[0] < 1
    several = text("g (float[2, 5, 32] x) => (float[2, 5, 4] y) { y = MatMul(x, w) }", w=np.tile(weight, (2, 1, 1)))
    with pytest.raises(PrecisionRefused) as raised:
        lower(several, precision)
    assert "its weight [2, 32, 4] is no matrix" in raised.value.details[0]


# --- outlier channels --------------------------------------------------------------------------------------------


@pytest.mark.parametrize("opset", [17, 20])
def test_outlier_channels_move_into_the_weights(opset):
    rng = np.random.default_rng(0)
    weight = (rng.standard_normal((16, 4)) / 4).astype(np.float32)
    weight[0] /= 1000
    source = text("g (float[batch, 16] x) => (float[batch, 4] y) { y = MatMul(x, w) }", opset, w=weight)
    rows = [{"x": rng.standard_normal((8, 16)).astype(np.float32)} for _ in range(3)]
    for row in rows:
        row["x"][:, 0] *= 1000
    wanted = outputs(source, rows[0])["y"]
    found = {}
    for method in ("minmax", "percentile"):
        lowered = quantize.lower(source, "int8", rows[1:], method=method)
        found[method] = np.linalg.norm(outputs(lowered.model, rows[0])["y"] - wanted) / np.linalg.norm(wanted)
        assert operators(lowered.model)["Mul"] == (method == "minmax")
        onnx.checker.check_model(lowered.model.to_proto(), full_check=True)
    assert found["minmax"] < 0.06
    assert found["percentile"] > 4 * found["minmax"]


SHIFTED = {
    "a graph output": "y = MatMul(x, w)",
    "a bias behind it": "h = MatMul(x, w) y = Add(h, b)",
    "a bias in it": "y = Gemm(x, w, b)",
    "a scaled bias": "y = Gemm <beta = 2.0> (x, w, b)",
    "a transposed weight": "y = Gemm <transB = 1> (x, t, b)",
}


@pytest.mark.parametrize("body", SHIFTED.values(), ids=SHIFTED)
def test_values_on_one_side_of_zero_use_the_whole_range(body):
    rng = np.random.default_rng(0)
    weight = rng.choice([-1, 1], (16, 4)).astype(np.float32)  # exact in int8
    bias = rng.standard_normal(4).astype(np.float32)
    given = {"w": weight, "t": np.ascontiguousarray(weight.T), "b": bias}
    given = {name: value for name, value in given.items() if f"{name})" in body or f" {name}," in body}
    source = text(f"g (float[batch, 16] x) => (float[batch, 4] y) {{ {body} }}", 20, **given)
    rows = [{"x": rng.uniform(-0.1, 8, (64, 16)).astype(np.float32)} for _ in range(5)]
    wanted = outputs(source, rows[0])["y"]
    lowered = quantize.lower(source, "int8", rows[1:]).model
    onnx.checker.check_model(lowered.to_proto(), full_check=True)
    assert operators(lowered)["Sub"] == 1
    assert operators(lowered)["Add"] == (body == SHIFTED["a bias behind it"] or "b)" not in body or "beta" in body)
    assert [v.name for v in lowered.ir.graph.outputs] == ["y"]
    assert float(np.abs(lowered.ir.graph.initializers["x_shift"].const_value.numpy() - 3.95).max()) < 0.2
    error = np.linalg.norm(outputs(lowered, rows[0])["y"] - wanted) / np.linalg.norm(wanted)
    assert error < 0.005


def test_a_channel_that_was_quiet_in_half_of_the_samples_is_not_given_a_range_of_its_own():
    rng = np.random.default_rng(0)
    weight = np.eye(16, dtype=np.float32)
    source = text("g (float[batch, 16] x) => (float[batch, 16] y) { y = MatMul(x, w) }", w=weight)
    rows = [{"x": rng.standard_normal((32, 16)).astype(np.float32)} for _ in range(4)]
    for row in rows[::2]:
        row["x"][:, 3] /= 1000
    lowered = quantize.lower(source, "int8", rows).model
    found = outputs(lowered, rows[1])["y"][:, 3]
    np.testing.assert_allclose(found, rows[1]["x"][:, 3], atol=0.04)


# --- what is kept ------------------------------------------------------------------------------------------------


def test_names_origin_signature_and_source_lines_are_kept(calibrated):
    done = calibrated["residual", "int8"]
    lowered = done.lower().model
    assert lowered.signature == done.model.signature
    assert lowered.origin.steps == ("int8 (minmax, 4 samples)",)
    names = [n.name for n in lowered.ir.graph]
    assert len(set(names)) == len(names)
    assert {n.name for n in done.model.ir.graph} <= set(names)
    for node in lowered.ir.graph:
        assert provenance(node), node.name
    assert [str(line) for line in provenance(producer(lowered, "stem", 1))] == ["net.py:1 (module `net.node.stem`)"]
    assert operators(done.model)["QuantizeLinear"] == 0  # the source is untouched


def test_a_kept_layer_stays_and_the_share_falls(calibrated):
    done = calibrated["residual", "int8"]
    every = done.lower()
    lowered = done.lower(frozenset({"node.stem", "node.logits"}))
    assert [k.node for k in lowered.kept] == ["node.stem", "node.logits"]
    assert lowered.kept[0].why == "it was asked to stay in float32"
    assert lowered.nodes_low == every.nodes_low - 2
    assert lowered.share < every.share == 1
    assert producer(lowered.model, "stem", 0) is None


def test_with_any_one_layer_kept_the_model_is_valid(calibrated):
    for name in ("residual", "branched"):
        done = calibrated[name, "int8"]
        for each in done.found:
            lowered = done.lower(frozenset({each.name}))
            onnx.checker.check_model(lowered.model.to_proto(), full_check=True)
            assert lowered.nodes_low == len(done.found) - 1


def test_bodies_of_control_flow_stay_float_and_say_so():
    source = model(control_flow())
    lowered = quantize.lower(source, "int8", uncalibrated=True)
    assert {k.node: k.why for k in lowered.kept} == {
        "node.turned": "it is inside the body of an If, Loop or Scan",
        "node.m": "it is inside the body of an If, Loop or Scan",
    }
    onnx.checker.check_model(lowered.model.to_proto(), full_check=True)


def test_an_old_operator_set_is_lifted_and_said(tmp_path):
    proto = residual()
    del proto.opset_import[:]
    proto.opset_import.append(helper.make_opsetid("", 12))
    proto.ir_version = 3
    proto.graph.input.extend(
        helper.make_tensor_value_info(t.name, TensorProto.FLOAT, t.dims) for t in proto.graph.initializer
    )
    onnx.save(proto, tmp_path / "old.onnx")
    source = load(tmp_path / "old.onnx")
    lowered = quantize.lower(source, "int8", uncalibrated=True)
    assert lowered.model.opset == 13
    assert lowered.model.origin.steps[0] == "operator set 12 to 13"
    assert lowered.model.signature == source.signature
    assert lowered.share == 1


def test_weights_in_an_external_file_are_quantised(tmp_path):
    onnx.save(residual(), tmp_path / "m.onnx", save_as_external_data=True, location="m.data", size_threshold=0)
    lowered = quantize.lower(load(tmp_path / "m.onnx"), "int8", uncalibrated=True)
    assert lowered.share == 1


# --- refusals ----------------------------------------------------------------------------------------------------


def test_without_data_the_scales_would_be_guesses():
    source = model(residual())
    with pytest.raises(BadOption, match="would be a guess"):
        quantize.lower(source, "int8")
    lowered = quantize.lower(source, "int8", uncalibrated=True)
    assert lowered.uncalibrated
    assert "guesses" in lowered.findings[0].message
    with pytest.raises(BadOption, match="contradict"):
        quantize.lower(source, "int8", samples(source), uncalibrated=True)


@pytest.mark.parametrize("precision", ["int8", "fp8", "int4"])
def test_a_quantised_model_is_refused(calibrated, precision):
    with pytest.raises(PrecisionRefused, match="quantised already: it has QuantizeLinear") as raised:
        lower(calibrated["vit", "int8"].lower().model, precision)
    assert raised.value.where.startswith("net.py:")


@pytest.mark.parametrize("precision", ["int8", "fp8", "int4"])
def test_nothing_to_quantise_is_a_refusal_with_reasons(precision):
    two = text("g (float[2, 2] x) => (float[2, 2] y) { y = MatMul(x, x) }")
    with pytest.raises(PrecisionRefused, match=f"no layer of the model can run in {precision}") as raised:
        lower(two, precision)
    assert "its weight is no constant" in raised.value.details[0]
    none = text("g (float[2] x) => (float[2] y) { y = Relu(x) }")
    with pytest.raises(PrecisionRefused) as raised:
        lower(none, precision)
    assert raised.value.remedy == "it has no Conv, Gemm or MatMul"


def test_keeping_everything_is_a_refusal(calibrated):
    done = calibrated["residual", "int8"]
    with pytest.raises(PrecisionRefused, match="no layer"):
        done.lower(frozenset(c.name for c in done.found))


def test_bad_requests_name_what_is_wrong(calibrated):
    source = model(vit())
    with pytest.raises(UnknownName, match=r"`node\.nowhere`"):
        calibrated["vit", "int8"].lower(frozenset({"node.nowhere"}))
    with pytest.raises(BadOption, match="entropy"):
        quantize.lower(source, "fp8", samples(source), method="entropy")
    with pytest.raises(BadOption, match="no calibration method 'best'"):
        quantize.lower(source, "int8", samples(source), method="best")
    with pytest.raises(BadOption, match="calibrates nothing"):
        quantize.lower(source, "int4", samples(source))
    with pytest.raises(BadOption, match="not for each block"):
        quantize.lower(source, "int8", samples(source), block=32)
    with pytest.raises(BadOption, match="'int2'"):
        quantize.lower(source, "int2", samples(source))


@pytest.mark.parametrize("precision", ["int8", "int4"])
def test_a_weight_that_is_not_finite_is_refused(precision):
    weight = np.zeros((16, 2), np.float32)
    weight[3, 1] = np.nan
    broken = text(
        "g (float[1, 16] x) => (float[1, 2] z) { y = MatMul(x, w) z = Constant <value = float[1, 2] {0, 0}> ()}",
        w=weight,
    )
    with pytest.raises(PrecisionRefused, match="`w` of `y` holds NaN or infinity"):
        lower(broken, precision, block=16)
