"""`graphkit.check` as people call it: who was asked, what was found where, and which parts are left."""

from __future__ import annotations

import json

import numpy as np
import onnx
import pytest
from onnx import helper

import graphkit as gk
from graphkit.capture.request import CaptureRequest
from graphkit.errors import BadOption, CorruptFile, ExtraMissing, UnknownName, UnknownTarget
from graphkit.parity.runners import OrtRunner
from graphkit.shapes import DimRange, TensorSpec
from graphkit.support import parser
from graphkit.support.check import CheckRequest
from tests.support.models import CASES, F, model, node, save, value

rtx = pytest.mark.skipif(parser.lack("rtx") is not None, reason="TensorRT-RTX is not installed")


def case(name, folder):
    return save(CASES[name](), folder / "m.onnx")


def codes(result, severity="error"):
    return [f.code for f in result.findings if f.severity == severity]


def asked(result):
    return {a.who: a.ran for a in result.asked}


def torn():
    """Two Dets in the middle of what can be built: x -> a -> b -> Det -> e, and x -> side -> z <- Det."""
    nodes = [
        node("Constant", "", "one", value_float=1.0),
        node("Relu", "x", "a"),
        node("MatMul", "a w", "b"),
        node("Reshape", "b sh", "c"),
        node("Det", "c", "d"),
        node("Add", "d one", "e"),
        node("Abs", "x", "side"),
        node("Det", "c", "d2"),
        node("Identity", "d2", "e2"),
        node("Mul", "side e2", "z"),
    ]
    weights = {"w": np.eye(4, dtype=F), "sh": np.array([-1, 2, 2])}
    return model(nodes, ["x f32 4,4"], ["e f32 4", "z f32 4,4"], weights=weights)


# --- the answer --------------------------------------------------------------------------------------------------


@rtx
def test_a_graph_of_fixed_shapes_is_not_built(tmp_path):
    result = gk.check(case("gelu", tmp_path), "rtx")
    assert (result.answer, result.exit_code, result.findings) == ("yes", 0, ())
    assert asked(result) == {"rules": True, "parser": True, "builder": False}


@rtx
def test_all_refused_nodes_come_at_once_with_what_they_read(tmp_path):
    result = gk.check(save(torn(), tmp_path / "m.onnx"), "rtx")
    assert [(f.code, f.node.label) for f in result.errors] == [("GKC101", "n_d (Det)"), ("GKC101", "n_d2 (Det)")]
    (read,) = result.errors[0].node.reads
    assert (read.name, read.type, read.made_by) == ("c", "float32 [4, 2, 2]", "n_c (Reshape)")
    assert (result.nodes, result.refused, result.exit_code) == (10, 2, 1)


@rtx
def test_module_path_and_source_line_come_from_what_torch_wrote(tmp_path):
    made = CASES["unique"]()
    for key, text in (
        ("pkg.torch.onnx.stack_trace", 'File "net.py", line 12, in forward\n    y = x.unique()'),
        ("pkg.torch.onnx.name_scopes", "['', 'head', 'head.gate', 'unique']"),
    ):
        made.graph.node[0].metadata_props.append(onnx.StringStringEntryProto(key=key, value=text))
    (finding,) = gk.check(save(made, tmp_path / "m.onnx"), "rtx").errors
    assert (finding.node.file, finding.node.line, finding.node.module) == ("net.py", 12, "head.gate")
    assert "net.py:12" in finding.node.source


@rtx
def test_the_parsers_own_words_stand_beside_the_rule(tmp_path):
    (finding,) = gk.check(case("attention softcap", tmp_path), "rtx").errors
    assert finding.code == "GKC132"
    assert finding.said == ("Setting softcap is not supported in TensorRT Attention.",)


@rtx
def test_a_rule_that_the_builder_disproves_is_a_warning(tmp_path, monkeypatch):
    monkeypatch.setattr(parser, "build", lambda *args: None)
    result = gk.check(case("attention fp32", tmp_path), "rtx")
    assert (result.answer, codes(result), codes(result, "warning")) == ("yes", [], ["GKC131"])


