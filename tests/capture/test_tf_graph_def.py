"""Frozen graphs of TensorFlow 1: inputs and outputs are found, or named; what is not frozen is refused."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import tensorflow as tf

from graphkit.capture.registry import recognise
from graphkit.capture.request import CaptureRequest
from graphkit.errors import (
    BadOption,
    CorruptFile,
    ShapeMissing,
    UnknownFormat,
    UnknownName,
    UnsupportedOperator,
    UntrustedSource,
)

v1 = tf.compat.v1


def written(path: Path, build) -> Path:
    """The GraphDef of what `build` makes, as a file."""
    with tf.Graph().as_default() as graph:
        build()
    path.write_bytes(graph.as_graph_def().SerializeToString())
    return path


def network() -> None:
    x = v1.placeholder(tf.float32, [None, 4], name="x")
    keep = v1.placeholder_with_default(tf.constant(1.0), [], name="keep")
    hidden = tf.nn.relu(tf.matmul(x, tf.constant(np.eye(4, dtype=np.float32) * 2.0)), name="hidden")
    with tf.control_dependencies([tf.debugging.Assert(tf.reduce_all(x > -100.0), [x])]):
        tf.multiply(hidden, keep, name="scores")
    tf.nn.top_k(hidden, 2, name="best")


X = np.array([[1, -2, 3, 4], [5, 6, 7, -8]], np.float32)


def test_inputs_and_outputs_are_found(tmp_path, onnx_run):
    source = recognise(written(tmp_path / "g.pb", network), CaptureRequest())
    model = source.capture(CaptureRequest())
    assert [(i.name, i.shape) for i in model.signature.inputs] == [("x", ("batch", 4))]
    assert {o.name for o in model.signature.outputs} == {"scores", "best", "best_1"}
    found, wanted = onnx_run(model, x=X), source.run({"x": X})
    assert found.keys() == wanted.keys()
    for name in found:
        np.testing.assert_array_equal(found[name], wanted[name])
    np.testing.assert_array_equal(found["scores"], np.maximum(2 * X, 0))
    [finding] = model.origin.findings
    assert "placeholder `keep` keeps its default" in finding.message


def test_a_placeholder_with_a_default_becomes_an_input_when_it_is_named(tmp_path, captured, onnx_run):
    model = captured(written(tmp_path / "g.pb", network), {"keep": ()}, outputs=("scores",))
    assert {i.name for i in model.signature.inputs} == {"x", "keep"}
    np.testing.assert_array_equal(onnx_run(model, x=X, keep=np.float32(3))["scores"], np.maximum(6 * X, 0))


def test_outputs_are_the_ones_that_are_named(tmp_path, captured):
    path = written(tmp_path / "g.pb", network)
    model = captured(path, outputs=("best:1", "hidden"))
    assert [o.name for o in model.signature.outputs] == ["best_1", "hidden"]
    with pytest.raises(UnknownName, match="no such tensor"):
        captured(path, outputs=("besst",))


def test_a_graph_that_is_not_frozen_is_refused(tmp_path, captured):
    def build() -> None:
        v1.multiply(v1.placeholder(tf.float32, [2]), v1.get_variable("scale", [2], use_resource=True))

    with pytest.raises(UnknownFormat, match="not frozen: the values of variable `scale`"):
        captured(written(tmp_path / "g.pb", build))


def test_a_graph_without_outputs_is_refused(tmp_path, captured):
    def build() -> None:
        v1.placeholder(tf.float32, [2])
        tf.no_op()

    with pytest.raises(UnknownFormat, match="has no output") as caught:
        captured(written(tmp_path / "g.pb", build))
    assert "--output-name" in caught.value.remedy


def test_a_placeholder_of_unknown_rank_needs_a_shape(tmp_path, captured):
    path = written(tmp_path / "g.pb", lambda: tf.negative(v1.placeholder(tf.float32, name="x"), name="y"))
    with pytest.raises(ShapeMissing) as caught:
        captured(path)
    assert "--shape x=" in caught.value.remedy
    assert captured(path, {"x": ("batch", 3)}).signature.outputs[0].shape == ("batch", 3)


def test_files_and_python_are_out_of_reach(tmp_path, captured):
    path = written(tmp_path / "g.pb", lambda: tf.io.read_file("/etc/hostname", name="steal"))
    with pytest.raises(UntrustedSource, match="ReadFile `steal`"):
        captured(path)


def test_an_operation_that_tensorflow_does_not_have_is_named(tmp_path, captured):
    graph = v1.GraphDef()
    graph.node.add(name="x", op="Placeholder").attr["dtype"].type = 1
    graph.node.add(name="y", op="MyOwnOp", input=["x"])
    (tmp_path / "g.pb").write_bytes(graph.SerializeToString())
    with pytest.raises(UnsupportedOperator, match="MyOwnOp"):
        captured(tmp_path / "g.pb")


def test_a_truncated_graph_is_corrupt(tmp_path, captured):
    path = written(tmp_path / "g.pb", network)
    data = path.read_bytes()
    for size in (len(data) // 2, len(data) - 20):
        path.write_bytes(data[:size])
        with pytest.raises(CorruptFile):
            captured(path)


def test_loops_of_tensorflow_1_keep_their_branches(tmp_path, onnx_run):
    def build() -> None:
        x = v1.placeholder(tf.float32, [None], name="x")
        tf.identity(v1.cond(tf.reduce_sum(x) > 0.0, lambda: x * 2.0, lambda: x - 1.0), name="y")

    v1.disable_control_flow_v2()
    try:
        path = written(tmp_path / "g.pb", build)
    finally:
        v1.enable_control_flow_v2()
    source = recognise(path, CaptureRequest())
    model = source.capture(CaptureRequest())
    for sign in (1, -1):
        x = np.full(3, sign, np.float32)
        np.testing.assert_array_equal(onnx_run(model, x=x)["y"], source.run({"x": x})["y"])


@pytest.mark.parametrize("options", [{"state": "inputs"}, {"signature": "s"}, {"via": "trace"}])
def test_options_that_say_nothing_here_are_refused(options, tmp_path, captured):
    with pytest.raises(BadOption):
        captured(written(tmp_path / "g.pb", network), **options)
