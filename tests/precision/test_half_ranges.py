"""The range trace: what it says of each tensor is what numpy says, in however many segments it runs."""

from __future__ import annotations

import numpy as np
import onnx_ir as ir
import pytest
from onnx import TensorProto, helper

from fixtures.precision_models import HALF_MODELS, Builder, control_flow
from graphkit.errors import ParityFailed
from graphkit.model import Model, Origin
from graphkit.precision import half_types, ranges
from graphkit.precision.ranges_child import Tally


def prepared(proto):
    model = Model(ir.from_proto(proto), Origin("onnx file"))
    half_types.settle(model.ir)
    return model


def by_name(model, found):
    values = [v for n in model.ir.graph.all_nodes() for v in n.outputs]
    return {v.name: found[id(v)] for v in (*model.ir.graph.inputs, *values) if id(v) in found}


def test_each_figure_is_numpys():
    b = Builder()
    b.op("Mul", [b.op("Abs", ["x"], "positive"), b.constant("scale", 1e-3)], "y")
    model = prepared(b.model({"x": [None, 8]}, {"y": [None, 8]}))
    samples = [{"x": np.random.default_rng(i).standard_normal((3 + i, 8), np.float32)} for i in range(2)]
    found = by_name(model, ranges.trace(model, samples))
    made = np.concatenate([np.abs(s["x"]).reshape(-1) * np.float32(1e-3) for s in samples])
    assert found["y"].largest == made.max()
    assert found["y"].smallest == made.min()
    assert (found["y"].seen, found["y"].subnormal) == (made.size, int((made < 2**-14).sum()))
    assert found["y"].subnormal > 0
    assert (found["y"].elements, found["y"].bad) == (4 * 8, 0)
    assert found["x"].largest == max(np.abs(s["x"]).max() for s in samples)


def test_zeros_infinities_and_nan_are_counted_apart():
    tally = Tally()
    tally.add(np.array([0, 0, -3, 1e-6, np.inf, np.nan], np.float32))
    assert tally.to_json() == {
        "largest": 3.0, "smallest": float(np.float32(1e-6)), "elements": 6, "seen": 2, "subnormal": 1, "bad": 2
    }  # fmt: skip
    tally = Tally()
    tally.add(np.zeros(0, np.float32))
    tally.add(np.full(3, -np.inf, np.float32))
    assert (tally.largest, tally.bad, tally.to_json()["smallest"]) == (0.0, 3, None)


@pytest.mark.parametrize("name", sorted(set(HALF_MODELS) - {"float_sizes"}))
def test_segments_change_nothing(name, monkeypatch):
    from graphkit.parity.inputs import choose_sizes, make_inputs, plan_inputs

    model = prepared(HALF_MODELS[name]())
    plans = plan_inputs(model)
    samples = [make_inputs(plans, p.sizes, i) for i, p in enumerate(choose_sizes(model.signature, (), ()))]
    whole = ranges.trace(model, samples)
    monkeypatch.setattr(ranges, "NODES_AT_ONCE", 1)
    assert ranges.trace(model, samples) == whole
    monkeypatch.setattr(ranges, "BYTES_AT_ONCE", 1)  # one sample after the other
    assert ranges.trace(model, samples) == whole


def test_what_a_loop_does_in_any_of_its_rounds_is_seen():
    model = prepared(control_flow(gain=100.0))
    sample = {"x": np.ones((2, 8), np.float32), "steps": np.array(4), "flip": np.array(True)}
    found = by_name(model, ranges.trace(model, [sample]))
    state = by_name(model, ranges.trace(model, [{**sample, "steps": np.array(1)}]))
    assert found["large"].largest == pytest.approx(100 * found["turned"].largest, rel=1e-5)
    assert found["large"].largest >= state["large"].largest > 0
    assert found["next"].largest == found["states"].largest
    assert (found["m"].largest, found["a"].largest > 0) == (0, True)  # the branch that was not taken, and the other


def test_a_loop_of_no_rounds_is_traced(monkeypatch):
    model = prepared(control_flow())
    sample = {"x": np.ones((2, 8), np.float32), "steps": np.array(0), "flip": np.array(False)}
    found = by_name(model, ranges.trace(model, [sample]))
    assert (found["turned"].largest, found["m"].largest > 0) == (0, True)


def test_a_body_in_a_body_is_traced():
    f32 = TensorProto.FLOAT
    value = lambda n, t, s: helper.make_tensor_value_info(n, t, s)  # noqa: E731
    inner = [
        helper.make_graph([helper.make_node(op, ["state", "x"], [op])], op, [], [value(op, f32, None)])
        for op in ("Add", "Mul")
    ]
    body = helper.make_graph(
        [
            helper.make_node("If", ["flip"], ["next"], then_branch=inner[0], else_branch=inner[1]),
            helper.make_node("Identity", ["go"], ["going"]),
        ],
        "body",
        [value("i", TensorProto.INT64, []), value("go", TensorProto.BOOL, []), value("state", f32, None)],
        [value("going", TensorProto.BOOL, []), value("next", f32, None)],
    )
    b = Builder()
    b.constant("true", True, np.bool_)
    b.nodes.append(helper.make_node("Loop", ["steps", "true", "x"], ["y"], "loop", body=body))
    types = {"steps": TensorProto.INT64, "flip": TensorProto.BOOL}
    model = prepared(b.model({"x": [3], "steps": [], "flip": []}, {"y": [3]}, **types))
    sample = {"x": np.full(3, 2, np.float32), "steps": np.array(3), "flip": np.array(True)}
    found = by_name(model, ranges.trace(model, [sample, {**sample, "steps": np.array(1)}]))
    assert (found["Add"].largest, found["Mul"].largest, found["next"].largest) == (8.0, 0.0, 8.0)


def test_a_sample_that_the_model_cannot_take_says_why():
    b = Builder()
    b.op("Reshape", ["x", b.constant("to", [2, 3], np.int64)], "y")
    model = prepared(b.model({"x": [None]}, {"y": [2, 3]}))
    with pytest.raises(ParityFailed, match="does not run on a sample"):
        ranges.trace(model, [{"x": np.zeros(5, np.float32)}])
