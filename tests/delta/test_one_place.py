"""One hunk is one place: what blocks share does not make one hunk of them."""

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from onnx import helper, numpy_helper

from graphkit.delta.folding import fold
from graphkit.report import diff as report
from tests.delta.models import diff, edited, layers, model, set_weight, tensor
from tests.delta.test_laws import facts

KINDS = ("shape", "own shape", "mask", "copied mask")
INNER = {"Reshape": 2, "Exp": 1}


def blocks(count, kinds=(), fused=()):
    """Residual blocks with Reshape, Exp and Reshape inside, which are one Gelu where they are fused.

    Args:
        count: How many.
        kinds: What the others read too: arithmetic on a shape, one for all or one for each of them, and a mask, as it
            is or a copy of it that each of them makes.
        fused: Numbers of the fused ones.
    """
    nodes = [helper.make_node("MatMul", ["x", "e"], ["r"], "/embed/MatMul")]
    weights = [tensor("e", 16, 16), _ints("rows", 0), _ints("end", 1), _ints("width", 16), _ints("flat", -1, 16)]
    if "shape" in kinds:
        nodes += _shape("r", "s", "")
    if "mask" in kinds or "copied mask" in kinds:
        nodes += [helper.make_node("Neg", ["r"], ["n"], "/Neg"), helper.make_node("Tanh", ["n"], ["mask"], "/Tanh")]
    value = "r"
    for k in range(count):
        at, new = f"/layers.{k}", "y" if k == count - 1 else f"r{k}"
        weights.append(tensor(f"w{k}", 16, 16))
        nodes += [
            helper.make_node("MatMul", [value, f"w{k}"], [f"m{k}"], f"{at}/MatMul"),
            *([helper.make_node("Gelu", [f"m{k}"], [f"v{k}"], f"{at}/Gelu")] if k in fused else _inner(k, at, kinds)),
            helper.make_node("Sigmoid", [f"v{k}"], [f"g{k}"], f"{at}/Sigmoid"),
            helper.make_node("Add", [value, f"g{k}"], [new], f"{at}/Add"),
        ]
        value = new
    return model(_needed(nodes), weights)


def _inner(k, at, kinds):
    shape = f"s{k}" if "own shape" in kinds else "s" if "shape" in kinds else "flat"
    nodes = _shape(f"m{k}", shape, at) if "own shape" in kinds else []
    nodes.append(helper.make_node("Reshape", [f"m{k}", shape], [f"t{k}"], f"{at}/Reshape"))
    inner = f"t{k}"
    if "mask" in kinds:
        nodes.append(helper.make_node("Mul", [inner, "mask"], [f"p{k}"], f"{at}/Mul"))
        inner = f"p{k}"
    if "copied mask" in kinds:
        nodes.append(helper.make_node("Abs", ["mask"], [f"a{k}"], f"{at}/Abs"))
        nodes.append(helper.make_node("Sub", [inner, f"a{k}"], [f"q{k}"], f"{at}/Sub"))
        inner = f"q{k}"
    nodes.append(helper.make_node("Exp", [inner], [f"u{k}"], f"{at}/Exp"))
    return [*nodes, helper.make_node("Reshape", [f"u{k}", shape], [f"v{k}"], f"{at}/Reshape_1")]


def _shape(value, name, at):
    return [
        helper.make_node("Shape", [value], [f"{name}_all"], f"{at}/Shape"),
        helper.make_node("Slice", [f"{name}_all", "rows", "end"], [f"{name}_rows"], f"{at}/Slice"),
        helper.make_node("Concat", [f"{name}_rows", "width"], [name], f"{at}/Concat", axis=0),
    ]


def _ints(name, *values):
    return numpy_helper.from_array(np.int64(values), name)


def _needed(nodes):
    """Without what no output needs."""
    needed, found = {"y"}, []
    for node in reversed(nodes):
        if needed & set(node.output):
            needed |= set(node.input)
            found.append(node)
    return found[::-1]


