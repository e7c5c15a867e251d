"""Variables that a function assigns: named and refused, or inputs and outputs that carry them from run to run."""

from __future__ import annotations

import keras
import numpy as np
import pytest
import tensorflow as tf
from keras import layers

from fixtures.keras_models import EXAMPLES, Counter, sgd_step
from graphkit.capture.registry import recognise
from graphkit.capture.request import CaptureRequest
from graphkit.errors import StateMutated

KEPT = CaptureRequest(state="inputs")


def stepped(onnx_run, model, states: dict[str, np.ndarray], **inputs) -> tuple[dict, dict]:
    """One run: the outputs, and the state for the next."""
    found = onnx_run(model, **inputs, **states)
    following = {name: found.pop(f"{name}_next") for name in states}
    return found, following


def test_an_assigned_variable_is_refused_by_name(captured):
    counter = Counter()
    with pytest.raises(StateMutated) as caught:
        captured(counter)
    assert caught.value.data == {"state": ["calls", "positive"]}
    assert "--state inputs" in caught.value.remedy
    assert counter.calls.numpy() == 0.0


def test_state_goes_in_and_comes_out_through_branches_too(onnx_run):
    counter = Counter()
    source = recognise(counter, KEPT)
    model = source.capture(KEPT)
    assert [i.name for i in model.signature.inputs] == ["x", "calls", "positive"]
    assert [o.name for o in model.signature.outputs] == ["output", "calls_next", "positive_next"]
    assert counter.calls.numpy() == 0.0
    states = {"calls": np.float32(0), "positive": np.float32(0)}
    for sign in (1, -1, 1):
        x = np.full((2, 2), sign, np.float32)
        found, states = stepped(onnx_run, model, states, x=x)
        np.testing.assert_allclose(found["output"], counter(tf.constant(x)), rtol=1e-6)
    assert (states["calls"], states["positive"]) == (3.0, 2.0) == (counter.calls.numpy(), counter.positive.numpy())


def test_running_the_source_leaves_its_variables_as_they_were():
    counter = Counter()
    source = recognise(counter, KEPT)
    source.prepare(KEPT)
    outputs = source.run({"x": np.ones((1, 2), np.float32), "calls": np.float32(7), "positive": np.float32(1)})
    assert outputs["calls_next"] == 8.0
    assert counter.calls.numpy() == 0.0


class Looped(tf.Module):
    """Writes in a while loop, and in a function called from it."""

    def __init__(self) -> None:
        super().__init__()
        self.total = tf.Variable(tf.zeros([3]), name="total")

    @tf.function
    def add(self, row):
        self.total.assign_add(row)
        return self.total * 1.0

    @tf.function(input_signature=[tf.TensorSpec([None, 3], name="rows")])
    def __call__(self, rows):
        last = tf.zeros([3])
        for i in tf.range(tf.shape(rows)[0]):
            last = self.add(rows[i])
        return last + self.total


def test_state_is_carried_through_loops(onnx_run):
    source = recognise(Looped(), KEPT)
    model = source.capture(KEPT)
    inputs = {"rows": np.arange(12, dtype=np.float32).reshape(4, 3), "total": np.array([1, 2, 3], np.float32)}
    wanted = source.run(inputs)
    found = onnx_run(model, **inputs)
    assert wanted.keys() == found.keys()
    for name in wanted:
        np.testing.assert_allclose(found[name], wanted[name], rtol=1e-6)


class Table(tf.Module):
    """Reads and writes rows of a variable."""

    def __init__(self) -> None:
        super().__init__()
        self.rows = tf.Variable(tf.zeros([5, 2]), name="rows")

    @tf.function(input_signature=[tf.TensorSpec([None], tf.int32, name="ids"), tf.TensorSpec([None, 2], name="values")])
    def __call__(self, ids, values):
        self.rows.scatter_update(tf.IndexedSlices(values, ids))
        self.rows.scatter_add(tf.IndexedSlices(2.0 * values, ids))
        return tf.gather(self.rows, ids)


def test_rows_that_are_scattered_into_a_variable(onnx_run):
    source = recognise(Table(), KEPT)
    model = source.capture(KEPT)
    inputs = {
        "ids": np.array([3, 1], np.int32),
        "values": np.array([[1, 2], [3, 4]], np.float32),
        "rows": np.ones((5, 2), np.float32),
    }
    wanted, found = source.run(inputs), onnx_run(model, **inputs)
    for name in wanted:
        np.testing.assert_allclose(found[name], wanted[name])


def test_a_use_that_has_no_functional_form_is_refused_by_node(captured):
    variable = tf.Variable(tf.zeros([4]), name="ring")

    @tf.function(input_signature=[tf.TensorSpec([2])])
    def write(x):
        variable[1:3].assign(x)
        return variable + 1.0

    with pytest.raises(StateMutated, match="`ring` is used by ResourceStridedSliceAssign"):
        captured(write, state="inputs")


