"""TFLite files: the interpreter's numbers under the file's own names; or a refusal that names what is in the way."""

from __future__ import annotations

import tempfile
import warnings
from pathlib import Path

import numpy as np
import pytest
import tensorflow as tf

import graphkit as gk
from fixtures.tflite_files import CUSTOM, adding
from graphkit.errors import (
    BadOption,
    FrozenDimension,
    OpsetNotHonoured,
    ShapeMismatch,
    UnknownName,
    UnsupportedOperator,
)
from graphkit.model import provenance
from graphkit.pipeline import ConvertRequest, run

pytestmark = [pytest.mark.slow, pytest.mark.filterwarnings("ignore")]  # TensorFlow warns of its own deprecations

X = tf.TensorSpec([None, 4], tf.float32, name="x")


def network() -> tf.keras.Model:
    tf.keras.utils.set_random_seed(0)
    layers = tf.keras.layers
    return tf.keras.Sequential(
        [
            tf.keras.Input((8, 8, 3), name="image"),
            layers.Conv2D(8, 3, activation="relu", name="stem"),
            layers.DepthwiseConv2D(3, name="depthwise"),
            layers.Conv2D(16, 3, strides=2, padding="same", activation="relu", name="body"),
            layers.GlobalAveragePooling2D(),
            layers.Dense(64, activation="relu"),
            layers.Dense(5, name="head"),
        ]
    )


def calibration():
    rng = np.random.default_rng(0)
    for _ in range(20):
        yield [rng.standard_normal((1, 8, 8, 3)).astype(np.float32)]


def quantised(kind: str) -> bytes:
    """The network as `float`, `float16`, `dynamic`, or with int8 inside and, for `int8`, at its ends too."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        converter = tf.lite.TFLiteConverter.from_keras_model(network())
        if kind != "float":
            converter.optimizations = [tf.lite.Optimize.DEFAULT]
        if kind == "float16":
            converter.target_spec.supported_types = [tf.float16]
        if kind.startswith("int8"):
            converter.representative_dataset = calibration
            converter.target_spec.supported_ops = [tf.lite.OpsSet.TFLITE_BUILTINS_INT8]
            ends = tf.int8 if kind == "int8" else tf.float32
            converter.inference_input_type = converter.inference_output_type = ends
        return converter.convert()


def converted(*functions: tf.types.experimental.PolymorphicFunction, keys=(), flex=False) -> bytes:
    """Functions as a TFLite file, with one signature each where `keys` are given."""
    if keys:
        holder = tf.Module()
        holder.functions = list(functions)
        with tempfile.TemporaryDirectory() as folder:
            tf.saved_model.save(holder, folder, signatures=dict(zip(keys, functions, strict=True)))
            return tf.lite.TFLiteConverter.from_saved_model(folder, signature_keys=list(keys)).convert()
    concrete = [f.get_concrete_function() for f in functions]
    converter = tf.lite.TFLiteConverter.from_concrete_functions(concrete, functions[0])
    if flex:
        converter.target_spec.supported_ops = [tf.lite.OpsSet.TFLITE_BUILTINS, tf.lite.OpsSet.SELECT_TF_OPS]
    return converter.convert()


@pytest.fixture(scope="module")
def write(tmp_path_factory):
    folder = tmp_path_factory.mktemp("tflite")
    done: dict[str, Path] = {}

    def written(kind: str) -> Path:
        if kind not in done:
            done[kind] = folder / f"{kind}.tflite"
            done[kind].write_bytes(quantised(kind))
        return done[kind]

    return written


def interpreted(path: Path, **inputs: np.ndarray) -> list[np.ndarray]:
    """TFLite's outputs in their order; inputs by the names of their tensors, or the only one."""
    interpreter = tf.lite.Interpreter(str(path))
    details = interpreter.get_input_details()
    values = {d["index"]: inputs.get(d["name"], next(iter(inputs.values()))) for d in details}
    for index, value in values.items():
        interpreter.resize_tensor_input(index, value.shape)
    interpreter.allocate_tensors()
    for index, value in values.items():
        interpreter.set_tensor(index, value)
    interpreter.invoke()
    return [interpreter.get_tensor(d["index"]) for d in interpreter.get_output_details()]


def images(batch: int) -> np.ndarray:
    return np.random.default_rng(batch).standard_normal((batch, 8, 8, 3)).astype(np.float32)


# --- numbers -----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("kind", ["float", "float16"])
def test_a_float_network_computes_what_the_interpreter_does_at_every_batch(kind, write, captured, onnx_run):
    model = captured(write(kind))
    assert [str(t) for t in model.signature.inputs] == ["image: float32[batch, 8, 8, 3]"]
    assert [str(t) for t in model.signature.outputs] == ["output_0: float32[batch, 5]"]
    for batch in (1, 2, 7):
        (wanted,) = interpreted(write(kind), image=images(batch))
        np.testing.assert_allclose(onnx_run(model, image=images(batch))["output_0"], wanted, atol=1e-6, rtol=1e-5)


