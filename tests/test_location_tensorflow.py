"""`locate` with a Keras model or a function of TensorFlow's as the reference."""

from __future__ import annotations

from pathlib import Path

import keras
import numpy as np
import onnx
import pytest
import tensorflow as tf
from keras import layers
from onnx import numpy_helper, parser

import graphkit as gk
from graphkit.capture.request import CaptureRequest
from graphkit.errors import UnsupportedOperator
from graphkit.report.location import to_text

pytestmark = [pytest.mark.slow, pytest.mark.filterwarnings("ignore::DeprecationWarning", "ignore::FutureWarning")]

RNG = np.random.default_rng(3)
FIRST, SECOND = (RNG.standard_normal((4, 4), dtype=np.float32) for _ in range(2))
BIAS = RNG.standard_normal(4, dtype=np.float32)


class Mix(layers.Layer):
    def __init__(self, **options) -> None:
        super().__init__(**options)
        self.dense = layers.Dense(4, name="dense")

    def call(self, x):
        return tf.raw_ops.CumulativeLogsumexp(x=self.dense(x), axis=1)  # has no translation


def network(*, mixing: bool) -> keras.Model:
    """x [batch, 4] -> Dense and tanh `first` -> Mix `mix`, or Dense `second` -> Dense `scores`."""
    x = keras.Input((4,), name="x")
    h = layers.Dense(4, activation="tanh", name="first")(x)
    h = Mix(name="mix")(h) if mixing else layers.Dense(4, name="second")(h)
    model = keras.Model(x, layers.Dense(4, name="scores")(h), name="net")
    model.set_weights([FIRST, BIAS, SECOND, BIAS, FIRST.T, BIAS])
    return model


def write(path: Path, text: str) -> Path:
    proto = parser.parse_model(f'<ir_version: 10, opset_import: ["" : 20]>\n{text}')
    weights = {"w": FIRST, "v": SECOND, "u": FIRST.T, "b": BIAS, "one": np.array(1)}
    proto.graph.initializer.extend(numpy_helper.from_array(np.asarray(w), n) for n, w in weights.items())
    onnx.save(proto, path)
    return path


MIXING = """g (float[batch, 4] x) => (float[batch, 4] scores) {{
    a = MatMul (x, w)  ab = Add (a, b)  h = Tanh (ab)
    c = MatMul (h, v)  cb = Add (c, b)
    e = Exp (cb)  s = CumSum {how} (e, one)  l = Log (s)
    d = MatMul (l, u)  scores = Add (d, b)
}}"""


def faulty(path: Path, layer: str) -> Path:
    """One layer's kernel 5 % too large."""
    proto = onnx.load(path)
    node = next(n for n in proto.graph.node if f"/{layer}_1/" in n.name and n.op_type in ("MatMul", "Gemm"))
    weight = next(t for t in proto.graph.initializer if t.name == node.input[1])
    weight.CopyFrom(numpy_helper.from_array(numpy_helper.to_array(weight) * np.float32(1.05), weight.name))
    onnx.save(proto, path.with_name("faulty.onnx"))
    return path.with_name("faulty.onnx")


@pytest.fixture(scope="module")
def converted(tmp_path_factory) -> tuple[Path, Path]:
    """A .keras file, and its conversion."""
    folder = tmp_path_factory.mktemp("keras")
    network(mixing=False).save(folder / "model.keras")
    gk.convert(folder / "model.keras", output=folder / "model.onnx")
    return folder / "model.keras", folder / "model.onnx"


def test_a_keras_file_is_equal_to_its_conversion_and_a_fault_is_named_by_its_layer(converted):
    source, graph = converted
    assert gk.locate(source, graph).status == "equal"
    location = gk.locate(source, faulty(graph, "second"))
    assert (location.status, location.matched_by) == ("located", "name")
    assert [line.module for line in location.source] == ["second"]
    assert location.reference.startswith("model.keras, captured: onnxruntime")


def test_an_unfaithful_capture_is_replaced_by_the_models_own_values(converted, monkeypatch):
    source, graph = converted
    monkeypatch.setattr("graphkit.location._unfaithful", lambda *_: "its own capture differs already")
    location = gk.locate(source, faulty(graph, "second"))
    assert (location.status, location.matched_by, location.reference_op) == (
        "located",
        "value",
        "BiasAdd",
    )  # the Gemm gives what the bias gave
    assert [line.module for line in location.source] == ["second"]
    assert location.reference.startswith("model.keras: tensorflow ")
    assert location.notes[0] == "its own capture differs already"
    assert gk.locate(source, graph).status == "equal"


def test_a_model_that_cannot_be_captured_is_looked_into_and_the_users_line_is_named(tmp_path):
    model = network(mixing=True)
    with pytest.raises(UnsupportedOperator, match="CumulativeLogsumexp"):
        gk.capture_model(model, CaptureRequest())
    good = write(tmp_path / "good.onnx", MIXING.format(how=""))
    location = gk.locate(model, good)
    assert (location.status, "cannot be captured" in location.notes[0]) == ("equal", True)
    location = gk.locate(model, write(tmp_path / "bad.onnx", MIXING.format(how="<reverse = 1>")))
    # TensorFlow has one operation for what the graph does in three: the first of these has no equal either
    assert (location.status, location.divergence.op) == ("located", "Exp")
    assert location.reference_op == "CumulativeLogsumexp"
    (line,) = location.source
    assert (line.module, Path(line.file).name) == ("mix", "test_location_tensorflow.py")
    assert "tf.raw_ops.CumulativeLogsumexp" in Path(__file__).read_text().splitlines()[line.line - 1]
    assert f":{line.line} in call (module `mix`)" in to_text(location).plain


def test_a_graph_that_does_not_compute_what_the_source_does_stands_for_nothing(tmp_path):
    """Eager code takes another branch than traced code: neither the capture nor the recorded graph is the source."""

    class Fickle(layers.Layer):
        def call(self, x):
            return tf.tanh(x) * (2.0 if tf.executing_eagerly() else 3.0)

    x = keras.Input((4,), name="x")
    model = keras.Model(x, Fickle(name="scores")(x))
    graph = write(tmp_path / "m.onnx", "g (float[batch, 4] x) => (float[batch, 4] scores) { scores = Tanh (x) }")
    location = gk.locate(model, graph)
    assert (location.status, "its own capture differ already" in location.reason) == ("not comparable", True)
