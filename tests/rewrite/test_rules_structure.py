"""Rules that take nodes out or join them: each fires on every spelling, keeps the results, and knows its limits."""

from __future__ import annotations

from typing import Any

import numpy as np
import onnx
import onnx.parser
import pytest
from onnx import TensorProto, helper

from tests.rewrite.support import assert_same, operators, optimised

X = np.random.default_rng(0).standard_normal((2, 3, 4)).astype(np.float32)


def model(
    body: str, opset: int = 20, inputs: str = "float[n,3,4] x", output: str = "float[?,?,?] y"
) -> onnx.ModelProto:
    """A model of one input `x` and one output `y`, whose shape is what ONNX infers."""
    text = f'<ir_version: 10, opset_import: ["" : {opset}]> g ({inputs}) => ({output}) {{ {body} }}'
    made = onnx.parser.parse_model(text)
    for value in made.graph.output:
        value.type.tensor_type.ClearField("shape")
    made = onnx.shape_inference.infer_shapes(made, data_prop=True)
    del made.graph.value_info[:]
    return made


def check(proto: onnx.ModelProto, wanted: dict[str, int], feeds: dict[str, Any] | None = None, **options: Any) -> None:
    """It becomes these operators, and computes the same, bit for bit."""
    after, changes = optimised(proto, **options)
    assert dict(operators(after)) == wanted, changes.by_rule()
    assert_same(proto, after, feeds or {"x": X})
    again, more = optimised(after, **options)
    assert not more.done
    assert operators(again) == operators(after)


ONE = {"Exp": 1}

TAKEN_OUT = {
    "identity": "a = Identity(x) y = Exp(a)",
    "identity at the end": "a = Exp(x) y = Identity(a)",
    "dropout": "a = Dropout(x) y = Exp(a)",
    "cast to the same": "a = Cast<to=1>(x) y = Exp(a)",
    "transpose that moves nothing": "a = Transpose<perm=[0,1,2]>(x) y = Exp(a)",
    "slice of all": "s = Constant<value_ints=[0]>() e = Constant<value_ints=[4]>() i = Constant<value_ints=[2]>()"
    " a = Slice(x, s, e, i) y = Exp(a)",
    "slice to the end": "s = Constant<value_ints=[0]>() e = Constant<value_ints=[9223372036854775807]>()"
    " i = Constant<value_ints=[0]>() a = Slice(x, s, e, i) y = Exp(a)",
    "pad by nothing": "p = Constant<value_ints=[0,0,0,0,0,0]>() a = Pad(x, p) y = Exp(a)",
    "expand by ones": "s = Constant<value_ints=[1,1]>() a = Expand(x, s) y = Exp(a)",
    "expand to its own shape": "s = Shape(x) a = Expand(x, s) y = Exp(a)",
    "expand, shape put together": "s = Shape<start=0,end=1>(x) r = Constant<value_ints=[3,4]>()"
    " t = Concat<axis=0>(s, r) a = Expand(x, t) y = Exp(a)",
    "reshape to its own shape": "s = Shape(x) a = Reshape(x, s) y = Exp(a)",
    "reshape, shape gathered": "s = Shape(x) z = Constant<value_int=0>() g = Gather(s, z)"
    " i = Constant<value_ints=[0]>() u = Unsqueeze(g, i) r = Constant<value_ints=[3,4]>()"
    " t = Concat<axis=0>(u, r) a = Reshape(x, t) y = Exp(a)",
    "unsqueeze-squeeze": "i = Constant<value_ints=[1]>() a = Unsqueeze(x, i) b = Squeeze(a, i) y = Exp(b)",
    "concat of one": "a = Concat<axis=1>(x) y = Exp(a)",
    "split-concat": "a, b = Split<axis=2,num_outputs=2>(x) c = Concat<axis=-1>(a, b) y = Exp(c)",
    "mul 1": "c = Constant<value_float=1.0>() a = Mul(c, x) y = Exp(a)",
    "div 1, of shape [1]": "c = Constant<value_floats=[1.0]>() a = Div(x, c) y = Exp(a)",
    "sub 0": "c = Constant<value_float=0.0>() a = Sub(x, c) y = Exp(a)",
    "add 0": "c = Constant<value_float=0.0>() a = Add(x, c) y = Exp(a)",
    "pow 1": "c = Constant<value_float=1.0>() a = Pow(x, c) y = Exp(a)",
    "tile by ones": "c = Constant<value_ints=[1,1,1]>() a = Tile(x, c) y = Exp(a)",
    "where always": "c = Constant<value = bool[1] {1}>() z = Neg(x) a = Where(c, x, z) y = Exp(a)",
    "neg-neg": "a = Neg(x) b = Neg(a) y = Exp(b)",
    "sequence of one": "s = SequenceConstruct(x) z = Constant<value_int=0>() a = SequenceAt(s, z) y = Exp(a)",
    "if on a constant": "c = Constant<value = bool {1}>()"
    " a = If(c) <then_branch = t () => (float[n,3,4] p) { p = Identity(x) },"
    " else_branch = e () => (float[n,3,4] q) { q = Neg(x) }> y = Exp(a)",
}


