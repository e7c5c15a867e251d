"""Digests: what may change without changing them, and what may not."""

import copy
import random
import time

import numpy as np
import onnx
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from onnx import TensorProto, helper, numpy_helper

import graphkit as gk
from graphkit import model as models
from graphkit.errors import CorruptFile, FileMissing

FLOAT = TensorProto.FLOAT


@st.composite
def dags(draw):
    """A model of matrix products and sums on [n, 4], wired at random, with an If that reads values from outside."""
    rng = np.random.default_rng(draw(st.integers(0, 9)))
    nodes, weights, values = [], [], ["x", "y"]
    for index in range(draw(st.integers(1, 7))):
        op = draw(st.sampled_from(["Add", "Sub", "MatMul", "Softmax", "If"]))
        read = draw(st.sampled_from(values))
        if op == "MatMul":
            weights.append(numpy_helper.from_array(rng.standard_normal((4, 4)).astype(np.float32), f"w{index}"))
            node = helper.make_node(op, [read, f"w{index}"], [f"v{index}"], f"n{index}")
        elif op == "Softmax":
            node = helper.make_node(op, [read], [f"v{index}"], f"n{index}", axis=draw(st.integers(0, 1)))
        elif op == "If":
            branches = {
                name: helper.make_graph(
                    [helper.make_node("Add", [read, draw(st.sampled_from(values))], [f"{name}{index}"])],
                    name,
                    [],
                    [helper.make_tensor_value_info(f"{name}{index}", FLOAT, None)],
                )
                for name in ("then_branch", "else_branch")
            }
            node = helper.make_node(op, ["flag"], [f"v{index}"], f"n{index}", **branches)
        else:
            node = helper.make_node(op, [read, draw(st.sampled_from(values))], [f"v{index}"], f"n{index}")
        nodes.append(node)
        values.append(f"v{index}")
    inputs = [helper.make_tensor_value_info(n, FLOAT, ["n", 4]) for n in "xy"]
    inputs.append(helper.make_tensor_value_info("flag", TensorProto.BOOL, []))
    graph = helper.make_graph(nodes, "g", inputs, [helper.make_tensor_value_info(values[-1], FLOAT, ["n", 4])], weights)
    return helper.make_model(graph, opset_imports=[helper.make_opsetid("", 20)], ir_version=10)


def renamed(model, among="vwn"):
    """A copy whose inner values, weights and nodes have other names, in subgraphs too."""
    model = copy.deepcopy(model)
    kept = {v.name for v in (*model.graph.input, *model.graph.output)} | {""}

    def new(name):
        return name if name in kept else f"renamed/{name[::-1]}"

    def rename(graph):
        for node in graph.node:
            node.name = new(node.name)
            node.input[:] = map(new, node.input)
            node.output[:] = map(new, node.output)
            for attribute in node.attribute:
                if attribute.type == onnx.AttributeProto.GRAPH:
                    attribute.g.name += "'"
                    rename(attribute.g)
        for tensor in graph.initializer:
            tensor.name = new(tensor.name)
        for value in (*graph.value_info, *graph.output):
            value.name = new(value.name)

    rename(model.graph)
    return model


def reordered(model, seed):
    """A copy whose nodes, weights and attributes are in another order that is as good."""
    rng = random.Random(seed)
    model = copy.deepcopy(model)
    nodes, made = list(model.graph.node), {v.name for v in (*model.graph.input, *model.graph.initializer)}
    order = []
    while nodes:
        node = rng.choice([n for n in nodes if _reads(n) <= made])
        nodes.remove(node)
        made |= set(node.output)
        order.append(node)
    weights = list(model.graph.initializer)
    rng.shuffle(weights)
    for field, content in ((model.graph.node, order), (model.graph.initializer, weights)):
        kept = [copy.deepcopy(each) for each in content]
        del field[:]
        field.extend(kept)
    for node in model.graph.node:
        attributes = [copy.deepcopy(a) for a in node.attribute]
        del node.attribute[:]
        node.attribute.extend(reversed(attributes))
    return model


def _reads(node):
    inner = {i for a in node.attribute if a.type == onnx.AttributeProto.GRAPH for n in a.g.node for i in n.input}
    return set(node.input) | inner


def digest(model, folder):
    path = folder / "model.onnx"
    path.write_bytes(model.SerializeToString())
    return gk.digest(path)


def differing(model, other, folder):
    a, b = digest(model, folder).to_json(), digest(other, folder).to_json()
    return {name for name in a if a[name] != b[name]}


