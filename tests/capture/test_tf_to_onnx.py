"""Frozen TensorFlow graphs as ONNX: names, shapes, provenance, opsets and numbers."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from typing import Any

import numpy as np
import pytest

from graphkit.capture import tf_run
from graphkit.capture.tf_frozen import Frozen, FrozenTensor
from graphkit.capture.tf_to_onnx import to_onnx
from graphkit.errors import BadOption, OpsetNotHonoured, ShapeMissing, UnknownName, UnsupportedOperator
from graphkit.model import Model, Origin, SourceLine, provenance
from graphkit.shapes import TensorSpec

pytestmark = pytest.mark.filterwarnings("ignore::DeprecationWarning", "ignore::FutureWarning")

tf = pytest.importorskip("tensorflow", exc_type=ImportError)


def frozen(function: Callable[..., Any], *specs: Any, outputs: tuple[str, ...] = ()) -> tuple[Frozen, Any]:
    """A function with its variables as constants, and TensorFlow's own way to run it."""
    from tensorflow.python.framework.convert_to_constants import convert_variables_to_constants_v2

    concrete = tf.function(function, autograph=True).get_concrete_function(*specs)
    constant = convert_variables_to_constants_v2(concrete, lower_control_flow=False)

    def tensor(value: Any, name: str) -> FrozenTensor:
        dims = None if value.shape.rank is None else tuple(value.shape)
        if dims:
            dims = ("batch" if dims[0] is None else dims[0], *(f"{name}_dim{a}" if d is None else d
                    for a, d in enumerate(dims[1:], 1)))  # fmt: skip
        return FrozenTensor(TensorSpec(name, value.dtype.name, dims), value.name)

    names = outputs or tuple(f"y{i}" for i in range(len(constant.outputs)))
    return Frozen(
        constant.graph.as_graph_def(),
        tuple(tensor(value, value.name.partition(":")[0]) for value in constant.inputs),
        tuple(
            replace(tensor(value, name), spec=TensorSpec(name, value.dtype.name, _known(value)))
            for value, name in zip(constant.outputs, names, strict=True)
        ),
    ), constant


def _known(value: Any) -> Any:
    return None if value.shape.rank is None else tuple(value.shape)


def converted(source: Frozen, **options: Any) -> Model:
    return Model(to_onnx(source, **{"opset": None, **options}), Origin("test"))


def operators(model: Model) -> list[str]:
    return sorted(node.op_type for node in model.ir.graph.all_nodes())


def modules(model: Model) -> dict[str, list[str]]:
    """Layer paths by operator."""
    found: dict[str, list[str]] = {}
    for node in model.ir.graph.all_nodes():
        found.setdefault(node.op_type, []).append("+".join(line.module for line in provenance(node)))
    return found


def agree(model: Model, function: Any, onnx_run: Any, *, shapes: list[tuple[int, ...]]) -> None:
    """ONNX Runtime returns what TensorFlow does, at each of these shapes of `x`."""
    for shape in shapes:
        value = np.random.default_rng(len(shape) + sum(shape)).normal(size=shape).astype(np.float32)
        expected = function(tf.constant(value))
        expected = expected if isinstance(expected, list | tuple) else [expected]
        found = onnx_run(model, x=value)
        for wanted, given in zip(expected, found.values(), strict=True):
            np.testing.assert_allclose(given, wanted.numpy(), rtol=1e-5, atol=1e-5)


def x(*shape: int | None, dtype: str = "float32", name: str = "x") -> Any:
    return tf.TensorSpec(shape, dtype, name=name)


@pytest.fixture(scope="module")
def cnn() -> tuple[Frozen, Any]:
    """Two convolutions in nested models, the layers numbered by the user."""
    import keras
    from keras import layers

    keras.utils.set_random_seed(0)
    inner_in = keras.Input((None, None, 4))
    inner = layers.Conv2D(4, 3, padding="same", name="conv_1", use_bias=False)(inner_in)
    inner = layers.BatchNormalization(name="norm")(inner)
    inner = layers.ReLU(name="act")(inner)
    block = keras.Model(inner_in, inner, name="block_2")
    image = keras.Input((None, None, 3))
    body = layers.ReLU(name="first_act")(layers.Conv2D(4, 3, padding="same", name="conv")(image))
    network = keras.Model(image, block(body), name="net")
    return frozen(lambda x: network(x, training=False), x(None, None, None, 3), outputs=("features",))


@pytest.fixture(scope="module")
def loop() -> tuple[Frozen, Any]:
    """A tf.while_loop and a tf.cond."""

    def function(x: Any) -> Any:
        step = tf.constant(0)
        while step < 3:
            x = x * 2.0 + tf.cast(step, tf.float32)
            step += 1
        return tf.cond(tf.reduce_sum(x) > 0, lambda: x + 1.0, lambda: -x)

    return frozen(function, x(None, 3))


