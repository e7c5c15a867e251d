"""Normalisations written as arithmetic become operators; scale, bias and casts go into them."""

from __future__ import annotations

from typing import Any

import numpy as np
import onnx
import pytest

from tests.rewrite.support import assert_same, operators, optimised

CENTRED = "m = ReduceMean(x, last) d = Sub(x, m)"
POW = f"{CENTRED} q = Pow(d, two) v = ReduceMean(q, last) e = Add(v, eps)"
SCALED = "w = Mul(z, scale) y = Add(w, bias)"

LAYER = {
    "Pow, Div": f"{POW} r = Sqrt(e) z = Div(d, r) {SCALED}",
    "d d": f"{CENTRED} q = Mul(d, d) v = ReduceMean(q, last) e = Add(eps, v) r = Sqrt(e) z = Div(d, r) {SCALED}",
    "difference twice": (
        f"{CENTRED} d2 = Sub(x, m) q = Pow(d2, two) v = ReduceMean(q, last) e = Add(v, eps) r = Sqrt(e) z = Div(d, r) "
        f"{SCALED}"
    ),
    "Reciprocal": f"{POW} r = Sqrt(e) i = Reciprocal(r) z = Mul(d, i) {SCALED}",
    "1 / sqrt": f"{POW} r = Sqrt(e) i = Div(one, r) z = Mul(i, d) {SCALED}",
    "Pow -0.5": f"{POW} i = Pow(e, minus) z = Mul(d, i) {SCALED}",
    "no bias": f"{POW} r = Sqrt(e) z = Div(d, r) y = Mul(scale, z)",
    "neither": f"{POW} r = Sqrt(e) y = Div(d, r)",
    "only bias": f"{POW} r = Sqrt(e) z = Div(d, r) y = Add(bias, z)",
}
RMS = {
    "HF": "q = Pow(x, two) v = ReduceMean(q, last) e = Add(v, eps) r = Sqrt(e) i = Reciprocal(r) z = Mul(x, i) "
    "y = Mul(scale, z)",
    "x x, Div": "q = Mul(x, x) v = ReduceMean(q, last) e = Add(v, eps) r = Sqrt(e) z = Div(x, r) y = Mul(z, scale)",
    "1 / sqrt": "q = Pow(x, two) v = ReduceMean(q, last) e = Add(v, eps) r = Sqrt(e) i = Div(one, r) z = Mul(x, i) "
    "y = Mul(z, scale)",
    "no scale": "q = Mul(x, x) v = ReduceMean(q, last) e = Add(v, eps) r = Sqrt(e) y = Div(x, r)",
}
STAYS = {
    "axes of deviation and mean differ": "m = ReduceMean(x, middle) d = Sub(x, m) q = Pow(d, two) "
    "v = ReduceMean(q, last) e = Add(v, eps) r = Sqrt(e) s = Abs(d) y = Div(s, r)",
    "cubed": "q = Pow(x, three) v = ReduceMean(q, last) e = Add(v, eps) r = Sqrt(e) y = Div(x, r)",
    "of another value": "z = Abs(x) q = Pow(z, two) v = ReduceMean(q, last) e = Add(v, eps) r = Sqrt(e) y = Div(x, r)",
    "middle axis": "q = Pow(x, two) v = ReduceMean(q, middle) e = Add(v, eps) r = Sqrt(e) y = Div(x, r)",
    "no epsilon": "q = Pow(x, two) v = ReduceMean(q, last) r = Sqrt(v) y = Div(x, r)",
}
MADE = {"LayerNormalization", "RMSNormalization", "InstanceNormalization", "GroupNormalization"}


