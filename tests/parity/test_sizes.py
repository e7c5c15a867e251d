"""The sizes that are tried lie inside the declared ranges and reach their ends."""

from __future__ import annotations

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from graphkit.errors import ShapeMismatch
from graphkit.parity.sizes import choose_sizes
from graphkit.shapes import DimRange, Signature, TensorSpec


def signature(*shape, dtype="float32"):
    return Signature((TensorSpec("x", dtype, shape),), ())


def test_min_opt_odd_and_max_are_tried():
    points = choose_sizes(signature("batch", 3), [DimRange("batch", 1, 4, 8)], seen=[{"batch": 4}])
    assert {p.label: p.sizes["batch"] for p in points} == {"min": 1, "opt": 4, "odd": 3, "max": 8}
    assert [p.label for p in points if p.seen] == ["opt"]


def test_two_symbols_with_one_range_get_different_odd_sizes():
    points = choose_sizes(signature("a", "b"), [DimRange("a", 1, 4, 9), DimRange("b", 1, 4, 9)])
    odd = next(p for p in points if p.label == "odd")
    assert odd.sizes["a"] != odd.sizes["b"]


def test_a_range_of_even_numbers_is_tried_at_an_odd_one():
    points = choose_sizes(signature("seq"), [DimRange("seq", 2, 32, 512)])
    assert next(p for p in points if p.label == "odd").sizes["seq"] % 2 == 1


def test_the_odd_size_keeps_the_common_divisor_of_the_range():
    points = choose_sizes(signature("h"), [DimRange("h", 32, 64, 160)])
    assert next(p for p in points if p.label == "odd").sizes["h"] == 96


def test_sizes_that_capture_used_are_avoided():
    points = choose_sizes(signature("n"), [DimRange("n", 1, 2, 5)], seen=[{"n": n} for n in (1, 2, 3, 5)])
    assert [p.sizes["n"] for p in points if not p.seen] == [4]


def test_a_symbol_without_a_range_is_tried_at_small_sizes():
    points = choose_sizes(signature("batch", "seq"), [])
    assert [tuple(p.sizes.values()) for p in points] == [(1, 1), (2, 3), (5, 7)]
    assert not any(p.declared for p in points)


def test_an_image_side_without_a_range_keeps_the_size_of_capture():
    points = choose_sizes(signature(1, 3, "h"), [], seen=[{"h": 64}])
    assert [p.sizes["h"] for p in points] == [64, 128, 128]
    assert [p.draw for p in points] == [0, 0, 1]


def test_a_static_model_gets_three_draws():
    points = choose_sizes(signature(2, 3), [])
    assert [(dict(p.sizes), p.draw) for p in points] == [({}, 0), ({}, 1), ({}, 2)]


def test_maxima_too_large_together_are_tried_one_by_one_and_said_so():
    dims = [DimRange("batch", 1, 8, 64), DimRange("seq", 16, 128, 4096)]
    points = choose_sizes(signature("batch", "seq", dtype="int64"), dims)
    ends = {p.label: p for p in points if p.label.startswith("max")}
    assert dict(ends["max of seq"].sizes) == {"batch": 1, "seq": 4096}
    assert dict(ends["max of batch"].sizes) == {"batch": 64, "seq": 16}
    assert "batch=64, seq=4096 was not run together" in ends["max of seq"].note


def test_a_maximum_beyond_the_budget_is_replaced_and_said_so():
    points = choose_sizes(signature("n", 1000), [DimRange("n", 1, 2, 1_000_000)])
    last = points[-1]
    assert 2 < last.sizes["n"] <= 4194
    assert "n=1000000 was not run" in last.note


def test_sizes_fixed_by_samples_stay_and_must_lie_in_the_range():
    dims = [DimRange("batch", 1, 4, 8)]
    points = choose_sizes(signature("batch", "seq"), dims, fixed={"batch": 5})
    assert {p.sizes["batch"] for p in points} == {5}
    with pytest.raises(ShapeMismatch, match="batch=9"):
        choose_sizes(signature("batch"), dims, fixed={"batch": 9})


@st.composite
def ranges(draw):
    low, opt, high = sorted(draw(st.tuples(*[st.integers(1, 5000)] * 3)))
    return low, opt, high


@given(ranges(), ranges(), st.sampled_from(["float32", "int64"]))
@settings(max_examples=60, deadline=None)
def test_every_size_lies_in_its_range_and_one_is_new(first, second, dtype):
    dims = [DimRange("a", *first), DimRange("b", *second)]
    seen = [{"a": first[1], "b": second[1]}]
    points = choose_sizes(signature("a", "b", dtype=dtype), dims, seen)
    assert points == choose_sizes(signature("a", "b", dtype=dtype), dims, seen)
    assert len(points) >= 3
    assert all(d.min <= p.sizes[d.symbol] <= d.max for d in dims for p in points)
    assert any(not p.seen for p in points) or first[0] == first[2] or second[0] == second[2]
