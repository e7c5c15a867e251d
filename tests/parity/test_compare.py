"""The verdict on two sets of outputs."""

from __future__ import annotations

import json

import ml_dtypes
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from graphkit.parity.compare import compare_outputs, magnitude, tolerance_for

FLOATS = ["float32", "float64", "float16", "bfloat16"]


def one(reference, candidate, **options):
    (result,) = compare_outputs({"y": reference}, {"y": candidate}, **options)
    json.dumps(result.to_json(), allow_nan=False)
    return result


def arrays(**elements):
    shapes = hnp.array_shapes(min_dims=0, max_dims=3, max_side=5)
    values = st.floats(width=32, allow_subnormal=False, **elements)
    return hnp.arrays(np.float32, shapes, elements=values)


finite = {"allow_nan": False, "min_value": -1000, "max_value": 1000}


@given(arrays())
@settings(deadline=None)
def test_anything_equals_itself_nan_and_infinity_included(values):
    result = one(values, values.copy())
    assert result.status == "pass"
    assert (result.max_abs, result.max_rel, result.mismatches, result.worst_index) == (0, 0, 0, None)


@given(arrays(**finite), st.data(), st.sampled_from([-1, 1]))
@settings(deadline=None)
def test_a_change_beyond_the_tolerance_fails_whichever_side_it_is_on(values, data, sign):
    position = data.draw(st.integers(0, values.size - 1))
    changed = values.copy()
    atol, rtol = tolerance_for("float32", "float32", float(np.abs(values).max()) or 1.0)
    changed.flat[position] += sign * 3 * (atol + rtol * abs(values.flat[position]))
    result = one(values, changed)
    assert result.status == "fail"
    assert result.mismatches == 1
    assert np.ravel_multi_index(result.worst_index, values.shape) == position if values.ndim else True
    assert one(changed, values).status == "fail"


@given(arrays(**finite))
@settings(deadline=None)
def test_a_change_within_the_tolerance_passes(values):
    assert one(values, values * np.float32(1.0005)).status == "pass"


@given(arrays(), st.randoms(use_true_random=False))
@settings(deadline=None)
def test_shuffling_both_sides_alike_changes_no_verdict(values, random):
    with np.errstate(over="ignore"):
        candidate = values * np.float32(1.01)
    order = list(range(values.size))
    random.shuffle(order)
    plain = one(values.ravel(), candidate.ravel())
    shuffled = one(values.ravel()[order], candidate.ravel()[order])
    assert plain.status == shuffled.status
    assert plain.mismatches == shuffled.mismatches
    assert plain.max_abs == shuffled.max_abs


@pytest.mark.parametrize(
    ("reference", "candidate"), [(np.nan, 1), (1, np.nan), (np.inf, -np.inf), (np.inf, 3e38), (np.nan, np.inf)]
)
def test_nan_and_infinity_must_stand_at_the_same_places(reference, candidate):
    r = np.array([[1, 2], [3, reference]], np.float32)
    c = np.array([[1, 2], [3, candidate]], np.float32)
    result = one(r, c)
    assert (result.status, result.mismatches, result.worst_index) == ("fail", 1, (1, 1))
    assert "NaN or infinity" in result.reason


@pytest.mark.parametrize("dtype", ["int8", "uint8", "int32", "int64", "uint64", "bool"])
def test_an_integer_off_by_one_fails(dtype):
    r = np.zeros((2, 3), dtype)
    c = r.copy()
    c[1, 2] = 1
    result = one(r, c)
    assert (result.status, result.mismatches, result.worst_index, result.max_abs) == ("fail", 1, (1, 2), 1)
    assert (result.atol, result.rtol) == (0, 0)


def test_large_integers_that_float64_cannot_tell_apart_differ():
    result = one(np.array([2**62]), np.array([2**62 + 1]))
    assert (result.status, result.max_abs) == ("fail", 1)


def test_the_extremes_of_int64_do_not_wrap_around():
    ends = np.iinfo(np.int64)
    assert one(np.array([ends.min]), np.array([ends.max])).max_abs == pytest.approx(2.0**64)


@pytest.mark.parametrize("dtype", FLOATS)
def test_the_tolerance_follows_the_dtype(dtype):
    atol, rtol = tolerance_for(dtype, dtype, 1.0)
    r = np.ones(100, np.float64)
    kind = getattr(ml_dtypes, dtype, dtype)
    assert one(r.astype(kind), (r * (1 + rtol / 2)).astype(kind)).status == "pass"
    assert one(r.astype(kind), (r * (1 + 3 * (rtol + atol))).astype(kind)).status == "fail"