@rtx
def test_a_crash_of_the_builder_is_a_no(tmp_path, monkeypatch):
    from graphkit.engine.rtx import RtxBuilder
    from graphkit.errors import NativeCrash

    def crash(*args, **options):
        raise NativeCrash("TensorRT-RTX (build) crashed with signal 11")

    monkeypatch.setattr(RtxBuilder, "build", crash)
    (finding,) = gk.check(case("if same", tmp_path), "rtx").errors
    assert (finding.code, finding.node.label) == ("GKC902", "n_y (If)")


@rtx
def test_sizes_that_do_not_fit_are_found_without_a_build(tmp_path):
    made = model([node("MatMul", "x w", "y")], ["x f32 2,5"], ["y f32 2,4"], weights={"w": np.eye(4, dtype=F)})
    result = gk.check(save(made, tmp_path / "m.onnx"), "rtx")
    assert result.answer == "no"
    assert all(f.node.label == "n_y (MatMul)" for f in result.errors)


# --- compute capabilities ----------------------------------------------------------------------------------------


@rtx
def test_each_capability_has_an_answer_of_its_own(tmp_path):
    result = gk.check(case("qdq fp8", tmp_path), CheckRequest("rtx", capabilities=("8.6", "8.9")))
    assert (dict(result.capabilities), result.exit_code) == ({"8.6": False, "8.9": True}, 1)
    assert codes(result) == ["GKC202"]
    result = gk.check(case("qdq fp8", tmp_path), CheckRequest("rtx", capabilities=("8.9",)))
    assert (dict(result.capabilities), result.exit_code) == ({"8.9": True}, 0)


def test_float32_products_for_turing_are_a_no_of_tensorrt_rtx_alone(tmp_path):
    path = case("matmul", tmp_path)
    assert gk.check(path, CheckRequest("trt", capabilities=("7.5",))).answer == "yes"
    if parser.lack("rtx") is None:
        assert codes(gk.check(path, CheckRequest("rtx", capabilities=("7.5",)))) == ["GKC205"]


@pytest.mark.parametrize(("target", "capability"), [("trt", "8.99"), ("trt", "x"), ("rtx", "8.7")])
def test_an_unknown_capability_is_refused(tmp_path, target, capability):
    if target == "rtx" and parser.lack("rtx") is not None:
        pytest.skip("its own list is not here")
    with pytest.raises(UnknownTarget, match=capability):
        gk.check(case("relu", tmp_path), CheckRequest(target, capabilities=(capability,)))


def test_a_capability_means_nothing_for_onnx_runtime(tmp_path):
    with pytest.raises(BadOption, match="--cc"):
        gk.check(case("relu", tmp_path), CheckRequest("ort", capabilities=("8.6",)))


# --- without the library -----------------------------------------------------------------------------------------


@pytest.mark.parametrize(("target", "name", "exit_code"), [("rtx", "gelu", 3), ("trt", "gelu", 0), ("trt", "det", 1)])
def test_without_the_library_the_rules_answer_and_it_is_said(tmp_path, monkeypatch, target, name, exit_code):
    monkeypatch.setattr(parser, "lack", lambda target: ExtraMissing("it is not installed"))
    result = gk.check(case(name, tmp_path), target)
    assert (result.static, result.exit_code) == (True, exit_code)
    assert asked(result) == {"rules": True, "parser": False, "builder": False}
    assert "it is not installed" in {a.detail for a in result.asked}


# --- ONNX Runtime ------------------------------------------------------------------------------------------------


def test_every_operator_that_onnx_runtime_lacks_is_listed(tmp_path):
    nodes = [node("MyOp", "x", "a", domain="com.acme"), node("Relu", "a", "b"), node("Other", "b", "y")]
    made = model(nodes, ["x f32 2"], ["y f32 2"], domains={"com.acme": 1})
    result = gk.check(save(made, tmp_path / "m.onnx"), "ort")
    assert [(f.code, f.node.op) for f in result.errors] == [("GKC401", "com.acme::MyOp"), ("GKC401", "Other")]
    assert result.errors[0].said
    assert result.exit_code == 1


def test_what_onnx_runtime_cannot_load_for_another_reason_names_the_node(tmp_path):
    made = model([node("MatMul", "x w", "y")], ["x f32 2,5"], ["y f32 2,4"], weights={"w": np.eye(4, dtype=F)})
    (finding,) = gk.check(save(made, tmp_path / "m.onnx"), "ort").errors
    assert (finding.code, finding.node.name) == ("GKC402", "n_y")


