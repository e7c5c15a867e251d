"""Edits that are made on purpose are found, and nothing else is."""

import copy

import numpy as np
import pytest
from onnx import TensorProto, helper, numpy_helper

from fixtures.planted_edits import KINDS, decomposed_transformer, plant
from tests.delta.models import counts, diff, edited, layers, model, node, set_weight, tensor, weight


@pytest.fixture(scope="module")
def transformer():
    return decomposed_transformer(1000)


@pytest.mark.parametrize("kinds", [(), *((kind,) for kind in KINDS), KINDS], ids=lambda k: "+".join(k) or "rename")
def test_planted_edits_are_found_with_every_pair_of_nodes(kinds, transformer, tmp_path):
    planted = plant(transformer, kinds, count=3, seed=1)
    delta = diff(transformer, planted.model, tmp_path, weights=False)
    graph = delta.graphs[0]
    truth = {(origin, index) for index, origin in enumerate(planted.origins) if origin >= 0}
    assert len(truth & set(graph.pairs)) >= 0.999 * max(len(truth), len(graph.pairs))
    script = graph.removed + graph.added + len(graph.changes) + len(graph.rewires)
    assert script <= 1.1 * planted.edits
    assert (len(graph.weights) > 0) == ("retrain" in kinds)


def _insert(graph):
    graph.node.insert(5, helper.make_node("Abs", ["m1"], ["new"]))
    node(graph, "a1").input[0] = "new"


def _delete(graph):
    graph.node.remove(node(graph, "h1"))
    node(graph, "r1").input[1] = "a1"


def _op(graph):
    node(graph, "h1").op_type = "Tanh"


def _rewire(graph):
    node(graph, "m2").input[0] = "r0"


def _swap_operands(graph):
    adding = node(graph, "r1")
    adding.input[:] = list(adding.input)[::-1]


def _constants(graph):
    for each in graph.initializer:
        graph.node.insert(0, helper.make_node("Constant", [], [each.name], value=each))
    del graph.initializer[:]


def _trailing_empty_input(graph):
    node(graph, "h0").input.append("")


def _retrained(graph):
    for each in graph.initializer:
        set_weight(graph, each.name, numpy_helper.to_array(each) + np.float32(0.125))


@pytest.mark.parametrize(
    ("change", "found"),
    [
        (_insert, {"added": 1}),
        (_delete, {"removed": 1}),
        (_op, {"changed": 1}),
        (_rewire, {"changed": 1, "rewired": 1}),
        (_swap_operands, {}),
        (_constants, {}),
        (_trailing_empty_input, {}),
        (_retrained, {"weights_changed": 6}),
    ],
)
def test_what_an_edit_is_called(change, found, tmp_path):
    assert counts(diff(layers(), edited(layers(), change), tmp_path)) == found


def test_a_rewire_says_what_is_read_before_and_after(tmp_path):
    (rewire,) = diff(layers(), edited(layers(), _rewire), tmp_path).graphs[0].rewires
    assert (rewire.slot, rewire.before, rewire.after) == (0, "`r1` of Add", "`r0` of Add")


def test_an_attribute_that_repeats_its_default_is_no_difference(tmp_path):
    first = model([helper.make_node("Softmax", ["x"], ["h"]), helper.make_node("Softmax", ["h"], ["y"], axis=0)])
    second = model(
        [helper.make_node("Softmax", ["x"], ["h"], axis=-1), helper.make_node("Softmax", ["h"], ["y"], axis=0)]
    )
    assert diff(first, second, tmp_path).empty
    third = model(
        [helper.make_node("Softmax", ["x"], ["h"], axis=1), helper.make_node("Softmax", ["h"], ["y"], axis=0)]
    )
    (change,) = diff(first, third, tmp_path).graphs[0].changes
    assert change.details == (("axis", None, "1"),)


def test_axes_as_attribute_and_as_input_are_the_same(tmp_path):
    old = model([helper.make_node("ReduceMean", ["x"], ["y"], axes=[1], keepdims=0)], opset=17)
    axes = numpy_helper.from_array(np.int64([1]), "axes")
    new = model([helper.make_node("ReduceMean", ["x", "axes"], ["y"], keepdims=0)], [axes], opset=18)
    delta = diff(old, new, tmp_path)
    assert [(fact.what, fact.a, fact.b) for fact in delta.facts] == [("opset ai.onnx", "17", "18")]
    assert counts(delta) == {"facts": 1}
    assert diff(old, new, tmp_path, ignore=["opset"]).empty