def test_the_coarser_dtype_decides():
    assert tolerance_for("float32", "float16", 1.0) == tolerance_for("float16", "float16", 1.0)
    assert tolerance_for("float32", "int32", 1.0) == (0.0, 0.0)
    assert tolerance_for("float8_e4m3fn", "float8_e4m3fn", 1.0) == (0.125, 0.25)


def test_a_dtype_that_changed_fails_even_where_the_values_agree():
    result = one(np.ones(3, np.float32), np.ones(3, np.float64))
    assert (result.status, result.max_abs) == ("fail", 0)
    assert "float64 instead of float32" in result.reason


def test_a_shape_that_changed_fails():
    result = one(np.ones((2, 3), np.float32), np.ones((3, 2), np.float32))
    assert (result.status, result.max_abs) == ("fail", None)
    assert "[3, 2] instead of [2, 3]" in result.reason


def test_empty_outputs_pass_if_their_shapes_agree():
    assert one(np.ones((0, 3), np.float32), np.ones((0, 3), np.float32)).status == "pass"
    assert one(np.ones((0, 3), np.float32), np.ones((0, 4), np.float32)).status == "fail"


def test_missing_and_additional_outputs_fail_by_name():
    y = np.ones(2, np.float32)
    results = compare_outputs({"a": y, "b": y}, {"b": y, "c": y})
    assert [(o.output, o.status) for o in results] == [("a", "fail"), ("b", "pass"), ("c", "fail")]


def test_strings_must_be_equal():
    r = np.array(["a", "b"], dtype=object)
    assert one(r, np.array(["a", "b"])).status == "pass"
    result = one(r, np.array(["a", "c"], dtype=object))
    assert (result.status, result.worst_index, result.max_abs) == ("fail", (1,), None)


def test_masked_logits_do_not_widen_the_tolerance_of_the_others():
    r = np.linspace(-8, 8, 1000, dtype=np.float32)
    r[::2] = np.finfo(np.float32).min
    assert magnitude(r) == pytest.approx(8, rel=0.01)
    c = r.copy()
    c[101] += 0.05
    assert one(r, c).status == "fail"


def test_boxes_and_scores_of_one_output_share_a_scale():
    r = np.concatenate([np.linspace(0.01, 1, 500), np.linspace(1, 640, 500)]).astype(np.float32)
    assert magnitude(r) == 640


def test_all_zeros_leave_room_for_rounding_only():
    zeros = np.zeros(10, np.float32)
    assert magnitude(zeros) == 1
    assert one(zeros, zeros + np.float32(1e-6)).status == "pass"
    assert one(zeros, zeros + np.float32(1e-3)).status == "fail"


def test_the_worst_element_of_a_large_output_is_found_in_any_chunk():
    r = np.ones((3, 1 << 20), np.float32)
    c = r.copy()
    c[0, 5], c[2, 77] = 1.5, 3.0
    result = one(r, c)
    assert (result.worst_index, result.mismatches, result.candidate_value) == ((2, 77), 2, 3.0)
    assert result.max_abs == 2


def test_relative_error_ignores_zeros_of_the_reference():
    result = one(np.array([0.0, 2.0], np.float32), np.array([1e-6, 2.002], np.float32))
    assert result.max_rel == pytest.approx(0.001, rel=1e-3)


def test_complex_values_are_compared():
    r = np.array([1 + 1j, 2 - 1j], np.complex64)
    assert one(r, r * np.complex64(1.0001)).status == "pass"
    assert one(r, r.conj()).status == "fail"


def test_the_worst_element_is_the_one_that_uses_most_of_its_own_tolerance():
    expected = np.array([1e-9, 0.01, 1.0], np.float32)
    (found,) = compare_outputs({"y": expected}, {"y": expected + np.array([1e-13, 9e-6, 3e-6], np.float32)})
    assert found.status == "pass"
    assert found.worst_index == (1,)
    assert found.max_abs == pytest.approx(9e-6, rel=1e-3)
    (found,) = compare_outputs({"y": np.array([5, 7, 9])}, {"y": np.array([6, 7, 19])})
    assert (found.status, found.worst_index, found.mismatches) == ("fail", (2,), 2)
