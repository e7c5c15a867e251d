"""A frozen TensorFlow graph shows what it computes on the way."""

from __future__ import annotations

import numpy as np
import pytest

from graphkit.capture.tf_frozen import Frozen, FrozenTensor
from graphkit.capture.tf_taps import record
from graphkit.model import SourceLine
from graphkit.shapes import TensorSpec

pytestmark = pytest.mark.slow


def test_operations_are_recorded_with_their_values_and_lines(tmp_path):
    tf = pytest.importorskip("tensorflow")
    with tf.Graph().as_default() as graph:
        x = tf.compat.v1.placeholder(tf.float32, [None, 3], "x")
        with tf.name_scope("head"):
            y = tf.nn.relu(tf.matmul(x, tf.constant(np.eye(3, dtype=np.float32) * 2), name="mix"), name="cut")
        tf.identity(y, "out")
    specs = TensorSpec("x", "float32", ("batch", 3)), TensorSpec("y", "float32", ("batch", 3))
    lines = {"head/cut": SourceLine("head", "net.py", 7, "call")}
    frozen = Frozen(
        graph.as_graph_def(), (FrozenTensor(specs[0], "x:0"),), (FrozenTensor(specs[1], "out:0"),), lines=lines
    )
    values = np.array([[1, -2, 3]], np.float32)
    tape = record(frozen, {"x": values}, tmp_path)
    by_op = {t.op: t for t in tape.taps}
    assert np.array_equal(np.load(by_op["Relu"].files[0]["file"]), [[2, 0, 6]])
    assert by_op["Relu"].source == lines["head/cut"]
    assert by_op["MatMul"].source == SourceLine("head")
    assert by_op["Relu"].reads == by_op["MatMul"].makes == ("head/mix:0",)
    assert (tape.inputs, dict(tape.outputs)) == (("x:0",), {"y": "out:0"})
    assert "Const" not in by_op
    assert by_op["Identity"].files == ()


def test_a_graph_that_does_not_compute_what_is_expected_is_not_recorded(tmp_path):
    tf = pytest.importorskip("tensorflow")
    with tf.Graph().as_default() as graph:
        x = tf.compat.v1.placeholder(tf.float32, [None], "x")
        tf.identity(tf.tanh(x), "out")
    specs = TensorSpec("x", "float32", ("batch",)), TensorSpec("y", "float32", ("batch",))
    frozen = Frozen(graph.as_graph_def(), (FrozenTensor(specs[0], "x:0"),), (FrozenTensor(specs[1], "out:0"),))
    values = {"x": np.array([0.5, 1.0], np.float32)}
    assert record(frozen, values, tmp_path, {"y": np.tanh(values["x"]) * np.float32(1.01)}) is None
    assert record(frozen, values, tmp_path, {"y": np.tanh(values["x"])}) is not None
