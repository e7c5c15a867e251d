"""Folding knows what may be computed beforehand, and bodies whose course is known are written out."""

from __future__ import annotations

import numpy as np
import onnx
import onnx.parser
import pytest

from graphkit.rewrite.fold_evaluate import APPROXIMATE, MOVING, OF_INTEGERS, ROUNDED_ONCE
from graphkit.rewrite.rules.control import MOST_ROUNDS
from tests.rewrite.support import assert_same, operators, optimised

X = np.random.default_rng(0).standard_normal((2, 3)).astype(np.float32)


def model(body: str, output: str = "float[n,3] y", inputs: str = "float[n,3] x") -> onnx.ModelProto:
    return onnx.parser.parse_model(f'<ir_version: 10, opset_import: ["" : 20]> g ({inputs}) => ({output}) {{ {body} }}')


def test_a_chain_of_constants_is_one_constant() -> None:
    proto = model(
        "a = Constant<value_floats=[1.0,2.0,3.0]>() b = Sqrt(a) c = Constant<value_ints=[1,3]>() d = Reshape(b, c)"
        " e = CastLike(d, x) y = Add(x, e)"
    )
    after, _ = optimised(proto, level=1)
    assert dict(operators(after)) == {"Add": 1}
    assert_same(proto, after, {"x": X})


def test_what_a_runtime_may_round_differently_is_left_at_level_1() -> None:
    proto = model("a = Constant<value_floats=[1.0,2.0,3.0]>() b = Tanh(a) y = Add(x, b)")
    assert operators(optimised(proto, level=1)[0])["Tanh"] == 1
    assert operators(optimised(proto, level=2)[0])["Tanh"] == 0


def test_the_file_does_not_grow_by_more_than_is_allowed() -> None:
    proto = model(
        "s = Constant<value_ints=[1000,3]>() b = ConstantOfShape(s) y = Add(x, b)", "float[1000,3] y", "float[1,3] x"
    )
    small, changes = optimised(proto, growth=100)
    assert operators(small)["ConstantOfShape"] == 1
    assert any("bytes" in miss.why for miss in changes.missed)
    assert operators(optimised(proto)[0])["ConstantOfShape"] == 0


def test_quantisation_is_never_folded_away() -> None:
    proto = model(
        "w = Constant<value_floats=[1.0,2.0,3.0]>() s = Constant<value_float=0.5>() z = Constant<value = int8 {0}>()"
        " q = QuantizeLinear(w, s, z) d = DequantizeLinear(q, s, z) y = Add(x, d)"
    )
    after, _ = optimised(proto, skip=("quantise-weights",))
    assert operators(after) == {"QuantizeLinear": 1, "DequantizeLinear": 1, "Add": 1}


def test_a_quotient_by_zero_is_left_to_the_runtime() -> None:
    proto = model(
        "a = Constant<value_ints=[1]>() b = Constant<value_ints=[0]>() c = Div(a, b) y = Cast<to=1>(c)", "float[1] y"
    )
    assert operators(optimised(proto)[0])["Div"] == 1


def test_nothing_random_stateful_or_quantising_is_computed_beforehand() -> None:
    every = MOVING | ROUNDED_ONCE | OF_INTEGERS | APPROXIMATE
    assert not {op for op in every if op.startswith("Random") or "Quantize" in op}
    assert not every & {"Multinomial", "Bernoulli", "Dropout", "If", "Loop", "Scan", "BatchNormalization"}


TWO_IFS = """
  c = Constant<value = bool {1}>()
  d = Constant<value = bool {0}>()
  a = If(c) <then_branch = t1 () => (float[n,3] r) { k = Constant<value_float=2.0>() r = Mul(x, k) },
             else_branch = e1 () => (float[n,3] s) { s = Identity(x) }>
  b = If(d) <then_branch = t2 () => (float[n,3] r) { r = Identity(x) },
             else_branch = e2 () => (float[n,3] s) { k = Constant<value_float=3.0>() s = Add(a, k) }>
  y = Exp(b)
"""


def test_two_constant_ifs_with_equal_inner_names_keep_their_own_weights() -> None:
    proto = model(TWO_IFS)
    after, _ = optimised(proto)
    assert dict(operators(after)) == {"Mul": 1, "Add": 1, "Exp": 1}
    assert_same(proto, after, {"x": X})


def test_an_if_that_depends_on_data_stays_and_its_branches_are_folded() -> None:
    proto = model(
        "z = Constant<value_float=0.0>() m = ReduceMax<keepdims=0>(x) c = Greater(m, z)"
        " y = If(c) <then_branch = t () => (float[n,3] r) { p = Identity(x) q = Relu(p) r = Relu(q) },"
        " else_branch = e () => (float[n,3] s) { s = Neg(x) }>"
    )
    after, _ = optimised(proto)
    (branch,) = (a.g for n in after.graph.node if n.op_type == "If" for a in n.attribute if a.name == "then_branch")
    assert [node.op_type for node in branch.node] == ["Relu"]
    for sign in (1, -1):
        assert_same(proto, after, {"x": sign * np.abs(X)})


def loop(rounds: int, goes_on: str = "Identity(going)") -> onnx.ModelProto:
    return model(
        f"m = Constant<value_int={rounds}>() c = Constant<value = bool {{1}}>()"
        f" y, w = Loop(m, c, x) <body = b (int64 i, bool going, float[n,3] a) => (bool g, float[n,3] h, float[n,3] o)"
        f" {{ g = {goes_on} f = Cast<to=1>(i) h = Add(a, f) o = Mul(h, x) }}>",
        "float[n,3] y, float[k,n,3] w",
    )


def test_a_loop_with_few_known_rounds_is_written_out() -> None:
    proto = loop(3)
    after, _ = optimised(proto)
    assert "Loop" not in operators(after)
    assert_same(proto, after, {"x": X}, of_scale=1e-6)


@pytest.mark.parametrize("proto", [loop(MOST_ROUNDS + 1), loop(0), loop(3, "Not(going)")], ids=["many", "none", "asks"])
def test_any_other_loop_stays(proto: onnx.ModelProto) -> None:
    after, changes = optimised(proto)
    assert "Loop" in operators(after)
    assert any(miss.rule == "loop-unroll" for miss in changes.missed)
    assert_same(proto, after, {"x": X})


def test_dead_nodes_constants_and_unused_outputs_go() -> None:
    proto = model(
        "i = Constant<value_ints=[2]>() s = Constant<value_floats=[1.0,1.0,2.0]>() dead = Exp(x) deader = Neg(dead)"
        " y, mean, inverse = LayerNormalization(x, s)"
    )
    after, _ = optimised(proto)
    (node,) = after.graph.node
    assert list(node.output) == ["y"]
    assert len(after.graph.initializer) == 1
    assert_same(proto, after, {"x": X})