LAW = settings(max_examples=60, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])


@LAW
@given(model=dags(), seed=st.integers(0, 99))
def test_renaming_and_reordering_change_nothing(model, seed, tmp_path):
    assert differing(model, renamed(reordered(model, seed)), tmp_path) == set()


@LAW
@given(model=dags(), data=st.data())
def test_another_operator_input_or_attribute_changes_the_structure(model, data, tmp_path):
    other = copy.deepcopy(model)
    node = data.draw(st.sampled_from(other.graph.node))
    if node.op_type == "Softmax":
        node.attribute[0].i ^= 1
    elif node.op_type == "If":
        node.attribute[0].g.node[0].op_type = "Mul"
    else:
        node.op_type += "2"
    assert differing(model, other, tmp_path) == {"model", "structure"}


@LAW
@given(model=dags(), data=st.data())
def test_retrained_weights_change_the_weights_alone(model, data, tmp_path):
    if not model.graph.initializer:
        return
    other = copy.deepcopy(model)
    tensor = data.draw(st.sampled_from(other.graph.initializer))
    tensor.CopyFrom(numpy_helper.from_array(numpy_helper.to_array(tensor) + 1, tensor.name))
    read = any(tensor.name in node.input for node in model.graph.node)
    assert read
    assert differing(model, other, tmp_path) == {"model", "weights"}


def two_layers():
    rng = np.random.default_rng(0)
    weights = [numpy_helper.from_array(rng.standard_normal((4, 4)).astype(np.float32), n) for n in ("a", "b")]
    nodes = [
        helper.make_node("MatMul", ["x", "a"], ["h"]),
        helper.make_node("MatMul", ["h", "b"], ["g"]),
        helper.make_node("Reshape", ["g", "shape"], ["y"]),
    ]
    weights.append(numpy_helper.from_array(np.int64([-1, 4]), "shape"))
    info = helper.make_tensor_value_info
    graph = helper.make_graph(nodes, "g", [info("x", FLOAT, ["n", 4])], [info("y", FLOAT, ["n", 4])], weights)
    return helper.make_model(graph, opset_imports=[helper.make_opsetid("", 20)], ir_version=10)


def changed(change):
    model = two_layers()
    change(model)
    return model


def _swap(model):
    model.graph.node[0].input[1], model.graph.node[1].input[1] = "b", "a"


def _typed(model):
    for tensor in model.graph.initializer:
        values = numpy_helper.to_array(tensor)
        tensor.CopyFrom(helper.make_tensor(tensor.name, tensor.data_type, values.shape, values.flatten()))


def _constants(model):
    for tensor in model.graph.initializer:
        model.graph.node.insert(0, helper.make_node("Constant", [], [tensor.name], value=tensor))
    del model.graph.initializer[:]


def _shape(model):
    model.graph.initializer[2].CopyFrom(numpy_helper.from_array(np.int64([-1, 2]), "shape"))


def _twice(model):
    copied = copy.deepcopy(model.graph.initializer[2])
    copied.name = "again"
    model.graph.initializer.append(copied)
    model.graph.node[2].input[1] = "again"


def _input_name(model):
    model.graph.input[0].name = model.graph.node[0].input[0] = "image"


def _symbol(model):
    model.graph.input[0].type.tensor_type.shape.dim[0].dim_param = "batch"


def _static(model):
    model.graph.input[0].type.tensor_type.shape.dim[0].dim_value = 1


def _old_style(model):
    """Before IR version 4 every initializer was an input as well."""
    model.graph.input.extend(
        helper.make_tensor_value_info(t.name, t.data_type, t.dims) for t in model.graph.initializer
    )


@pytest.mark.parametrize(
    ("change", "parts"),
    [
        (_swap, {"model"}),
        (_typed, set()),
        (_constants, set()),
        (_old_style, set()),
        (_twice, set()),
        (_shape, {"model", "structure"}),
        (_input_name, {"model", "signature"}),
        (_symbol, {"model", "signature"}),
        (_static, {"model", "structure", "signature"}),
        (lambda m: setattr(m.graph, "doc_string", "x"), set()),
        (lambda m: m.graph.node[0].input.append(""), set()),
        (lambda m: setattr(m.opset_import[0], "version", 19), {"model", "structure"}),
        (lambda m: setattr(m.opset_import[0], "domain", "ai.onnx"), set()),
    ],
    ids=lambda value: getattr(value, "__name__", None),
)
def test_what_each_digest_is_of(change, parts, tmp_path):
    assert differing(two_layers(), changed(change), tmp_path) == parts


