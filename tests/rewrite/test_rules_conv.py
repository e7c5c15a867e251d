"""Constants and padding around convolutions, products and normalizations are folded into them."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
import onnx
import pytest
from onnx import numpy_helper

from tests.rewrite.support import assert_same, operators, optimised

_RNG = np.random.default_rng(7)


def _w(*shape: int) -> np.ndarray[Any, Any]:
    return _RNG.standard_normal(shape).astype(np.float32)


def _model(
    body: str, weights: Mapping[str, np.ndarray[Any, Any]], x: str = "N,4,8,8", opset: int = 18, more: str = ""
) -> onnx.ModelProto:
    head = f'<ir_version: 10, opset_import: ["": {opset}]> g (float[{x}] x) => (float[] y{more}) {{ {body} }}'
    model = onnx.parser.parse_model(head)
    model.graph.initializer.extend(numpy_helper.from_array(np.asarray(v), k) for k, v in weights.items())
    for index, node in enumerate(model.graph.node):
        node.name = f"n{index}"
    for output in model.graph.output:
        output.type.tensor_type.ClearField("shape")
    return onnx.shape_inference.infer_shapes(model)


def _bn(channels: int) -> dict[str, np.ndarray[Any, Any]]:
    return {"s": _w(channels), "b": _w(channels), "m": _w(channels), "v": np.abs(_w(channels)) + 0.1}


_BN = "BatchNormalization(c, s, b, m, v)"
_ONE = np.ones(1, np.float32)

FOLDED: dict[str, tuple[onnx.ModelProto, tuple[int, ...], dict[str, int]]] = {
    "batchnorm": (_model(f"c = Conv(x, w) y = {_BN}", {"w": _w(6, 4, 3, 3), **_bn(6)}), (2, 4, 8, 8), {"Conv": 1}),
    "grouped, with bias": (
        _model(f"c = Conv<group=2>(x, w, wb) y = {_BN}", {"w": _w(6, 2, 3, 3), "wb": _w(6), **_bn(6)}),
        (2, 4, 8, 8),
        {"Conv": 1},
    ),
    "weights in Constant nodes": (
        _model(
            "k = Constant<value_floats=[0.5, -2.0]>() e = Constant<value=float[1,1,1] {3.0}>() "
            "c = Conv(x, w) d = Mul(c, e) y = Div(d, e)",
            {"w": _w(2, 4, 1, 1)},
        ),
        (2, 4, 8, 8),
        {"Conv": 1},
    ),
    "every step, every shape": (
        _model(
            "c = Conv(x, w, wb) d = Mul(c, p) e = Add(q, d) f = Sub(e, r) h = Div(f, t) i = Sub(u, h) y = Mul(i, z)",
            {
                "w": _w(6, 4, 3, 3),
                "wb": _w(6),
                "p": _w(6, 1, 1),
                "q": _w(1, 6, 1, 1),
                "r": _w(1),
                "t": _w(6, 1, 1) + 3,
                "u": np.float32(2.5),
                "z": _w(1, 1, 1, 1),
            },
        ),
        (2, 4, 8, 8),
        {"Conv": 1},
    ),
    "ConvTranspose with groups": (
        _model(f"c = ConvTranspose<group=2>(x, w) y = {_BN}", {"w": _w(4, 3, 3, 3), **_bn(6)}),
        (2, 4, 8, 8),
        {"ConvTranspose": 1},
    ),
    "ConvTranspose, then Add": (
        _model("c = ConvTranspose(x, w) y = Add(c, q)", {"w": _w(4, 3, 3, 3), "q": _w(3, 1, 1)}),
        (2, 4, 8, 8),
        {"ConvTranspose": 1},
    ),
    "Gemm, B transposed": (
        _model(
            f"c = Gemm<transB=1, alpha=0.5, beta=2.0>(x, w, wb) y = {_BN}",
            {"w": _w(6, 4), "wb": _w(6), **_bn(6)},
            "N,4",
        ),
        (5, 4),
        {"Gemm": 1},
    ),
    "MatMul and batchnorm": (
        _model(f"c = MatMul(x, w) y = {_BN}", {"w": _w(4, 6), **_bn(6)}, "N,4"),
        (5, 4),
        {"Gemm": 1},
    ),
    "MatMul, Add, Mul of a tensor": (
        _model("c = MatMul(x, w) d = Add(c, q) y = Mul(d, p)", {"w": _w(4, 6), "q": _w(6), "p": _w(6)}, "N,S,4"),
        (2, 3, 4),
        {"MatMul": 1, "Add": 1},
    ),
    "MatMul, Div by a number": (
        _model("c = MatMul(x, w) y = Div(c, p)", {"w": _w(4, 6), "p": np.float32(8)}, "N,S,4"),
        (2, 3, 4),
        {"MatMul": 1},
    ),
    "batchnorm, then Mul and Add": (
        _model(f"c = Relu(x) d = {_BN} e = Mul(d, p) y = Add(e, q)", {**_bn(4), "p": _w(4, 1, 1), "q": _w(4, 1, 1)}),
        (2, 4, 8, 8),
        {"Relu": 1, "BatchNormalization": 1},
    ),
    "channels last behind a Transpose": (
        _model(
            "c = Conv(x, w) t = Transpose<perm=[0,2,3,1]>(c) d = Mul(t, p) y = Add(d, q)",
            {"w": _w(6, 4, 3, 3), "p": _w(6), "q": _w(1, 1, 6)},
        ),
        (2, 4, 8, 8),
        {"Conv": 1, "Transpose": 1},
    ),
    "before a convolution without padding": (
        _model(f"c = Relu(x) d = {_BN} y = Conv<group=2>(d, w)", {"w": _w(6, 2, 3, 3), **_bn(4)}),
        (2, 4, 8, 8),
        {"Relu": 1, "Conv": 1},
    ),
    "a scale before padding": (
        _model(
            "c = Mul(x, p) y = Conv<pads=[1,1,1,1]>(c, w, wb)", {"w": _w(6, 4, 3, 3), "wb": _w(6), "p": _w(4, 1, 1)}
        ),
        (2, 4, 8, 8),
        {"Conv": 1},
    ),
    "a scale before a ConvTranspose": (
        _model("c = Div(x, p) y = ConvTranspose<group=2>(c, w)", {"w": _w(4, 3, 3, 3), "p": _w(4, 1, 1) + 3}),
        (2, 4, 8, 8),
        {"ConvTranspose": 1},
    ),
    "batchnorm before a MatMul": (
        _model(f"c = Relu(x) d = {_BN} y = MatMul(d, w)", {"w": _w(4, 6), **_bn(4)}, "N,4"),
        (5, 4),
        {"Relu": 1, "Gemm": 1},
    ),
    "batchnorm before a Gemm": (
        _model(
            f"c = Relu(x) d = {_BN} y = Gemm<transB=1, alpha=0.5, beta=3.0>(d, w, wb)",
            {"w": _w(6, 4), "wb": _w(6), **_bn(4)},
            "N,4",
        ),
        (5, 4),
        {"Relu": 1, "Gemm": 1},
    ),
    "two numbers in a row": (
        _model(
            "c = Mul(x, p) d = Div(c, q) e = Sub(d, r) y = Add(e, t)", {"p": _w(1), "q": _w(1), "r": _w(8), "t": _w(1)}
        ),
        (2, 4, 8, 8),
        {"Mul": 1, "Add": 1},
    ),
    "weights shared, few bytes": (
        _model(f"c = Conv(x, w) d = {_BN} r = Relu(x) e = Conv(r, w) y = Add(d, e)", {"w": _w(6, 4, 3, 3), **_bn(6)}),
        (2, 4, 8, 8),
        {"Relu": 1, "Conv": 2, "Add": 1},
    ),
    "one number for all weights": (
        _model(
            "w = ConstantOfShape<value=float[1] {0.5}>(f) q = ConstantOfShape<value=float[1] {3.0}>(g) "
            "u = Unsqueeze(q, a) c = Conv(x, w) d = Mul(c, u) y = Add(u, d)",
            {"f": np.array([1500, 4, 8, 8]), "g": np.array([1500]), "a": np.array([1, 2])},
        ),
        (1, 4, 8, 8),
        {"ConstantOfShape": 1, "Conv": 1},
    ),
    "Pad before a convolution": (
        _model(
            "c = Pad(x, p) y = Conv<pads=[1,0,0,1]>(c, w)",
            {"w": _w(6, 4, 3, 3), "p": np.array([0, 0, 1, 2, 0, 0, 3, 0])},
        ),
        (2, 4, 8, 8),
        {"Conv": 1},
    ),
    "Pad of some axes": (
        _model(
            'c = Pad(x, p, , a) y = Conv<auto_pad="VALID">(c, w)',
            {"w": _w(6, 4, 3, 3), "p": np.array([1, 2]), "a": np.array([-1])},
        ),
        (2, 4, 8, 8),
        {"Conv": 1},
    ),
    "Pad before an average": (
        _model("c = Pad(x, p) y = AveragePool<kernel_shape=[3,3]>(c)", {"p": np.array([0, 0, 1, 1, 0, 0, 1, 2])}),
        (2, 4, 8, 8),
        {"AveragePool": 1},
    ),
    "Pad with -inf before a maximum": (
        _model(
            "c = Pad(x, p, i) y = MaxPool<kernel_shape=[3,3], strides=[2,2]>(c)",
            {"p": np.array([0, 0, 1, 1, 0, 0, 1, 1]), "i": np.float32(-np.inf)},
        ),
        (2, 4, 8, 8),
        {"MaxPool": 1},
    ),
}


@pytest.mark.parametrize("name", FOLDED)
def test_folded(name: str) -> None:
    model, shape, left = FOLDED[name]
    after, _ = optimised(model)
    assert dict(operators(after)) == left
    assert_same(model, after, {"x": _w(*shape)}, of_scale=1e-5)


KEPT: dict[str, tuple[onnx.ModelProto, tuple[int, ...]]] = {
    "a constant of more axes": (
        _model("c = Conv(x, w) y = Mul(c, p)", {"w": _w(6, 4, 3, 3), "p": _w(2, 1, 6, 1, 1)}),
        (2, 4, 8, 8),
    ),
    "one more axis of size 1": (
        _model("c = Conv(x, w) y = Mul(c, p)", {"w": _w(6, 4, 3, 3), "p": _w(1, 1, 6, 1, 1)}),
        (2, 4, 8, 8),
    ),
    "along another axis": (_model("c = Conv(x, w) y = Add(c, p)", {"w": _w(6, 4, 3, 3), "p": _w(6)}), (2, 4, 8, 8)),
    "number over result": (
        _model("c = Conv(x, w) y = Div(p, c)", {"w": _w(6, 4, 3, 3), "p": _w(6, 1, 1)}),
        (2, 4, 8, 8),
    ),
    "division by zero": (
        _model("c = Conv(x, w) y = Div(c, p)", {"w": _w(6, 4, 3, 3), "p": np.zeros((1,), np.float32)}),
        (2, 4, 8, 8),
    ),
    "the result is read elsewhere": (
        _model("c = Conv(x, w) d = Mul(c, p) y = Add(c, d)", {"w": _w(6, 4, 3, 3), "p": _w(6, 1, 1)}),
        (2, 4, 8, 8),
    ),
    "the result is an output": (
        _model("c = Conv(x, w) y = Mul(c, p)", {"w": _w(6, 4, 3, 3), "p": _w(6, 1, 1)}, more=", float[] c"),
        (2, 4, 8, 8),
    ),
    "weights made at run time": (
        _model(
            "r = Relu(w) z = ReduceMax(x) k = Mul(r, z) c = Conv(x, k) y = Mul(c, p)",
            {"w": _w(6, 4, 1, 1), "p": _w(6, 1, 1)},
        ),
        (2, 4, 8, 8),
    ),
    "a shift before padding": (
        _model("c = Add(x, p) y = Conv<pads=[1,1,1,1]>(c, w)", {"w": _w(6, 4, 3, 3), "p": _w(4, 1, 1)}),
        (2, 4, 8, 8),
    ),
    "a shift before padding as large as it takes": (
        _model('c = Add(x, p) y = Conv<auto_pad="SAME_UPPER">(c, w)', {"w": _w(6, 4, 3, 3), "p": _w(4, 1, 1)}),
        (2, 4, 8, 8),
    ),
    "a shift before a ConvTranspose": (
        _model("c = Add(x, p) y = ConvTranspose(c, w)", {"w": _w(4, 3, 3, 3), "p": _w(4, 1, 1)}),
        (2, 4, 8, 8),
    ),
    "Pad with zeros before a maximum": (
        _model("c = Pad(x, p) y = MaxPool<kernel_shape=[3,3]>(c)", {"p": np.array([0, 0, 1, 1, 0, 0, 1, 1])}),
        (2, 4, 8, 8),
    ),
    "Pad with ones": (
        _model(
            "c = Pad(x, p, i) y = Conv(c, w)",
            {"w": _w(6, 4, 3, 3), "p": np.array([0, 0, 1, 1, 0, 0, 1, 1]), "i": np.float32(1)},
        ),
        (2, 4, 8, 8),
    ),
    "Pad of the channels": (
        _model("c = Pad(x, p) y = Conv(c, w)", {"w": _w(6, 5, 3, 3), "p": np.array([0, 1, 1, 1, 0, 0, 1, 1])}),
        (2, 4, 8, 8),
    ),
    "Pad that crops": (
        _model("c = Pad(x, p) y = Conv(c, w)", {"w": _w(6, 4, 3, 3), "p": np.array([0, 0, -1, 1, 0, 0, 1, 1])}),
        (2, 4, 8, 8),
    ),
    "Pad by reflection": (
        _model(
            'c = Pad<mode="reflect">(x, p) y = Conv(c, w)',
            {"w": _w(6, 4, 3, 3), "p": np.array([0, 0, 1, 1, 0, 0, 1, 1])},
        ),
        (2, 4, 8, 8),
    ),
    "Pad before an average that rounds up": (
        _model(
            "c = Pad(x, p) y = AveragePool<kernel_shape=[3,3], strides=[2,2], ceil_mode=1>(c)",
            {"p": np.array([0, 0, 1, 1, 0, 0, 1, 2])},
        ),
        (2, 4, 8, 8),
    ),
    "Pad before an average that leaves its own padding out": (
        _model(
            "c = Pad(x, p) y = AveragePool<kernel_shape=[3,3], pads=[1,1,1,1]>(c)",
            {"p": np.array([0, 0, 1, 1, 0, 0, 1, 1])},
        ),
        (2, 4, 8, 8),
    ),
    "Pad as large as the window": (
        _model("c = Pad(x, p) y = AveragePool<kernel_shape=[3,3]>(c)", {"p": np.array([0, 0, 3, 0, 0, 0, 0, 0])}),
        (2, 4, 8, 8),
    ),
    "numbers whose product vanishes": (
        _model("c = Mul(x, p) y = Mul(c, p)", {"p": np.float32(1e-25)}),
        (2, 4, 8, 8),
    ),
    "constants that are larger together": (
        _model("c = Mul(x, p) y = Mul(c, q)", {"p": _w(4, 1, 1), "q": _w(8)}),
        (2, 4, 8, 8),
    ),
    "batchnorm over another axis than the product's": (
        _model(f"c = MatMul(x, w) y = {_BN}", {"w": _w(4, 6), **_bn(3)}, "N,3,4"),
        (2, 3, 4),
    ),
}


@pytest.mark.parametrize("name", KEPT)
def test_kept(name: str) -> None:
    model, shape = KEPT[name]
    after, _ = optimised(model, only=("convolution",))
    assert operators(after) == operators(model)
    assert_same(model, after, {"x": _w(*shape)}, of_scale=1e-6)  # another opset is another kernel


def test_shared_weights_are_not_copied_beyond_the_growth_allowed() -> None:
    model = FOLDED["weights shared, few bytes"][0]
    after, changes = optimised(model, growth=100)
    assert operators(after)["BatchNormalization"] == 1
    assert any("grow" in miss.why for miss in changes.missed)


def test_integers_are_left_alone() -> None:
    model = onnx.parser.parse_model(
        '<ir_version: 10, opset_import: ["": 18]> g (int64[N,4] x) => (int64[N,4] y) '
        "{ c = Mul(x, p) d = Mul(c, p) e = MatMul(d, w) y = Mul(e, p) }"
    )
    model.graph.initializer.append(numpy_helper.from_array(np.int64(3), "p"))
    model.graph.initializer.append(numpy_helper.from_array(np.eye(4, dtype=np.int64), "w"))
    after, _ = optimised(model, only=("convolution",))
    assert operators(after) == operators(model)


def test_half_precision_weights_that_would_overflow_stay() -> None:
    model = onnx.parser.parse_model(
        '<ir_version: 10, opset_import: ["": 18]> g (float16[N,4,8,8] x) => (float16[N,6,8,8] y) '
        "{ c = Conv(x, w) y = Mul(c, p) }"
    )
    model.graph.initializer.append(numpy_helper.from_array(np.full((6, 4, 1, 1), 6e4, np.float16), "w"))
    model.graph.initializer.append(numpy_helper.from_array(np.full((6, 1, 1), 8, np.float16), "p"))
    after, changes = optimised(model)
    assert operators(after) == operators(model)
    assert any("does not fit" in miss.why for miss in changes.missed)


def test_quantised_weights_are_not_scaled_but_the_bias_is_taken_up() -> None:
    weights = {"w": _RNG.integers(-9, 9, (6, 4, 3, 3)).astype(np.int8), "k": np.float32(0.1), "q": _w(6, 1, 1)}
    scaled = _model("d = DequantizeLinear(w, k) c = Conv(x, d) y = Mul(c, q)", weights)
    after, _ = optimised(scaled)
    assert operators(after) == operators(scaled)
    shifted = _model("d = DequantizeLinear(w, k) c = Conv(x, d) y = Add(c, q)", weights)
    after, _ = optimised(shifted)
    assert dict(operators(after)) == {"DequantizeLinear": 1, "Conv": 1}
    assert_same(shifted, after, {"x": _w(2, 4, 8, 8)}, of_scale=1e-5)
