"""What a rewriting may not change: infinities, ranks, broadcasting, training, randomness, what a caller may feed."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import onnx
import onnx.parser
import pytest
from onnx import TensorProto, helper, numpy_helper

from graphkit.optimization import optimize
from tests.rewrite.support import assert_same, operators, optimised, run

_ODD = np.array([[np.nan, np.inf, -np.inf], [-0.0, 1e30, -7]], np.float32)


def model(body: str, output: str = "float[n,3] y", inputs: str = "float[n,3] x", opset: int = 20) -> onnx.ModelProto:
    text = f'<ir_version: 10, opset_import: ["" : {opset}]> g ({inputs}) => ({output}) {{ {body} }}'
    return onnx.parser.parse_model(text)


# --- bounds ------------------------------------------------------------------------------------------------------

_NUMBERS = "l = Constant<value_float = -1.0>() u = Constant<value_float = 1.0>()"


@pytest.mark.parametrize(
    ("body", "wanted"),
    [
        ("a = Max(x, l) y = Max(a, u)", "Max"),
        ("a = Min(x, u) y = Min(a, l)", "Min"),
        ("a = Relu(x) y = Max(a, u)", "Max"),
        ("a = Max(x, l) y = Min(a, u)", "Clip"),
        ("a = Min(x, u) y = Relu(a)", "Clip"),
        ("a = Clip(x, l) y = Relu(a)", "Clip"),
        ("a = Clip(x) y = Max(a, l)", "Clip"),
        ("a = Clip(x, l) y = Min(a, u)", "Clip"),
    ],
)
def test_a_clip_stands_for_bounds_only_where_infinity_stays_what_it_was(body: str, wanted: str) -> None:
    """A bound that a Clip leaves out is the largest finite number; Relu, Min and Max let infinity pass."""
    before = model(f"{_NUMBERS} {body}")
    after, _ = optimised(before, level=1)
    assert operators(after) == {wanted: 1}
    assert_same(before, after, {"x": _ODD})


@pytest.mark.parametrize("bound", ["a = Clip(k)", "a = Clip(k, one)"])
def test_a_clip_of_constant_infinities_is_left_to_the_runtime(bound: str) -> None:
    tensor = numpy_helper.from_array(_ODD, "k")
    before = model(f"one = Constant<value_float = 1.0>() k = Identity(x) {bound} y = Add(a, x)")
    before.graph.initializer.append(tensor)
    before.graph.node.remove(next(node for node in before.graph.node if node.op_type == "Identity"))
    after, _ = optimised(before, level=1)
    assert operators(after)["Clip"] == 1
    assert_same(before, after, {"x": np.zeros((2, 3), np.float32)})


# --- broadcasting and ranks --------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("body", "kept"),
    [
        ("s = Constant<value_ints = [4, 3]>() e = Expand(x, s) y = PRelu(e, w)", {"Expand": 1, "PRelu": 1}),
        ("s = Constant<value_ints = [4, 3]>() e = Expand(x, s) y = Add(e, w)", {"Add": 1}),
        ("k = Constant<value = float[1,1,1] {1.0}>() a = Mul(x, k) z = Constant<value_ints = [0]>()"
         " b = Squeeze(a, z) y = Mul(b, w)", None),
    ],
)  # fmt: skip
def test_what_gives_a_result_its_shape_stays(body: str, kept: dict[str, int] | None) -> None:
    before = model(body, "float[4,3] y", "float[1,3] x, float[4,3] w")
    after, _ = optimised(before, level=1)
    assert kept is None or dict(operators(after)) == kept
    assert_same(before, after, {"x": _ODD[1:], "w": np.ones((4, 3), np.float32)})


def test_two_outputs_of_one_piece_of_a_sequence_stay_two() -> None:
    before = model(
        "i = Constant<value_int = -1>() s = SplitToSequence<axis = 1>(x) y = SequenceAt(s, i) z = SequenceAt(s, i)",
        "float[n,1] y, float[n,1] z",
    )
    after, _ = optimised(before)
    assert [output.name for output in after.graph.output] == ["y", "z"]
    assert_same(before, after, {"x": _ODD})


@pytest.mark.parametrize("shape", [[1, 1, 1], [1, 1, 1, 1]])
def test_a_norm_whose_constants_raise_the_rank_stays(shape: list[int]) -> None:
    rank = len(shape)
    sizes = ",".join(map(str, shape))
    before = model(
        f"eps = Constant<value = float[{sizes}] {{0.00001}}>() g = Constant<value_floats = [1.0, 2.0, 3.0]>()"
        " ax = Constant<value_ints = [-1]>() m = ReduceMean(x, ax) d = Sub(x, m) q = Mul(d, d) v = ReduceMean(q, ax)"
        " e = Add(v, eps) r = Sqrt(e) n2 = Div(d, r) y = Mul(n2, g)",
        f"float[{','.join(['1'] * (rank - 2))},n,3] y",
    )
    after, _ = optimised(before)
    assert "LayerNormalization" not in operators(after)
    assert_same(before, after, {"x": np.float32([[1, 2, 4], [0, 5, 1]])}, of_scale=1e-5)


@pytest.mark.parametrize(
    "body",
    [
        "a = Sigmoid(x) y = Mul(x, a)",
        "ax = Constant<value_ints = [-1]>() m = ReduceMean(x, ax) d = Sub(x, m) q = Mul(d, d) v = ReduceMean(q, ax)"
        " eps = Constant<value = double {0.00001}>() e = Add(v, eps) r = Sqrt(e) y = Div(d, r)",
    ],
)
def test_float64_stays_float64_where_the_operator_would_compute_in_float32(body: str) -> None:
    before = model(body, "double[n,3] y", "double[n,3] x")
    after, _ = optimised(before)
    assert not set(operators(after)) & {"Swish", "LayerNormalization"}
    x = np.float64([[1, 2, 4 + 1e-12], [0, 5, 1]])
    assert_same(before, after, {"x": x}, of_scale=1e-14)


@pytest.mark.parametrize("mask", [[], [1], [1, 1, 1, 1]])
def test_attention_takes_a_mask_of_one_number(mask: list[int]) -> None:
    """It says the same of every key, so that only broadcasting is at stake."""
    sizes = "float" if not mask else f"float[{','.join(map(str, mask))}]"
    before = model(
        f"m = Constant<value = {sizes} {{0.5}}>() k2 = Transpose<perm = [0, 1, 3, 2]>(k) s = MatMul(q, k2)"
        " c = Constant<value_float = 0.5>() t = Mul(s, c) a = Add(t, m) p = Softmax<axis = -1>(a) y = MatMul(p, v)",
        "float[b,2,n,4] y",
        "float[b,2,n,4] q, float[b,2,m,4] k, float[b,2,m,4] v",
    )
    after, _ = optimised(before)
    random = np.random.default_rng(0)
    feeds = {name: random.standard_normal((2, 2, 5, 4)).astype(np.float32) for name in "qkv"}
    assert_same(before, after, feeds, of_scale=1e-5)


# --- casts -------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(("source", "middle"), [("bool", 1), ("bool", 6), ("int32", 11), ("float16", 1)])
def test_a_string_says_which_dtype_it_was_made_of(source: str, middle: int) -> None:
    before = model(f"a = Cast<to = {middle}>(x) y = Cast<to = 8>(a)", "string[n] y", f"{source}[n] x")
    after, _ = optimised(before)
    assert operators(after) == {"Cast": 2}


# --- training, randomness ----------------------------------------------------------------------------------------


def test_a_batchnorm_that_trains_keeps_the_outputs_that_say_so() -> None:
    before = model(
        "k = Constant<value_floats = [1.0, 2.0, 3.0]>() y, m, v = BatchNormalization<training_mode = 1>(x, k, k, k, k)"
    )
    after, _ = optimised(before)
    assert len(after.graph.node[0].output) == 3
    assert_same(before, after, {"x": np.float32([[1, 2, 4], [0, 5, 1]])})


@pytest.mark.parametrize(
    ("draw", "op"),
    [
        ("d = Bernoulli(p)", "Bernoulli"),
        ("d = RandomNormal<shape = [3]>()", "RandomNormal"),
        ("d = RandomUniformLike(p)", "RandomUniformLike"),
        ("t = Constant<value = bool {1}>() d = Dropout(p, h, t)", "Dropout"),
    ],
)
def test_what_is_drawn_is_drawn_at_every_run(draw: str, op: str) -> None:
    """Neither computed beforehand, though every input is constant, nor drawn once where it was drawn twice."""
    again = draw.replace("d =", "e =").replace("t = ", "t2 = ").replace(", t)", ", t2)")
    numbers = "p = Constant<value_floats = [0.5, 0.5, 0.5]>() h = Constant<value_float = 0.5>()"
    before = model(f"{numbers} {draw} {again} f = Sub(d, e) y = Add(x, f)")
    after, _ = optimised(before)
    assert operators(after)[op] == 2


@pytest.mark.parametrize("opset", [7, 10, 11])
def test_a_mask_of_dropout_that_is_read_keeps_its_meaning(opset: int) -> None:
    """ONNX Runtime gives all False where opset 12 says all True."""
    kind = "float" if opset < 10 else "bool"
    before = model("y, m = Dropout<ratio = 0.5>(x)", f"float[n,3] y, {kind}[n,3] m", opset=opset)
    after, _ = optimised(before)
    assert_same(before, after, {"x": np.ones((2, 3), np.float32)})


# --- what a caller may feed --------------------------------------------------------------------------------------


@pytest.mark.parametrize("given", [None, [3, 1, 2]])
def test_a_weight_that_may_be_fed_is_no_constant(given: list[float] | None) -> None:
    """Neither in a Conv, nor as the factor behind it."""
    weight = numpy_helper.from_array(np.arange(1, 7, dtype=np.float32).reshape(3, 2, 1, 1), "w")
    gain = numpy_helper.from_array(np.float32([2, 2, 2]).reshape(3, 1, 1), "g")
    graph = helper.make_graph(
        [helper.make_node("Conv", ["x", "w"], ["c"]), helper.make_node("Mul", ["c", "g"], ["y"])],
        "g",
        [
            helper.make_tensor_value_info("x", TensorProto.FLOAT, ["n", 2, 4, 4]),
            helper.make_tensor_value_info("g", TensorProto.FLOAT, [3, 1, 1]),
        ],
        [helper.make_tensor_value_info("y", TensorProto.FLOAT, ["n", 3, 4, 4])],
        [weight, gain],
    )
    before = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 20)], ir_version=10)
    after, _ = optimised(before)
    feeds = {"x": np.ones((1, 2, 4, 4), np.float32)}
    if given is not None:
        feeds["g"] = np.float32(given).reshape(3, 1, 1)
    np.testing.assert_array_equal(run(before, feeds)[0], run(after, feeds)[0])


# --- what level 1 promises ---------------------------------------------------------------------------------------


def test_level_1_is_proved_to_the_last_bits(tmp_path: Path) -> None:
    """float16 without kernels of its own is computed in float32 between two nodes: rounding depends on neighbours."""
    halves = model(
        "a = Identity(x) b = Transpose<perm = [1, 0]>(a) c = Log(b) d = Transpose<perm = [1, 0]>(c) e = Sin(d)"
        " y = Mul(e, d)",
        "float16[n,3] y",
        "float16[n,3] x",
    )
    path = tmp_path / "half.onnx"
    onnx.save(halves, path)
    found = optimize(path, level=1)
    assert found.proved == "pass"
    assert not found.rolled_back
