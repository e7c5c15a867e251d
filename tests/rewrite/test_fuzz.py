"""Random small graphs compute the same after rewriting; fixed seeds."""

from __future__ import annotations

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper, numpy_helper

from tests.rewrite.support import assert_same, optimised

_ONE = ("Relu", "Neg", "Abs", "Identity", "Sigmoid", "Tanh")
_TWO = ("Add", "Mul", "Sub", "Max", "Min")
_NUMBERS = (0.0, 1.0, 2.0, 0.5, -1.0)


def _graph(seed: int) -> onnx.ModelProto:
    """Elementwise nodes, numbers, Transposes and Reshapes over values of one shape; some inner values are outputs."""
    random = np.random.default_rng(seed)
    held, nodes, values = [], [], ["x"]
    for index in range(int(random.integers(4, 14))):
        source, made = values[-1 if random.random() < 0.7 else random.integers(len(values))], f"v{index}"
        kind = random.integers(5)
        if kind == 0:
            nodes.append(helper.make_node(str(random.choice(_ONE)), [source], [made]))
        elif kind == 1:
            nodes.append(helper.make_node(str(random.choice(_TWO)), [source, str(random.choice(values))], [made]))
        elif kind == 2:
            held.append(numpy_helper.from_array(np.float32(random.choice(_NUMBERS)), f"c{index}"))
            nodes.append(helper.make_node(str(random.choice(_TWO)), [source, f"c{index}"], [made]))
        elif kind == 3:
            order = [int(axis) for axis in random.permutation(3)]
            back = [int(axis) for axis in np.argsort(order)]
            nodes.append(helper.make_node("Transpose", [source], [f"t{index}"], perm=order))
            nodes.append(helper.make_node(str(random.choice(_ONE)), [f"t{index}"], [f"u{index}"]))
            nodes.append(helper.make_node("Transpose", [f"u{index}"], [made], perm=back))
        else:
            held.append(numpy_helper.from_array(np.array([-1], np.int64), f"c{index}"))
            nodes.append(helper.make_node("Shape", [source], [f"s{index}"]))
            nodes.append(helper.make_node("Reshape", [source, f"c{index}"], [f"t{index}"]))
            nodes.append(helper.make_node("Reshape", [f"t{index}", f"s{index}"], [made]))
        values.append(made)
    shape = ["b", 3, 4]
    outputs = dict.fromkeys([values[-1], str(random.choice(values[1:]))])
    graph = helper.make_graph(
        nodes,
        "random",
        [helper.make_tensor_value_info("x", TensorProto.FLOAT, shape)],
        [helper.make_tensor_value_info(name, TensorProto.FLOAT, shape) for name in outputs],
        held,
    )
    return helper.make_model(graph, opset_imports=[helper.make_opsetid("", 18)], ir_version=8)


@pytest.mark.parametrize("level", [1, 2])
def test_random_graphs_compute_the_same(level: int) -> None:
    for seed in range(40):
        before = _graph(seed)
        after, _ = optimised(before, level=level)
        assert len(after.graph.node) <= len(before.graph.node)
        x = np.random.default_rng(seed).standard_normal((2, 3, 4)).astype(np.float32)
        if seed % 2:
            x[0, 0] = np.nan, np.inf, -np.inf, -0.0
        assert_same(before, after, {"x": x}, of_scale=0.0 if level == 1 else 1e-5)
