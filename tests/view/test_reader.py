"""The view says what onnx's own parse says, for every model at hand, from the file and from memory."""

import subprocess
import sys

import numpy as np
import onnx
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from onnx import TensorProto, helper, numpy_helper

import graphkit as gk
from fixtures.fetch import MANIFEST, cache
from fixtures.torch_models import EXAMPLES
from graphkit import model as models
from graphkit import view
from graphkit.capture.request import CaptureRequest
from graphkit.errors import FileMissing
from graphkit.shapes import TensorSpec
from tests.view import plain

REAL = sorted(p for name in MANIFEST for p in (cache() / f"{name}-{MANIFEST[name].version}").glob("*.onnx"))


def require_equal(path):
    """The view of a file against onnx.load, weights included."""
    seen, proto = view.read(path), onnx.load(path)
    assert plain.of_view(seen) == plain.of_proto(proto)
    weights = {w.name: w for w in seen.graph.initializers.values()}
    for tensor in proto.graph.initializer:
        np.testing.assert_array_equal(weights[tensor.name].read(), numpy_helper.to_array(tensor))
    return seen


def require_same_from_memory(path):
    model = models.load(path)
    model.save(path.with_name("again.onnx"))
    seen, read = view.of(model), view.read(path.with_name("again.onnx"))
    assert plain.of_view(seen) == plain.of_view(read)
    assert [w.digest() for w in seen.weights()] == [w.digest() for w in read.weights()]


@pytest.mark.slow
@pytest.mark.skipif(not REAL, reason="no real model has been fetched")
def test_real_models_are_seen_as_onnx_sees_them(tmp_path):
    for path in REAL:
        require_equal(path)
        (tmp_path / "model.onnx").write_bytes(path.read_bytes())
        require_same_from_memory(tmp_path / "model.onnx")


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore::DeprecationWarning", "ignore::FutureWarning")
def test_a_captured_model_is_seen_as_onnx_sees_it(tmp_path):
    example = EXAMPLES["transformer_encoder"]
    shapes = tuple(TensorSpec(n, "int64" if n in example.below else None, s) for n, s in example.shapes.items())
    captured = gk.capture_model(example.factory(), CaptureRequest(shapes=shapes))
    captured.save(tmp_path / "model.onnx")
    seen = require_equal(tmp_path / "model.onnx")
    require_same_from_memory(tmp_path / "model.onnx")
    ours = [models.provenance(n) for n in captured.ir.graph]
    assert [n.provenance for n in seen.graph.nodes] == ours
    assert any(ours)


def with_everything():
    """A model with a subgraph, a function, a sparse initializer, and every kind of attribute and type."""
    info = helper.make_tensor_value_info
    inner = helper.make_graph(
        [helper.make_node("Add", ["x", "step"], ["inner"])],
        "then",
        [],
        [info("inner", TensorProto.FLOAT, None)],
        [numpy_helper.from_array(np.float32([1.5]), "step")],
    )
    other = helper.make_graph([helper.make_node("Neg", ["x"], ["minus"])], "else", [], [info("minus", 1, ["n", 2])])
    sparse = helper.make_sparse_tensor(
        numpy_helper.from_array(np.float32([2, 3]), "sparse"), numpy_helper.from_array(np.int64([1, 5]), "at"), [2, 4]
    )
    node = helper.make_node("Everything", ["branch", "", "double"], ["y", "", "z"], "all", domain="mine", overload="o")
    node.attribute.extend(
        helper.make_attribute(name, value)
        for name, value in {
            "float": 0.1, "int": -7, "string": "text", "floats": [1.0, float("inf")], "ints": [-1, 2**40],
            "strings": ["a", "b"], "tensor": numpy_helper.from_array(np.arange(6).reshape(2, 3)), "sparse": sparse,
            "tensors": [numpy_helper.from_array(np.float16([1, 2]))], "graphs": [inner, other],
            "type": helper.make_optional_type_proto(helper.make_tensor_type_proto(1, ["a", None, 3])),
        }.items()
    )  # fmt: skip
    node.metadata_props.add(key="graphkit.source", value='[["layer.0","m.py",3,"forward"]]')
    call = helper.make_node("Double", ["x"], ["double"], domain="mine", name="called")
    call.attribute.add(name="scale", type=onnx.AttributeProto.FLOAT).f = 2
    branch = helper.make_node("If", ["flag"], ["branch"], then_branch=inner, else_branch=other)
    sequence = helper.make_tensor_sequence_value_info("z", TensorProto.INT64, None)
    graph = helper.make_graph(
        [branch, call, node],
        "main",
        [info("x", TensorProto.FLOAT, ["batch", 2]), info("flag", TensorProto.BOOL, [])],
        [info("y", TensorProto.BFLOAT16, []), sequence],
        [
            numpy_helper.from_array(np.zeros((3, 0), np.int8), "empty"),
            helper.make_tensor("text", 8, [2], [b"a", b"\xff"]),
        ],
        sparse_initializer=[sparse],
    )
    scaled = helper.make_node("Mul", ["a", "by"], ["c"])
    constant = helper.make_node("Constant", [], ["by"])
    constant.attribute.add(name="value_float", type=onnx.AttributeProto.FLOAT, ref_attr_name="scale")
    function = helper.make_function(
        "mine", "Double", ["a"], ["c"], [constant, scaled], [helper.make_opsetid("", 21)], ["scale"]
    )
    opsets = [helper.make_opsetid("ai.onnx", 21), helper.make_opsetid("mine", 1)]
    model = helper.make_model(graph, functions=[function], opset_imports=opsets, ir_version=10)
    helper.set_model_props(model, {"key": "wert €"})
    return model


