"""The values made for an input are values that the graph can take."""

from __future__ import annotations

import itertools

import numpy as np
import onnx_ir as ir
import pytest

from graphkit.errors import BadSample, ShapeMismatch, ShapeMissing, UnknownName
from graphkit.parity.inputs import InputPlan, fixed_sizes, make_inputs, plan_inputs
from graphkit.shapes import TensorSpec


def plan_of(model, name):
    return next(p for p in plan_inputs(model) if p.spec.name == name)


def table(rows, columns=4):
    return np.zeros((rows, columns), np.float32)


def drawn(model, name, sizes, draws=40):
    return np.stack([make_inputs(plan_inputs(model), sizes, seed)[name] for seed in range(draws)])


def test_token_ids_fill_their_table_and_never_leave_it(graph):
    model = graph("g (int64[batch, seq] ids) => (float[batch, seq, 4] y) { y = Gather(words, ids) }", words=table(30))
    assert plan_of(model, "ids").how == "integers in [0, 30) (Gather of `words`)"
    values = drawn(model, "ids", {"batch": 2, "seq": 50})
    assert values.dtype == np.int64
    assert (values.min(), values.max()) == (0, 29)


def test_the_smallest_table_bounds_the_index(graph):
    model = graph(
        "g (int64[n] ids) => (float[n, 4] y) { a = Gather(big, ids) b = Gather(small, ids) y = Add(a, b) }",
        big=table(30),
        small=table(3),
    )
    assert drawn(model, "ids", {"n": 50}).max() == 2


@pytest.mark.parametrize(
    ("path", "bounds"),
    [
        ("i = Cast<to = 7>(ids) y = Gather(t, i)", (0, 9)),
        ("a = Unsqueeze(ids, zero) i = Squeeze(a, zero) y = Gather(t, i)", (0, 9)),
        ("i = Add(ids, two) y = Gather(t, i)", (0, 7)),
        ("i = Sub(ids, two) y = Gather(t, i)", (2, 11)),
        ("i = Mul(ids, two) y = Gather(t, i)", (0, 4)),
        ("a = Mul(ids, two) i = Add(a, one) y = Gather(t, i)", (0, 4)),
        ("i = Concat<axis = 0>(zero, ids) y = Gather(t, i)", (0, 9)),
        ("c = Less(ids, zero) i = Where(c, zero, ids) y = Gather(t, i)", (0, 9)),
        ("i = Add(ids, ids) y = Gather(t, i)", (0, 4)),
        ("y = Gather<axis = 1>(t, ids)", (0, 3)),
        # How wide an index tuple is, is not known here: the smallest axis of the table bounds it.
        ("a = Unsqueeze(ids, one) y = GatherND(t, a)", (0, 3)),
        ("a = Unsqueeze(ids, one) y = GatherElements(t, a)", (0, 9)),
        ("y = OneHot(ids, six, values)", (0, 5)),
        ("u = Transpose(t) y = Gather(u, ids)", (0, 3)),
    ],
)
def test_the_bound_is_found_behind(graph, path, bounds):
    numbers = {k: np.array([v], np.int64) for k, v in {"zero": 0, "one": 1, "two": 2, "six": 6}.items()}
    model = graph(f"g (int64[n] ids) => (y) {{ {path} }}", t=table(10), values=np.zeros(2, np.float32), **numbers)
    values = drawn(model, "ids", {"n": 60})
    assert (values.min(), values.max()) == bounds


def test_a_table_read_inside_an_if_bounds_the_index(graph):
    model = graph(
        """g (bool c, int64[n] ids) => (float[n, 4] y) {
            y = If(c) <then_branch = a () => (float[n, 4] p) { p = Gather(t, ids) },
                       else_branch = b () => (float[n, 4] q) { q = Gather(small, ids) }> }""",
        t=table(10),
        small=table(5),
    )
    assert drawn(model, "ids", {"n": 60}).max() == 4


def test_an_index_carried_through_a_loop_and_a_branch_is_bounded(graph):
    model = graph(
        """g (int64[n] ids) => (float[n, 4] y) {
            trips = Constant <value = int64 {2}> ()
            go = Constant <value = bool {1}> ()
            last = Loop (trips, go, ids) <body = b (int64 i, bool c, int64[n] v) => (bool k, int64[n] w) {
                k = Identity(c) w = Identity(v) }>
            y = Gather(t, last) }""",
        t=table(6),
    )
    assert drawn(model, "ids", {"n": 60}).max() == 5