def test_a_model_in_memory_has_the_digests_of_its_file(tmp_path):
    path = tmp_path / "model.onnx"
    path.write_bytes(two_layers().SerializeToString())
    assert gk.digest(models.load(path)) == gk.digest(path) == gk.digest(str(path))
    external = tmp_path / "external.onnx"
    onnx.save(two_layers(), external, save_as_external_data=True, size_threshold=0, location="w.bin")
    assert gk.digest(external) == gk.digest(path) == gk.digest(models.load(external))
    (tmp_path / "w.bin").unlink()
    with pytest.raises(FileMissing, match=r"w\.bin"):
        gk.digest(external)


def doubling(count, end="Relu"):
    """Functions f0..f(count), each calling the next one twice: 2^count nodes when expanded."""
    opsets = [helper.make_opsetid("", 20), helper.make_opsetid("f", 1)]
    functions = []
    for index in range(count):
        calls = [helper.make_node(f"f{index + 1}", [a], [b], domain="f") for a, b in (("a", "b"), ("b", "c"))]
        functions.append(helper.make_function("f", f"f{index}", ["a"], ["c"], calls, opsets))
    functions.append(
        helper.make_function("f", f"f{count}", ["a"], ["c"], [helper.make_node(end, ["a"], ["c"])], opsets)
    )
    info = helper.make_tensor_value_info
    call = helper.make_node("f0", ["x"], ["y"], domain="f")
    graph = helper.make_graph([call], "g", [info("x", FLOAT, [1])], [info("y", FLOAT, [1])])
    return helper.make_model(graph, functions=functions, opset_imports=opsets, ir_version=10)


def test_a_function_that_expands_to_a_billion_nodes_is_digested_by_its_body(tmp_path):
    started = time.process_time()
    assert differing(doubling(30), doubling(30, "Tanh"), tmp_path) == {"model", "structure"}
    assert time.process_time() - started < 2


def test_the_name_of_a_function_does_not_count(tmp_path):
    model = doubling(3)
    other = copy.deepcopy(model)
    for function in other.functions:
        function.name += "_1"
        for node in function.node:
            node.op_type += "_1" if node.domain == "f" else ""
    other.graph.node[0].op_type += "_1"
    assert differing(model, other, tmp_path) == set()


def test_two_thousand_functions_in_a_row_are_no_recursion(tmp_path):
    assert digest(doubling(2000), tmp_path) == digest(doubling(2000), tmp_path)


def _cycle(model):
    model.graph.node[0].input[0] = "g"


def _cycle_through_subgraph(model):
    inner = helper.make_graph([helper.make_node("Neg", ["y"], ["z"])], "t", [], [])
    model.graph.node[0].attribute.append(helper.make_attribute("body", inner))


def _nothing_makes(model):
    model.graph.node[0].input[0] = "nowhere"


def _made_twice(model):
    model.graph.node[1].output[0] = "h"


@pytest.mark.parametrize(
    ("change", "said"),
    [
        (_cycle, "the graph has a cycle"),
        (_cycle_through_subgraph, "the graph has a cycle"),
        (_nothing_makes, "nothing makes the value `nowhere`"),
        (_made_twice, "the value `h` is made twice"),
    ],
)
def test_a_graph_that_cannot_be_run_is_refused(change, said, tmp_path):
    with pytest.raises(CorruptFile, match=said):
        digest(changed(change), tmp_path)


def test_a_function_that_calls_itself_is_refused(tmp_path):
    model = doubling(2)
    model.functions[-1].node[0].op_type, model.functions[-1].node[0].domain = "f0", "f"
    with pytest.raises(CorruptFile, match=r"the function f:f\d calls itself"):
        digest(model, tmp_path)


def test_assert_equivalent_says_what_differs(tmp_path):
    for name, change in {"a": lambda m: None, "b": _typed, "swap": _swap, "shape": _shape}.items():
        (tmp_path / name).write_bytes(changed(change).SerializeToString())
    gk.assert_equivalent(tmp_path / "a", tmp_path / "b")
    with pytest.raises(AssertionError, match="the same weights stand in other places"):
        gk.assert_equivalent(tmp_path / "a", tmp_path / "swap")
    with pytest.raises(
        AssertionError, match=r"not equivalent: they differ in structure\n  structure: \w{32} != \w{32}"
    ):
        gk.assert_equivalent(tmp_path / "a", models.load(tmp_path / "shape"))
