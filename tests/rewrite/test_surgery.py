"""Changes that are asked for by name: numbers before and after, and what is refused."""

from __future__ import annotations

from importlib.util import find_spec

import numpy as np
import onnx
import onnx.parser
import onnxruntime
import pytest
from onnx import TensorProto, helper, numpy_helper

import graphkit as gk
from graphkit.building import EngineRequest, build
from graphkit.errors import BadOption, BadSample, ShapeMismatch, UnknownName
from graphkit.rewrite.surgery import interface, merging, parts, processing
from graphkit.shapes import DimRange

RNG = np.random.default_rng(0)
X = RNG.normal(size=(2, 3, 8, 8)).astype(np.float32)


@pytest.fixture(scope="module")
def model(tmp_path_factory):
    """x [batch, 3, 8, 8] * gain -> Conv -> Relu (`features`) -> mean -> Gemm -> y [batch, 5]."""
    weight = RNG.normal(size=(4, 3, 3, 3)).astype(np.float32)
    head = RNG.normal(size=(4, 5)).astype(np.float32)
    nodes = [
        helper.make_node("Mul", ["x", "gain"], ["louder"], "amplify"),
        helper.make_node("Conv", ["louder", "weight"], ["conv"], "conv", pads=[1, 1, 1, 1]),
        helper.make_node("Relu", ["conv"], ["features"], "relu"),
        helper.make_node("GlobalAveragePool", ["features"], ["pooled"], "pool"),
        helper.make_node("Flatten", ["pooled"], ["flat"], "flatten"),
        helper.make_node("Gemm", ["flat", "head"], ["y"], "classify"),
    ]
    graph = helper.make_graph(
        nodes,
        "g",
        [
            helper.make_tensor_value_info("x", TensorProto.FLOAT, ["batch", 3, 8, 8]),
            helper.make_tensor_value_info("gain", TensorProto.FLOAT, []),
        ],
        [helper.make_tensor_value_info("y", TensorProto.FLOAT, ["batch", 5])],
        [numpy_helper.from_array(weight, "weight"), numpy_helper.from_array(head, "head")],
    )
    path = tmp_path_factory.mktemp("surgery") / "m.onnx"
    onnx.save(helper.make_model(graph, opset_imports=[helper.make_opsetid("", 20)], ir_version=10), path)
    return gk.load(path)


def run(model, feeds, outputs=None):
    """What ONNX Runtime computes; the model is checked first."""
    proto = model.to_proto()
    onnx.checker.check_model(proto, full_check=True)
    session = onnxruntime.InferenceSession(proto.SerializeToString(), providers=["CPUExecutionProvider"])
    names = outputs or [o.name for o in session.get_outputs()]
    arrays = {name: np.asarray(value) for name, value in feeds.items()}
    return dict(zip(names, session.run(names, arrays), strict=True))


def reference(model, gain=1.5, outputs=None):
    return run(model, {"x": X, "gain": np.float32(gain)}, outputs)


def test_freeze(model):
    frozen = interface.freeze(model, {"gain": 1.5})
    assert [t.name for t in frozen.signature.inputs] == ["x"]
    np.testing.assert_array_equal(run(frozen, {"x": X})["y"], reference(model)["y"])
    with pytest.raises(UnknownName, match="loud"):
        interface.freeze(model, {"loud": 1})
    with pytest.raises((BadSample, ShapeMismatch)):
        interface.freeze(model, {"x": 3})


def test_set_dims_and_symbols(model):
    fixed = interface.set_dims(model, {"batch": 2})
    assert str(fixed.signature.inputs[0]) == "x: float32[2, 3, 8, 8]"
    np.testing.assert_array_equal(run(fixed, {"x": X, "gain": np.float32(1)})["y"], reference(model, 1)["y"])
    named = interface.set_dims(model, {"batch": "n"})
    assert list(named.signature.symbols) == ["n"]
    for bad in ({"width": 2}, {"batch": 0}):
        with pytest.raises((UnknownName, BadOption)):
            interface.set_dims(model, bad)


def test_rename(model):
    other = interface.rename(model, {"x": "image", "y": "logits", "features": "map", "head": "matrix"})
    found = run(other, {"image": X, "gain": np.float32(1.5)})
    np.testing.assert_array_equal(found["logits"], reference(model)["y"])
    assert "matrix" in other.ir.graph.initializers
    with pytest.raises(BadOption, match="taken"):
        interface.rename(model, {"x": "features"})
    swapped = interface.rename(model, {"conv": "features", "features": "conv"})
    np.testing.assert_array_equal(run(swapped, {"x": X, "gain": np.float32(1.5)})["y"], reference(model)["y"])