@pytest.mark.parametrize("name", ["gelu", "ms gelu", "biasgelu", "sequence", "string", "unique", "loop scan", "det"])
def test_what_onnx_runtime_has_is_no_error(tmp_path, name):
    assert gk.check(case(name, tmp_path), "ort").answer == "yes"


def test_a_function_of_the_model_is_known(tmp_path):
    body = helper.make_function("my", "F", ["a"], ["b"], [node("Relu", "a", "b")], [helper.make_opsetid("", 20)])
    made = model([node("F", "x", "y", domain="my")], ["x f32 2"], ["y f32 2"], domains={"my": 1}, functions=[body])
    path = save(made, tmp_path / "m.onnx")
    assert gk.check(path, "ort").answer == gk.check(path, "trt").answer == "yes"


# --- what is asked -----------------------------------------------------------------------------------------------


def test_a_shape_that_is_given_counts(tmp_path):
    path = case("no rank", tmp_path)
    assert codes(gk.check(path, "trt")) == ["GKC122"]
    shapes = (TensorSpec("x", None, (2, 4)),)
    assert gk.check(path, CheckRequest("trt", CaptureRequest(shapes=shapes))).answer == "yes"


@pytest.mark.parametrize("target", ["trt", "ort"])
def test_what_does_not_fit_the_file_is_refused(tmp_path, target):
    path = case("dynamic batch", tmp_path)
    with pytest.raises(UnknownName, match="seq"):
        gk.check(path, CheckRequest(target, CaptureRequest(dims=(DimRange("seq", 1, 2, 3),))))
    with pytest.raises(BadOption, match="submodule"):
        gk.check(path, CheckRequest(target, CaptureRequest(submodule="head")))


def test_hidden_findings_count_all_the_same(tmp_path):
    result = gk.check(case("det", tmp_path), CheckRequest("trt", ignore=("GKC1",)))
    assert (result.answer, result.findings, result.hidden) == ("no", (), 1)


def test_an_unknown_target_is_refused(tmp_path):
    with pytest.raises(UnknownTarget, match="tpu"):
        gk.check(case("relu", tmp_path), "tpu")


def test_a_cycle_is_an_error_and_no_hang(tmp_path):
    made = model([node("Add", "x b", "a"), node("Relu", "a", "b")], ["x f32 2"], ["b f32 2"])
    with pytest.raises(CorruptFile, match="cycle"):
        gk.check(save(made, tmp_path / "m.onnx"), "trt")


def test_functions_that_expand_without_limit_are_refused(tmp_path):
    opsets = [helper.make_opsetid("", 20), helper.make_opsetid("f", 1)]
    bodies = [[node("Relu", "a", "b")]]
    bodies += [[node(f"F{i}", "a", "t", domain="f"), node(f"F{i}", "t", "b", domain="f")] for i in range(30)]
    functions = [helper.make_function("f", f"F{i}", ["a"], ["b"], body, opsets) for i, body in enumerate(bodies)]
    made = model([node("F30", "x", "y", domain="f")], ["x f32 2"], ["y f32 2"], domains={"f": 1}, functions=functions)
    with pytest.raises(CorruptFile, match=r"1.07e\+09 nodes"):
        gk.check(save(made, tmp_path / "m.onnx"), "trt")


def test_branches_inside_branches_are_no_hang(tmp_path):
    inner = helper.make_graph([node("Relu", "x", "o0")], "g", [], [value("o0 f32 2")])
    for i in range(1, 20):
        other = helper.make_graph([node("Neg", "x", f"z{i}")], "e", [], [value(f"z{i} f32 2")])
        made = node("If", "c", f"o{i}", then_branch=inner, else_branch=other)
        inner = helper.make_graph([made], "g", [], [value(f"o{i} f32 2")])
    nodes = [*inner.node, node("Identity", "o19", "y")]
    path = save(model(nodes, ["c bool", "x f32 2"], ["y f32 2"]), tmp_path / "m.onnx")
    assert gk.check(path, "trt").answer == "yes"


