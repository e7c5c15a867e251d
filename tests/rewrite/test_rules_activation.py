"""Activations written as arithmetic become operators of the standard, and what only looks like one stays."""

from __future__ import annotations

import numpy as np
import onnx
import pytest

from tests.rewrite.support import assert_same, operators, optimised

GELU = "r = Div(x, s2) e = Erf(r) o = Add(e, one)"
TANH = "t = Tanh(inner) o = Add(t, one)"
NUMBERS = {
    "s2": 1.4142135, "r2": 0.70710678, "half": 0.5, "one": 1.0, "two": 2.0, "three": 3.0, "six": 6.0, "zero": 0.0,
    "c": 0.044715, "k": 0.7978845608, "quick": 1.702, "sixth": 1 / 6, "tenth": 0.1, "wrong": 0.045, "neg": -1.0,
}  # fmt: skip

FIRES = {
    "gelu: 0.5 last": ("Gelu", f"{GELU} m = Mul(x, o) y = Mul(m, half)"),
    "gelu: 0.5 first": ("Gelu", f"h = Mul(half, x) {GELU} y = Mul(h, o)"),
    "gelu: 0.5 on the gate": ("Gelu", f"{GELU} h = Mul(o, half) y = Mul(x, h)"),
    "gelu: 0.5 erf + 0.5": ("Gelu", "r = Mul(r2, x) e = Erf(r) h = Mul(e, half) o = Add(half, h) y = Mul(x, o)"),
    "gelu: divided by 2": ("Gelu", f"{GELU} m = Mul(o, x) y = Div(m, two)"),
    "gelu tanh: Pow": (
        "Gelu", f"p = Pow(x, three) q = Mul(c, p) a = Add(x, q) inner = Mul(a, k) {TANH} h = Mul(half, x) y = Mul(h, o)"
    ),
    "gelu tanh: x x x": (
        "Gelu",
        f"p = Mul(x, x) p3 = Mul(p, x) q = Mul(p3, c) a = Add(q, x) inner = Mul(k, a) {TANH} m = Mul(x, o) "
        "y = Mul(m, half)",
    ),
    "gelu tanh: x (1 + c x^2)": (
        "Gelu",
        f"p = Mul(x, x) q = Mul(p, c) a = Add(q, one) b = Mul(x, a) inner = Mul(k, b) {TANH} h = Mul(x, half) "
        "y = Mul(o, h)",
    ),
    "swish": ("Swish", "s = Sigmoid(x) y = Mul(x, s)"),
    "swish: the other way": ("Swish", "s = Sigmoid(x) y = Mul(s, x)"),
    "quick gelu": ("Swish", "q = Mul(quick, x) s = Sigmoid(q) y = Mul(x, s)"),
    "hard swish: Clip": ("HardSwish", "a = Add(x, three) b = Clip(a, zero, six) m = Mul(x, b) y = Div(m, six)"),
    "hard swish: Min Max": (
        "HardSwish", "a = Add(x, three) b = Max(a, zero) d = Min(b, six) e = Mul(d, sixth) y = Mul(e, x)"
    ),
    "hard swish: HardSigmoid": ("HardSwish", "s = HardSigmoid<alpha = 0.16666667, beta = 0.5>(x) y = Mul(x, s)"),
    "hard sigmoid": ("HardSigmoid", "a = Add(x, three) b = Clip(a, zero, six) y = Div(b, six)"),
    "mish": ("Mish", "s = Softplus(x) t = Tanh(s) y = Mul(x, t)"),
    "softplus": ("Softplus", "e = Exp(x) a = Add(one, e) y = Log(a)"),
    "leaky: Max": ("LeakyRelu", "a = Mul(x, tenth) y = Max(x, a)"),
    "leaky: Where": ("LeakyRelu", "g = Greater(x, zero) a = Mul(x, tenth) y = Where(g, x, a)"),
}  # fmt: skip

