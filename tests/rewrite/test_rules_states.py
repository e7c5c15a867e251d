"""Zero initial states of recurrent layers; Flatten for TensorRT's parser."""

from __future__ import annotations

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper, numpy_helper

from tests.rewrite.support import assert_same, optimised

_HIDDEN = 4


def _lstm(fill: float, *, initial: str = "ConstantOfShape") -> onnx.ModelProto:
    """An LSTM over `x` [3, batch, 2] whose initial states have `fill` in every place, or are an input."""
    random = np.random.default_rng(0)
    weights = {
        "w": random.standard_normal((1, 4 * _HIDDEN, 2)).astype(np.float32),
        "r": random.standard_normal((1, 4 * _HIDDEN, _HIDDEN)).astype(np.float32),
        "one": np.array([1], np.int64),
        "two": np.array([2], np.int64),
        "hidden": np.array([_HIDDEN], np.int64),
    }
    inputs = [helper.make_tensor_value_info("x", TensorProto.FLOAT, [3, "batch", 2])]
    nodes = []
    if initial == "input":
        inputs.append(helper.make_tensor_value_info("state", TensorProto.FLOAT, [1, "batch", _HIDDEN]))
    else:
        value = helper.make_tensor("value", TensorProto.FLOAT, [1], [fill])
        nodes = [
            helper.make_node("Shape", ["x"], ["shape"]),
            helper.make_node("Slice", ["shape", "one", "two"], ["batch"]),
            helper.make_node("Concat", ["one", "batch", "hidden"], ["sizes"], axis=0),
            helper.make_node("ConstantOfShape", ["sizes"], ["state"], value=value),
        ]
    nodes.append(helper.make_node("LSTM", ["x", "w", "r", "", "", "state", "state"], ["y"], hidden_size=_HIDDEN))
    outputs = [helper.make_tensor_value_info("y", TensorProto.FLOAT, [3, 1, "batch", _HIDDEN])]
    initializers = [numpy_helper.from_array(array, name) for name, array in weights.items()]
    graph = helper.make_graph(nodes, "g", inputs, outputs, initializers)
    return helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=9)


def _ops(model: onnx.ModelProto) -> list[str]:
    return [node.op_type for node in model.graph.node]


def test_zero_states_go() -> None:
    before = _lstm(0.0)
    after, changes = optimised(before)
    assert _ops(after) == ["LSTM"]
    assert "zero-state" in {change.rule for change in changes.done}
    for batch in (1, 5):
        x = np.random.default_rng(batch).standard_normal((3, batch, 2)).astype(np.float32)
        assert_same(before, after, {"x": x})


@pytest.mark.parametrize(("fill", "initial"), [(0.5, "ConstantOfShape"), (0.0, "input")])
def test_other_states_stay(fill: float, initial: str) -> None:
    before = _lstm(fill, initial=initial)
    after, changes = optimised(before)
    assert "zero-state" not in {change.rule for change in changes.done}
    feeds = {"x": np.ones((3, 2, 2), np.float32)}
    if initial == "input":
        feeds["state"] = np.full((1, 2, _HIDDEN), 0.25, np.float32)
    assert_same(before, after, feeds)


@pytest.mark.parametrize(
    ("shape", "axis", "fires"),
    [(["n", 3, 2], 1, True), (["n", 3, 2], -2, True), (["n", 3, 2], 2, False), (["n", "m", 2], 1, False)],
)
def test_flatten_for_tensorrt(shape: list[str | int], axis: int, fires: bool) -> None:
    graph = helper.make_graph(
        [helper.make_node("Relu", ["x"], ["r"]), helper.make_node("Flatten", ["r"], ["y"], axis=axis)],
        "g",
        [helper.make_tensor_value_info("x", TensorProto.FLOAT, shape)],
        [helper.make_tensor_value_info("y", TensorProto.FLOAT, [None, None])],
    )
    before = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=9)
    after, _ = optimised(before, target="rtx")
    assert _ops(after) == ["Relu", "Reshape" if fires else "Flatten"]
    assert "Flatten" in _ops(optimised(before)[0])
    for batch in (1, 4):
        assert_same(before, after, {"x": np.arange(batch * 6, dtype=np.float32).reshape(batch, 3, 2)})