@pytest.mark.parametrize("opset", [13, 18, 21])
def test_the_opset_is_honoured(opset, write, captured, onnx_run):
    model = captured(write("float"), opset=opset)
    assert model.opset == opset
    (wanted,) = interpreted(write("float"), image=images(3))
    np.testing.assert_allclose(onnx_run(model, image=images(3))["output_0"], wanted, atol=1e-6, rtol=1e-5)


def test_an_opset_that_cannot_be_had_is_refused(write, captured):
    with pytest.raises(OpsetNotHonoured):
        captured(write("float"), opset=9)


def test_nodes_know_their_layers(write, captured):
    found = {line.module for node in captured(write("float")).ir.graph for line in provenance(node)}
    assert {"stem", "depthwise", "body"} <= found  # the last one has the name of the output
    assert not any("/" in module or ";" in module for module in found)


def test_an_int8_network_keeps_its_ends_and_is_within_one_step(write, tmp_path):
    result = gk.convert(write("int8"), output=tmp_path / "m.onnx")
    (given,), (made,) = result.model.signature.inputs, result.model.signature.outputs
    assert (given.dtype, made.dtype) == ("int8", "int8")
    kinds = [n.op_type for n in result.model.ir.graph]
    assert {"QuantizeLinear", "DequantizeLinear"} <= set(kinds)
    weights = [n for n in result.model.ir.graph if n.op_type == "DequantizeLinear" and n.inputs[1].shape.numpy()]
    assert len(weights) >= 3, "scales per channel are kept"
    assert result.parity.status == "pass"
    assert any("one step" in (c.note or "") for c in result.parity.comparisons)
    assert "int8" in [w.code for w in result.warnings]
    session = unfused(tmp_path / "m.onnx")
    for seed in range(5):
        x = np.random.default_rng(seed).integers(-128, 128, (3, 8, 8, 3)).astype(np.int8)
        (wanted,) = interpreted(write("int8"), image=x)
        (found,) = session.run(None, {given.name: x})
        assert found.dtype == np.int8
        assert np.abs(found.astype(int) - wanted).max() <= 1


def test_a_network_that_is_int8_inside_takes_and_gives_float(write, captured):
    model = captured(write("int8 inside"))
    assert model.signature.inputs[0].dtype == model.signature.outputs[0].dtype == "float32"
    session = unfused(model.to_proto().SerializeToString())
    (wanted,) = interpreted(write("int8 inside"), image=images(4))
    (found,) = session.run(None, {"image": images(4)})
    step = np.diff(np.unique(wanted)).min()
    assert np.abs(found - wanted).max() <= step * (1 + 1e-5)


def unfused(model):
    """A session without ONNX Runtime's int8 kernels, which saturate on x64 without VNNI."""
    import onnxruntime

    options = onnxruntime.SessionOptions()
    options.graph_optimization_level = onnxruntime.GraphOptimizationLevel.ORT_DISABLE_ALL
    return onnxruntime.InferenceSession(str(model) if isinstance(model, Path) else model, options)


@pytest.mark.parametrize("positive", [True, False])
def test_branches_and_loops_follow_their_values(positive, captured, onnx_run, tmp_path):
    @tf.function(input_signature=[X])
    def stepping(x):
        start = tf.cond(tf.reduce_sum(x) > 0, lambda: x * 2.0, lambda: x - 1.0)
        return tf.while_loop(lambda i, v: i < 3, lambda i, v: (i + 1, v * v), (0, start))[1]

    path = tmp_path / "m.tflite"
    path.write_bytes(converted(stepping))
    model = captured(path)
    assert {"If", "Loop"} <= {n.op_type for n in model.ir.graph.all_nodes()}
    x = np.linspace(0.1, 1.0, 12, dtype=np.float32).reshape(3, 4) * (1 if positive else -1)
    name = model.signature.outputs[0].name
    np.testing.assert_allclose(onnx_run(model, x=x)[name], stepping(x).numpy(), rtol=1e-5)


# --- names and dimensions ----------------------------------------------------------------------------------------


@tf.function(input_signature=[X, tf.TensorSpec([None, 4], tf.float32, name="y")])
def combined(x, y):
    return {"total": x + y, "product": tf.matmul(x, y, transpose_b=True)}


@tf.function(input_signature=[X])
def doubled(x):
    return {"twice": x * 2.0}


def test_names_are_those_of_the_signature(captured, onnx_run, tmp_path):
    path = tmp_path / "m.tflite"
    path.write_bytes(converted(combined, keys=["serving_default"]))
    model = captured(path)
    assert {t.name for t in model.signature.inputs} == {"x", "y"}
    assert {t.name: t.shape for t in model.signature.outputs} == {"total": ("batch", 4), "product": ("batch", "batch")}
    x, y = np.arange(8, dtype=np.float32).reshape(2, 4), np.ones((2, 4), np.float32)
    found = onnx_run(model, x=x, y=y)
    np.testing.assert_array_equal(found["total"], x + y)
    np.testing.assert_array_equal(found["product"], x @ y.T)


