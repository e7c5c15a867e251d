from __future__ import annotations

import numpy as np
import onnx_ir as ir
import pytest
from hypothesis import given
from hypothesis import strategies as st
from onnx import TensorProto, helper

from graphkit.engine import profiles
from graphkit.engine.profiles import make_profile, prove
from graphkit.errors import BadDimRange, ShapeMissing, TargetUnsupported, TimedOut, UnknownName
from graphkit.model import SourceLine, set_provenance
from graphkit.shapes import DimRange, Signature, TensorSpec

FLOAT = TensorProto.FLOAT


def signature(*inputs):
    return Signature(tuple(TensorSpec(n, "float32", s) for n, s in inputs), ())


def test_every_input_with_the_symbol_gets_the_range():
    found = make_profile(
        signature(("ids", ("batch", "seq")), ("mask", ("batch", 1, "seq")), ("bias", ())),
        (DimRange("batch", 1, 4, 8), DimRange("seq", 2, 16, 64)),
    )
    assert found.shapes == {
        "ids": ((1, 2), (4, 16), (8, 64)),
        "mask": ((1, 1, 2), (4, 1, 16), (8, 1, 64)),
        "bias": ((), (), ()),
    }
    assert found.to_json()["ids"] == {"min": [1, 2], "opt": [4, 16], "max": [8, 64]}


def test_expressions_are_computed_at_the_three_points():
    found = make_profile(
        signature(
            ("kv", ("2*seq + 1", "seq")),
        ),
        (DimRange("seq", 1, 2, 3),),
    )
    assert found.shapes["kv"] == ((3, 1), (5, 2), (7, 3))


@given(st.lists(st.integers(1, 1000), min_size=3, max_size=3).map(sorted), st.integers(1, 9))
def test_min_opt_and_max_stay_in_order_for_growing_expressions(sizes, factor):
    low, opt, high = make_profile(signature(("x", ("n", f"{factor}*n + 3"))), (DimRange("n", *sizes),)).shapes["x"]
    assert all(a <= b <= c for a, b, c in zip(low, opt, high, strict=True))
    assert opt == (sizes[1], factor * sizes[1] + 3)


def test_missing_ranges_are_all_named_with_the_option_that_gives_them():
    with pytest.raises(BadDimRange) as caught:
        make_profile(signature(("x", ("batch", 3)), ("y", ("batch", "seq"))), ())
    assert "`batch`" in caught.value.message
    assert "x: float32[batch, 3]" in str(caught.value.where)
    assert caught.value.remedy == "--dim batch=1:4:8 --dim seq=1:4:8"
    assert "seq" in caught.value.details[0]


def test_min_above_max_is_refused():
    with pytest.raises(BadDimRange, match="8:4:1"):
        DimRange("batch", 8, 4, 1)


def test_an_expression_that_shrinks_is_refused():
    with pytest.raises(BadDimRange, match="9:8:7"):
        make_profile(signature(("x", ("10 - n", "n"))), (DimRange("n", 1, 2, 3),))


def test_an_expression_that_is_not_understood_is_refused():
    with pytest.raises(BadDimRange, match="cannot be computed"):
        make_profile(signature(("x", ("sqrt(n)", "n"))), (DimRange("n", 1, 2, 3),))


def test_a_range_for_an_unknown_symbol_lists_the_known_ones():
    with pytest.raises(UnknownName, match="`bach`") as caught:
        make_profile(signature(("x", ("batch", 3))), (DimRange("bach", 1, 1, 1),))
    assert "batch" in str(caught.value.remedy)


@pytest.mark.parametrize("shape", [None, (None, 3), (-1, 3), ("?", 3)])
def test_an_input_without_a_shape_is_refused(shape):
    with pytest.raises(ShapeMissing, match="`x`") as caught:
        make_profile(signature(("x", shape)), ())
    assert "--shape x=" in str(caught.value.remedy)


def test_a_sound_model_is_proven(cnn):
    assert prove(cnn, (DimRange("batch", 1, 4, 8),)).shapes["x"] == ((1, 3, 16, 16), (4, 3, 16, 16), (8, 3, 16, 16))


def test_a_model_that_holds_only_in_the_middle_says_where_it_breaks(make):
    model = make(
        [helper.make_node("Add", ["x", "w"], ["y"], name="add_bias")],
        [("x", FLOAT, ["n", 4])],
        [("y", FLOAT, ["n", 4])],
        [("w", np.zeros((4, 4), "f"))],
    )
    set_provenance(next(iter(model.ir.graph)), [SourceLine("bias", "net.py", 12, "forward")])
    with pytest.raises(BadDimRange, match=r"at min \(n=2\): node add_bias \(Add\)") as caught:
        prove(model, (DimRange("n", 2, 4, 8),))
    assert caught.value.where == "net.py:12 in forward (module `bias`)"
    assert [line.split(":")[0] for line in caught.value.details] == ["at min", "at max"]  # it holds at opt


def test_a_model_that_holds_nowhere_is_unsupported_whatever_the_range(make):
    model = make(
        [helper.make_node("Conv", ["x", "w"], ["y"], kernel_shape=[3, 3])],
        [("x", FLOAT, ["n", 5, 8, 8])],
        [("y", FLOAT, ["n", 4, 6, 6])],
        [("w", np.zeros((4, 3, 3, 3), "f")), ("unused", np.zeros(1, "f"))],
    )
    model.ir.graph.outputs[0].shape = ir.Shape(["n", 4, 5, 6])
    with pytest.raises(TargetUnsupported, match="contradicts itself"):
        prove(model, (DimRange("n", 1, 2, 3),))