def test_a_constant_is_shown_with_its_values(tmp_path):
    def shaped(values):
        shape = numpy_helper.from_array(np.int64(values), "s")
        return model([helper.make_node("Reshape", ["x", "s"], ["h"]), helper.make_node("Relu", ["h"], ["y"])], [shape])

    (change,) = diff(shaped([-1, 4]), shaped([-1, 8]), tmp_path).graphs[0].changes
    assert change.details == (("input 1", "[-1, 4]", "[-1, 8]"),)
    assert diff(shaped([-1, 4]), shaped([-1, 8]), tmp_path, ignore=["constants"]).empty


def test_an_edit_inside_a_branch_is_found_there(tmp_path):
    def branched(op, seed=0):
        def body(name, inner):
            nodes = [
                helper.make_node(inner, ["h"], [f"{name}t"]),
                helper.make_node("MatMul", [f"{name}t", "w"], [name]),
            ]
            info = helper.make_tensor_value_info(name, TensorProto.FLOAT, None)
            return helper.make_graph(nodes, name, [], [info], [tensor("w", 16, 16, seed=seed)])

        condition = helper.make_tensor_value_info("c", TensorProto.BOOL, [])
        nodes = [
            helper.make_node("Relu", ["x"], ["h"]),
            helper.make_node("If", ["c"], ["y"], then_branch=body("p", op), else_branch=body("q", "Neg")),
        ]
        made = model(nodes)
        made.graph.input.append(condition)
        return made

    assert diff(branched("Exp"), branched("Exp"), tmp_path).empty
    main, inner = diff(branched("Exp"), branched("Abs"), tmp_path).graphs
    assert main.empty
    assert inner.path == "If 1 then_branch / "
    assert [change.details for change in inner.changes] == [(("op", "Exp", "Abs"),)]
    retrained = diff(branched("Exp"), branched("Exp", seed=1), tmp_path)
    assert [len(graph.weights) for graph in retrained.graphs] == [0, 1, 1]


def test_functions_are_compared_by_their_bodies(tmp_path):
    def calling(name, op):
        opsets = [helper.make_opsetid("", 20)]
        nodes = [helper.make_node(op, ["a"], ["b"]), helper.make_node("Relu", ["b"], ["c"])]
        function = helper.make_function("f", name, ["a"], ["c"], nodes, opsets)
        call = helper.make_node(name, ["x"], ["y"], domain="f")
        return model([call], functions=[function], extra=[helper.make_opsetid("f", 1)])

    assert diff(calling("one", "Exp"), calling("two", "Exp"), tmp_path).empty
    main, inner = diff(calling("one", "Exp"), calling("one", "Abs"), tmp_path).graphs
    assert main.empty
    assert (inner.path, inner.changes[0].details) == ("function f:one / ", (("op", "Exp", "Abs"),))


def test_what_breaks_callers(tmp_path):
    base = layers()
    renamed = edited(base, lambda g: (setattr(g.input[0], "name", "image"), _read(g, "x", "image")))
    (port,) = diff(base, renamed, tmp_path).signature
    assert (port.side, port.kind, port.a, port.b) == ("input", "renamed", "x: float32[n,16]", "image: float32[n,16]")
    assert diff(base, renamed, tmp_path, ignore=["names"]).empty
    fixed = edited(base, lambda g: setattr(g.input[0].type.tensor_type.shape.dim[0], "dim_value", 1))
    assert [p.kind for p in diff(base, fixed, tmp_path).signature] == ["retyped"]
    more = edited(base, lambda g: g.output.append(helper.make_tensor_value_info("h1", TensorProto.FLOAT, None)))
    (port,) = diff(base, more, tmp_path).signature
    assert (port.side, port.kind, port.b) == ("output", "added", "h1: float32")


def test_outputs_in_another_order_have_moved(tmp_path):
    base = layers(outputs=("y", "r0"))
    turned = edited(base, lambda g: (g.output.append(copy.deepcopy(g.output[0])), g.output.pop(0)))
    assert [port.kind for port in diff(base, turned, tmp_path).signature] == ["moved", "moved"]
    assert diff(base, turned, tmp_path, ignore=["order"]).empty


def test_producer_and_metadata_count_unless_ignored(tmp_path):
    other = layers()
    other.producer_name = "exporter"
    other.metadata_props.add(key="author", value="me")
    assert [fact.what for fact in diff(layers(), other, tmp_path).facts] == ["producer", "metadata author"]
    assert diff(layers(), other, tmp_path, ignore=["doc"]).empty


def test_branches_that_look_alike_are_told_apart_by_who_reads_them(tmp_path):
    def attention(order, seed):
        nodes = [helper.make_node("MatMul", ["x", f"w{name}"], [name]) for name in order]
        nodes += [
            helper.make_node("Transpose", ["k"], ["kt"]),
            helper.make_node("MatMul", ["q", "kt"], ["s"]),
            helper.make_node("MatMul", ["s", "v"], ["y"]),
        ]
        return model(nodes, [tensor(f"w{name}", 16, 16, seed=seed) for name in "qkv"])

    delta = diff(attention("qkv", 0), attention("vkq", 1), tmp_path)
    assert counts(delta) == {"weights_changed": 3}
    assert {(w.a, w.b) for w in delta.graphs[0].weights} == {("wq", "wq"), ("wk", "wk"), ("wv", "wv")}


