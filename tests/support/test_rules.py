"""Every rule has a model that breaks it, and one beside it that does not."""

from __future__ import annotations

import numpy as np
import pytest
from onnx import TensorProto as T
from onnx import helper, numpy_helper

from graphkit import view
from graphkit.errors import BadOption
from graphkit.support import rules_asked
from graphkit.support.rule import TARGETS, Rule, chosen, rule_of, rules
from graphkit.support.scene import Scene
from tests.support import quantised
from tests.support.models import CASES, F, model, node, save


def sequence_output():
    made = model([node("SequenceConstruct", "x x", "y")], ["x f32 2"], [])
    element = helper.make_tensor_type_proto(T.FLOAT, [2])
    made.graph.output.append(helper.make_value_info("y", helper.make_sequence_type_proto(element)))
    return made


def two_called(names):
    return model(
        [node("Relu", "x", "a", name=names[0]), node("Relu", "a", "y", name=names[1])], ["x f32 2"], ["y f32 2"]
    )


def unused_weight(used: bool):
    weights = {"w": np.ones(2, F)} | ({} if used else {"dead": np.ones(3, F)})
    return model([node("Add", "x w", "y")], ["x f32 2"], ["y f32 2"], weights=weights)


def unused_node(dead: bool):
    return model([node("Relu", "x", "y"), *([node("Abs", "x", "z")] if dead else [])], ["x f32 2"], ["y f32 2"])


def calibrated(scale: float):
    nodes = [node("QuantizeLinear", "x s z", "q"), node("DequantizeLinear", "q s z", "y")]
    weights = {"s": F(scale), "z": np.int8(0)}
    return model(nodes, ["x f32 2"], ["y f32 2"], weights=weights)


def layer_norm_in_pieces(opset: int):
    nodes = [
        node("ReduceMean", "x", "m", axes=[-1]),
        node("Sub", "x m", "d"),
        node("Mul", "d d", "p"),
        node("ReduceMean", "p", "v", axes=[-1]),
        node("Add", "v e", "ve"),
        node("Sqrt", "ve", "s"),
        node("Div", "d s", "y"),
    ]
    return model(nodes, ["x f32 2,4"], ["y f32 2,4"], opset=opset, weights={"e": F(1e-5)})


def resize(**attributes):
    weights = {"s": np.array([1, 1, 0.5, 0.5], F)}
    made = [node("Resize", "x - s", "y", **attributes)]
    return model(made, ["x f32 1,1,4,4"], ["y f32 1,1,2,2"], weights=weights)


def float4(dtype: int):
    weights = {"q": helper.make_tensor("q", dtype, [16], [1] * 16), "s": F(1)}
    nodes = [node("DequantizeLinear", "q s", "d"), node("Add", "x d", "y")]
    return model(nodes, ["x f32 16"], ["y f32 16"], opset=23, weights=weights)


def convolution_3d():
    weights = {"w": np.ones((2, 2, 3, 3, 3), F)}
    return model([node("Conv", "x w", "y")], ["x f32 1,2,4,4,4"], ["y f32 1,2,2,2,2"], weights=weights)


def conditional_on_shape():
    """Branches of different rank, chosen by a size: known when an engine is built."""
    then = helper.make_graph([node("Squeeze", "x z", "a")], "t", [], [helper.make_tensor_value_info("a", T.FLOAT, [4])])
    other = helper.make_graph(
        [node("Identity", "x", "b")], "e", [], [helper.make_tensor_value_info("b", T.FLOAT, ["n", 4])]
    )
    nodes = [
        node("Shape", "x", "s"),
        node("Gather", "s zero", "n"),
        node("Equal", "n one", "c"),
        node("If", "c", "y", then_branch=then, else_branch=other),
    ]
    weights = {"zero": np.int64(0), "one": np.int64(1), "z": np.array([0])}
    return model(nodes, ["x f32 1,4"], ["y f32 -"], weights=weights)


def case(name: str):
    return CASES[name]


