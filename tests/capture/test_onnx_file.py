"""An ONNX file as a source: taken as it is, its free dimensions named, and not asked for what it does not have."""

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper

from graphkit.errors import BadOption, CorruptFile, FrozenDimension, OpsetNotHonoured, ShapeMismatch, UnknownName
from graphkit.pipeline import ConvertRequest, run
from graphkit.shapes import DimRange, TensorSpec


def save(path, dims=("batch", 4), functions=(), nodes=None, **options):
    x = helper.make_tensor_value_info("x", TensorProto.FLOAT, dims)
    y = helper.make_tensor_value_info("y", TensorProto.FLOAT, dims)
    nodes = nodes or [helper.make_node("Neg", ["x"], ["h"]), helper.make_node("Exp", ["h"], ["y"])]
    graph = helper.make_graph(nodes, "g", [x], [y])
    imports = [helper.make_opsetid("", 20)] + ([helper.make_opsetid("f", 1)] if functions else [])
    made = helper.make_model(graph, opset_imports=imports, ir_version=10, functions=list(functions), **options)
    path.write_bytes(made.SerializeToString())
    return path


@pytest.fixture
def file(tmp_path):
    return save(tmp_path / "m.onnx")


def test_it_is_taken_as_it_is(file, captured, onnx_run):
    model = captured(file)
    assert model.signature.inputs == (TensorSpec("x", "float32", ("batch", 4)),)
    assert model.signature.outputs == (TensorSpec("y", "float32", ("batch", 4)),)
    assert (model.origin.kind, model.origin.name, model.opset) == ("onnx file", "m.onnx", 20)
    x = np.random.default_rng(0).standard_normal((3, 4), dtype=np.float32)
    np.testing.assert_allclose(onnx_run(model, x=x)["y"], np.exp(-x), rtol=1e-5)


def test_free_dimensions_get_names_and_asked_names_go_everywhere(tmp_path, captured):
    free = captured(save(tmp_path / "free.onnx", (None, None)))
    assert free.signature.inputs[0].shape == ("batch", "x_dim1")
    named = captured(save(tmp_path / "m.onnx"), {"x": ("rows", 4)}, {"rows": (1, 2, 8)})
    assert named.signature.inputs[0].shape == named.signature.outputs[0].shape == ("rows", 4)
    assert named.dims == (DimRange("rows", 1, 2, 8),)


def test_a_dimension_can_be_fixed(file, captured):
    model = captured(file, {"x": (3, 4)})
    assert model.signature.inputs[0].shape == model.signature.outputs[0].shape == (3, 4)


@pytest.mark.parametrize(
    ("shapes", "error"),
    [
        ({"x": ("batch", "width")}, FrozenDimension),
        ({"x": ("batch", 5)}, ShapeMismatch),
        ({"x": ("batch",)}, ShapeMismatch),
        ({"x": TensorSpec("x", "int64", ("batch", 4))}, ShapeMismatch),
        ({"z": ("batch", 4)}, UnknownName),
    ],
)
def test_what_it_does_not_have_is_refused(file, captured, shapes, error):
    with pytest.raises(error):
        captured(file, shapes)


def test_a_range_for_a_dimension_it_does_not_have_is_refused(file, captured):
    with pytest.raises(UnknownName, match="`seq`"):
        captured(file, None, {"seq": (1, 2, 3)})


@pytest.mark.parametrize("option", [{"via": "script"}, {"submodule": "a"}, {"architecture": "a:b"}])
def test_options_for_frameworks_are_refused(file, captured, option):
    with pytest.raises(BadOption):
        captured(file, **option)


def test_its_opset_is_its_opset(file, captured):
    assert captured(file, opset=20).opset == 20
    with pytest.raises(OpsetNotHonoured, match="21"):
        captured(file, opset=21)


def function(name, *calls):
    nodes, value = [], "a"
    for position, call in enumerate(calls):
        domain = "" if call[0].isupper() else "f"
        nodes.append(helper.make_node(call, [value], [f"v{position}"], domain=domain))
        value = f"v{position}"
    imports = [helper.make_opsetid("", 20), helper.make_opsetid("f", 1)]
    return helper.make_function("f", name, ["a"], [value], nodes, imports)


def test_a_function_that_calls_itself_is_refused(tmp_path, captured):
    call = [helper.make_node("one", ["x"], ["y"], domain="f")]
    path = save(tmp_path / "loop.onnx", functions=[function("one", "two"), function("two", "one")], nodes=call)
    with pytest.raises(CorruptFile, match="calls itself"):
        captured(path)


def test_functions_that_expand_without_end_are_refused_at_once(tmp_path, captured):
    chain = [function(f"f{i}", f"f{i + 1}", f"f{i + 1}") for i in range(40)] + [function("f40", "Neg", "Neg")]
    call = [helper.make_node("f0", ["x"], ["y"], domain="f")]
    with pytest.raises(CorruptFile, match="expand to"):
        captured(save(tmp_path / "bomb.onnx", functions=chain, nodes=call))


def test_a_graph_without_outputs_is_no_model(tmp_path, captured):
    (tmp_path / "m.onnx").write_bytes(onnx.ModelProto(ir_version=10).SerializeToString())
    with pytest.raises(CorruptFile):
        captured(tmp_path / "m.onnx")


def test_what_graphkit_wrote_it_takes_again_with_ranges_and_origin(file, tmp_path, captured):
    first = captured(file, {"x": ("rows", 4)}, {"rows": (1, 2, 8)})
    first.save(tmp_path / "again.onnx")
    again = captured(tmp_path / "again.onnx")
    assert again.dims == first.dims
    assert again.origin == first.origin


def test_converting_it_compares_the_file_with_what_is_written(file, tmp_path):
    result = run(file, ConvertRequest(output=tmp_path / "out.onnx"))
    assert result.error is None
    assert result.parity.status == "pass"
    assert len({tuple(c.sizes.items()) for c in result.parity.comparisons}) >= 3
    assert (tmp_path / "out.onnx").is_file()


UNSORTED = """<ir_version: 10, opset_import: ["": 18]>
g (float[batch, 4] x) => (float[batch, 4] y) { y = Neg(a) a = Relu(x) }"""
CYCLE = """<ir_version: 10, opset_import: ["": 18]>
g (float[batch, 4] x) => (float[batch, 4] y) { y = Add(a, x) a = Relu(b) b = Neg(a) }"""


def test_nodes_out_of_order_are_put_in_order(tmp_path, captured):
    (tmp_path / "m.onnx").write_bytes(onnx.parser.parse_model(UNSORTED).SerializeToString())
    assert [node.op_type for node in captured(tmp_path / "m.onnx").ir.graph] == ["Relu", "Neg"]


def test_a_cycle_is_a_damaged_file(tmp_path, captured):
    (tmp_path / "m.onnx").write_bytes(onnx.parser.parse_model(CYCLE).SerializeToString())
    with pytest.raises(CorruptFile, match="cycle"):
        captured(tmp_path / "m.onnx")