def test_extract_by_tensor_and_by_node(model):
    part = parts.extract(model, ["louder"], ["relu"])
    assert [t.name for t in part.signature.inputs] == ["louder"]
    assert [t.name for t in part.signature.outputs] == ["features"]
    whole = reference(parts.mark(model, ["features"]), outputs=["features"])
    np.testing.assert_allclose(run(part, {"louder": X * np.float32(1.5)})["features"], whole["features"], rtol=1e-6)
    assert "head" not in part.ir.graph.initializers
    with pytest.raises(BadOption, match="gain"):
        parts.extract(model, ["x"], ["features"])
    with pytest.raises(BadOption, match="does not depend"):
        parts.extract(model, ["x", "gain", "flat"], ["features"])
    with pytest.raises(UnknownName, match="feature"):
        parts.extract(model, ["x"], ["feature"])


def test_cut_and_mark(model):
    short = parts.cut(model, ["features"])
    assert [t.name for t in short.signature.outputs] == ["features"]
    both = parts.mark(model, ["features"])
    assert [t.name for t in both.signature.outputs] == ["y", "features"]
    np.testing.assert_array_equal(reference(both)["features"], reference(short)["features"])
    for name, why in (("y", "output already"), ("x", "an input"), ("weight", "a weight")):
        with pytest.raises(BadOption, match=why):
            parts.mark(model, [name])


def test_split_then_merge_is_the_model(model):
    first, second = parts.split(model, ["features"])
    assert [t.name for t in second.signature.inputs] == ["features"]
    whole = merging.merge(first, second, {"features": "features"})
    np.testing.assert_array_equal(reference(whole)["y"], reference(model)["y"])
    assert [t.name for t in whole.signature.outputs] == ["y"]
    with pytest.raises(BadOption, match="inner tensors"):
        parts.split(model, ["x"])
    with pytest.raises(BadOption, match="comes after"):
        parts.split(model, ["y"])


def test_a_split_beside_a_path_says_where_the_whole_boundary_is(tmp_path):
    text = """<ir_version: 10, opset_import: ["" : 20]> g (float[n,3] x) => (float[n,3] y) {
        a = Relu(x) b = Neg(a) c = Abs(b) y = Add(a, c)
    }"""
    onnx.save(onnx.parser.parse_model(text), tmp_path / "m.onnx")
    residual = gk.load(tmp_path / "m.onnx")
    with pytest.raises(BadOption, match="also needs `a`, which") as refused:
        parts.split(residual, ["b"])
    assert refused.value.remedy == "--at b,a"
    first, second = parts.split(residual, ["b", "a"])
    x = np.float32([[1, -2, 3]])
    np.testing.assert_array_equal(run(second, run(first, {"x": x}))["y"], run(residual, {"x": x})["y"])


def test_merge_of_models_with_equal_names(model):
    first = parts.cut(model, ["features"])
    back = parts.extract(model, ["features"], ["y"])
    clash = interface.rename(back, {"features": "incoming", "pooled": "conv", "y": "features"})
    whole = merging.merge(first, clash, {"features": "incoming"})
    assert len(whole.signature.outputs) == 1
    (name,) = [t.name for t in whole.signature.outputs]
    np.testing.assert_array_equal(reference(whole)[name], reference(model)["y"])
    with pytest.raises(ShapeMismatch):
        merging.merge(model, model, {"y": "x"})
    with pytest.raises(BadOption, match="nothing connects"):
        merging.merge(model, model, {})


def test_half_io(model):
    half = interface.half_io(model)
    found = run(half, {"x": X.astype(np.float16), "gain": np.float16(1.5)})["y"]
    assert found.dtype == np.float16
    np.testing.assert_allclose(found.astype(np.float32), reference(model)["y"], rtol=2e-2, atol=2e-2)
    only = interface.half_io(model, ("y",))
    assert [t.dtype for t in only.signature.inputs] == ["float32", "float32"]
    with pytest.raises(BadOption, match="float32"):
        interface.half_io(half)
    with pytest.raises(BadOption, match="`x` is float16, not float32"):
        interface.half_io(half, ("x",))


def test_layout_of_inputs_and_outputs(model):
    nhwc = interface.layout(model, "x", (0, 2, 3, 1))
    found = run(nhwc, {"x": X.transpose(0, 2, 3, 1), "gain": np.float32(1.5)})
    np.testing.assert_array_equal(found["y"], reference(model)["y"])
    turned = interface.layout(model, "y", (1, 0))
    np.testing.assert_array_equal(reference(turned)["y"].T, reference(model)["y"])
    with pytest.raises(BadOption, match="order of the axes"):
        interface.layout(model, "x", (0, 1))


