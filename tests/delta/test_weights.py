"""How weights are related: by their values, whatever they are called."""

import ml_dtypes
import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper, numpy_helper

import graphkit as gk
from tests.delta.models import diff, edited, layers, model, set_weight, weight


def one(values, op="MatMul"):
    return model([helper.make_node(op, ["x", "w"], ["y"])], [numpy_helper.from_array(values, "w")])


def related(before, after, tmp_path):
    (change,) = diff(one(before), one(after), tmp_path).graphs[0].weights
    return change


@pytest.fixture
def values():
    return np.random.default_rng(0).standard_normal((16, 16)).astype(np.float32)


def test_a_cast_weight(values, tmp_path):
    change = related(values, values.astype(np.float16), tmp_path)
    assert (change.kind, change.type_a, change.type_b) == ("cast", "float32[16,16]", "float16[16,16]")
    assert change.max_abs == pytest.approx(np.abs(values - values.astype(np.float16)).max(), rel=1e-6)
    assert related(values, values.astype(ml_dtypes.bfloat16), tmp_path).kind == "cast"


def test_a_transposed_weight(values, tmp_path):
    assert related(values, np.ascontiguousarray(values.T), tmp_path).kind == "transposed"
    wide = np.ascontiguousarray(values[:4])
    assert related(wide, np.ascontiguousarray(wide.T), tmp_path).kind == "transposed"


def test_a_weight_that_a_normalisation_was_folded_into_is_scaled(values, tmp_path):
    factors = np.linspace(0.5, 2, 16, dtype=np.float32)
    assert related(values, values * factors, tmp_path).kind == "scaled"
    assert related(values, values * factors[:, None], tmp_path).kind == "scaled"
    assert related(values, values * np.float32(3), tmp_path).kind == "scaled"


def test_a_retrained_weight_is_measured(values, tmp_path):
    after = values.copy()
    after[3, 4] += np.float32(0.5)
    change = related(values, after, tmp_path)
    assert change.kind == "changed"
    assert change.max_abs == pytest.approx(0.5, rel=1e-6)
    assert change.max_rel == pytest.approx(0.5 / np.abs(values).max(), rel=1e-6)
    flat = values.astype(np.float64).ravel(), after.astype(np.float64).ravel()
    assert change.cosine == pytest.approx(flat[0] @ flat[1] / np.linalg.norm(flat[0]) / np.linalg.norm(flat[1]))
    assert change.share == 1 / 256


def test_nan_and_infinity_make_no_figure(values, tmp_path):
    after = values.copy()
    after[0, 0] = np.inf
    change = related(values, after, tmp_path)
    assert (change.kind, change.max_abs, change.cosine) == ("changed", None, None)


@pytest.mark.parametrize("per_channel", [False, True])
def test_a_weight_behind_a_dequantize_linear_is_quantised(per_channel, values, tmp_path):
    scale = (np.abs(values).max(axis=0) if per_channel else np.abs(values).max()) / np.float32(127)
    quantised = np.clip(np.round(values / scale), -127, 127).astype(np.int8)
    scale = np.asarray(scale, np.float32)
    nodes = [
        helper.make_node("DequantizeLinear", ["q", "s"], ["w"], axis=1),
        helper.make_node("MatMul", ["x", "w"], ["y"]),
    ]
    weights = [numpy_helper.from_array(quantised, "q"), numpy_helper.from_array(scale, "s")]
    delta = diff(one(values), model(nodes, weights), tmp_path)
    (change,) = delta.graphs[0].weights
    assert (change.kind, change.type_b) == ("quantised", "int8[16,16]")
    assert change.max_abs <= 0.51 * scale.max()
    assert [hunk.added for hunk in delta.graphs[0].hunks] == [(0,)]
    broken = [numpy_helper.from_array(-quantised, "q"), weights[1]]
    assert diff(one(values), model(nodes, broken), tmp_path).graphs[0].weights[0].kind == "changed"


def test_weights_of_replaced_nodes_are_found_again_by_content(tmp_path):
    first = layers(1)
    kept, values = (numpy_helper.to_array(weight(first.graph, name)) for name in ("b0", "w0"))
    weights = [numpy_helper.from_array(np.ascontiguousarray(values.T), "v"), numpy_helper.from_array(kept, "c")]
    nodes = [
        helper.make_node("Gemm", ["x", "v", "c"], ["g"], transB=1),
        helper.make_node("Relu", ["g"], ["h"]),
        helper.make_node("Add", ["x", "h"], ["y"]),
    ]
    second = model(nodes, weights)
    (hunk,) = diff(first, second, tmp_path).graphs[0].hunks
    assert (hunk.removed, hunk.added) == ((0, 1), (0,))
    assert dict(hunk.weights) == {"identical": 1, "transposed": 1}


def test_missing_external_data_leaves_the_weights_unknown(tmp_path):
    onnx.save(layers(), tmp_path / "a.onnx")
    onnx.save(layers(), tmp_path / "b.onnx", save_as_external_data=True, size_threshold=0, location="b.bin")
    assert gk.diff(tmp_path / "a.onnx", tmp_path / "b.onnx").empty
    (tmp_path / "b.bin").unlink()
    delta = gk.diff(tmp_path / "a.onnx", tmp_path / "b.onnx")
    assert len(delta.graphs[0].pairs) == 12
    assert {change.kind for change in delta.graphs[0].weights} == {"unknown"}
    assert set(delta.unread) == {"w0", "b0", "w1", "b1", "w2", "b2"}
    assert gk.diff(tmp_path / "b.onnx", tmp_path / "b.onnx").graphs[0].hunks == ()


def test_half_precision_everywhere_is_all_casts(tmp_path):
    def halved(graph):
        for each in list(graph.initializer):
            set_weight(graph, each.name, numpy_helper.to_array(each).astype(np.float16))

    delta = diff(layers(8), edited(layers(8), halved), tmp_path)
    assert delta.graphs[0].hunks == ()
    assert {change.kind for change in delta.graphs[0].weights} == {"cast"}
    assert len(delta.graphs[0].weights) == 16


def test_a_weight_given_by_another_field_is_the_same(tmp_path):
    def typed(graph):
        each = weight(graph, "w1")
        array = numpy_helper.to_array(each)
        each.CopyFrom(helper.make_tensor("w1", TensorProto.FLOAT, array.shape, array.ravel()))

    assert diff(layers(), edited(layers(), typed), tmp_path).empty


def test_nothing_is_measured_unless_asked(values, tmp_path):
    delta = diff(one(values), one(values + 1), tmp_path, weights=False)
    assert [change.kind for change in delta.graphs[0].weights] == ["not measured"]