def test_a_chain_of_changed_nodes_is_changed_not_replaced(tmp_path):
    def chain(axis):
        inner = [helper.make_node("Softmax", [f"v{k}"], [f"v{k + 1}"], axis=axis) for k in range(4)]
        nodes = [helper.make_node("Relu", ["x"], ["v0"]), *inner, helper.make_node("Neg", ["v4"], ["y"])]
        return model(nodes)

    assert counts(diff(chain(0), chain(1), tmp_path)) == {"changed": 4}


def _read(graph, old, new):
    for each in graph.node:
        each.input[:] = [new if name == old else name for name in each.input]


def test_a_weight_that_became_an_input_is_said(tmp_path):
    base = layers(2)
    other = copy.deepcopy(base)
    other.graph.initializer.remove(weight(other.graph, "b1"))
    other.graph.input.append(helper.make_tensor_value_info("b1", TensorProto.FLOAT, [16]))
    delta = diff(base, other, tmp_path)
    assert [(port.kind, port.b) for port in delta.signature] == [("added", "b1: float32[16]")]


def test_quantisers_around_every_node_do_not_hide_it(tmp_path):
    """As onnxruntime's quantiser does it: each value goes through QuantizeLinear and DequantizeLinear."""
    base = layers(6)
    quantised = copy.deepcopy(base)
    nodes = []
    for each in base.graph.node:
        each = copy.deepcopy(each)
        for slot, value in enumerate(each.input):
            if value.startswith(("m", "a", "h")) or (value.startswith("r") and slot == 0):
                nodes.append(helper.make_node("QuantizeLinear", [value, "s"], [f"{each.output[0]}{slot}q"]))
                nodes.append(
                    helper.make_node(
                        "DequantizeLinear", [f"{each.output[0]}{slot}q", "s"], [f"{each.output[0]}{slot}d"]
                    )
                )
                each.input[slot] = f"{each.output[0]}{slot}d"
        nodes.append(each)
    del quantised.graph.node[:]
    quantised.graph.node.extend(nodes)
    quantised.graph.initializer.append(numpy_helper.from_array(np.float32(0.1), "s"))
    for retrained in (False, True):
        if retrained:
            _retrained(quantised.graph)
        delta = diff(base, quantised, tmp_path)
        assert len(delta.graphs[0].pairs) == len(base.graph.node)
        assert delta.graphs[0].removed == 0


def test_a_search_that_was_cut_short_is_stated(tmp_path, monkeypatch):
    from graphkit.delta import pairing
    from graphkit.report import diff as report

    base = decomposed_transformer(300)
    other = plant(base, KINDS, count=3, seed=0).model
    assert not diff(base, other, tmp_path).approximate
    monkeypatch.setattr(pairing, "BUDGET", 10)
    monkeypatch.setattr(pairing, "BUDGET_PER_NODE", 0)
    delta = diff(base, other, tmp_path)
    assert delta.approximate
    assert "alignment approximate" in report.to_text(delta)


@pytest.mark.slow
def test_a_torch_program_against_its_onnx_file(tmp_path):
    torch = pytest.importorskip("torch")
    import graphkit as gk

    net = torch.nn.Sequential(torch.nn.Linear(16, 32), torch.nn.ReLU(), torch.nn.Linear(32, 4)).eval()
    torch.export.save(torch.export.export(net, (torch.zeros(2, 16),)), tmp_path / "net.pt2")
    kept = {name: tensor.detach().numpy() for name, tensor in net.named_parameters()}
    weights = [numpy_helper.from_array(np.ascontiguousarray(array.T), name) for name, array in kept.items()]
    nodes = [
        helper.make_node("MatMul", ["x", "0.weight"], ["m"]),
        helper.make_node("Add", ["m", "0.bias"], ["a"]),
        helper.make_node("Relu", ["a"], ["h"]),
        helper.make_node("MatMul", ["h", "2.weight"], ["n"]),
        helper.make_node("Add", ["n", "2.bias"], ["y"]),
    ]
    path = tmp_path / "net.onnx"
    path.write_bytes(model(nodes, weights).SerializeToString())
    delta = gk.diff(tmp_path / "net.pt2", path)
    found = {kind for hunk in delta.graphs[0].hunks for kind, _ in hunk.weights} | {
        w.kind for w in delta.graphs[0].weights
    }
    assert "changed" not in found
    assert ("Relu", "Relu") in {(delta.graphs[0].a.ops[i], delta.graphs[0].b.ops[j]) for i, j in delta.graphs[0].pairs}
