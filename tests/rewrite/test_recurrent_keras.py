"""The recurrent layers of Keras as tf2onnx writes them: no Loop is left, and the numbers are those of Keras."""

from collections import Counter

import numpy as np
import onnx_ir as ir
import pytest

from graphkit.model import Model, Origin
from graphkit.rewrite import recurrent
from tests.rewrite.recurrent_loops import run

pytestmark = [pytest.mark.slow, pytest.mark.filterwarnings("ignore")]


@pytest.fixture(scope="module")
def keras():
    pytest.importorskip("tf2onnx")
    return pytest.importorskip("keras")


def kinds(model) -> Counter:
    return Counter(n.op_type for n in model.ir.graph.all_nodes() if n.op_type in ("Loop", "GRU", "LSTM", "RNN"))


def translated(model) -> Model:
    """The model with random weights, biases included (Keras starts them at zero), frozen and translated by tf2onnx."""
    import tensorflow as tf
    import tf2onnx
    from tensorflow.python.framework.convert_to_constants import convert_variables_to_constants_v2

    rng = np.random.default_rng(3)
    for weight in model.weights:
        weight.assign(rng.normal(0, 0.5, weight.shape))
    specs = [tf.TensorSpec(x.shape, x.dtype, name=f"in{k}") for k, x in enumerate(model.inputs)]
    called = tf.function(lambda *xs: model(list(xs) if len(xs) > 1 else xs[0]), input_signature=specs)
    frozen = convert_variables_to_constants_v2(called.get_concrete_function(), lower_control_flow=False)
    names = {f"{k}_names": [t.name for t in getattr(frozen, f"{k}s")] for k in ("input", "output")}
    proto, _ = tf2onnx.convert.from_graph_def(frozen.graph.as_graph_def(), opset=18, **names)
    return Model(ir.from_proto(proto), Origin("test"))


def assert_equals_keras(model, onnx_model, *inputs):
    wanted = model(list(inputs) if len(inputs) > 1 else inputs[0])
    wanted = wanted if isinstance(wanted, list | tuple) else [wanted]
    names = [t.name for t in onnx_model.signature.inputs]
    found = run(onnx_model, **dict(zip(names, inputs, strict=True)))
    for a, b in zip(found, wanted, strict=True):
        np.testing.assert_allclose(a, np.asarray(b), rtol=0, atol=3e-6)


def floats(*shape):
    return np.random.default_rng(sum(shape)).normal(size=shape).astype(np.float32)


def test_layers_without_a_mask(keras):
    layers, every = keras.layers, {"return_sequences": True}
    x = keras.Input((None, 5))
    outputs = [
        *layers.GRU(4, return_state=True, **every)(x),
        layers.GRU(3, reset_after=False, use_bias=False, go_backwards=True, **every)(x),
        layers.Bidirectional(layers.GRU(2, **every))(x),
        layers.Bidirectional(layers.SimpleRNN(2))(x),
        layers.LSTM(3)(layers.SimpleRNN(1, activation="relu", **every)(layers.GRU(2, **every)(x))),
    ]
    model = keras.Model(x, outputs)
    graph = translated(model)
    fused = recurrent.fuse(graph)
    assert kinds(graph) == {"Loop": 8, "LSTM": 1}
    assert kinds(fused) == {"GRU": 5, "RNN": 3, "LSTM": 1}
    for batch, time in ((2, 6), (3, 1)):
        assert_equals_keras(model, fused, floats(batch, time, 5))


def test_layers_of_fixed_size_and_other_activations(keras):
    layers, every = keras.layers, {"return_sequences": True}
    x = keras.Input((6, 5), batch_size=2)
    outputs = [
        layers.GRU(4, **every)(x),
        layers.SimpleRNN(4)(x),
        layers.GRU(4, activation="relu", recurrent_activation="hard_sigmoid")(x),
        layers.LSTM(4, activation="elu", recurrent_activation="hard_sigmoid", **every)(x),
        layers.SimpleRNN(4, activation="leaky_relu", **every)(x),
        layers.GRU(4, activation="softsign", reset_after=False)(x),
        layers.LSTM(4, activation="softplus")(x),
        layers.GRU(3)(layers.RepeatVector(4)(layers.GRU(4)(x))),
    ]
    model = keras.Model(x, outputs)
    fused = recurrent.fuse(translated(model))
    assert kinds(fused) == {"GRU": 5, "RNN": 2, "LSTM": 2}
    assert_equals_keras(model, fused, floats(2, 6, 5))


IDS = np.array([[3, 1, 4, 1, 5], [3, 1, 4, 0, 0], [0, 0, 4, 1, 5], [3, 0, 4, 0, 5], [0, 0, 0, 0, 0]], np.int32)
"""No padding, right, left, holes, and a row that is masked throughout."""