def told(delta):
    """Operators of each folded hunk, and how often it is there."""
    return [(len(each.hunks), dict(each.removed), dict(each.added)) for each in fold(delta.graphs[0])]


@pytest.mark.parametrize(
    ("kinds", "inside", "shared"),
    [
        (["shape"], {}, {"Shape": 1, "Slice": 1, "Concat": 1}),
        (["own shape"], {"Shape": 1, "Slice": 1, "Concat": 1}, None),
        (["mask"], {"Mul": 1}, {"Neg": 1, "Tanh": 1}),
        (["copied mask"], {"Abs": 1, "Sub": 1}, {"Neg": 1, "Tanh": 1}),
        (["shape", "mask"], {"Mul": 1}, {"Shape": 1, "Slice": 1, "Concat": 1}),
    ],
    ids=["shape", "own shape", "mask", "copied mask", "shape and mask"],
)
def test_blocks_that_share_something_are_hunks_of_their_own(kinds, inside, shared, tmp_path):
    delta = diff(blocks(5, kinds), blocks(5, fused=range(5)), tmp_path)
    (first, *others) = told(delta)
    assert first == (5, {**INNER, **inside}, {"Gelu": 1})
    assert fold(delta.graphs[0])[0].where == "layers.0..4"
    assert [each for each in others if each[1] == shared] == ([(1, shared, {})] if shared else [])
    assert len(others) == len({"shape", "mask", "copied mask"} & set(kinds))
    turned = told(diff(blocks(5, fused=range(5)), blocks(5, kinds), tmp_path))
    assert [(times, added, removed) for times, removed, added in turned] == told(delta)


def test_arithmetic_that_one_block_alone_needs_belongs_to_it(tmp_path):
    delta = diff(blocks(5, ["shape"], fused=range(4)), blocks(5, fused=range(5)), tmp_path)
    assert told(delta) == [(1, {**INNER, "Shape": 1, "Slice": 1, "Concat": 1}, {"Gelu": 1})]


def test_arithmetic_stands_in_the_place_of_other_arithmetic(tmp_path):
    def size(graph):
        at = next(k for k, node in enumerate(graph.node) if node.op_type == "Concat")
        graph.node[at].output[0] = "before"
        graph.node.insert(at + 1, helper.make_node("Abs", ["before"], ["s"]))
        at = next(k for k, node in enumerate(graph.node) if node.op_type == "Shape")
        del graph.node[at : at + 3]
        graph.node.insert(at, helper.make_node("Size", ["r"], ["size"]))
        graph.node.insert(at + 1, helper.make_node("Expand", ["size", "end"], ["before"]))

    before = blocks(5, ["shape"])
    delta = diff(before, edited(before, size), tmp_path)
    assert told(delta) == [(1, {"Shape": 1, "Slice": 1, "Concat": 1}, {"Size": 1, "Expand": 1, "Abs": 1})]


@settings(max_examples=60, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(data=st.data())
def test_each_node_is_in_one_hunk_and_the_other_way_round_as_well(data, tmp_path):
    kinds = st.sets(st.sampled_from(KINDS))
    fused = st.sets(st.integers(0, 5))
    a, b = (blocks(6, data.draw(kinds), data.draw(fused)) for _ in range(2))
    delta = diff(a, b, tmp_path)
    graph = delta.graphs[0]
    for side, each in enumerate((a, b)):
        hunks = [index for hunk in graph.hunks for index in (hunk.removed, hunk.added)[side]]
        assert sorted([*hunks, *(pair[side] for pair in graph.pairs)]) == list(range(len(each.graph.node)))
    assert facts(delta) == facts(diff(b, a, tmp_path), turned=True)


def test_weights_that_changed_alike_are_one_line(tmp_path):
    def wider(graph):
        for k in range(12):
            set_weight(graph, f"b{k}", np.zeros((1, 16), np.float32) + k)

    lines = report.to_text(diff(layers(12), edited(layers(12), wider), tmp_path)).splitlines()
    assert "    x12  changed: b0 float32[16] -> float32[1,16]" in lines
