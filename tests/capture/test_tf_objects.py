"""Keras models and TensorFlow functions in memory: same numbers, their own names, one batch symbol; or a refusal."""

from __future__ import annotations

from pathlib import Path

import keras
import numpy as np
import pytest
import tensorflow as tf
from keras import layers

from fixtures.keras_models import EXAMPLES, Gated, conditional, mlp, small_residual_cnn, subclassed, two_towers
from graphkit.capture.registry import recognise
from graphkit.capture.request import CaptureRequest
from graphkit.errors import (
    BadDimRange,
    BadOption,
    BadSample,
    CaptureFailed,
    DataDependentBranch,
    NotAModel,
    ShapeMismatch,
    ShapeMissing,
    UnknownName,
    UnsupportedOperator,
)
from graphkit.model import provenance
from graphkit.shapes import DimRange, TensorSpec, parse_shape

ELSEWHERE = ("counter", "sgd_step", "gradients")  # state has tests of its own, and so have gradients
HERE = [name for name in EXAMPLES if name not in ELSEWHERE]


def agree(source, model, onnx_run, inputs, tolerance=1e-5) -> None:
    """The captured graph computes what the source does, under the same names."""
    wanted = source.run(inputs)
    found = onnx_run(model, **inputs)
    assert found.keys() == wanted.keys()
    for name, array in wanted.items():
        assert found[name].dtype == array.dtype
        assert found[name].shape == array.shape
        np.testing.assert_allclose(found[name], array, rtol=1e-4, atol=tolerance)


@pytest.mark.parametrize("name", HERE)
def test_every_fixture_computes_the_same_under_its_own_names(name, onnx_run):
    example = EXAMPLES[name]
    source = recognise(example.factory(), CaptureRequest())
    model = source.capture(CaptureRequest())
    assert {i.name: i.shape for i in model.signature.inputs} == dict(example.shapes)
    outputs = tuple(o.name for o in model.signature.outputs)
    assert outputs[: len(example.outputs)] == example.outputs
    for batch in (1, 5):
        agree(source, model, onnx_run, example.sample(batch, batch=batch))


def test_the_batch_symbol_stands_in_every_input_and_output(captured):
    signature = captured(two_towers()).signature
    assert signature.symbols == ("batch",)
    assert all(t.shape[0] == "batch" for t in (*signature.inputs, *signature.outputs))


def test_outputs_of_a_functional_model_have_the_names_of_their_layers_unless_those_are_made_up(captured):
    x = keras.Input((4,), name="x")
    named = keras.Model(x, [layers.Dense(2, name="left")(x), layers.Dense(3, name="right")(x)])
    made_up = keras.Model(x, [layers.Dense(2)(x), layers.Dense(3)(x)])
    assert [o.name for o in captured(named).signature.outputs] == ["left", "right"]
    assert [o.name for o in captured(made_up).signature.outputs] == ["output_0", "output_1"]


def test_inputs_without_a_name_are_called_input(captured):
    a, b = keras.Input((4,)), keras.Input((4,))
    assert [i.name for i in captured(keras.Model([a, b], layers.Add()([a, b]))).signature.inputs] == [
        "input_0",
        "input_1",
    ]


def test_a_shape_on_the_command_line_wins_over_a_free_dimension(captured):
    signature = captured(mlp(), {"input": (3, 16)}).signature
    assert signature.inputs[0].shape == (3, 16)
    assert signature.outputs[0].shape == (3, 4)
    assert captured(two_towers(), {"user": ("rows", 8)}).signature.symbols == ("rows",)


def test_ranges_are_kept_and_used_for_capture(captured):
    model = captured(mlp(), dims={"batch": (2, 6, 9)})
    assert model.dims == (DimRange("batch", 2, 6, 9),)
    assert model.origin.sizes == {"batch": 6}


@pytest.mark.parametrize(
    ("shapes", "error"),
    [
        ({"input": ("batch", 17)}, ShapeMismatch),
        ({"input": ("batch", "width")}, ShapeMismatch),
        ({"input": ("batch", 16, 1)}, ShapeMismatch),
        ({"x": ("batch", 16)}, UnknownName),
    ],
)
def test_a_shape_that_the_model_does_not_take_is_refused(captured, shapes, error):
    with pytest.raises(error) as caught:
        captured(mlp(), shapes)
    assert "input" in str(caught.value) + str(caught.value.remedy)


def test_another_dtype_than_the_models_is_refused(captured):
    request = CaptureRequest(shapes=(TensorSpec("input", "int64", ("batch", 16)),))
    with pytest.raises(ShapeMismatch, match="takes float32, not int64"):
        recognise(mlp(), request).capture(request)