def test_a_convolutional_network_computes_the_same_at_two_sizes(cnn, onnx_run):
    source, function = cnn
    agree(converted(source), function, onnx_run, shapes=[(2, 8, 8, 3), (3, 12, 10, 3)])


def test_inputs_and_outputs_have_the_names_of_the_source(cnn):
    signature = converted(cnn[0]).signature
    assert [t.name for t in signature.inputs] == ["x"]
    assert [t.name for t in signature.outputs] == ["features"]


def test_dimensions_are_the_sources_symbols_and_none_is_invented(cnn):
    model = converted(cnn[0])
    assert model.signature.inputs[0].shape == ("batch", "x_dim1", "x_dim2", 3)
    assert model.signature.outputs[0].shape[0] == "batch"
    assert model.signature.outputs[0].shape[3] == 4
    assert b"unk__" not in model.to_proto().SerializeToString()


def test_every_node_names_the_layer_as_the_user_does(cnn):
    found = modules(converted(cnn[0]))
    assert sorted(found["Conv"]) == ["block_2.conv_1+block_2.norm", "conv"]
    assert sorted(found["Relu"]) == ["block_2.act", "first_act"]
    assert all(path for paths in found.values() for path in paths)


def test_the_users_lines_are_joined_to_the_layers(cnn):
    source, _ = cnn
    relu = next(node.name for node in source.graph.node if node.op == "Relu" and "first_act" in node.name)
    model = converted(replace(source, lines={relu: SourceLine("", "net.py", 7, "build")}))
    lines = {line for node in model.ir.graph.all_nodes() for line in provenance(node)}
    assert SourceLine("first_act", "net.py", 7, "build") in lines


def test_layout_nchw_leaves_no_transpose_and_permutes_the_signature(cnn, onnx_run):
    source, function = cnn
    assert operators(converted(source)).count("Transpose") == 2
    for layout in (("x", "features"), ("0", "out0")):
        model = converted(source, layout=layout)
        assert "Transpose" not in operators(model)
        assert model.signature.inputs[0].shape == ("batch", 3, "x_dim1", "x_dim2")
    value = np.random.default_rng(0).normal(size=(2, 8, 6, 3)).astype(np.float32)
    found = onnx_run(model, x=value.transpose(0, 3, 1, 2))["features"]
    np.testing.assert_allclose(found.transpose(0, 2, 3, 1), function(tf.constant(value))[0], rtol=1e-5, atol=1e-5)
    assert sorted(modules(model)["Relu"]) == ["block_2.act", "first_act"]


@pytest.mark.parametrize(("layout", "error"), [("z", UnknownName), ("in7", UnknownName), ("y0", BadOption)])
def test_a_layout_that_cannot_be_is_refused(layout, error):
    source, _ = frozen(lambda x: tf.reduce_sum(x, [1, 2, 3]), x(None, 4, 4, 3))
    with pytest.raises(error, match=layout):
        to_onnx(source, opset=None, layout=(layout,))


def test_two_conversions_give_the_same_bytes(cnn, loop):
    for source, _ in (cnn, loop):
        first, second = (converted(source).to_proto().SerializeToString(deterministic=True) for _ in range(2))
        assert first == second


@pytest.mark.parametrize("opset", [13, 17, 18, 20, 24])
def test_the_opset_is_the_one_asked_for(loop, onnx_run, opset):
    source, function = loop
    model = converted(source, opset=opset)
    assert model.ir.opset_imports == {"": opset}
    assert {"If", "Loop"} <= set(operators(model))
    agree(model, function, onnx_run, shapes=[(2, 3), (5, 3)])


def test_without_a_wish_the_opset_is_18_and_no_other_domain_is_imported(cnn):
    assert converted(cnn[0]).ir.opset_imports == {"": 18}


@pytest.mark.parametrize("opset", [7, 12, 99])
def test_an_opset_out_of_reach_is_refused(loop, opset):
    with pytest.raises(OpsetNotHonoured, match=str(opset)) as caught:
        to_onnx(loop[0], opset=opset)
    assert caught.value.data["asked"] == opset


def test_unsupported_operators_are_all_listed_with_place_count_and_remedy():
    def function(x: Any) -> Any:
        with tf.name_scope("head"):
            values = tf.linalg.svd(x, compute_uv=False)
        return values, tf.math.bessel_i0(x), tf.math.bessel_i0(x + 1.0)

    source, _ = frozen(function, x(None, 3, 3))
    with pytest.raises(UnsupportedOperator) as caught:
        to_onnx(source, opset=None)
    found = {entry["op"]: entry for entry in caught.value.data["operators"]}
    assert set(found) == {"BesselI0", "Svd"}
    assert found["BesselI0"]["count"] == 2
    assert found["Svd"]["layers"] == ["head"]
    assert len(caught.value.details) == 2
    assert all(entry["remedy"] for entry in found.values())