def test_a_table_read_inside_a_function_bounds_the_index(graph):
    model = graph(
        """g (int64[n] ids) => (float[n, 4] y) { y = local.lookup(ids, t) }
        <domain: "local", opset_import: ["" : 20]> lookup (i, w) => (o) { j = Identity(i) o = Gather(w, j) }""",
        t=table(6),
    )
    # Inside a function the table's shape is not known: row 0 always exists, and the plan says what was done.
    plan = plan_of(model, "ids")
    assert "not known" in plan.how
    assert drawn(model, "ids", {"n": 60}).max() == 0


def test_an_index_into_an_axis_of_another_input_follows_its_size(graph):
    model = graph("g (float[rows, 4] x, int64[n] at) => (y) { y = Gather(x, at) }")
    assert plan_of(model, "at").how == "integers in [0, rows) (Gather of `x`)"
    assert drawn(model, "at", {"rows": 3, "n": 50}).max() == 2
    assert drawn(model, "at", {"rows": 9, "n": 90}).max() == 8


def test_a_mask_has_leading_ones_and_never_an_empty_row(graph):
    model = graph("g (int64[batch, seq] attention_mask) => (y) { y = Cast<to = 1>(attention_mask) }")
    values = drawn(model, "attention_mask", {"batch": 4, "seq": 7}).reshape(-1, 7)
    assert set(np.unique(values)) == {0, 1}
    assert (values[:, 0] == 1).all()
    assert (np.diff(values, axis=1) <= 0).all()
    assert 1 < values.sum(axis=1).max() == 7


@pytest.mark.parametrize(
    "body",
    [
        "b = Cast<to = 9>(x) y = Cast<to = 1>(b)",
        "b = Equal(x, zero) y = Cast<to = 1>(b)",
        "f = Cast<to = 1>(x) i = Sub(one, f) y = Mul(i, low)",
    ],
)
def test_an_integer_that_is_used_as_a_mask_is_one_without_being_called_so(graph, body):
    weights = {"zero": np.array(0, np.int64), "one": np.array(1, np.float32), "low": np.array(-1e9, np.float32)}
    model = graph(f"g (int64[n, 5] x) => (y) {{ {body} }}", **weights)
    assert plan_of(model, "x").kind == "mask"


def test_a_float_that_is_also_used_as_a_number_is_no_mask(graph):
    model = graph("g (float[n, 5] x) => (y) { b = Cast<to = 9>(x) c = Cast<to = 1>(b) e = Exp(x) y = Add(c, e) }")
    assert plan_of(model, "x").kind == "normal"


def test_a_padding_mask_leaves_something_in_every_row(graph):
    model = graph("g (bool[batch, seq] key_padding_mask) => (y) { y = Not(key_padding_mask) }")
    values = drawn(model, "key_padding_mask", {"batch": 4, "seq": 1})
    assert not values.any()
    assert not drawn(model, "key_padding_mask", {"batch": 4, "seq": 6}).all(axis=-1).any()


def test_a_trip_count_stays_small_and_positive(graph):
    model = graph(
        """g (int64 n, float[2] x) => (float[2] y) { go = Constant <value = bool {1}> ()
            y = Loop (n, go, x) <body = b (int64 i, bool c, float[2] v) => (bool k, float[2] w) {
                k = Identity(c) w = Add(v, v) }> }"""
    )
    assert set(drawn(model, "n", {}).tolist()) == {1, 2, 3, 4}


def test_sequence_lengths_lie_between_one_and_the_time_axis(graph):
    model = graph(
        "g (float[time, batch, 3] x, int32[batch] lens) => (y) { y = GRU<hidden_size = 2>(x, w, r, , lens) }",
        w=np.zeros((1, 6, 3), np.float32),
        r=np.zeros((1, 6, 2), np.float32),
    )
    values = drawn(model, "lens", {"time": 5, "batch": 8})
    assert (values.min(), values.max()) == (1, 5)


def test_a_divisor_is_never_zero(graph):
    model = graph("g (int64[n] x, int64[n] d) => (y) { y = Div(x, d) }")
    assert drawn(model, "d", {"n": 50}).min() == 1
    assert drawn(model, "x", {"n": 50}).min() == 0


def test_floats_are_standard_normal(graph):
    model = graph("g (float16[n] x) => (y) { y = Relu(x) }")
    values = drawn(model, "x", {"n": 500})
    assert values.dtype == np.float16
    assert abs(values.astype(float).mean()) < 0.03
    assert abs(values.astype(float).std() - 1) < 0.03


