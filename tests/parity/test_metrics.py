"""Metrics: their formulas on numbers that can be checked by hand, and the conditions that people set on them."""

from __future__ import annotations

import math

import ml_dtypes
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from graphkit.errors import BadOption, ShapeMismatch, UnknownName
from graphkit.parity.judge import Judge
from graphkit.parity.metrics import Condition, measure, parse_condition

R = np.array([[3.0, 4.0, 0.0], [0.0, 0.0, 12.0]], np.float32)
C = np.array([[3.0, 4.5, 0.0], [0.5, 0.0, 12.0]], np.float32)

floats = hnp.arrays(
    np.float32,
    hnp.array_shapes(min_dims=1, max_dims=3, max_side=6),
    elements=st.floats(-(2.0**100), 2.0**100, width=32),
)


def test_the_numbers_are_those_of_the_formulas():
    found = measure(R, C, ks=(1,))
    assert found["mean_abs"] == pytest.approx(1 / 6)
    assert found["p999_abs"] == 0.5
    assert found["mean_rel"] == pytest.approx(0.125 / 3)
    assert found["snr"] == pytest.approx(10 * math.log10(169 / 0.5))
    assert found["l2"] == pytest.approx(math.sqrt(0.5 / 169))
    assert found["cosine"] == pytest.approx((9 + 18 + 144) / math.sqrt(169 * (9 + 20.25 + 0.25 + 144)))
    assert (found["argmax"], found["top1"]) == (1.0, 1.0)


@given(floats)
@settings(deadline=None)
def test_anything_is_perfectly_like_itself(values):
    found = measure(values, values.copy())
    assert {found[k] for k in ("mean_abs", "p999_abs", "ulp", "l2")} == {0.0}
    assert found["snr"] == math.inf
    assert found["cosine"] == pytest.approx(1.0)
    assert all(found[k] == 1.0 for k in found if k == "argmax" or k.startswith("top"))


@pytest.mark.parametrize("dtype", ["float16", "float32", "float64"])
@pytest.mark.parametrize("value", [1.0, -1.0, 0.0, -1e-3])
def test_the_next_float_is_one_ulp_away_on_either_side(dtype, value):
    r = np.array([value], dtype)
    for towards in (np.inf, -np.inf):
        assert measure(r, np.nextafter(r, np.array(towards, dtype)))["ulp"] == 1


def test_ulps_are_counted_through_zero_and_over_the_whole_range():
    tiny = np.nextafter(np.float32(0), np.float32(1))
    assert measure(np.array([-tiny]), np.array([tiny]))["ulp"] == 2
    assert measure(np.array([-0.0], np.float32), np.array([0.0], np.float32))["ulp"] == 0
    ends = np.finfo(np.float64)
    assert measure(np.array([ends.min]), np.array([ends.max]))["ulp"] == pytest.approx(2.0**64, rel=1e-3)


def test_the_largest_floats_do_not_overflow():
    r = np.array([1e300, -1e300])
    found = measure(r, r * (1 + 1e-6))
    assert found["snr"] == pytest.approx(120, abs=0.1)
    assert found["cosine"] == pytest.approx(1.0)


def test_nan_and_infinity_are_left_to_the_comparison():
    found = measure(np.array([np.nan, np.inf, 1.0]), np.array([np.nan, np.inf, 1.5]))
    assert found["mean_abs"] == 0.5
    assert measure(np.array([np.nan]), np.array([1.0])) == {}


def test_a_zero_reference_has_no_signal():
    found = measure(np.zeros(3, np.float32), np.ones(3, np.float32))
    assert (found["snr"], found["l2"], found["cosine"]) == (-math.inf, math.inf, 0.0)


def test_top_k_counts_what_moved_out_of_the_best():
    r = np.arange(10, dtype=np.float32)[None]
    c = r.copy()
    c[0, 9] = -1
    found = measure(r, c, ks=(1, 5))
    assert (found["argmax"], found["top1"], found["top5"]) == (0.0, 0.0, 0.8)


def test_ties_of_the_reference_are_no_disagreement():
    r = np.array([[1, 1, 0]], np.float32)
    assert measure(r, np.array([[0.9, 1, 0]], np.float32), ks=(1,))["top1"] == 1.0


def test_a_k_that_takes_the_whole_row_says_nothing():
    assert "top3" not in measure(R, C, ks=(3,))


