"""Ranges found in the graph, several profiles, and sizes that follow from others."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from onnx import TensorProto, helper

from graphkit.engine.builder import BuildRequest
from graphkit.engine.free_dims import resolve
from graphkit.engine.profile_text import hull, parse_profile
from graphkit.engine.profiles import make_profile, prove, prove_all
from graphkit.errors import BadDimRange, TargetUnsupported, UnknownName
from graphkit.shapes import DimRange

FLOAT = TensorProto.FLOAT


def reshaped(make, target, shape=("batch", "seq"), declared=None):
    """One Reshape to fixed numbers."""
    return make(
        [helper.make_node("Reshape", ["x", "to"], ["y"], name="fold")],
        [("x", FLOAT, list(shape))],
        [("y", FLOAT, declared or [f"o{i}" for i in range(len(target))])],
        [("to", np.array(target))],
    )


def found(model, dims=()):
    resolved = resolve(BuildRequest(model, dims, find_ranges=True))
    return {r.symbol: r for r in resolved.request.dims}, resolved.findings


def test_a_free_dimension_gets_a_range_and_the_finding_says_so(cnn):
    ranges, [finding] = found(cnn)
    assert ranges == {"batch": DimRange("batch", 1, 8, 32)}
    assert finding.code == "range-found"
    assert "`batch` was given no range: 1:8:32 was found" in finding.message
    assert "every size tried from 1 to 512" in finding.message


def test_sizes_that_keep_a_reshape_whole_are_found(make):
    ranges, findings = found(reshaped(make, [-1, 8, 3], ("batch", 6)))
    assert ranges["batch"] == DimRange("batch", 4, 8, 32)
    assert "every multiple of 4" in findings[0].message


def test_a_dimension_that_the_graph_fixes_has_one_size(make):
    ranges, findings = found(reshaped(make, [4, 15], ("n", 12)))
    assert ranges["n"] == DimRange("n", 5, 5, 5)
    assert "holds at 5 only" in findings[0].message


def test_dimensions_that_change_together_are_found_together(make):
    ends = [("a", FLOAT, ["p", 4]), ("b", FLOAT, [4, "q"]), ("c", FLOAT, ["r", 4])]
    nodes = [
        helper.make_node("MatMul", ["b", "a"], ["s"], name="inner"),  # q == p
        helper.make_node("Concat", ["s", "c"], ["y"], axis=0),
    ]
    ranges, findings = found(make(nodes, ends, [("y", FLOAT, ["t", 4])]))
    assert (ranges["p"].min, ranges["p"].max) == (ranges["q"].min, ranges["q"].max) == (1, 32)
    [both] = [f for f in findings if "`p`" in f.message]
    assert "`p` and `q`" in both.message
    assert "together" in both.message


def test_the_sizes_of_the_capture_are_where_the_search_begins(make):
    model = reshaped(make, [-1, 9, 3], ("batch", "side"))
    captured = replace(model, origin=replace(model.origin, sizes={"batch": 2, "side": 27}))
    ranges, _ = found(captured)
    assert (ranges["side"].opt, ranges["batch"].opt) == (27, 2)


def test_given_ranges_are_kept_and_no_finding_speaks_of_them(cnn):
    given_range = (DimRange("batch", 2, 3, 5),)
    ranges, findings = found(cnn, given_range)
    assert findings == ()
    assert (*ranges.values(),) == given_range


def test_a_graph_that_holds_nowhere_asks_for_a_range(make):
    with pytest.raises(BadDimRange, match="no size up to 512") as caught:
        found(reshaped(make, [7, 11, 13, 17], ("batch", 3)))
    assert caught.value.remedy == "--dim batch=MIN:OPT:MAX"


# --- several profiles ----------------------------------------------------------------------------------------------


def test_each_profile_is_proven_and_the_failing_one_named(make):
    model = reshaped(make, [-1, 8], ("batch", 4))
    good, bad = (DimRange("batch", 2, 4, 8),), (DimRange("batch", 2, 3, 8),)
    assert len(prove_all(model, [good, good])) == 2
    with pytest.raises(BadDimRange, match=r"does not hold at opt of profile 2 \(batch=3\): node fold \(Reshape\)"):
        prove_all(model, [good, bad])


def test_a_profile_says_where_it_differs_from_the_ranges(make):
    model = make(
        [helper.make_node("Relu", ["x"], ["y"])], [("x", FLOAT, ["batch", "seq"])], [("y", FLOAT, ["batch", "seq"])]
    )
    request = BuildRequest(
        model,
        (DimRange("batch", 1, 1, 1), DimRange("seq", 1, 32, 128)),
        profiles=((), (DimRange("batch", 8, 8, 8),)),
    )
    shapes = [make_profile(model.signature, ranges).shapes["x"] for ranges in request.range_sets]
    assert shapes == [((1, 1), (1, 32), (1, 128)), ((8, 1), (8, 32), (8, 128))]


def test_a_reshape_that_would_lose_elements_is_found_without_a_minus_one(make):
    with pytest.raises(TargetUnsupported, match=r"fold \(Reshape\): cannot turn the shape \[2, 6\] into \[5, 4\]"):
        prove(reshaped(make, [5, 4], ("batch", 6)), (DimRange("batch", 2, 2, 2),))


def test_sizes_follow_from_others():
    assert parse_profile("batch=1:4:8, seq=2:32:128,total=batch*seq") == (
        DimRange("batch", 1, 4, 8),
        DimRange("seq", 2, 32, 128),
        DimRange("total", 2, 128, 1024),
    )


@given(st.integers(1, 50), st.integers(1, 50), st.integers(1, 9))
def test_what_is_computed_is_computed_at_each_point(low, more, factor):
    *_, computed = parse_profile(f"n={low}:{low}:{low + more},m={factor}*n + 1")
    assert (computed.min, computed.max) == (factor * low + 1, factor * (low + more) + 1)


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("batch=8:4:1", "8:4:1"),
        ("batch=1:2", "name=min:opt:max"),
        ("batch", "name=min:opt:max"),
        ("", "gives no range"),
        ("batch=1:2:3,batch=1:1:1", "twice"),
        ("batch=1:2:3,total=batch*width", "cannot be computed"),
        ("batch=1:2:3,less=4-batch", "3:2:1"),
    ],
)
def test_a_bad_profile_is_refused_with_what_is_wrong(text, said):
    with pytest.raises(BadDimRange, match=said.replace("*", r"\*")):
        parse_profile(text)


def test_a_symbol_that_stands_nowhere_is_refused(cnn):
    request = BuildRequest(cnn, profiles=((DimRange("batch", 1, 1, 1), DimRange("seq", 1, 1, 1)),))
    with pytest.raises(UnknownName, match="`seq`"):
        prove_all(cnn, request.range_sets)


def test_a_profile_that_leaves_a_dimension_out_is_refused(make):
    model = reshaped(make, [-1, 4])
    with pytest.raises(BadDimRange, match="`seq`"):
        prove_all(model, BuildRequest(model, profiles=((DimRange("batch", 1, 1, 1),),)).range_sets)


def test_the_hull_spans_every_profile_and_wants_each_dimension_in_all():
    profiles = [parse_profile("a=2:3:4,b=1:1:1"), parse_profile("a=1:8:9,b=5:6:7")]
    assert hull(profiles, ()) == (DimRange("a", 1, 3, 9), DimRange("b", 1, 1, 7))
    assert hull(profiles, [DimRange("a", 1, 1, 1)]) == (DimRange("b", 1, 1, 7),)
    with pytest.raises(BadDimRange, match="1 of 2 profiles give a range for `b`"):
        hull([profiles[0], parse_profile("a=1:1:1")], ())