def test_everything_of_onnx_is_seen(tmp_path):
    path = tmp_path / "all.onnx"
    path.write_bytes(with_everything().SerializeToString())
    seen = view.read(path)
    assert plain.of_view(seen) == plain.of_proto(onnx.load(path))
    last = seen.graph.nodes[-1]
    assert last.provenance == (models.SourceLine("layer.0", "m.py", 3, "forward"),)
    assert last.attributes["tensor"].value.read().tolist() == [[0, 1, 2], [3, 4, 5]]
    assert seen.graph.nodes[0].captures == ("x",)
    assert [g.name for g in seen.graphs()] == ["main", "else", "then", "then", "else", "Double"]


def test_columns_and_windows_say_the_same(tmp_path):
    path = tmp_path / "all.onnx"
    path.write_bytes(with_everything().SerializeToString())
    graph = view.read(path).graph
    for index, node in enumerate(graph.nodes):
        assert (node.op, node.domain, node.name) == (graph.ops[index], graph.domains[index], graph.names[index])
        for value in graph.makes[index]:
            assert value == view.ABSENT or graph.value(value).producer == node
    double = graph.values.index("double")
    assert graph.consumers()[double] == [2]
    assert graph.consumers()[view.ABSENT] == []
    assert graph.value(graph.values.index("text")).weight.read().tolist() == [b"a", b"\xff"]


NAMES = st.text(st.characters(codec="utf-8", exclude_characters="\0"), min_size=1, max_size=6)


@st.composite
def random_models(draw):
    values = draw(st.lists(NAMES, min_size=2, max_size=8, unique=True))
    attribute = st.one_of(
        st.integers(-(2**63), 2**63 - 1),
        st.floats(width=32, allow_nan=False),
        st.binary(max_size=200),
        st.lists(st.integers(-(2**63), 2**63 - 1), min_size=1, max_size=40),
        st.lists(st.floats(width=32, allow_nan=False), min_size=1, max_size=40),
        st.lists(st.text(max_size=5), min_size=1, max_size=3),
    )
    nodes = [
        helper.make_node(
            draw(NAMES),
            draw(st.lists(st.sampled_from(["", *values]), max_size=4)),
            draw(st.lists(st.sampled_from(values), max_size=2)),
            draw(st.text(max_size=300)),
            domain=draw(st.sampled_from(["", "ai.onnx", "com.mine"])),
            **{name: draw(attribute) for name in draw(st.lists(st.sampled_from("abc"), unique=True))},
        )
        for _ in range(draw(st.integers(0, 5)))
    ]
    dims = st.one_of(st.none(), st.lists(st.one_of(st.none(), st.integers(0, 2**62), NAMES), max_size=4))
    infos = [helper.make_tensor_value_info(v, draw(st.integers(1, 28)), draw(dims)) for v in values]
    arrays = [np.arange(draw(st.integers(0, 70)), dtype=draw(st.sampled_from(["f4", "i8", "u1"]))) for _ in values]
    weights = [numpy_helper.from_array(a, v) for a, v in zip(arrays, values, strict=True)]
    graph = helper.make_graph(nodes, draw(NAMES), infos[:1], infos[1:2], weights, value_info=infos[2:])
    return helper.make_model(graph, ir_version=10)


@settings(max_examples=60, deadline=None, suppress_health_check=[HealthCheck.too_slow])
@given(model=random_models())
def test_any_small_model_is_seen_as_it_was_built(model, tmp_path_factory):
    path = tmp_path_factory.getbasetemp() / "random.onnx"
    path.write_bytes(model.SerializeToString())
    require_equal(path)


def test_looking_imports_no_library(tmp_path):
    path = tmp_path / "all.onnx"
    path.write_bytes(with_everything().SerializeToString())
    code = (
        "import sys; from graphkit import view; v = view.read(sys.argv[1]);"
        "list(v.weights()); v.graph.nodes[-1].metadata;"
        "print(sorted(m for m in ('numpy', 'onnx', 'onnx_ir', 'torch', 'click', 'ml_dtypes') if m in sys.modules))"
    )
    done = subprocess.run([sys.executable, "-c", code, str(path)], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"


def test_a_missing_file_is_said_to_be_missing(tmp_path):
    with pytest.raises(FileMissing, match=r"no such file: .*gone\.onnx"):
        view.read(tmp_path / "gone.onnx")
    with pytest.raises(FileMissing, match="cannot read"):
        view.read(tmp_path)
