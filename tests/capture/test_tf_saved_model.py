"""SavedModel folders: scanned before they are loaded; one signature, of the newest version."""

from __future__ import annotations

import shutil
from pathlib import Path

import keras
import numpy as np
import pytest
import tensorflow as tf

from fixtures.keras_models import Counter, mlp
from graphkit.capture.registry import recognise
from graphkit.capture.request import CaptureRequest
from graphkit.errors import (
    BadOption,
    CorruptFile,
    FileMissing,
    NotAModel,
    StateMutated,
    UnknownFormat,
    UnknownName,
    UnsupportedOperator,
    UntrustedSource,
)

v1 = tf.compat.v1

pytestmark = pytest.mark.filterwarnings("ignore::UserWarning", "ignore::DeprecationWarning")

X = np.random.default_rng(0).standard_normal((3, 16)).astype(np.float32)


class Two(tf.Module):
    """Two functions, a dict of outputs each."""

    def __init__(self) -> None:
        super().__init__()
        self.factor = tf.Variable(3.0)

    @tf.function(input_signature=[tf.TensorSpec([None, 2], name="x")])
    def scale(self, x):
        return {"scaled": x * self.factor, "sum": tf.reduce_sum(x, axis=1)}

    @tf.function(input_signature=[tf.TensorSpec([None, 2], name="a"), tf.TensorSpec([None, 2], name="b")])
    def join(self, a, b):
        return {"joined": tf.concat([a, b], axis=1)}


class Reaching(tf.Module):
    """Reads a file, writes one, and calls Python."""

    def __init__(self, what: str) -> None:
        super().__init__()
        self.what = what

    @tf.function(input_signature=[tf.TensorSpec([None], name="x")])
    def __call__(self, x):
        if self.what == "ReadFile":
            return x + tf.cast(tf.strings.length(tf.io.read_file("/etc/hostname")), tf.float32)
        if self.what == "WriteFile":
            tf.io.write_file("/tmp/never-written-by-graphkit", "x")
            return x
        return tf.py_function(lambda v: v * 2, [x], tf.float32)


@pytest.fixture(scope="module")
def folder(tmp_path_factory) -> Path:
    folder = tmp_path_factory.mktemp("saved")
    mlp().export(folder / "mlp", verbose=False)
    two = Two()
    tf.saved_model.save(two, str(folder / "two"), signatures={"scale": two.scale, "join": two.join})
    counter = Counter()
    tf.saved_model.save(counter, str(folder / "counter"), signatures=counter.__call__)
    tf.saved_model.save(counter, str(folder / "unsigned"))
    for what in ("ReadFile", "WriteFile", "EagerPyFunc"):
        tf.saved_model.save(Reaching(what), str(folder / what))
    for version in ("2", "10"):
        shutil.copytree(folder / "mlp", folder / "serving" / version)
    return folder


def test_a_saved_model_computes_what_the_model_does(folder, onnx_run):
    source = recognise(folder / "mlp", CaptureRequest())
    model = source.capture(CaptureRequest())
    [spec] = model.signature.inputs
    assert spec.shape == ("batch", 16)
    assert model.signature.outputs[0].shape == ("batch", 4)
    assert model.origin.kind == "SavedModel"
    assert len(model.origin.sha256) == 64
    wanted = mlp()(X).numpy()
    [found] = onnx_run(model, **{spec.name: X}).values()
    np.testing.assert_allclose(found, wanted, atol=1e-5)
    [own] = source.run({spec.name: X}).values()
    np.testing.assert_allclose(own, wanted, atol=1e-5)


def test_the_file_of_a_saved_model_stands_for_its_folder(folder, captured):
    named = captured(folder / "mlp" / "saved_model.pb")
    assert named.origin.name == "mlp"
    assert named.signature == captured(folder / "mlp").signature


def test_a_lookup_table_is_refused_by_its_operator(tmp_path, captured):
    entries = tf.lookup.KeyValueTensorInitializer(tf.constant(["a", "b"]), tf.constant([1, 2], tf.int64))
    module = tf.Module()
    module.table = tf.lookup.StaticHashTable(entries, -1)
    look_up = tf.function(module.table.lookup, input_signature=[tf.TensorSpec([None], tf.string, name="words")])
    tf.saved_model.save(module, str(tmp_path / "table"), signatures=look_up)
    with pytest.raises(UnsupportedOperator, match="LookupTableFindV2") as caught:
        captured(tmp_path / "table")
    assert caught.value.remedy == "look the keys up before the model"


def test_the_newest_version_is_taken_and_said(folder, captured):
    [finding] = captured(folder / "serving").origin.findings
    assert "version 10" in finding.message
    assert "not 2" in finding.message


def test_grouped_convolution_and_variables_of_tensorflow_1(tmp_path, onnx_run):
    x = keras.Input((6, 6, 4), name="x")
    grouped = keras.Model(x, keras.layers.Conv2D(8, 3, groups=2)(x))
    grouped.export(tmp_path / "grouped", verbose=False)
    with tf.Graph().as_default():
        a = v1.placeholder(tf.float32, [None, 3], name="a")
        w = v1.get_variable("w", [3, 2], use_resource=False)
        b = v1.get_variable("b", [2], use_resource=True, initializer=v1.random_normal_initializer())
        with v1.Session() as session:
            session.run(v1.global_variables_initializer())
            signature = v1.saved_model.predict_signature_def({"a": a}, {"y": a @ w + b})
            builder = v1.saved_model.Builder(str(tmp_path / "old"))
            builder.add_meta_graph_and_variables(session, ["serve"], {"serving_default": signature})
            builder.save()
    for name, shape in (("grouped", (2, 6, 6, 4)), ("old", (2, 3))):
        source = recognise(tmp_path / name, CaptureRequest())
        model = source.capture(CaptureRequest())
        [spec] = model.signature.inputs
        inputs = {spec.name: np.random.default_rng(0).standard_normal(shape).astype(np.float32)}
        wanted, found = source.run(inputs), onnx_run(model, **inputs)
        assert wanted.keys() == found.keys()
        for output in wanted:
            np.testing.assert_allclose(found[output], wanted[output], atol=1e-5)