def test_the_same_request_gives_the_same_json(tmp_path):
    path = save(torn(), tmp_path / "m.onnx")
    first, second = (json.dumps(gk.check(path, "trt").to_json()) for _ in range(2))
    assert first == second


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore:`torch.jit:DeprecationWarning")
def test_any_source_may_be_given(tmp_path):
    torch = pytest.importorskip("torch")

    class Net(torch.nn.Module):
        def forward(self, x):
            return torch.linalg.det(x)

    torch.jit.save(torch.jit.script(Net()), tmp_path / "net.pt")
    shapes = (TensorSpec("x", None, (2, 3, 3)),)
    result = gk.check(tmp_path / "net.pt", CheckRequest("trt", CaptureRequest(shapes=shapes)))
    assert [(f.code, f.node.op) for f in result.errors] == [("GKC101", "Det")]


# --- partitions --------------------------------------------------------------------------------------------------


@rtx
def test_the_parts_together_compute_what_the_model_does(tmp_path):
    path = save(torn(), tmp_path / "m.onnx")
    result = gk.check(path, CheckRequest("rtx", partition=tmp_path / "parts"))
    assert [(p.file, p.nodes, p.problem) for p in result.partitions] == [
        ("part-0.onnx", 3, None),
        ("part-1.onnx", 2, None),
        ("part-2.onnx", 1, None),
        ("part-3.onnx", 2, None),
    ]
    x = np.arange(16, dtype=F).reshape(4, 4) ** 2 % 7 - 3
    with OrtRunner(path, optimize=False) as whole:
        expected = whole.run({"x": x})
    known = {"x": x}
    for part in result.partitions:
        if "c" in known and "d" not in known:
            known["d"] = known["d2"] = np.linalg.det(known["c"]).astype(F)
        with OrtRunner(tmp_path / "parts" / part.file, optimize=False) as runner:
            known |= runner.run({name: known[name] for name in part.inputs})
    for name, array in expected.items():
        np.testing.assert_allclose(known[name], array, rtol=1e-5)
    for part in result.partitions:
        onnx.checker.check_model(str(tmp_path / "parts" / part.file), full_check=True)
        assert gk.check(tmp_path / "parts" / part.file, "rtx").answer == "yes"


def test_a_part_never_leaves_and_comes_back(tmp_path):
    """a -> Det -> c, and a -> c: a and c may not be one part, for it would need what comes from behind itself."""
    nodes = [node("Relu", "x", "a"), node("Det", "a", "d"), node("Unsqueeze", "d z", "u"), node("Mul", "a u", "y")]
    made = model(nodes, ["x f32 2,3,3"], ["y f32 -"], weights={"z": np.array([1, 2])})
    made.graph.output[0].CopyFrom(value("y f32 2,3,3"))
    result = gk.check(save(made, tmp_path / "m.onnx"), CheckRequest("trt", partition=tmp_path / "parts"))
    assert [(p.inputs, p.outputs) for p in result.partitions] == [(("x",), ("a",)), (("a", "d"), ("y",))]
    assert all(p.problem is None for p in result.partitions)


def test_a_model_without_errors_is_one_part(tmp_path):
    path = case("if same", tmp_path)
    (part,) = gk.check(path, CheckRequest("trt", partition=tmp_path / "parts")).partitions
    assert (part.nodes, part.inputs, part.outputs, part.problem) == (1, ("c", "x"), ("y",), None)


@rtx
def test_a_part_computes_sizes_again_instead_of_taking_a_shape(tmp_path):
    nodes = [
        node("Shape", "x", "s"),
        node("Slice", "s zero one", "n"),
        node("Reshape", "x four", "r"),
        node("Det", "r", "d"),
        node("Concat", "n minus", "t", axis=0),
        node("Reshape", "d t", "y"),
    ]
    weights = {"zero": np.array([0]), "one": np.array([1]), "minus": np.array([-1]), "four": np.array([-1, 2, 2])}
    made = model(nodes, ["x f32 batch,4"], ["y f32 batch,k"], weights=weights)
    result = gk.check(save(made, tmp_path / "m.onnx"), CheckRequest("rtx", partition=tmp_path / "parts"))
    last = result.partitions[-1]
    assert (last.inputs, last.outputs, last.problem) == (("x", "d"), ("y",), None)
    assert "GKC121" not in codes(gk.check(tmp_path / "parts" / last.file, "rtx"))
