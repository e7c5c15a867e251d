"""The corpus and the pattern suite are what the benchmark takes them for: valid graphs, and judges that bite."""

from __future__ import annotations

import json
from collections import Counter
from pathlib import Path

import numpy as np
import onnx
import pytest

from fixtures.corpus_inputs import MANIFEST, Entry, Input, entries, feeds
from fixtures.corpus_synthetic import PER_BLOCK, long_graph
from fixtures.patterns import all_patterns, contract, difference, run_case, run_pattern
from fixtures.patterns_build import ops_of
from fixtures.patterns_semantics import cases


def test_the_patterns_are_valid_graphs_and_72_are_those_of_the_first_study():
    patterns = all_patterns()
    for pattern in patterns:
        onnx.checker.check_model(pattern.model(), full_check=True)
    assert Counter(pattern.own for pattern in patterns)[False] == 72
    assert len({pattern.name for pattern in patterns}) == len(patterns)


def test_an_optimiser_that_does_nothing_reaches_only_what_must_stay():
    reached = [pattern.name for pattern in all_patterns() if pattern.goal(ops_of(pattern.model()))]
    assert reached == [
        "QDQ: int8 W -> DQ kept",
        "QDQ: fp32 W -> Q -> DQ kept (weight DQ survives)",
        "Cast f32->f16->f32 must NOT be removed",
    ]


def test_a_wrong_constant_is_found():
    pattern = next(pattern for pattern in all_patterns() if pattern.name == "MatMul+Add -> Gemm (2D)")

    def spoil(model: onnx.ModelProto) -> onnx.ModelProto:
        held = model.graph.initializer[0]
        held.CopyFrom(onnx.numpy_helper.from_array(onnx.numpy_helper.to_array(held) * np.float32(1.0001), held.name))
        return model

    assert run_pattern(pattern, spoil).verdict == "wrong"
    assert run_pattern(pattern, lambda model: model).verdict == "no"


@pytest.mark.parametrize("case", list(cases()), ids=lambda case: case.name)
def test_a_case_holds_where_nothing_is_done(case):
    assert run_case(case, lambda model: model).verdict == "good"


def test_a_frozen_dim_breaks_the_contract():
    before = next(case for case in cases() if case.name == "a Shape of a dynamic input is not frozen").build()
    after = onnx.ModelProto()
    after.CopyFrom(before)
    after.graph.input[0].type.tensor_type.shape.dim[0].dim_value = 2
    assert contract(before, before) == ""
    assert "became" in contract(before, after)


def test_the_long_graph_has_its_nodes_and_runs():
    model = long_graph(3)
    onnx.checker.check_model(model, full_check=True)
    assert ops_of(model).total == 3 * PER_BLOCK
    assert difference(model, model, exact=True) == ""


def test_inputs_are_the_same_at_each_call_and_padded_where_asked(tmp_path: Path):
    ids = Input("input_ids", ("batch", "sequence"), "int64", 9)
    mask = Input("attention_mask", ("batch", "past+sequence"), "int64", 2)
    sizes = ({"batch": 4, "sequence": 5, "past": 2}, {"batch": 1, "sequence": 3, "past": 0})
    made = Entry("bert.ts", "bert.ts.onnx", (ids, mask), sizes)
    (tmp_path / MANIFEST).write_text(json.dumps([made.to_json()]), encoding="utf-8")
    (read,) = entries(tmp_path)
    assert read == made
    first, again = feeds(read), feeds(made)
    assert all(np.array_equal(first[name], again[name]) for name in first)
    assert first["attention_mask"].shape == (4, 7)
    assert (np.diff(first["attention_mask"]) <= 0).all()
    assert (np.diff(feeds(read, padding="left")["attention_mask"]) >= 0).all()
    assert feeds(read, 1)["attention_mask"].all()