def test_of_several_signatures_one_has_to_be_named(captured, onnx_run, tmp_path):
    path = tmp_path / "m.tflite"
    path.write_bytes(converted(combined, doubled, keys=["combine", "double"]))
    with pytest.raises(BadOption, match=r"2 signatures: combine, double") as caught:
        captured(path)
    assert "--signature combine" in caught.value.remedy
    with pytest.raises(UnknownName, match="--signature none"):
        captured(path, signature="none")
    x = np.arange(8, dtype=np.float32).reshape(2, 4)
    np.testing.assert_array_equal(onnx_run(captured(path, signature="double"), x=x)["twice"], x * 2)
    np.testing.assert_array_equal(onnx_run(captured(path, signature="combine"), x=x, y=x)["total"], x + x)


@pytest.mark.parametrize("names", [("x", "bias", "y"), ("x", "x", "x"), ("", "", "")])
def test_tensors_may_share_a_name_or_have_none(names, captured, onnx_run, tmp_path):
    path = tmp_path / "m.tflite"
    path.write_bytes(adding(names=names))
    model = captured(path)
    (given,), (made,) = model.signature.inputs, model.signature.outputs
    assert given.name != made.name
    found = onnx_run(model, **{given.name: np.ones((3, 4), np.float32)})[made.name]
    np.testing.assert_array_equal(found, np.tile(np.float32([2, 3, 4, 5]), (3, 1)))


def test_free_dimensions_are_named_by_place_or_as_asked(captured, tmp_path):
    path = tmp_path / "m.tflite"
    path.write_bytes(converted(tf.function(lambda x: x + 1.0, input_signature=[tf.TensorSpec([None, None, 3])])))
    (given,) = captured(path).signature.inputs
    assert given.shape == ("batch", f"{given.name}_1", 3)
    model = captured(path, shapes={given.name: ("n", "time", 3)}, dims={"time": (1, 8, 16)})
    assert model.signature.outputs[0].shape == ("n", "time", 3)


@pytest.mark.parametrize(
    ("shape", "error"), [(("batch", "c"), FrozenDimension), (("batch", 5), ShapeMismatch), ((4,), ShapeMismatch)]
)
def test_a_shape_that_does_not_fit_is_refused(shape, error, captured, tmp_path):
    path = tmp_path / "m.tflite"
    path.write_bytes(adding())
    with pytest.raises(error) as caught:
        captured(path, shapes={"x": shape})
    assert caught.value.remedy


@pytest.mark.parametrize("option", [{"via": "trace"}, {"submodule": "a"}, {"architecture": "a:b"}, {"state": "inputs"}])
def test_an_option_that_says_nothing_is_refused(option, captured, tmp_path):
    path = tmp_path / "m.tflite"
    path.write_bytes(adding())
    with pytest.raises(BadOption, match="says nothing about a TFLite file"):
        captured(path, **option)


# --- what cannot be translated -----------------------------------------------------------------------------------


def test_weights_of_int8_under_float_activations_are_refused_by_name(write, captured):
    with pytest.raises(UnsupportedOperator, match="float activations with int8 weights") as caught:
        captured(write("dynamic"))
    assert any("FULLY_CONNECTED" in line for line in caught.value.details) or "FULLY_CONNECTED" in caught.value.message
    assert "full integer quantisation" in caught.value.render()


def test_a_custom_operator_is_refused_by_name(captured, tmp_path):
    path = tmp_path / "m.tflite"
    path.write_bytes(adding(code=CUSTOM, custom="Mine"))
    with pytest.raises(UnsupportedOperator, match="`Mine`") as caught:
        captured(path)
    assert caught.value.data["operators"] == [{"op": "Mine", "count": 1, "nodes": ["y"]}]


def test_an_operator_that_writes_files_is_refused_before_it_runs(tmp_path):
    canary = tmp_path / "canary"

    @tf.function(input_signature=[X])
    def writing(x):
        tf.io.write_file(str(canary), "was here")
        return x * 2.0

    path = tmp_path / "m.tflite"
    path.write_bytes(converted(writing, flex=True))
    result = run(path, ConvertRequest(output=tmp_path / "m.onnx"))
    assert isinstance(result.error, UnsupportedOperator)
    assert "FlexWriteFile" in result.error.message
    with pytest.raises(UnsupportedOperator):
        gk.validate(path, [path])
    assert not canary.exists()
    assert not (tmp_path / "m.onnx").exists()


def test_a_file_is_compared_with_its_conversion(write, tmp_path):
    gk.convert(write("float"), output=tmp_path / "m.onnx")
    assert gk.validate(write("float"), [tmp_path / "m.onnx"]).status == "pass"