def test_layers_after_an_embedding_that_masks(keras):
    layers, every = keras.layers, {"return_sequences": True}
    ids = keras.Input((None,), dtype="int32")
    x = layers.Embedding(9, 5, mask_zero=True)(ids)
    outputs = [
        layers.GRU(4)(x),
        layers.GRU(4, reset_after=False, **every)(x),
        *layers.LSTM(4, return_state=True, **every)(x),
        layers.LSTM(4, zero_output_for_mask=True, **every)(x),
        layers.SimpleRNN(4, go_backwards=True, **every)(x),
        layers.LSTM(3)(layers.Bidirectional(layers.GRU(4, **every))(x)),
    ]
    model = keras.Model(ids, outputs)
    graph = translated(model)
    fused = recurrent.fuse(graph)
    assert kinds(graph) == {"Loop": 8}
    assert kinds(fused) == {"GRU": 4, "LSTM": 3, "RNN": 1}
    assert_equals_keras(model, fused, IDS)
    assert_equals_keras(model, fused, IDS[1:4, :1])


def test_a_mask_and_initial_states_that_are_inputs(keras):
    layers, every = keras.layers, {"return_sequences": True, "return_state": True}
    x, mask = keras.Input((None, 5)), keras.Input((None,), dtype="bool")
    h, c = keras.Input((4,)), keras.Input((4,))
    outputs = [
        *layers.GRU(4, **every)(x, mask=mask, initial_state=h),
        *layers.LSTM(4, **every)(x, mask=mask, initial_state=[h, c]),
        layers.SimpleRNN(4)(x, mask=mask),
        layers.GRU(4)(layers.Masking()(x)),
    ]
    model = keras.Model([x, mask, h, c], outputs)
    fused = recurrent.fuse(translated(model))
    assert kinds(fused) == {"GRU": 2, "LSTM": 1, "RNN": 1}
    for time in (5, 1):
        sequence = floats(5, time, 5)
        sequence[1, time // 2] = 0.0
        assert_equals_keras(model, fused, sequence, IDS[:, :time] != 0, floats(5, 4), floats(4, 5).T.copy())


def test_what_tf2onnx_makes_of_an_lstm_by_itself_is_left_alone_and_right(keras):
    layers, every = keras.layers, {"return_sequences": True, "return_state": True}
    x, h, c = keras.Input((None, 5)), keras.Input((4,)), keras.Input((4,))
    outputs = [
        *layers.LSTM(4, **every)(x, initial_state=[h, c]),
        layers.LSTM(4, use_bias=False, go_backwards=True)(x),
        layers.Bidirectional(layers.LSTM(3, return_sequences=True))(x),
    ]
    model = keras.Model([x, h, c], outputs)
    graph = translated(model)
    assert kinds(graph)["Loop"] == 0
    assert recurrent.fuse(graph) is graph
    for batch, time in ((2, 6), (3, 1)):
        assert_equals_keras(model, graph, floats(batch, time, 5), floats(batch, 4), -floats(batch, 4))


def test_cells_that_onnx_has_no_operator_for_stay_loops_and_right(keras):
    layers, ops = keras.layers, keras.ops

    class Own(layers.Layer):
        """A GRU, or with `blend` something that a GRU is not."""

        state_size = output_size = 4

        def __init__(self, blend):
            super().__init__()
            self.blend = blend

        def build(self, shape):
            self.w = self.add_weight(shape=(shape[-1], 12))
            self.u = self.add_weight(shape=(4, 12))

        def call(self, x, states, training=False):
            a, h = x @ self.w, states[0]
            g = h @ self.u
            z, r = ops.sigmoid(a[:, :4] + g[:, :4]), ops.sigmoid(a[:, 4:8] + g[:, 4:8])
            n = ops.tanh(a[:, 8:] + r * g[:, 8:])
            new = (1 - z) * h + z * n if self.blend else n + z * (h - n)
            return new, [new]

    x = keras.Input((None, 5))
    image = keras.Input((None, 6, 6, 2))
    every = {"return_sequences": True}
    outputs = [
        layers.RNN(Own(blend=True), **every)(x),
        layers.RNN(Own(blend=False), **every)(x),
        layers.RNN([layers.GRUCell(4), layers.LSTMCell(3)])(x),
        layers.SimpleRNN(4, activation="selu")(x),
        layers.ConvLSTM2D(2, 3)(image),
    ]
    model = keras.Model([x, image], outputs)
    fused = recurrent.fuse(translated(model))
    assert kinds(fused) == {"GRU": 1, "Loop": 4}
    assert_equals_keras(model, fused, floats(2, 5, 5), floats(2, 3, 6, 6, 2))