PAIRS = {
    "GKC101": (case("unique"), case("topk")),
    "GKC111": (case("string passes"), case("relu")),
    "GKC112": (sequence_output, case("relu")),
    "GKC113": (case("int16"), case("int8 io")),
    "GKC114": (case("float64 io"), case("float64 inside")),
    "GKC115": (case("float8 io"), case("qdq fp8")),
    "GKC116": (case("input is output"), case("output twice")),
    "GKC121": (case("shape input"), case("shape computed")),
    "GKC122": (case("no rank"), case("dynamic batch")),
    "GKC123": (case("nms"), case("topk")),
    "GKC124": (case("if rank"), case("if different")),
    "GKC131": (case("attention fp32"), case("attention fp32 decomposable")),
    "GKC132": (case("attention softcap"), case("attention fp16")),
    "GKC133": (case("layernorm three outputs"), case("layernorm")),
    "GKC134": (case("batchnorm training"), case("layernorm")),
    "GKC135": (case("reduce axes input"), case("reduce axes weight")),
    "GKC136": (case("resize antialias"), lambda: resize(mode="linear")),
    "GKC137": (case("scatter add"), case("scatter")),
    "GKC138": (case("layernorm mixed"), case("layernorm")),
    "GKC141": (case("qdq uint8"), case("qdq uint8 zero 0")),
    "GKC142": (case("bias int32 dq"), case("qdq int8")),
    "GKC143": (quantised.beside, quantised.int8),
    "GKC144": (lambda: quantised.int8(scales=3), quantised.int8),
    "GKC201": (case("bf16 matmul"), case("fp16 matmul")),
    "GKC202": (case("qdq fp8"), case("qdq int8")),
    "GKC203": (case("int4 dq"), case("qdq int8")),
    "GKC204": (lambda: float4(T.FLOAT4E2M1), lambda: float4(T.INT8)),
    "GKC205": (case("matmul"), case("conv")),
    "GKC206": (convolution_3d, case("conv")),
    "GKC301": (case("foreign relu"), case("ms gelu")),
    "GKC302": (case("rms opset20"), case("gelu")),
    "GKC311": (case("int64 io"), case("int8 io")),
    "GKC312": (case("float64 inside"), case("fp16 matmul")),
    "GKC321": (case("nonzero"), case("topk")),
    "GKC322": (case("if different"), case("if same")),
    "GKC323": (case("loop"), case("if same")),
    "GKC324": (case("sequence"), case("relu")),
    "GKC331": (lambda: unused_weight(False), lambda: unused_weight(True)),
    "GKC332": (lambda: two_called(["a", "a"]), lambda: two_called(["a", "b"])),
    "GKC333": (lambda: two_called(["a", ""]), lambda: two_called(["a", "b"])),
    "GKC334": (lambda: unused_node(True), lambda: unused_node(False)),
    "GKC341": (lambda: calibrated(1.0), lambda: calibrated(0.02)),
    "GKC342": (lambda: quantised.int8(island=True), quantised.int8),
    "GKC343": (case("qdq int8"), quantised.int8),
    "GKC344": (quantised.before_softmax, quantised.int8),
    "GKC345": (lambda: quantised.int8(island=True), quantised.int8),
    "GKC346": (lambda: quantised.int8(axis=0), quantised.int8),
    "GKC351": (lambda: layer_norm_in_pieces(16), lambda: layer_norm_in_pieces(17)),
}
SAID_BY_LIBRARIES = {rules_asked.PARSER, rules_asked.BUILDER, rules_asked.CONTRADICTION}
SAID_BY_LIBRARIES |= {rules_asked.ORT_OPERATOR, rules_asked.ORT_LOAD}


def hits(rule: Rule, made, folder):
    target = "rtx" if "rtx" in rule.targets else rule.targets[0]
    return list(rule.find(Scene(view.read(save(made, folder / "m.onnx")), target, ("7.5", "8.6", "8.9", "12.0"))))


def test_every_rule_has_a_pair_or_is_a_librarys_to_say():
    assert {rule.code for rule in rules()} == set(PAIRS) | SAID_BY_LIBRARIES