def test_bytes_are_cast_before_their_axes_are_turned(model):
    """TensorRT has no Transpose of uint8."""
    bytes_ = processing.normalise(model, "x", [0.5], [0.25], scale=1 / 255, dtype="uint8")
    nhwc = interface.layout(bytes_, "x", (0, 2, 3, 1))
    assert [node.op_type for node in nhwc.ir.graph][:2] == ["Cast", "Transpose"]
    assert nhwc.signature.inputs[0].shape == ("batch", 8, 8, 3)
    image, gain = RNG.integers(0, 256, size=X.shape, dtype=np.uint8), np.float32(1.5)
    found = run(nhwc, {"x": image.transpose(0, 2, 3, 1), "gain": gain})["y"]
    np.testing.assert_array_equal(found, run(bytes_, {"x": image, "gain": gain})["y"])


def test_normalise_takes_bytes(model):
    mean, std = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)
    made = processing.normalise(model, "x", mean, std, scale=1 / 255, dtype="uint8")
    image = RNG.integers(0, 256, size=X.shape, dtype=np.uint8)
    by_hand = (image / 255 - np.reshape(mean, (3, 1, 1))) / np.reshape(std, (3, 1, 1))
    feeds = {"x": by_hand.astype(np.float32), "gain": np.float32(1)}
    found = run(made, {"x": image, "gain": np.float32(1)})["y"]
    np.testing.assert_allclose(found, run(model, feeds)["y"], rtol=1e-4, atol=1e-4)
    for bad in (((1, 2), (1, 1)), ((0,), (0,))):
        with pytest.raises(BadOption):
            processing.normalise(model, "x", *bad)


def test_resize_takes_any_size(model):
    made = processing.resize(model, "x")
    constant = np.full((1, 3, 20, 12), 0.25, np.float32)
    expected = run(model, {"x": np.full((1, 3, 8, 8), 0.25, np.float32), "gain": np.float32(1)})["y"]
    np.testing.assert_allclose(run(made, {"x": constant, "gain": np.float32(1)})["y"], expected, rtol=1e-5)


@pytest.mark.skipif(find_spec("tensorrt_rtx") is None, reason="tensorrt-rtx is not installed")
def test_an_engine_is_built_of_images_in_bytes_of_any_size(model, tmp_path):
    """What a network in use needs before it, together: TensorRT refuses a Resize of chosen axes beside dynamic ones."""
    sized = interface.freeze(processing.resize(model, "x"), {"gain": 1.5})
    image = processing.normalise(sized, "x", [0.5], [0.25], scale=1 / 255, dtype="uint8")
    interface.layout(image, "x", (0, 2, 3, 1)).save(tmp_path / "m.onnx")
    ranges = {"batch": (1, 2, 4), "x_height": (8, 16, 32), "x_width": (8, 16, 32)}
    dims = tuple(DimRange(name, *sizes) for name, sizes in ranges.items())
    made = build(tmp_path / "m.onnx", tmp_path / "m.engine", EngineRequest(dims=dims, backend="rtx", cache=False))
    assert made.complaint is None
    assert (tmp_path / "m.engine").stat().st_size


def test_softmax_and_top_k(model):
    logits = reference(model)["y"]
    sure = np.exp(logits) / np.exp(logits).sum(-1, keepdims=True)
    np.testing.assert_allclose(reference(processing.softmax(model, "y"))["y"], sure, rtol=1e-5)
    found = reference(processing.best(model, "y", 2))
    np.testing.assert_array_equal(found["y_indices"], np.argsort(-logits, -1)[:, :2])
    with pytest.raises(BadOption, match="5 elements"):
        processing.best(model, "y", 6)


def test_non_maximum_suppression(tmp_path):
    nodes = [helper.make_node("Identity", ["b"], ["boxes"]), helper.make_node("Identity", ["s"], ["scores"])]
    graph = helper.make_graph(
        nodes,
        "g",
        [
            helper.make_tensor_value_info("b", TensorProto.FLOAT, [1, 3, 4]),
            helper.make_tensor_value_info("s", TensorProto.FLOAT, [1, 1, 3]),
        ],
        [
            helper.make_tensor_value_info("boxes", TensorProto.FLOAT, [1, 3, 4]),
            helper.make_tensor_value_info("scores", TensorProto.FLOAT, [1, 1, 3]),
        ],
    )
    onnx.save(helper.make_model(graph, opset_imports=[helper.make_opsetid("", 20)], ir_version=10), tmp_path / "m.onnx")
    made = processing.suppress(gk.load(tmp_path / "m.onnx"), "boxes", "scores")
    boxes = np.asarray([[[0, 0, 1, 1], [0, 0, 1, 0.9], [2, 2, 3, 3]]], np.float32)
    scores = np.asarray([[[0.9, 0.8, 0.7]]], np.float32)
    found = run(made, {"b": boxes, "s": scores})["selected"]
    np.testing.assert_array_equal(found, [[0, 0, 0], [0, 0, 2]])
    with pytest.raises(UnknownName):
        processing.suppress(made, "box", "scores")