def test_a_range_for_an_unknown_symbol_is_refused(captured):
    with pytest.raises(UnknownName, match="width"):
        captured(mlp(), dims={"width": (1, 2, 3)})
    with pytest.raises(BadDimRange):
        captured(mlp(), dims={"batch": (3, 2, 1)})


def test_a_model_never_called_needs_a_shape_and_says_which_flag_gives_it(captured, onnx_run):
    with pytest.raises(ShapeMissing) as caught:
        captured(Gated())
    assert "--shape x=batch" in caught.value.remedy
    assert caught.value.data == {"missing": ["x"]}
    model = Gated()
    request = CaptureRequest(shapes=(parse_shape("x=batch,6"),))
    source = recognise(model, request)
    agree(source, source.capture(request), onnx_run, {"x": np.ones((3, 6), np.float32)})


def test_the_shapes_of_an_earlier_call_are_a_proposal(captured):
    @tf.function
    def doubled(x):
        return x * 2.0

    doubled(tf.ones([2, 3]))
    assert captured(doubled).signature.inputs[0].shape == (2, 3)
    assert captured(doubled, {"x": ("rows", "columns")}).signature.inputs[0].shape == ("rows", "columns")
    assert captured(subclassed(), {"x": (7, 6)}).signature.outputs[0].shape == (7, 8)


def test_a_subclassed_model_that_takes_a_dict_remembers_its_keys(captured):
    class Keyed(keras.Model):
        def call(self, parts):
            return parts["a"] + parts["b"]

    model = Keyed()
    model({"a": tf.ones([2, 3]), "b": tf.ones([2, 3])})
    signature = captured(model).signature
    assert [(i.name, i.shape) for i in signature.inputs] == [("parts.a", ("batch", 3)), ("parts.b", ("batch", 3))]
    assert signature.outputs[0].shape == ("batch", 3)


def test_dropout_does_nothing(onnx_run):
    source = recognise(subclassed(), CaptureRequest())
    model = source.capture(CaptureRequest())
    assert not [n for n in model.ir.graph.all_nodes() if n.op_type in ("Dropout", "RandomUniform", "RandomUniformLike")]


def test_an_unbuilt_sequential_and_a_bare_layer_take_a_shape(onnx_run):
    for target, name in (
        (keras.Sequential([layers.Dense(3), layers.Dense(2)]), "inputs"),
        (layers.Dense(3), "inputs"),
    ):
        request = CaptureRequest(shapes=(parse_shape(f"{name}=batch,4"),))
        source = recognise(target, request)
        model = source.capture(request)
        agree(source, model, onnx_run, {name: np.ones((2, 4), np.float32)})


def test_a_concrete_function_and_a_function_without_signature(onnx_run):
    @tf.function
    def scaled(x, bias, factor=2.0):
        return x * factor + bias

    request = CaptureRequest(shapes=(parse_shape("x=batch,3"), parse_shape("bias=3")))
    source = recognise(scaled, request)
    model = source.capture(request)
    inputs = {"x": np.ones((2, 3), np.float32), "bias": np.arange(3, dtype=np.float32)}
    agree(source, model, onnx_run, inputs)
    [finding] = model.origin.findings
    assert "`factor` keeps its default 2.0" in finding.message
    concrete = scaled.get_concrete_function(tf.TensorSpec([None, 3], name="x"), tf.TensorSpec([3], name="bias"))
    source = recognise(concrete, CaptureRequest())
    agree(source, source.capture(CaptureRequest()), onnx_run, inputs)


def test_a_default_that_is_given_a_value_becomes_an_input(captured, onnx_run):
    @tf.function(input_signature=None)
    def scaled(x, factor=2.0):
        return x * factor

    model = captured(scaled, {"x": ("batch", 3)}, inputs={"factor": 3.0})
    assert [i.name for i in model.signature.inputs] == ["x", "factor"]
    x = np.ones((2, 3), np.float32)
    [found] = onnx_run(model, x=x, factor=np.float32(5.0)).values()
    np.testing.assert_array_equal(found, 5 * x)


def test_a_function_without_shapes_names_all_that_are_missing(captured):
    with pytest.raises(ShapeMissing) as caught:
        captured(tf.function(lambda x, y: x + y))
    assert caught.value.data == {"missing": ["x", "y"]}


def test_nested_arguments_are_named_by_their_path(captured, onnx_run):
    spec = tf.TensorSpec([None, 2])

    @tf.function(input_signature=[{"a": spec, "b": [spec, spec]}])
    def total(parts):
        return parts["a"] + 2.0 * parts["b"][0] - parts["b"][1]

    model = captured(total)
    assert [i.name for i in model.signature.inputs] == ["parts.a", "parts.b.0", "parts.b.1"]
    one = np.ones((3, 2), np.float32)
    [found] = onnx_run(model, **{"parts.a": one, "parts.b.0": 3 * one, "parts.b.1": 2 * one}).values()
    np.testing.assert_array_equal(found, 5 * one)