@pytest.mark.parametrize("body", TAKEN_OUT.values(), ids=TAKEN_OUT)
def test_what_changes_nothing_is_taken_out(body: str) -> None:
    check(model(body), ONE)


JOINED = {
    "reshape-reshape": (
        "s = Constant<value_ints=[0,12]>() t = Constant<value_ints=[-1,2,6]>() a = Reshape(x, s) y = Reshape(a, t)",
        {"Reshape": 1},
    ),
    "flatten-unsqueeze": (
        "a = Flatten(x) i = Constant<value_ints=[1]>() y = Unsqueeze(a, i)",
        {"Reshape": 1},
    ),
    "unsqueeze-unsqueeze": (
        "i = Constant<value_ints=[0]>() j = Constant<value_ints=[2]>() a = Unsqueeze(x, i) y = Unsqueeze(a, j)",
        {"Unsqueeze": 1},
    ),
    "slice-slice, other axes": (
        "s = Constant<value_ints=[1]>() e = Constant<value_ints=[3]>() i = Constant<value_ints=[1]>()"
        " j = Constant<value_ints=[2]>() a = Slice(x, s, e, i) y = Slice(a, s, e, j)",
        {"Slice": 1},
    ),
    "slice-slice, same axis": (
        "s = Constant<value_ints=[1]>() e = Constant<value_ints=[-1]>() i = Constant<value_ints=[2]>()"
        " t = Constant<value_ints=[-1]>() f = Constant<value_ints=[9]>() a = Slice(x, s, e, i) y = Slice(a, t, f, i)",
        {"Slice": 1},
    ),
    "concat-concat": ("n = Neg(x) a = Concat<axis=1>(x, n) y = Concat<axis=-2>(a, x)", {"Neg": 1, "Concat": 1}),
    "relu-relu": ("a = Relu(x) y = Relu(a)", {"Relu": 1}),
    "relu6": ("c = Constant<value_float=0.5>() a = Relu(x) y = Min(a, c)", {"Clip": 1}),
    "max-min": (
        "c = Constant<value_float=0.5>() d = Constant<value_float=-0.5>() a = Max(x, d) y = Min(c, a)",
        {"Clip": 1},
    ),
    "reduce-squeeze": (
        "i = Constant<value_ints=[1]>() a = ReduceMean(x, i) y = Squeeze(a, i)",
        {"ReduceMean": 1},
    ),
    "reduce-unsqueeze": (
        "i = Constant<value_ints=[-1]>() a = ReduceMax<keepdims=0>(x, i) y = Unsqueeze(a, i)",
        {"ReduceMax": 1},
    ),
    "twice the same": ("a = Exp(x) b = Exp(x) y = Add(a, b)", {"Exp": 1, "Add": 1}),
    "float64 between": ("a = Cast<to=11>(x) y = Cast<to=10>(a)", {"Cast": 1}),
    "sequence put together": (
        "n = Neg(x) s = SequenceConstruct(x, n) y = ConcatFromSequence<axis=1>(s)",
        {"Neg": 1, "Concat": 1},
    ),
    "sequence of pieces": (
        "p = Constant<value_ints=[1,2]>() s = SplitToSequence<axis=1>(x, p) i = Constant<value_int=0>()"
        " j = Constant<value_int=-1>() a = SequenceAt(s, i) b = SequenceAt(s, j) y = Add(a, b)",
        {"Split": 1, "Add": 1},
    ),
    "expand before what broadcasts": (
        "c = Constant<value_floats=[1.0,2.0,3.0,4.0]>() s = Shape(x) e = Expand(c, s) y = Add(x, e)",
        {"Add": 1},
    ),
    "computed target": (
        "n = Neg(x) s = Shape<start=0,end=1>(n) r = Constant<value_ints=[12]>() t = Concat<axis=0>(s, r)"
        " a = Reshape(n, t) y = Exp(a)",
        {"Neg": 1, "Reshape": 1, "Exp": 1},
    ),
}


@pytest.mark.parametrize(("body", "wanted"), JOINED.values(), ids=JOINED)
def test_what_comes_in_a_row_becomes_one(body: str, wanted: dict[str, int]) -> None:
    output = "float16[?,?,?] y" if "to=10" in body else "float[?,?,?] y"
    check(model(body, output=output), wanted)