def test_the_node_inside_a_branch_is_named_not_the_if_around_it(make):
    def branch(name, node):
        return helper.make_graph([node], name, [], [helper.make_tensor_value_info(node.output[0], FLOAT, ["n", 4])])

    then = branch("then", helper.make_node("Relu", ["x"], ["a"], name="relu"))
    other = branch("else", helper.make_node("Flatten", ["c3"], ["b"], name="flat", axis=9))
    model = make(
        [helper.make_node("If", ["c"], ["y"], name="choose", then_branch=then, else_branch=other)],
        [("x", FLOAT, ["n", 4]), ("c3", FLOAT, ["n", 4]), ("c", TensorProto.BOOL, [])],
        [("y", FLOAT, ["n", 4])],
    )
    with pytest.raises(TargetUnsupported, match=r"node flat \(Flatten\)"):
        prove(model, (DimRange("n", 1, 2, 3),))


def test_sizes_that_become_negative_are_found(make):
    model = make(
        [helper.make_node("Conv", ["x", "w"], ["y"], name="narrow", kernel_shape=[7])],
        [("x", FLOAT, [1, 1, "n"])],
        [("y", FLOAT, [1, 1, "m"])],
        [("w", np.zeros((1, 1, 7), "f"))],
    )
    with pytest.raises(BadDimRange, match=r"at min \(n=2\).*narrow"):
        prove(model, (DimRange("n", 2, 16, 64),))


def test_weights_are_not_copied_for_the_proof(make, tmp_path):
    model = make(
        [helper.make_node("MatMul", ["x", "w"], ["y"])],
        [("x", FLOAT, ["n", 512])],
        [("y", FLOAT, ["n", 512])],
        [("w", np.zeros((512, 512), "f"))],
    )
    profiles._write_structure(model, tmp_path / "s.onnx")
    assert (tmp_path / "s.onnx").stat().st_size < 2000
    assert "w" in model.ir.graph.initializers  # the model itself is untouched
    prove(model, (DimRange("n", 1, 2, 3),))


def test_an_operator_that_onnx_does_not_know_is_named(make):
    model = make(
        [helper.make_node("Nope", ["x"], ["y"], name="odd", domain="f")], [("x", FLOAT, [4])], [("y", FLOAT, [4])]
    )
    with pytest.raises(TargetUnsupported, match=r"node odd \(f::Nope\): No opset import for domain f"):
        prove(model, ())


def test_a_recursive_function_is_refused_before_a_parser_sees_it(make):
    body = [helper.make_node("F", ["a"], ["b"], domain="f")]
    function = helper.make_function("f", "F", ["a"], ["b"], body, [helper.make_opsetid("f", 1)])
    model = make(
        [helper.make_node("F", ["x"], ["y"], domain="f")], [("x", FLOAT, [4])], [("y", FLOAT, [4])], (), [function]
    )
    with pytest.raises(TargetUnsupported, match="recursive"):
        prove(model, ())


def test_inference_that_does_not_end_is_ended_and_the_next_one_works(make, cnn, monkeypatch):
    monkeypatch.setattr(profiles, "PROOF_TIMEOUT", 1.0)
    prove(cnn, (DimRange("batch", 1, 4, 8),))  # the child is up: the second counts for inference alone
    opsets = [helper.make_opsetid("", 18), helper.make_opsetid("f", 1)]
    functions = [helper.make_function("f", "F0", ["a"], ["b"], [helper.make_node("Relu", ["a"], ["b"])], opsets)]
    for level in range(1, 40):  # 2^39 nodes, once expanded
        call = f"F{level - 1}"
        body = [helper.make_node(call, ["a"], ["m"], domain="f"), helper.make_node(call, ["m"], ["b"], domain="f")]
        functions.append(helper.make_function("f", f"F{level}", ["a"], ["b"], body, opsets))
    bomb = make(
        [helper.make_node("F39", ["x"], ["y"], domain="f")], [("x", FLOAT, [4])], [("y", FLOAT, [4])], (), functions
    )
    bomb.ir.opset_imports["f"] = 1
    with pytest.raises(TimedOut, match="ONNX shape inference"):
        prove(bomb, ())
    monkeypatch.undo()
    prove(cnn, (DimRange("batch", 1, 4, 8),))


def test_an_operator_that_onnx_infers_nothing_for_is_looked_through(make):
    weights = [("s", np.ones(4, "f")), ("b", np.zeros(4, "f"))]
    nodes = [helper.make_node("GroupNormalization", ["x", "s", "b"], ["a"], num_groups=2)]
    nodes.append(helper.make_node("Sigmoid", ["a"], ["y"]))
    model = make(nodes, [("x", FLOAT, ["n", 4, 6])], [("y", FLOAT, ["n", 4, 6])], weights)
    prove(model, (DimRange("n", 1, 2, 3),))


@pytest.mark.parametrize("noted", [3, 7])
def test_a_size_of_an_output_that_was_noted_for_one_run_is_no_evidence(make, noted):
    """torch 2.13 writes the length of its example at the output of an LSTM that takes any."""
    model = make([helper.make_node("Relu", ["x"], ["y"])], [("x", FLOAT, ["n", 4])], [("y", FLOAT, ["n", 4])])
    model.ir.graph.outputs[0].shape = ir.Shape([noted, 4])
    prove(model, (DimRange("n", 1, 2, 3),))
    model.ir.graph.outputs[0].shape = ir.Shape([noted, 5])
    with pytest.raises(TargetUnsupported, match=r"\(4\) vs \(5\)"):
        prove(model, (DimRange("n", 1, 2, 3),))