def test_both_branches_survive(onnx_run):
    source = recognise(conditional(), CaptureRequest())
    model = source.capture(CaptureRequest())
    for sign in (1, -1):
        agree(source, model, onnx_run, {"x": np.full((2, 4), sign, np.float32)})


def test_a_python_branch_on_a_value_is_refused_with_its_line(captured):
    class Branching(keras.Model):
        def call(self, x):
            return x + 1 if tf.reduce_sum(x) > 0 else x

    with pytest.raises(DataDependentBranch) as caught:
        captured(Branching(), {"x": ("batch", 3)})
    assert "test_tf_objects.py" in caught.value.where


def test_code_that_rejects_the_shape_says_why_and_where(captured):
    @tf.function
    def product(x):
        return tf.matmul(x, tf.ones([5, 2]))

    with pytest.raises(ShapeMismatch, match=r"Dimensions must be equal|incompatible") as caught:
        captured(product, {"x": ("batch", 4)})
    assert "test_tf_objects.py" in caught.value.where


def test_what_is_no_dense_tensor_is_refused(captured):
    @tf.function(input_signature=[tf.TensorSpec([None], tf.float32)])
    def ragged(x):
        return tf.RaggedTensor.from_row_lengths(x, [tf.shape(x)[0]])

    with pytest.raises(CaptureFailed, match="RaggedTensor"):
        captured(ragged)
    with pytest.raises(NotAModel):
        captured(tf.constant(1.0))


def test_grouped_convolution_reaches_onnx_as_a_convolution(onnx_run):
    x = keras.Input((6, 6, 4), name="x")
    source = recognise(keras.Model(x, layers.Conv2D(8, 3, groups=2)(x)), CaptureRequest())
    model = source.capture(CaptureRequest())
    assert "Conv" in {n.op_type for n in model.ir.graph.all_nodes()}
    agree(source, model, onnx_run, {"x": np.random.default_rng(0).standard_normal((2, 6, 6, 4)).astype(np.float32)})


def test_functions_compiled_by_xla_are_inlined_wherever_they_stand(onnx_run):
    @tf.function(jit_compile=True)
    def inner(x):
        return x * 2.0 if tf.reduce_sum(x) > 0.0 else x - 1.0

    @tf.function(input_signature=[tf.TensorSpec([None], name="x")], jit_compile=True)
    def outer(x):
        return inner(x) + 1.0

    for target in (outer, outer.get_concrete_function()):
        source = recognise(target, CaptureRequest())
        model = source.capture(CaptureRequest())
        for sign in (1, -1):
            agree(source, model, onnx_run, {"x": np.full(3, sign, np.float32)})


def test_layout_nchw_at_both_ends(onnx_run):
    x = keras.Input((6, 8, 3), name="x")
    request = CaptureRequest(layout=("nchw",))
    source = recognise(keras.Model(x, layers.Conv2D(5, 3)(x)), request)
    model = source.capture(request)
    assert model.signature.inputs[0].shape == ("batch", 3, 6, 8)
    assert model.signature.outputs[0].shape == ("batch", 5, 4, 6)
    agree(source, model, onnx_run, {"x": np.random.default_rng(0).standard_normal((2, 3, 6, 8)).astype(np.float32)})


def test_a_source_can_be_run_without_being_captured():
    source = recognise(mlp(), CaptureRequest())
    [spec] = source.prepare(CaptureRequest())
    assert spec == TensorSpec("input", "float32", ("batch", 16))
    x = np.ones((2, 16), np.float32)
    np.testing.assert_allclose(source.run({"input": x})["output"], mlp()(x).numpy(), atol=1e-6)
    assert source.label == f"tensorflow {tf.__version__} (cpu)"


def test_samples_are_checked(captured, tmp_path):
    np.save(tmp_path / "x.npy", np.ones((2, 16), np.float32))
    assert captured(mlp(), inputs={"input": str(tmp_path / "x.npy")}).origin.sizes == {"batch": 2}
    np.save(tmp_path / "y.npy", np.ones((2, 15), np.float32))
    with pytest.raises(ShapeMismatch):
        captured(mlp(), inputs={"input": str(tmp_path / "y.npy")})
    with pytest.raises(BadSample):
        captured(mlp(), inputs={"input": str(tmp_path / "z.npy")})


