"""Weights that are one number in a shape stay so until scales are folded into them; then the file may grow."""

from __future__ import annotations

import numpy as np
import onnx
import pytest
from onnx import helper, numpy_helper

from tests.rewrite.support import assert_same, optimised

CHANNELS = 64
"""A weight of 64 x 64 x 1 x 1 float32 has 16,384 bytes."""


def _stack(varied: bool, opset: int = 20) -> onnx.ModelProto:
    """Two convolutions with one weight in compact form, each with a BatchNormalization behind it."""
    rng = np.random.default_rng(3)
    held, nodes, x = [_tensor("shape", np.array([CHANNELS, CHANNELS, 1, 1], np.int64))], [], "x"
    value = numpy_helper.from_array(np.array([0.02], np.float32))
    nodes.append(helper.make_node("ConstantOfShape", ["shape"], ["weight"], "weight", value=value))
    for index in range(2):
        names = [f"{part}{index}" for part in ("scale", "bias", "mean", "var")]
        for name in names:
            drawn = rng.uniform(0.5, 1.5, CHANNELS) if varied else np.full(CHANNELS, rng.uniform(0.5, 1.5))
            held.append(_tensor(name, drawn.astype(np.float32)))
        nodes.append(helper.make_node("Conv", [x, "weight"], [f"c{index}"], f"conv{index}"))
        nodes.append(helper.make_node("BatchNormalization", [f"c{index}", *names], [f"n{index}"], f"norm{index}"))
        nodes.append(helper.make_node("Relu", [f"n{index}"], [f"r{index}"], f"relu{index}"))
        x = f"r{index}"
    nodes[-1].output[0] = "y"
    shown = [helper.make_tensor_value_info(name, 1, ["batch", CHANNELS, 4, 4]) for name in ("x", "y")]
    graph = helper.make_graph(nodes, "stack", shown[:1], shown[1:], held)
    return helper.make_model(graph, opset_imports=[helper.make_opsetid("", opset)], ir_version=10)


def _tensor(name: str, array: np.ndarray) -> onnx.TensorProto:
    return numpy_helper.from_array(array, name)


@pytest.mark.parametrize("varied", [False, True])
def test_a_scale_folds_into_a_weight_that_several_layers_share(varied: bool) -> None:
    before = _stack(varied)
    after, _ = optimised(before)
    assert [node.op_type for node in after.graph.node] == ["Conv", "Relu", "Conv", "Relu"]
    feeds = {"x": np.random.default_rng(0).standard_normal((2, CHANNELS, 4, 4)).astype(np.float32)}
    assert_same(before, after, feeds, of_scale=1e-5)


@pytest.mark.parametrize(("varied", "growth"), [(False, 12_000), (True, 12_000), (True, 20_000)])
def test_the_file_grows_by_no_more_than_is_allowed(varied: bool, growth: int) -> None:
    before = _stack(varied)
    after, _ = optimised(before, growth=growth)
    assert after.ByteSize() - before.ByteSize() < growth + 2_000  # names, and shapes of what is between
    left = [node.op_type for node in after.graph.node]
    assert left.count("BatchNormalization") == (0 if not varied else 2 if growth < 16_384 else 1)
    feeds = {"x": np.random.default_rng(0).standard_normal((2, CHANNELS, 4, 4)).astype(np.float32)}
    assert_same(before, after, feeds, of_scale=1e-5)


def test_one_number_in_a_shape_stays_that_however_it_is_moved() -> None:
    graph = onnx.parser.parse_graph(
        """moved (float[n,1] x) => (float[n,300000] y) <int64[2] shape = {600, 500}, int64[2] flat = {1, 300000}> {
            w = ConstantOfShape<value = float[1] {0.5}>(shape) t = Transpose(w) v = Reshape(t, flat) y = Add(x, v)
        }"""
    )
    before = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 20)], ir_version=10)
    after, changes = optimised(before, growth=1000)
    assert [node.op_type for node in after.graph.node] == ["ConstantOfShape", "Add"]
    assert "filled-shape" in changes.by_rule()
    assert_same(before, after, {"x": np.ones((2, 1), np.float32)})