@pytest.mark.parametrize("dtype", ["int64", "bool", "complex64", "bfloat16"])
def test_every_kind_of_number_is_measured(dtype):
    r = np.array([1, 0, 1]).astype(getattr(ml_dtypes, dtype, dtype))
    found = measure(r, r)
    assert (found["mean_abs"], found["snr"]) == (0.0, math.inf)
    assert "ulp" not in found


def test_strings_and_unequal_shapes_have_no_metrics():
    assert measure(np.array(["a"], object), np.array(["a"], object)) == {}
    assert measure(R, C.T) == {}
    assert measure(R[:0], C[:0]) == {}


# --- conditions --------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("text", "condition"),
    [
        ("snr>=40", Condition("snr", 40)),
        ("ulp <= 16", Condition("ulp", 16)),
        ("logits:top5>=0.99", Condition("top5", 0.99, "logits")),
        ("a:b:cosine>=.999", Condition("cosine", 0.999, "a:b")),
    ],
)
def test_a_condition_is_read(text, condition):
    assert parse_condition(text) == condition
    assert parse_condition(str(condition)) == condition


@pytest.mark.parametrize(
    "text", ["snr", "snr>=", "snr>40", "snr==40", "snr>=many", "snr>=nan", "psnr>=4", "top0>=1", ""]
)
def test_a_malformed_condition_is_refused(text):
    with pytest.raises(BadOption, match="metric"):
        parse_condition(text)


@pytest.mark.parametrize("text", ["snr<=40", "ulp>=3"])
def test_a_condition_that_only_a_broken_model_meets_is_refused(text):
    with pytest.raises(BadOption, match="better when"):
        parse_condition(text)


def judged(judge: Judge, reference=R, candidate=C, name="y"):
    return judge({"y": reference}, {name: candidate})


def test_a_condition_decides_beside_the_tolerance():
    loose = {"atol": {"": 1.0}}
    (good,) = judged(Judge(**loose, conditions=(Condition("snr", 20),))).outputs
    (bad,) = judged(Judge(**loose, conditions=(Condition("snr", 40),))).outputs
    assert (good.status, bad.status) == ("pass", "fail")
    assert bad.reason == "snr is 25.2892, snr>=40 was asked for"
    assert good.metrics["snr"] == pytest.approx(25.2892, abs=1e-4)


def test_a_metric_that_an_output_does_not_have_is_not_met():
    (output,) = judged(Judge(conditions=(Condition("top5", 0.5),)), R, R).outputs
    assert output.status == "fail"
    assert "top5 cannot be computed" in output.reason


def test_tolerances_are_overridden_for_all_or_one_output():
    assert judged(Judge()).outputs[0].status == "fail"
    assert judged(Judge(atol={"": 0.5})).outputs[0].status == "pass"
    assert judged(Judge(atol={"y": 0.5, "": 0.0})).outputs[0].status == "pass"
    assert judged(Judge(atol={"": 0.5, "y": 0.0}, rtol={"y": 0.0})).outputs[0].status == "fail"


def test_a_tolerance_for_all_leaves_integers_exact():
    r, c = np.array([1, 2]), np.array([1, 3])
    assert judged(Judge(atol={"": 5.0}), r, c).outputs[0].status == "fail"
    assert judged(Judge(atol={"y": 5.0}), r, c).outputs[0].status == "pass"


def test_outputs_of_other_names_are_matched_by_position_and_it_is_said():
    judgement = Judge()({"a": R, "b": C}, {"c": R, "b": C})
    assert [o.status for o in judgement.outputs] == ["pass", "pass"]
    assert judgement.notes == ("outputs matched by position: `c` as `a`",)


def test_another_number_of_outputs_is_another_signature():
    with pytest.raises(ShapeMismatch) as caught:
        Judge()({"a": R}, {"a": R, "b": C})
    assert caught.value.details == ("reference: a: float32[2, 3]", "candidate: a: float32[2, 3], b: float32[2, 3]")


@pytest.mark.parametrize(
    "judge", [Judge(atol={"z": 1}), Judge(rtol={"z": 1}), Judge(conditions=(Condition("snr", 1, "z"),))]
)
def test_a_setting_for_an_unknown_output_is_refused(judge):
    with pytest.raises(UnknownName, match="no output `z`"):
        judged(judge)


def test_nan_in_the_reference_itself_is_said():
    r = np.array([1.0, np.nan], np.float32)
    assert judged(Judge(), r, r).notes == ("1 of 2 values of the reference's own `y` are NaN",)