def graph(body: str, given: str = "float[n, 4, 8] x", out: str = "float[n, 4, 8] y", **more: Any) -> onnx.ModelProto:
    model = onnx.parser.parse_model(f'<ir_version: 10, opset_import: ["": 24]> g ({given}) => ({out}) {{ {body} }}')
    rng = np.random.default_rng(1)
    known: dict[str, Any] = {
        "last": np.array([-1]), "middle": np.array([1]), "two": np.float32(2), "three": np.float32(3),
        "eps": np.float32([1e-5]), "one": np.float32(1), "minus": np.float32(-0.5),
        "scale": rng.standard_normal(8).astype(np.float32), "bias": rng.standard_normal(8).astype(np.float32),
    } | more  # fmt: skip
    read = {name for node in model.graph.node for name in node.input}
    for name in sorted(read & set(known)):
        model.graph.initializer.append(onnx.numpy_helper.from_array(np.asarray(known[name]), name))
    return model


def fed(*shape: int, dtype: type = np.float32) -> dict[str, np.ndarray]:
    return {"x": (np.random.default_rng(2).standard_normal(shape) * 2 + 1).astype(dtype)}


@pytest.mark.parametrize("name", LAYER)
def test_layer_normalisation(name: str) -> None:
    before = graph(LAYER[name])
    after, _ = optimised(before)
    assert operators(after) == {"LayerNormalization": 1}
    assert_same(before, after, fed(3, 4, 8), of_scale=2e-6)


@pytest.mark.parametrize("name", RMS)
def test_rms_normalisation(name: str) -> None:
    before = graph(RMS[name])
    after, _ = optimised(before)
    assert operators(after) == {"RMSNormalization": 1}
    assert_same(before, after, fed(3, 4, 8), of_scale=2e-6)


@pytest.mark.parametrize("name", STAYS)
def test_what_only_looks_like_it_stays(name: str) -> None:
    before = graph(STAYS[name])
    after, _ = optimised(before)
    assert not set(operators(after)) & MADE
    assert_same(before, after, fed(3, 4, 8), of_scale=1e-6)


def test_a_value_of_16_bits_normalised_in_float32_has_a_stash_type() -> None:
    body = (
        "c = Cast<to = 1>(x) q = Pow(c, two) v = ReduceMean(q, last) e = Add(v, eps) r = Sqrt(e) i = Reciprocal(r) "
        "z = Mul(c, i) h = Cast<to = 10>(z) y = Mul(scale, h)"
    )
    scale = np.linspace(0.5, 2, 8).astype(np.float16)
    before = graph(body, "float16[n, 4, 8] x", "float16[n, 4, 8] y", scale=scale)
    after, _ = optimised(before)
    assert operators(after) == {"RMSNormalization": 1}
    assert_same(before, after, fed(3, 4, 8, dtype=np.float16), of_scale=2e-3)


def test_a_scale_in_float32_before_the_cast_stays_in_float32() -> None:
    body = (
        "c = Cast<to = 1>(x) q = Pow(c, two) v = ReduceMean(q, last) e = Add(v, eps) r = Sqrt(e) i = Reciprocal(r) "
        "z = Mul(c, i) w = Mul(scale, z) y = Cast<to = 10>(w)"
    )
    after, changes = optimised(graph(body, "float16[n, 4, 8] x", "float16[n, 4, 8] y"))
    assert operators(after) == {"Cast": 2, "RMSNormalization": 1}
    assert any(miss.rule == "norm-precision" for miss in changes.missed)


def test_a_scale_across_the_normalised_axis_is_left() -> None:
    before = graph(f"{POW} r = Sqrt(e) z = Div(d, r) y = Mul(z, rows)", rows=np.ones((4, 1), np.float32) * 2)
    after, _ = optimised(before)
    assert operators(after) == {"LayerNormalization": 1, "Mul": 1}
    assert_same(before, after, fed(3, 4, 8), of_scale=2e-6)


def test_a_scale_that_is_fed_becomes_the_scale() -> None:
    before = graph(f"{POW} r = Sqrt(e) z = Div(d, r) y = Mul(z, s)", "float[n, 4, 8] x, float[8] s")
    after, _ = optimised(before)
    assert operators(after) == {"LayerNormalization": 1}
    feeds = fed(3, 4, 8) | {"s": np.linspace(-1, 1, 8).astype(np.float32)}
    assert_same(before, after, feeds, of_scale=2e-6)


