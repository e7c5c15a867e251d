"""Weights are quantised beforehand exactly as QuantizeLinear does it, and Q/DQ pairs stay."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
import onnx
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from onnx import numpy_helper

from tests.rewrite.support import assert_same, operators, optimised, run

_RNG = np.random.default_rng(9)


def _w(*shape: int) -> np.ndarray[Any, Any]:
    return _RNG.standard_normal(shape).astype(np.float32)


def _model(body: str, weights: Mapping[str, np.ndarray[Any, Any]], y: str = "float") -> onnx.ModelProto:
    model = onnx.parser.parse_model(
        f'<ir_version: 10, opset_import: ["": 21]> g (float[N,4,8,8] x) => ({y}[] y) {{ {body} }}'
    )
    model.graph.initializer.extend(numpy_helper.from_array(np.asarray(v), k) for k, v in weights.items())
    model.graph.output[0].type.tensor_type.ClearField("shape")
    for index, node in enumerate(model.graph.node):
        node.name = f"n{index}"
    return onnx.shape_inference.infer_shapes(model)


_SCALES = np.abs(_w(6)) / 20 + 0.01


@pytest.mark.parametrize(
    ("attributes", "scale", "zero"),
    [
        ("<axis=0>", _SCALES, np.zeros(6, np.int8)),
        ("<axis=-4>", _SCALES, _RNG.integers(0, 255, 6).astype(np.uint8)),
        ("", np.float32(0.013), np.int8(5)),
        ("", np.float32(0.013), np.uint8(128)),
        ("", np.float32(0.0001), np.int16(-7)),
    ],
)
def test_weights_become_integers(attributes: str, scale: np.ndarray[Any, Any], zero: np.ndarray[Any, Any]) -> None:
    model = _model(
        f"q = QuantizeLinear{attributes}(w, k, z) d = DequantizeLinear{attributes}(q, k, z) y = Conv(x, d)",
        {"w": _w(6, 4, 3, 3), "k": scale, "z": zero},
    )
    after, _ = optimised(model)
    assert dict(operators(after)) == {"DequantizeLinear": 1, "Conv": 1}
    assert_same(model, after, {"x": _w(2, 4, 8, 8)})


@settings(max_examples=25, deadline=None)
@given(
    st.lists(st.floats(-1e4, 1e4, width=32), min_size=1, max_size=40),
    st.floats(2.0**-10, 100, width=32),
    st.integers(-128, 127),
)
def test_the_rounding_is_that_of_the_runtime(numbers: list[float], scale: float, zero: int) -> None:
    model = _model(
        "q = QuantizeLinear(w, k, z) d = DequantizeLinear(q, k, z) r = ReduceMax<keepdims=0>(x) y = Add(d, r)",
        {"w": np.asarray(numbers, np.float32), "k": np.float32(scale), "z": np.int8(zero)},
    )
    after, _ = optimised(model, only=("quantise-weights",))
    assert operators(after)["QuantizeLinear"] == 0
    feeds = {"x": np.zeros((1, 4, 8, 8), np.float32)}
    np.testing.assert_array_equal(run(after, feeds)[0], run(model, feeds)[0])


def test_activations_and_biases_stay_as_they_are() -> None:
    weights = {
        "w": _RNG.integers(-9, 9, (6, 4, 3, 3)).astype(np.int8),
        "b": _RNG.integers(-9, 9, 6).astype(np.int32),
        "k": np.float32(0.1),
        "z": np.int8(0),
        "j": np.float32(0.01),
    }
    model = _model(
        "p = QuantizeLinear(x, k, z) q = DequantizeLinear(p, k, z) d = DequantizeLinear(w, k, z) "
        "e = DequantizeLinear(b, j) y = Conv(q, d, e)",
        weights,
    )
    after, _ = optimised(model)
    assert operators(after) == operators(model)


def test_batchnorm_behind_a_quantised_convolution_stays() -> None:
    weights = {"w": _w(6, 4, 3, 3), "k": np.float32(0.02), "z": np.int8(0)}
    weights |= {"s": _w(6), "b": _w(6), "m": _w(6), "v": np.abs(_w(6)) + 0.1}
    model = _model(
        "p = QuantizeLinear(x, k, z) q = DequantizeLinear(p, k, z) r = QuantizeLinear(w, k, z) "
        "d = DequantizeLinear(r, k, z) c = Conv(q, d) y = BatchNormalization(c, s, b, m, v)",
        weights,
    )
    after, _ = optimised(model)
    assert dict(operators(after)) == {
        "QuantizeLinear": 1,
        "DequantizeLinear": 2,
        "Conv": 1,
        "BatchNormalization": 1,
    }
    assert_same(model, after, {"x": _w(2, 4, 8, 8)})


@pytest.mark.parametrize(
    ("body", "weights"),
    [
        (
            "q = QuantizeLinear<block_size=2, axis=1>(w, k) d = DequantizeLinear<block_size=2, axis=1>(q, k) "
            "y = Conv(x, d)",
            {"w": _w(6, 4, 1, 1), "k": np.abs(_w(6, 2, 1, 1)) + 0.1},
        ),
        (
            "q = QuantizeLinear(w, k) d = DequantizeLinear(q, k) y = Conv(x, d)",
            {"w": np.full((6, 4, 1, 1), np.nan, np.float32), "k": np.float32(0.1)},
        ),
        (
            "m = ReduceMax<keepdims=0>(x) q = QuantizeLinear(w, m) d = DequantizeLinear(q, m) y = Conv(x, d)",
            {"w": _w(6, 4, 1, 1)},
        ),
    ],
)
def test_left_alone(body: str, weights: Mapping[str, np.ndarray[Any, Any]]) -> None:
    model = _model(body, weights)
    after, _ = optimised(model)
    assert operators(after) == operators(model)