def test_an_unsupported_operator_inside_a_loop_is_found():
    def function(x: Any) -> Any:
        for _ in tf.range(3):
            x = tf.math.bessel_i0(x)
        return x

    with pytest.raises(UnsupportedOperator, match="BesselI0"):
        to_onnx(frozen(function, x(2, 3))[0], opset=None)


def test_outputs_that_are_inputs_twins_or_constants_keep_their_names(onnx_run):
    def function(x: Any) -> Any:
        twice = x * 2.0
        return x, twice, twice, tf.constant([1.0, 2.0]), tf.ones((4, 300))

    source, reference = frozen(function, x(None, 3), outputs=("same", "a", "b", "constant", "large"))
    twin = replace(source.outputs[2], tensor=source.outputs[1].tensor)
    model = converted(replace(source, outputs=(*source.outputs[:2], twin, *source.outputs[3:])))
    assert [t.name for t in model.signature.outputs] == ["same", "a", "b", "constant", "large"]
    agree(model, reference, onnx_run, shapes=[(2, 3), (4, 3)])


def test_an_input_that_nothing_reads_is_still_an_input(onnx_run):
    source, _ = frozen(lambda x, z: x + 1.0, x(None, 3), x(None, 4, dtype="int32", name="z"))
    model = converted(source)
    assert [str(t) for t in model.signature.inputs] == ["x: float32[batch, 3]", "z: int32[batch, 4]"]
    found = onnx_run(model, x=np.zeros((2, 3), np.float32), z=np.zeros((2, 4), np.int32))
    np.testing.assert_array_equal(found["y0"], np.ones((2, 3), np.float32))


def test_a_function_without_inputs_becomes_a_model_without_inputs(onnx_run):
    model = converted(frozen(lambda: tf.range(4))[0])
    assert model.signature.inputs == ()
    np.testing.assert_array_equal(onnx_run(model)["y0"], [0, 1, 2, 3])


def test_an_input_of_unknown_rank_asks_for_its_shape():
    with pytest.raises(ShapeMissing, match="`x`"):
        to_onnx(frozen(lambda x: x * 2.0, tf.TensorSpec(None, tf.float32, name="x"))[0], opset=None)


def test_a_shape_given_for_a_vague_placeholder_reaches_the_outputs():
    source, _ = frozen(lambda x: x * 2.0, tf.TensorSpec(None, tf.float32, name="x"))
    given = FrozenTensor(TensorSpec("x", "float32", ("batch", 7)), source.inputs[0].tensor)
    assert converted(replace(source, inputs=(given,))).signature.outputs[0].shape == ("batch", 7)


def test_calls_that_were_inlined_leave_no_trace_in_the_paths():
    import keras

    keras.utils.set_random_seed(0)
    network = keras.Sequential([keras.Input((4,)), keras.layers.Dense(3, name="dense_1")], name="mlp")
    inner = tf.function(lambda x: network(x, training=False))
    concrete = tf.function(lambda x: inner(x)).get_concrete_function(x(None, 4))
    source, _ = frozen(lambda x: concrete(x), x(None, 4))
    paths = {path for paths in modules(converted(source)).values() for path in paths}
    assert paths == {"dense_1"}


def test_a_graph_beyond_protobufs_limit_is_translated_without_being_serialised(monkeypatch, onnx_run):
    weights = tf.Variable(np.random.default_rng(0).normal(size=(64, 64)).astype(np.float32))
    inner = tf.function(lambda x: tf.nn.relu(x @ weights), autograph=False)
    source, function = frozen(lambda x: inner(x), x(None, 64))
    small = converted(source)
    monkeypatch.setattr(tf_run, "LARGE", 1000)
    large = converted(source)
    assert operators(large) == operators(small)
    agree(large, function, onnx_run, shapes=[(2, 64), (3, 64)])


def test_tf2onnx_prints_and_logs_nothing(loop, capfd):
    to_onnx(loop[0], opset=None)
    with pytest.raises(UnsupportedOperator):
        to_onnx(frozen(lambda x: tf.math.bessel_i0(x), x(2))[0], opset=None)
    captured = capfd.readouterr()
    assert "tf2onnx" not in captured.out + captured.err


def test_no_more_nodes_than_tf2onnx_itself(cnn, loop):
    import tf2onnx

    for source, _ in (cnn, loop):
        theirs, _ = tf2onnx.convert.from_graph_def(
            source.graph,
            input_names=[t.tensor for t in source.inputs],
            output_names=[t.tensor for t in source.outputs],
            opset=18,
        )
        assert converted(source).node_count <= Model(_ir(theirs), Origin("tf2onnx")).node_count


def _ir(proto: Any) -> Any:
    import onnx_ir

    return onnx_ir.from_proto(proto)