@pytest.mark.parametrize("code", PAIRS)
def test_a_rule_finds_the_model_that_breaks_it_and_not_the_one_beside_it(code, tmp_path):
    bad, good = PAIRS[code]
    found = hits(rule_of(code), bad(), tmp_path)
    assert found
    assert all(hit.message for hit in found)
    assert any(hit.place is not None or hit.value is not None for hit in found)
    assert hits(rule_of(code), good(), tmp_path) == []


def test_every_rule_explains_itself():
    codes = [rule.code for rule in rules()]
    assert codes == sorted(set(codes))
    for rule in rules():
        assert rule.title[0].islower() or rule.title.split()[0][0].isupper()
        assert rule.explanation.rstrip().endswith((".", "`", "!`"))
        assert len(rule.fix) > 10
        assert set(rule.targets) <= set(TARGETS)


def test_a_capability_is_named_only_where_it_lacks_the_type(tmp_path):
    (hit,) = hits(rule_of("GKC202"), CASES["qdq fp8"](), tmp_path)
    assert hit.capabilities == ("7.5", "8.6")


def test_a_shape_input_is_seen_from_inside_a_branch(tmp_path):
    then = helper.make_graph(
        [node("Reshape", "x s", "a")], "t", [], [helper.make_tensor_value_info("a", T.FLOAT, [2, 4])]
    )
    other = helper.make_graph([node("Relu", "x", "b")], "e", [], [helper.make_tensor_value_info("b", T.FLOAT, [2, 4])])
    made = model(
        [node("If", "c", "y", then_branch=then, else_branch=other)], ["c bool", "x f32 2,4", "s i64 2"], ["y f32 2,4"]
    )
    (hit,) = hits(rule_of("GKC121"), made, tmp_path)
    assert (hit.value, hit.place.op, hit.place.branch) == ("s", "Reshape", "then_branch")


def test_branches_chosen_by_a_size_may_differ_in_rank(tmp_path):
    assert hits(rule_of("GKC124"), conditional_on_shape(), tmp_path) == []


def test_an_operator_inside_a_branch_and_inside_a_function_is_found(tmp_path):
    (hit,) = hits(rule_of("GKC101"), CASES["if unique"](), tmp_path)
    assert (hit.place.op, hit.place.top.op) == ("Det", "If")
    body = helper.make_function("my", "F", ["a"], ["b"], [node("Det", "a", "b")], [helper.make_opsetid("", 20)])
    made = model([node("F", "x", "y", domain="my")], ["x f32 2,3,3"], ["y f32 2"], domains={"my": 1}, functions=[body])
    (hit,) = hits(rule_of("GKC101"), made, tmp_path)
    assert (hit.place.op, hit.place.branch) == ("Det", "my::F")


def test_a_weight_read_only_by_a_branch_is_used(tmp_path):
    then = helper.make_graph([node("Add", "x w", "a")], "t", [], [helper.make_tensor_value_info("a", T.FLOAT, [2])])
    other = helper.make_graph([node("Relu", "x", "b")], "e", [], [helper.make_tensor_value_info("b", T.FLOAT, [2])])
    made = model([node("If", "c", "y", then_branch=then, else_branch=other)], ["c bool", "x f32 2"], ["y f32 2"])
    made.graph.initializer.append(numpy_helper.from_array(np.ones(2, F), "w"))
    assert hits(rule_of("GKC331"), made, tmp_path) == []


@pytest.mark.parametrize(
    ("select", "ignore", "shown", "hidden"),
    [
        ((), (), {"GKC101", "GKC333"}, set()),
        (("GKC3",), (), {"GKC333"}, {"GKC101"}),
        ((), ("GKC3",), {"GKC101"}, {"GKC333"}),
        (("GKC333",), ("GKC3",), {"GKC333"}, {"GKC331", "GKC101"}),
        (("gkc",), ("GKC33",), {"GKC101"}, {"GKC333"}),
    ],
)
def test_the_longer_prefix_wins(select, ignore, shown, hidden):
    is_shown = chosen(select, ignore)
    assert {c for c in shown | hidden if is_shown(c)} == shown


def test_a_prefix_that_no_code_has_is_refused():
    with pytest.raises(BadOption, match="GKC7"):
        chosen(("GKC7",), ())
    with pytest.raises(BadOption, match="X1"):
        rule_of("X1")