STAYS = {
    "gelu: another factor": f"{GELU} m = Mul(x, o) y = Mul(m, two)",
    "gelu: another argument": "r = Mul(half, x) e = Erf(r) o = Add(e, one) m = Mul(x, o) y = Mul(m, half)",
    "gelu: of another value": "z = Neg(x) r = Div(z, s2) e = Erf(r) o = Add(e, one) m = Mul(x, o) y = Mul(m, half)",
    "gelu tanh: another cubic": (
        f"p = Pow(x, three) q = Mul(wrong, p) a = Add(x, q) inner = Mul(a, k) {TANH} h = Mul(half, x) y = Mul(h, o)"
    ),
    "gelu tanh: squared": (
        f"p = Pow(x, two) q = Mul(c, p) a = Add(x, q) inner = Mul(a, k) {TANH} h = Mul(half, x) y = Mul(h, o)"
    ),
    "swish: of another value": "z = Neg(x) s = Sigmoid(z) a = Abs(x) y = Mul(a, s)",
    "hard swish: another offset": "a = Add(x, two) b = Clip(a, zero, six) m = Mul(x, b) y = Div(m, six)",
    "hard swish: another ceiling": "a = Add(x, three) b = Clip(a, zero, three) m = Mul(x, b) y = Div(m, six)",
    "mish: of another value": "z = Neg(x) s = Softplus(z) t = Tanh(s) a = Abs(x) y = Mul(a, t)",
    "softplus: plus 2": "e = Exp(x) a = Add(two, e) y = Log(a)",
    "leaky: steeper": "a = Mul(x, two) y = Max(x, a)",
    "leaky: falling": "a = Mul(x, neg) y = Max(x, a)",
}
MADE = {"Gelu", "Swish", "HardSwish", "HardSigmoid", "Mish", "Softplus", "LeakyRelu"}


def graph(body: str, *, shape: tuple[int, ...] = (), kind: str = "float", opset: int = 24) -> onnx.ModelProto:
    model = onnx.parser.parse_model(
        f'<ir_version: 10, opset_import: ["": {opset}]> g ({kind}[n, 5] x) => ({kind}[n, 5] y) {{ {body} }}'
    )
    dtype = {"float": np.float32, "float16": np.float16, "double": np.float64}[kind]
    read = {name for node in model.graph.node for name in node.input}
    for name in sorted(read & set(NUMBERS)):
        array = np.full(shape, NUMBERS[name], dtype=dtype)
        model.graph.initializer.append(onnx.numpy_helper.from_array(array, name))
    return model


def fed(dtype: type = np.float32) -> dict[str, np.ndarray]:
    return {"x": np.random.default_rng(0).standard_normal((3, 5)).astype(dtype) * 3}


@pytest.mark.parametrize("shape", [(), (1,)])
@pytest.mark.parametrize("name", FIRES)
def test_becomes_the_operator(name: str, shape: tuple[int, ...]) -> None:
    operator, body = FIRES[name]
    before = graph(body, shape=() if "Clip" in body else shape)
    after, _ = optimised(before)
    assert operators(after) == {operator: 1}
    assert_same(before, after, fed(), of_scale=2e-6)


@pytest.mark.parametrize("name", STAYS)
def test_what_only_looks_like_it_stays(name: str) -> None:
    before = graph(STAYS[name])
    after, _ = optimised(before)
    made = {node.op_type for node in before.graph.node}
    assert not (set(operators(after)) - made) & MADE
    assert_same(before, after, fed(), of_scale=1e-6)


def test_constants_of_16_bits_are_as_near_as_they_can_be() -> None:
    before = graph(FIRES["gelu: 0.5 last"][1], kind="float16")
    after, _ = optimised(before)
    assert operators(after) == {"Gelu": 1}
    assert_same(before, after, fed(np.float16), of_scale=2e-3)


def test_a_constant_of_higher_rank_is_left() -> None:
    model = onnx.parser.parse_model(
        '<ir_version: 10, opset_import: ["": 24]> g (float[5] x) => (float[1, 5] y) '
        "<float[1, 1] half = {0.5}, float one = {1.0}, float s2 = {1.4142135}> "
        "{ r = Div(x, s2) e = Erf(r) o = Add(e, one) m = Mul(x, o) y = Mul(m, half) }"
    )
    after, changes = optimised(model)
    assert "Gelu" not in operators(after)
    assert any(miss.rule == "gelu" for miss in changes.missed)


def test_double_has_no_swish() -> None:
    after, _ = optimised(graph(FIRES["swish"][1], kind="double"))
    assert "Swish" not in operators(after)


def test_tensorrt_keeps_sigmoid_and_product() -> None:
    after, _ = optimised(graph(FIRES["swish"][1]), target="rtx")
    assert operators(after) == {"Sigmoid": 1, "Mul": 1}


def test_a_gate_that_is_read_elsewhere_too_is_kept_for_that() -> None:
    model = onnx.parser.parse_model(
        '<ir_version: 10, opset_import: ["": 24]> g (float[n, 5] x) => (float[n, 5] y, float[n, 5] s) '
        "{ s = Sigmoid(x) y = Mul(x, s) }"
    )
    after, _ = optimised(model)
    assert operators(after) == {"Sigmoid": 1, "Swish": 1}
    assert_same(model, after, fed(), of_scale=1e-6)
