"""Files that are no model, and graphs that are made to take for ever."""

import time

import onnx
import pytest
from onnx import TensorProto, helper

import graphkit as gk
from graphkit.errors import BadOption, CorruptFile, FileMissing, GraphkitError
from tests.delta.models import diff, edited, layers, model, node
from tests.test_digests import doubling


@pytest.mark.parametrize(
    ("content", "said"),
    [
        (b"", "empty"),
        (b"version https://git-lfs.github.com/spec/v1\noid sha256:00\nsize 1\n", "not a valid ONNX file"),
        (b"<!DOCTYPE html><html></html>", "not a valid ONNX file"),
        (layers().SerializeToString()[:-200], "not a valid ONNX file"),
    ],
    ids=["empty", "lfs", "html", "truncated"],
)
def test_a_damaged_file_is_named(content, said, tmp_path):
    (tmp_path / "bad.onnx").write_bytes(content)
    onnx.save(layers(), tmp_path / "good.onnx")
    with pytest.raises(CorruptFile, match=said) as caught:
        gk.diff(tmp_path / "good.onnx", tmp_path / "bad.onnx")
    assert "bad.onnx" in caught.value.message


def test_a_folder_and_nothing_are_no_models(tmp_path):
    onnx.save(layers(), tmp_path / "good.onnx")
    with pytest.raises(GraphkitError):
        gk.diff(tmp_path / "good.onnx", tmp_path)
    with pytest.raises(FileMissing, match=r"gone\.onnx"):
        gk.diff(tmp_path / "gone.onnx", tmp_path / "good.onnx")


def test_a_cycle_is_refused(tmp_path):
    cyclic = edited(layers(), lambda graph: node(graph, "m0").input.__setitem__(0, "r1"))
    with pytest.raises(CorruptFile, match="cycle"):
        diff(layers(), cyclic, tmp_path)


def test_what_cannot_be_ignored_is_refused(tmp_path):
    with pytest.raises(BadOption, match="weather"):
        diff(layers(), layers(), tmp_path, ignore=["weather"])


def test_functions_that_expand_to_a_billion_nodes_are_compared_once_each(tmp_path):
    started = time.process_time()
    delta = diff(doubling(30), doubling(30, "Tanh"), tmp_path)
    assert [graph.path for graph in delta.graphs if not graph.empty] == ["function f:f30 / "]
    assert diff(doubling(30), doubling(30), tmp_path).empty
    assert time.process_time() - started < 4


def test_graphs_nested_as_deep_as_files_may_be(tmp_path):
    def nested(depth, op):
        value = helper.make_tensor_value_info("v", TensorProto.FLOAT, None)
        body = helper.make_graph([helper.make_node(op, ["x"], ["v"])], "inner", [], [value])
        for _ in range(depth):
            branch = helper.make_node("If", ["c"], ["v"], then_branch=body, else_branch=body)
            body = helper.make_graph([branch], "g", [], [value])
        return body

    def deep(op):
        condition = helper.make_tensor_value_info("c", TensorProto.BOOL, [])
        made = model([*nested(6, op).node, helper.make_node("Neg", ["v"], ["y"])])
        made.graph.input.append(condition)
        return made

    delta = diff(deep("Exp"), deep("Abs"), tmp_path)
    assert len([graph for graph in delta.graphs if graph.changes]) == 64
    assert diff(deep("Exp"), deep("Exp"), tmp_path).empty


def test_two_models_with_nothing_in_common_end_soon(tmp_path):
    def chain(ops, length):
        nodes = [helper.make_node(ops[k % len(ops)], [f"v{k}" if k else "x"], [f"v{k + 1}"]) for k in range(length)]
        return model([*nodes, helper.make_node("Identity", [f"v{length}"], ["y"])])

    started = time.process_time()
    delta = diff(chain(["Exp", "Abs", "Neg"], 3000), chain(["Relu", "Tanh"], 3000), tmp_path)
    assert delta.graphs[0].removed == 3000
    assert time.process_time() - started < 10
    crossed = diff(chain(["Exp", "Abs"], 3000), chain(["Abs", "Neg", "Neg", "Exp", "Exp"], 4000), tmp_path)
    assert not crossed.empty


def _fan(source, op="Relu", width=2000):
    users = [helper.make_node(op, [source], [f"v{k}"]) for k in range(width)]
    inner = [helper.make_node("Exp", ["x"], ["p"]), helper.make_node("Exp", ["x"], ["twin"])]
    return model([*inner, *users, helper.make_node("Sum", ["p", "twin", *(f"v{k}" for k in range(width))], ["y"])])


def _many_outputs(op, width=2000):
    names = [f"v{k}" for k in range(width)]
    return model([helper.make_node(op, ["x"], [name]) for name in names], outputs=names)


@pytest.mark.parametrize(
    ("a", "b", "differ"),
    [
        (_fan("p"), _fan("twin"), False),
        (_fan("p"), _fan("x"), True),
        (_fan("p"), _fan("p", "Tanh"), True),
        (_many_outputs("Relu"), _many_outputs("Tanh"), True),
    ],
    ids=["twins", "rewired", "another operator", "outputs"],
)
def test_thousands_of_users_of_one_value_are_not_compared_with_one_another(a, b, differ, tmp_path):
    started = time.process_time()
    assert bool(diff(a, b, tmp_path)) == differ
    assert time.process_time() - started < 5