def test_several_signatures_are_listed_and_none_is_guessed(folder, captured):
    with pytest.raises(BadOption) as caught:
        captured(folder / "two")
    assert sorted(caught.value.data["signatures"]) == ["join", "scale"]
    assert any("x: float32[?, 2]" in line for line in caught.value.details)
    with pytest.raises(UnknownName, match="no such signature"):
        captured(folder / "two", signature="serving_default")


def test_a_signature_has_its_own_inputs_and_outputs(folder, captured, onnx_run):
    model = captured(folder / "two", signature="scale")
    x = np.ones((4, 2), np.float32)
    found = onnx_run(model, x=x)
    assert found.keys() == {"scaled", "sum"}
    np.testing.assert_array_equal(found["scaled"], 3 * x)
    joined = captured(folder / "two", signature="join")
    assert [(i.name, i.shape) for i in joined.signature.inputs] == [("a", ("batch", 2)), ("b", ("batch", 2))]


def test_state_of_a_saved_model_is_refused_or_carried(folder, captured, onnx_run):
    with pytest.raises(StateMutated, match="calls"):
        captured(folder / "counter")
    model = captured(folder / "counter", state="inputs")
    found = onnx_run(model, x=np.ones((1, 2), np.float32), calls=np.float32(4), positive=np.float32(0))
    assert found["calls_next"] == 5.0
    assert found["positive_next"] == 1.0


def test_without_a_signature_the_object_itself_is_called(folder, captured):
    with pytest.raises(StateMutated):
        captured(folder / "unsigned")
    assert captured(folder / "unsigned", state="inputs").signature.inputs[0].name == "x"


@pytest.mark.parametrize("op", ["ReadFile", "WriteFile", "EagerPyFunc"])
def test_operations_that_reach_out_are_refused_before_loading(op, folder, captured):
    with pytest.raises(UntrustedSource) as caught:
        captured(folder / op)
    assert caught.value.data == {"ops": [op]}
    assert op in caught.value.message
    assert "--trust" in caught.value.remedy
    assert not Path("/tmp/never-written-by-graphkit").exists()


def test_checkpoint_operations_are_refused_where_a_signature_reaches_them(folder, tmp_path, captured):
    from tensorflow.core.protobuf import saved_model_pb2

    shutil.copytree(folder / "mlp", tmp_path / "m")
    path = tmp_path / "m" / "saved_model.pb"
    proto = saved_model_pb2.SavedModel.FromString(path.read_bytes())
    meta = proto.meta_graphs[0]
    signature = next(s for name, s in meta.signature_def.items() if name == "serving_default")
    node = next(iter(signature.outputs.values())).name.partition(":")[0]
    called = next(n for n in meta.graph_def.node if n.name == node).attr["f"].func.name
    function = next(f for f in meta.graph_def.library.function if f.signature.name == called)
    function.node_def.add(name="sneaky", op="RestoreV2")
    path.write_bytes(proto.SerializeToString())
    with pytest.raises(UntrustedSource, match="sneaky"):
        captured(tmp_path / "m")


@pytest.mark.parametrize("kept", [0, 100, -50])
def test_a_damaged_graph_is_corrupt(kept, folder, tmp_path, captured):
    shutil.copytree(folder / "mlp", tmp_path / "m")
    path = tmp_path / "m" / "saved_model.pb"
    path.write_bytes(path.read_bytes()[:kept])
    with pytest.raises(CorruptFile):
        captured(tmp_path / "m")


def test_missing_variables_are_said(folder, tmp_path, captured):
    shutil.copytree(folder / "mlp", tmp_path / "m")
    shutil.rmtree(tmp_path / "m" / "variables")
    with pytest.raises(FileMissing, match=r"variables\.index"):
        captured(tmp_path / "m")


def test_damaged_variables_are_corrupt(folder, tmp_path, captured):
    shutil.copytree(folder / "mlp", tmp_path / "m")
    (tmp_path / "m" / "variables" / "variables.index").write_bytes(b"x" * 64)
    with pytest.raises(CorruptFile):
        captured(tmp_path / "m")


def test_a_folder_without_its_graph_is_not_a_model(folder, tmp_path, captured):
    shutil.copytree(folder / "mlp" / "variables", tmp_path / "m" / "variables")
    with pytest.raises(FileMissing, match=r"no saved_model\.pb"):
        captured(tmp_path / "m")
    (tmp_path / "t").mkdir()
    (tmp_path / "t" / "saved_model.pbtxt").write_text("meta_graphs {}")
    with pytest.raises(UnknownFormat, match="as text"):
        captured(tmp_path / "t")


def test_a_model_of_nothing_is_refused(tmp_path, captured):
    tf.saved_model.save(tf.Module(), str(tmp_path / "m"))
    with pytest.raises(NotAModel, match="no signature"):
        captured(tmp_path / "m")
