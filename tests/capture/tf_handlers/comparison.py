"""Runs in a child: converts a program and compares ONNX Runtime with TensorFlow on every feed."""

from __future__ import annotations

import importlib
import unittest.mock
from typing import Any

import numpy as np


def compare(module: str, name: str, opset: int = 18) -> dict[str, Any]:
    """What became of `module.PROGRAMS[name]`.

    Returns:
        `error`: the greatest difference over the greatest value, over all outputs and feeds; `ops`: op types with
        counts.
    """
    function, specs, feeds, *reference = importlib.import_module(module).PROGRAMS[name]()
    frozen, model = convert(function, specs, opset)
    expected = reference[0] if reference else frozen
    return {"error": max(difference(expected, model, feed) for feed in feeds), "ops": op_types(model)}


def convert(function: Any, specs: list[Any], opset: int) -> tuple[Any, Any]:
    """The frozen TensorFlow function and the ONNX model."""
    import onnx_ir as ir
    import tensorflow as tf
    from tensorflow.python.framework import convert_to_constants

    from graphkit.capture.tf_to_onnx import to_onnx

    concrete = tf.function(function, autograph=False).get_concrete_function(*specs)
    functional = convert_to_constants._CONTROL_FLOW_OPS | {"Case", "StatelessCase"}
    with unittest.mock.patch.object(convert_to_constants, "_CONTROL_FLOW_OPS", functional):
        frozen = convert_to_constants.convert_variables_to_constants_v2(concrete, lower_control_flow=False)
    return frozen, ir.to_proto(to_onnx(as_frozen(frozen), opset=opset))


def as_frozen(function: Any) -> Any:
    """A frozen ConcreteFunction as graphkit holds one."""
    from graphkit.capture.tf_frozen import Frozen, FrozenTensor
    from graphkit.shapes import TensorSpec

    def tensors(kind: str, given: Any) -> tuple[FrozenTensor, ...]:
        return tuple(
            FrozenTensor(
                TensorSpec(f"{kind}{i}", t.dtype.name, None if t.shape.rank is None else tuple(t.shape)), t.name
            )
            for i, t in enumerate(given)
        )

    return Frozen(function.graph.as_graph_def(), tensors("in", function.inputs), tensors("out", function.outputs))


def op_types(model: Any) -> dict[str, int]:
    """Op types with counts, inside If and Loop too."""
    counts: dict[str, int] = {}
    pending = [*model.graph.node]
    while pending:
        node = pending.pop()
        counts[node.op_type] = counts.get(node.op_type, 0) + 1
        for attribute in node.attribute:
            pending.extend(attribute.g.node)
    return counts


def difference(expected: Any, model: Any, feed: list[Any]) -> float:
    import onnxruntime
    import tensorflow as tf

    wanted = [np.asarray(t) for t in tf.nest.flatten(expected(*[tf.constant(x) for x in feed]))]
    session = onnxruntime.InferenceSession(model.SerializeToString())
    got = session.run(None, {i.name: x for i, x in zip(session.get_inputs(), feed, strict=True)})
    return max((_relative(a, b) for a, b in zip(got, wanted, strict=True)), default=0.0)


def _relative(got: np.ndarray, expected: np.ndarray) -> float:
    if got.shape != expected.shape or got.dtype != expected.dtype:
        raise AssertionError(f"{got.dtype}{got.shape} is not {expected.dtype}{expected.shape}")
    if not np.array_equal(np.isnan(got), np.isnan(expected)):
        raise AssertionError("NaN in different places")
    if not got.size:
        return 0.0
    wide = [np.nan_to_num(np.asarray(a, np.float64)) for a in (got, expected)]
    return float(np.max(np.abs(wide[0] - wide[1])) / max(float(np.max(np.abs(wide[1]))), 1e-6))