def test_instance_normalisation() -> None:
    body = (
        "m = ReduceMean(x, space) d = Sub(x, m) q = Mul(d, d) v = ReduceMean(q, space) e = Add(v, eps) r = Sqrt(e) "
        "z = Div(d, r) w = Mul(z, s) y = Add(w, b)"
    )
    rng = np.random.default_rng(0)
    channel = {k: rng.standard_normal((3, 1, 1)).astype(np.float32) for k in ("s", "b")}
    four = ("float[n, 3, 4, 5] x", "float[n, 3, 4, 5] y")
    before = graph(body, *four, space=np.array([2, 3]), **channel)
    after, _ = optimised(before)
    assert operators(after) == {"InstanceNormalization": 1}
    assert_same(before, after, fed(2, 3, 4, 5), of_scale=2e-6)


def grouped(back: str, scale: np.ndarray[Any, Any]) -> onnx.ModelProto:
    body = (
        "f = Reshape(x, groups) i = InstanceNormalization(f, gs, gb) s = Shape(x) "
        f"k = Reshape(i, {back}) w = Mul(k, s3) y = Add(w, b3)"
    )
    rng = np.random.default_rng(0)
    return graph(
        body if back == "s" else body.replace("s = Shape(x) ", ""),
        "float[n, 6, 4, 5] x",
        "float[n, 6, 4, 5] y",
        groups=np.array([0, 3, -1]),
        gs=scale,
        gb=np.zeros(3, np.float32),
        s3=rng.standard_normal((6, 1, 1)).astype(np.float32),
        b3=rng.standard_normal((6, 1, 1)).astype(np.float32),
    )


def test_group_normalisation() -> None:
    before = grouped("s", np.ones(3, np.float32))
    after, _ = optimised(before)
    assert operators(after) == {"GroupNormalization": 1}
    assert_same(before, after, fed(2, 6, 4, 5), of_scale=2e-6)


def test_groups_with_scales_of_their_own_are_left() -> None:
    before = grouped("s", np.arange(3, dtype=np.float32))
    after, changes = optimised(before)
    assert "GroupNormalization" not in operators(after)
    assert any(miss.rule == "group-norm" for miss in changes.missed)
    assert_same(before, after, fed(2, 6, 4, 5), of_scale=2e-6)


RESIDUAL = "n1 = LayerNormalization(x, scale, bias) a = MatMul(n1, w1) f = Add(a, b1) g = Relu(f) h = MatMul(g, w2) "


def residual(tail: str, size: float = 1.0) -> onnx.ModelProto:
    rng = np.random.default_rng(3)
    return graph(
        RESIDUAL + tail,
        w1=rng.standard_normal((8, 16)).astype(np.float32),
        b1=rng.standard_normal(16).astype(np.float32),
        w2=rng.standard_normal((16, 8)).astype(np.float32),
        b2=(rng.standard_normal(8) * size).astype(np.float32),
    )


def test_the_bias_before_a_residual_goes_into_the_normalisation() -> None:
    before = residual("k = Add(h, b2) y = Add(k, n1)")
    after, changes = optimised(before)
    assert changes.by_rule()["norm-residual-bias"] == 1
    assert operators(after)["Add"] == 2
    assert_same(before, after, fed(3, 4, 8), of_scale=2e-6)


@pytest.mark.parametrize(
    "before",
    [
        residual("k = Add(h, b2) y = Add(k, n1)", 1e4),
        residual("k = Add(h, b2) u = Add(k, n1) t = Tanh(n1) y = Add(u, t)"),
        residual("k = Add(h, b2) y = Add(k, x)"),
    ],
    ids=["far larger", "read elsewhere too", "another residual"],
)
def test_a_bias_that_cannot_move_stays(before: onnx.ModelProto) -> None:
    after, changes = optimised(before)
    assert "norm-residual-bias" not in changes.by_rule()
    assert_same(before, after, fed(3, 4, 8), of_scale=2e-6)