def test_a_random_generator_is_state(captured):
    generator = tf.random.Generator.from_seed(1)

    @tf.function(input_signature=[tf.TensorSpec([None])])
    def noisy(x):
        return x + generator.normal(tf.shape(x))

    with pytest.raises(StateMutated):
        captured(noisy)


def test_keras_variables_are_named_by_their_path(captured):
    model = keras.Sequential([keras.Input((3,)), layers.BatchNormalization(name="norm")], name="net")

    @tf.function(input_signature=[tf.TensorSpec([None, 3], name="x")])
    def train(x):
        return model(x, training=True)

    with pytest.raises(StateMutated) as caught:
        captured(train)
    assert caught.value.data["state"] == ["net/norm/moving_mean", "net/norm/moving_variance"]


@pytest.mark.slow
def test_updates_of_an_optimizer_come_out_and_train_as_tensorflow_does(onnx_run):
    step = sgd_step()
    source = recognise(step, KEPT)
    model = source.capture(KEPT)
    variables = {v.path: v for v in (*step.model.trainable_variables, *step.optimizer.variables)}
    states = {i.name: variables[i.name].numpy() for i in model.signature.inputs if i.name in variables}
    assert states.keys() == variables.keys() - {"sgd/learning_rate"}
    before = dict(states)
    for seed in (2, 3):
        inputs = EXAMPLES["sgd_step"].sample(seed, batch=4)
        found, states = stepped(onnx_run, model, states, **inputs)
        loss = step(tf.constant(inputs["image"]), tf.constant(inputs["label"]))["loss"]
        np.testing.assert_allclose(found["loss"], loss, rtol=1e-4)
    for path, value in states.items():
        np.testing.assert_allclose(value, variables[path].numpy(), atol=1e-4 * max(1.0, np.abs(value).max()))
        assert not np.array_equal(value, before[path])


class Branched(tf.Module):
    """Counts its calls, and by the count in one branch; the output is that of the branches, or not."""

    def __init__(self, *, seen: bool) -> None:
        super().__init__()
        self.calls = tf.Variable(0.0, name="calls")
        self.often = tf.Variable(0.0, name="often")
        self.seen = seen

    @tf.function(input_signature=[tf.TensorSpec([None, 2], name="x")])
    def __call__(self, x):
        self.calls.assign_add(1.0)
        if self.calls > 3.0:
            self.often.assign_add(self.calls)
            y = x * 2.0
        else:
            y = x * 4.0
        return y if self.seen else x * 3.0


class Loop(tf.Module):
    """Counts the rounds of a loop that also makes the output."""

    def __init__(self, counted) -> None:
        super().__init__()
        self.rounds = tf.Variable(0.0, name="rounds")
        self.counted = counted

    @tf.function(input_signature=[tf.TensorSpec([None, 2], name="x")])
    def __call__(self, x):
        y = x
        for _ in tf.range(3):
            self.rounds.assign_add(self.counted(x))
            y = y * 2.0
        return y


def test_a_counter_that_no_output_depends_on_is_left_out_and_said(onnx_run):
    module = Loop(lambda x: 1.0)
    source = recognise(module, CaptureRequest())
    model = source.capture(CaptureRequest())
    assert [i.name for i in model.signature.inputs] == ["x"]
    finding = next(f for f in model.origin.findings if f.code == "state")
    assert "`rounds`" in finding.message
    assert "--state inputs" in finding.remedy
    x = np.ones((2, 2), np.float32)
    np.testing.assert_array_equal(onnx_run(model, x=x)["output"], source.run({"x": x})["output"])
    assert module.rounds.numpy() == 0.0


def test_a_counter_that_decides_what_the_output_is_is_refused(captured):
    assert [i.name for i in captured(Branched(seen=False)).signature.inputs] == ["x"]
    with pytest.raises(StateMutated) as caught:
        captured(Branched(seen=True))
    assert caught.value.data == {"state": ["calls", "often"]}


def test_what_is_learnt_from_the_inputs_is_no_idle_state(captured):
    with pytest.raises(StateMutated) as caught:
        captured(Loop(tf.reduce_sum))
    assert caught.value.data == {"state": ["rounds"]}


def test_the_seed_of_a_random_layer_that_draws_nothing_is_left_out(captured):
    model = captured(keras.Sequential([keras.Input((8, 8, 3)), layers.RandomHue(0.2)]))
    assert [i.name for i in model.signature.inputs] == ["input"]
    assert "seed_generator_state" in next(f for f in model.origin.findings if f.code == "state").message
