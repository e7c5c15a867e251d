"""`optimize`: what is proved, what is rolled back, what is said."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import onnx
import onnx.parser
import pytest
from onnx import TensorProto, helper, numpy_helper

import graphkit as gk
from graphkit.errors import BadOption, OptimizationFailed, UnknownName
from graphkit.rewrite import rules
from graphkit.rewrite.rule import Rule


def network(path: Path) -> Path:
    """Two Relus, an Identity between them, and a product with a weight."""
    weight = numpy_helper.from_array(np.linspace(-1, 1, 32, dtype=np.float32).reshape(8, 4), "weight")
    nodes = [
        helper.make_node("MatMul", ["x", "weight"], ["product"], "multiply"),
        helper.make_node("Relu", ["product"], ["positive"], "first"),
        helper.make_node("Identity", ["positive"], ["same"], "nothing"),
        helper.make_node("Neg", ["same"], ["negative"], "turn"),
        helper.make_node("Relu", ["negative"], ["y"], "second"),
    ]
    graph = helper.make_graph(
        nodes,
        "network",
        [helper.make_tensor_value_info("x", TensorProto.FLOAT, ["batch", 8])],
        [helper.make_tensor_value_info("y", TensorProto.FLOAT, ["batch", 4])],
        [weight],
    )
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 20)], ir_version=10)
    onnx.save(model, path)
    return path


def _broken(monkeypatch: pytest.MonkeyPatch) -> None:
    """A rule that drops Neg: plausible, and wrong."""

    def apply(editor, node):  # type: ignore[no-untyped-def]
        editor.replace(node.outputs[0], node.inputs[0])
        return True

    wrong = Rule("neg-is-nothing", "structure", ("Neg",), apply, "Neg is taken out, which is wrong")
    right = rules.every()
    monkeypatch.setattr(rules, "every", lambda: (*right, wrong))


def test_the_result_is_smaller_and_proved(tmp_path):
    found = gk.optimize(network(tmp_path / "m.onnx"))
    assert "Identity" not in found.after
    assert sum(found.after.values()) < sum(found.before.values())
    assert found.proved == "pass"
    assert len({tuple(c.sizes.items()) for c in found.comparisons}) >= 3
    assert [t.name for t in found.model.signature.outputs] == ["y"]


def test_the_given_model_stays_as_it_is(tmp_path):
    model = gk.load(network(tmp_path / "m.onnx"))
    found = gk.optimize(model, verify="none")
    assert model.node_count == 5
    assert found.model.node_count < 5
    assert found.proved == "not run"


@pytest.mark.parametrize("verify", ["final", "each"])
def test_a_rule_that_breaks_the_result_is_left_out_and_named(tmp_path, monkeypatch, verify):
    _broken(monkeypatch)
    found = gk.optimize(network(tmp_path / "m.onnx"), verify=verify)
    assert [r.rule for r in found.rolled_back] == ["neg-is-nothing"]
    assert "`y`" in found.rolled_back[0].reason
    assert found.after.get("Neg") == 1
    assert "Identity" not in found.after
    assert found.proved == "pass"


def test_without_proof_nothing_is_rolled_back(tmp_path, monkeypatch):
    _broken(monkeypatch)
    found = gk.optimize(network(tmp_path / "m.onnx"), verify="none")
    assert "neg-is-nothing" in found.changes.by_rule()
    assert not found.rolled_back


def test_only_and_skip(tmp_path):
    path = network(tmp_path / "m.onnx")
    assert "identity" not in gk.optimize(path, skip=("identity",), verify="none").changes.by_rule()
    assert "identity" in gk.optimize(path, only=("identity",), verify="none").changes.by_rule()
    with pytest.raises(UnknownName, match="identety"):
        gk.optimize(path, skip=("identety",))


@pytest.mark.parametrize(("setting", "error"), [({"level": 3}, BadOption), ({"target": "tpu"}, BadOption)])
def test_bad_options(tmp_path, setting, error):
    with pytest.raises(error):
        gk.optimize(network(tmp_path / "m.onnx"), **setting)


def test_a_model_that_runs_nowhere_is_not_called_proved(tmp_path):
    nodes = [helper.make_node("Reshape", ["x", "shape"], ["y"], "impossible")]
    graph = helper.make_graph(
        nodes,
        "g",
        [helper.make_tensor_value_info("x", TensorProto.FLOAT, ["n", 3])],
        [helper.make_tensor_value_info("y", TensorProto.FLOAT, None)],
        [numpy_helper.from_array(np.asarray([1_000_003], dtype=np.int64), "shape")],
    )
    path = tmp_path / "m.onnx"
    onnx.save(helper.make_model(graph, opset_imports=[helper.make_opsetid("", 20)], ir_version=10), path)
    with pytest.raises(OptimizationFailed, match="nothing can be proved"):
        gk.optimize(path)


def test_an_if_whose_condition_follows_from_what_an_if_gives_is_folded_too(tmp_path):
    """The rank of `a` is not known while the first If stands: its branches differ in it."""
    text = """<ir_version: 10, opset_import: ["" : 20]> g (float[2,3] x) => (float[2,3] y) {
        yes = Constant<value = bool {1}>() at = Constant<value_int=0>() two = Constant<value_int=2>()
        a = If(yes)<then_branch = one () => (float[2,3] p) {p = Relu(x)},
                    else_branch = other () => (float[6] q) {minus = Constant<value_ints=[-1]>() q = Reshape(x, minus)}>
        sizes = Shape(a) rows = Gather(sizes, at) is_two = Equal(rows, two)
        y = If(is_two)<then_branch = kept () => (r) {r = Neg(a)}, else_branch = turned () => (s) {s = Abs(a)}>
    }"""
    onnx.save(onnx.parser.parse_model(text), tmp_path / "m.onnx")
    found = gk.optimize(tmp_path / "m.onnx")
    assert found.after == {"Neg": 1, "Relu": 1}
    assert (found.proved, found.rolled_back, found.changes.by_rule()["if-constant"]) == ("pass", (), 2)
    assert not gk.optimize(found.model).changes.done