def test_a_lone_flag_is_tried_both_ways_in_any_two_draws(graph):
    model = graph("g (bool c) => (y) { y = Not(c) }")
    flags = drawn(model, "c", {}, draws=6).tolist()
    assert all(a != b for a, b in itertools.pairwise(flags))


def test_values_depend_on_seed_and_name_only(graph):
    one = graph("g (float[n] x, float[n] z) => (y) { y = Add(x, z) }")
    other = graph("g (float[n] z, float[n] w, float[n] x) => (y) { a = Add(x, z) y = Add(a, w) }")
    first = make_inputs(plan_inputs(one), {"n": 4}, 7)
    second = make_inputs(plan_inputs(other), {"n": 4}, 7)
    assert np.array_equal(first["x"], second["x"])
    assert np.array_equal(first["z"], second["z"])
    assert not np.array_equal(first["x"], first["z"])
    assert not np.array_equal(first["x"], make_inputs(plan_inputs(one), {"n": 4}, 8)["x"])


# --- the user's own values


@pytest.fixture
def two(graph):
    model = graph("g (float[batch, 3] x, float[other] z, int64 n) => (y) { y = Relu(x) }")
    model.ir.graph.inputs[1].shape = ir.Shape(["2*batch"])
    return plan_inputs(model)


def test_a_given_array_sets_the_size_for_every_input(two):
    x = np.ones((5, 3), np.float32)
    assert fixed_sizes(two, {"x": x}) == {"batch": 5}
    made = make_inputs(two, {"batch": 2}, 0, {"x": x, "n": 6})
    assert np.array_equal(made["x"], x)
    assert made["z"].shape == (10,)
    assert made["n"] == 6
    assert made["n"].dtype == np.int64


def test_a_given_array_sets_the_size_behind_an_expression(two):
    assert fixed_sizes(two, {"z": np.ones(8, np.float32)}) == {"batch": 4}


def test_a_npy_file_is_read(two, tmp_path):
    np.save(tmp_path / "x.npy", np.full((1, 3), 2, np.float32))
    assert make_inputs(two, {}, 0, {"x": tmp_path / "x.npy"})["x"].sum() == 6


@pytest.mark.parametrize(
    ("given", "error", "said"),
    [
        ({"q": 1}, UnknownName, "x, z, n"),
        ({"x": np.ones((5, 3))}, BadSample, "float64"),
        ({"x": np.ones((5, 4), np.float32)}, ShapeMismatch, "[5, 4]"),
        ({"x": np.ones(3, np.float32)}, ShapeMismatch, "[3]"),
        ({"x": np.ones((5, 3), np.float32), "z": np.ones(8, np.float32)}, ShapeMismatch, "batch=5"),
        ({"z": np.ones(7, np.float32)}, ShapeMismatch, "[7]"),
        ({"x": 1.0}, ShapeMismatch, "single value"),
        ({"n": 1.5}, BadSample, "1.5"),
        ({"n": 2**70}, BadSample, "int64"),
        ({"x": "missing.npy"}, BadSample, "no such file"),
    ],
)
def test_a_value_that_does_not_fit_is_refused(two, given, error, said):
    with pytest.raises(error) as caught:
        make_inputs(two, {"batch": 2}, 0, given)
    assert said in caught.value.render()


def test_a_file_of_pickled_objects_is_refused_and_not_loaded(two, tmp_path):
    np.save(tmp_path / "x.npy", np.array([{}], dtype=object), allow_pickle=True)
    with pytest.raises(BadSample, match="pickle"):
        make_inputs(two, {}, 0, {"x": tmp_path / "x.npy"})


def test_an_archive_is_refused(two, tmp_path):
    np.savez(tmp_path / "x.npz", x=np.zeros(3))
    with pytest.raises(BadSample, match="archive"):
        make_inputs(two, {}, 0, {"x": tmp_path / "x.npz"})


def test_strings_are_not_made_up(graph):
    model = graph("g (string[n] words) => (y) { y = Identity(words) }")
    with pytest.raises(BadSample, match="words"):
        make_inputs(plan_inputs(model), {"n": 2}, 0)


def test_a_dimension_without_a_size_is_asked_for():
    plan = InputPlan(TensorSpec("x", "float32", (None, 3)), "normal", "")
    with pytest.raises(ShapeMissing, match="`x`"):
        make_inputs([plan], {}, 0)


def test_an_input_that_is_no_tensor_is_refused(graph):
    model = graph("g (seq(float[2]) xs) => (y) { y = ConcatFromSequence<axis = 0>(xs) }")
    with pytest.raises(BadSample, match="`xs`"):
        plan_inputs(model)