@pytest.mark.parametrize(
    "options",
    [
        {"via": "script"},
        {"submodule": "a.b"},
        {"architecture": "a:b"},
        {"signature": "serving_default"},
        {"outputs": ("x",)},
        {"state": "outputs"},
    ],
)
def test_options_that_say_nothing_here_are_refused(captured, options):
    with pytest.raises(BadOption):
        captured(mlp(), **options)


def test_the_residual_cnn_computes_what_its_torch_twin_does():
    torch = pytest.importorskip("torch")
    from fixtures import torch_models
    from fixtures.keras_models import residual_cnn_from_torch

    x = np.random.default_rng(0).standard_normal((2, 3, 64, 64)).astype(np.float32)
    with torch.no_grad():
        wanted = torch_models.residual_cnn()(torch.from_numpy(x)).numpy()
    np.testing.assert_allclose(residual_cnn_from_torch()(x, training=False).numpy(), wanted, atol=1e-4)


@pytest.mark.slow
def test_gradients_equal_those_of_tensorflow(onnx_run):
    example = EXAMPLES["gradients"]
    function = example.factory()
    source = recognise(function, CaptureRequest())
    model = source.capture(CaptureRequest())
    inputs = example.sample(3, batch=4)
    found = onnx_run(model, **inputs)
    wanted = function(tf.constant(inputs["image"]), tf.constant(inputs["label"]))
    np.testing.assert_allclose(found["loss"], wanted["loss"], rtol=1e-5)
    assert len(found) == 1 + len(function.model.trainable_variables)
    for path, gradient in wanted["gradients"].items():
        scale = np.abs(gradient.numpy()).max()
        np.testing.assert_allclose(found[f"gradients.{path}"], gradient, atol=1e-4 * scale)


def test_nodes_know_the_line_of_the_user_and_the_layer(captured):
    lines = [p for n in captured(conditional()).ir.graph.all_nodes() for p in provenance(n)]
    assert {p.file for p in lines} == {"fixtures/keras_models.py"}
    source = Path(conditional.__code__.co_filename).read_text().splitlines()
    assert any("x * 2.0 if" in source[p.line - 1] for p in lines)
    assert any("reduce_sum(y" in source[p.line - 1] for p in lines)
    model = captured(subclassed())
    modules = {p.module for n in model.ir.graph.all_nodes() for p in provenance(n)}
    assert {"dense", "dense_1"} & {m.rpartition(".")[2] for m in modules} or any("dense" in m for m in modules)
    assert any(
        "self.body(x) * self.gate(x)" in source[p.line - 1]
        for n in model.ir.graph.all_nodes()
        for p in provenance(n)
        if p.line
    )


def test_the_caller_of_graphkit_is_nobodys_source_line(captured):
    lines = [p for n in captured(mlp()).ir.graph.all_nodes() for p in provenance(n)]
    assert not [p for p in lines if p.file]


def test_batch_norm_of_a_model_in_evaluation_is_no_state(captured):
    assert len(captured(small_residual_cnn()).signature.inputs) == 1


def test_a_switch_case_becomes_branches(onnx_run):
    @tf.function(input_signature=[tf.TensorSpec([], tf.int32, name="i"), tf.TensorSpec([None, 3], name="x")])
    def chosen(i, x):
        return tf.switch_case(i, [lambda: x + 1.0, lambda: x * 2.0, lambda: tf.tanh(x)])

    source = recognise(chosen, CaptureRequest())
    model = source.capture(CaptureRequest())
    for i in (0, 1, 2, 7):
        agree(source, model, onnx_run, {"i": np.int32(i), "x": np.ones((2, 3), np.float32)})


def test_arguments_behind_a_star_are_numbered(onnx_run):
    function = tf.function(lambda *parts: parts[0] - 2 * parts[1], input_signature=[tf.TensorSpec([None, 2])] * 2)
    source = recognise(function, CaptureRequest())
    model = source.capture(CaptureRequest())
    assert [i.name for i in model.signature.inputs] == ["parts_0", "parts_1"]
    rows = np.ones((3, 2), np.float32)
    agree(source, model, onnx_run, {"parts_0": 5 * rows, "parts_1": rows})


def test_an_operator_without_translation_points_at_the_users_line():
    @tf.function(input_signature=[tf.TensorSpec((4, 4), tf.float32, name="x")])
    def decomposed(x):
        return tf.linalg.svd(x)[0]

    with pytest.raises(UnsupportedOperator) as caught:
        recognise(decomposed, CaptureRequest()).capture(CaptureRequest())
    line = decomposed.python_function.__code__.co_firstlineno + 2
    assert f"test_tf_objects.py:{line} in decomposed" in (caught.value.where or "")