STAYS = {
    "cast through float16": ("a = Cast<to=10>(x) y = Cast<to=1>(a)", {"Cast": 2}),
    "mul 1 that broadcasts": (
        "c = Constant<value = float[1,1,1,1] {1}>() y = Mul(x, c)",
        {"Mul": 1},
    ),
    "pad that shifts": ("p = Constant<value_ints=[0,0,1,0,0,-1]>() y = Pad(x, p)", {"Pad": 1}),
    "slice backwards": (
        "s = Constant<value_ints=[-1]>() e = Constant<value_ints=[-9]>() i = Constant<value_ints=[2]>()"
        " y = Slice(x, s, e, i, s)",
        {"Slice": 1},
    ),
    "where that broadcasts": (
        "c = Constant<value = bool[2,1,1,1] {1,1}>() n = Neg(x) y = Where(c, x, n)",
        {"Neg": 1, "Where": 1},
    ),
    "pieces in another order": (
        "a, b = Split<axis=2,num_outputs=2>(x) y = Concat<axis=2>(b, a)",
        {"Split": 1, "Concat": 1},
    ),
    "pieces along another axis": (
        "a, b = Split<axis=2,num_outputs=2>(x) y = Concat<axis=1>(a, b)",
        {"Split": 1, "Concat": 1},
    ),
    "squeeze of other axes": (
        "i = Constant<value_ints=[0]>() j = Constant<value_ints=[0,1]>() k = Constant<value_ints=[1]>()"
        " n = Neg(x) m = ReduceSum(n, k) a = Unsqueeze(m, i) y = Exp(a)",
        {"Neg": 1, "ReduceSum": 1, "Unsqueeze": 1, "Exp": 1},
    ),
    "bounds the wrong way round": (
        "c = Constant<value_float=-0.5>() d = Constant<value_float=0.5>() a = Clip(x, d, c) y = Relu(a)",
        {"Clip": 1, "Relu": 1},
    ),
    "a random number drawn twice": (
        "a = RandomNormal<shape=[1],seed=1.0>() b = RandomNormal<shape=[1],seed=1.0>() c = Sub(a, b) d = Mul(c, c)"
        " z = Constant<value_float=0.0>() e = Mul(d, z) y = Add(x, e)",
        {"RandomNormal": 2, "Sub": 1, "Mul": 2, "Add": 1},
    ),
    "what trains": (
        "r = Constant<value_float=0.0>() t = Constant<value = bool {1}>() a = Dropout(x, r, t) y = Exp(a)",
        {"Dropout": 1, "Exp": 1},
    ),
}


@pytest.mark.parametrize(("body", "wanted"), STAYS.values(), ids=STAYS)
def test_what_only_looks_like_it_stays(body: str, wanted: dict[str, int]) -> None:
    check(model(body, opset=21), wanted)


def test_nan_and_infinity_pass_through_joined_bounds_as_before() -> None:
    x = np.full((1, 3, 4), np.nan, np.float32)
    x[0, 1], x[0, 2] = np.inf, -np.inf
    check(model(JOINED["max-min"][0]), {"Clip": 1}, {"x": x})


def test_an_output_that_is_an_input_keeps_its_name() -> None:
    proto = model("y = Identity(x)")
    check(proto, {"Identity": 1})


def test_equal_constants_are_held_once() -> None:
    weights = np.arange(400, dtype=np.float32).reshape(4, 100)
    nodes = [
        helper.make_node("MatMul", ["x", "w1"], ["a"]),
        helper.make_node("MatMul", ["z", "w2"], ["b"]),
        helper.make_node("Sub", ["a", "b"], ["y"]),
    ]
    held = [onnx.numpy_helper.from_array(weights, name) for name in ("w1", "w2")]
    info = helper.make_tensor_value_info
    graph = helper.make_graph(
        nodes,
        "g",
        [info("x", TensorProto.FLOAT, ["n", 4]), info("z", TensorProto.FLOAT, ["n", 4])],
        [info("y", TensorProto.FLOAT, ["n", 100])],
        held,
    )
    proto = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 20)], ir_version=10)
    after, _ = optimised(proto)
    assert len(after.graph.initializer) == 1
    assert_same(proto, after, {"x": X[0], "z": X[1]})


EINSUM = {
    "bhid,bhjd->bhij": ((2, 3, 4, 5), (2, 3, 6, 5), {"MatMul": 1, "Transpose": 1}),
    "bhij,bhjd->bhid": ((2, 3, 4, 5), (2, 3, 5, 6), {"MatMul": 1}),
    "bthd,bshd->bhts": ((2, 4, 3, 5), (2, 6, 3, 5), {"MatMul": 1, "Transpose": 2}),
    "bsd,de->bse": ((2, 4, 5), (5, 6), {"MatMul": 1}),
    "ij,jk->ki": ((4, 5), (5, 6), {"MatMul": 1, "Transpose": 1}),
    "ij,kj": ((4, 5), (6, 5), {"Einsum": 1}),
    "ijk,jkl->il": ((2, 3, 4), (3, 4, 5), {"Einsum": 1}),
    "ii,ij->ij": ((3, 3), (3, 4), {"Einsum": 1}),
}


@pytest.mark.parametrize(("equation", "case"), EINSUM.items(), ids=EINSUM)
def test_einsum_becomes_matmul(equation: str, case: tuple[Any, Any, dict[str, int]]) -> None:
    left, right, wanted = case
    a, b = (",".join(map(str, shape)) for shape in (left, right))
    proto = model(f'y = Einsum<equation="{equation}">(x, z)', inputs=f"float[{a}] x, float[{b}] z")
    after, _ = optimised(proto, only=("einsum",))
    assert dict(operators(after)) == wanted
    draw = np.random.default_rng(1).standard_normal
    assert_same(proto, after, {"x": draw(left, np.float32), "z": draw(right, np.float32)}, of_scale=1e-6)
