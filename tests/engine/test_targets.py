"""Preflight, and engines for those targets that can have one."""

from __future__ import annotations

from dataclasses import dataclass, field
from importlib.util import find_spec

import numpy as np
import pytest
from onnx import TensorProto, helper

from graphkit.engine import targets
from graphkit.engine.builder import BuildRequest, Engine
from graphkit.engine.preflight import NEEDS, preflight
from graphkit.engine.profiles import Profile
from graphkit.engine.rtx import RtxBuilder
from graphkit.engine.targets import LeftOut, expand
from graphkit.errors import BuildFailed, TargetsLeftOut, TargetUnsupported
from graphkit.model import SourceLine, set_provenance
from graphkit.shapes import DimRange

needs_rtx = pytest.mark.skipif(find_spec("tensorrt_rtx") is None, reason="tensorrt-rtx is not installed")

FLOAT, HALF, BF16, INT8 = TensorProto.FLOAT, TensorProto.FLOAT16, TensorProto.BFLOAT16, TensorProto.INT8
FP8, INT4 = TensorProto.FLOAT8E4M3FN, TensorProto.INT4
BATCH = (DimRange("batch", 1, 4, 8),)
ALL = ("7.5", "8.0", "8.6", "8.9", "12.0", "12.1")


def product(make, dtype):
    """One matrix product."""
    weight = helper.make_tensor("w", dtype, [64, 64], np.eye(64).ravel().tolist())
    nodes = [
        helper.make_node("Constant", [], ["w"], value=weight),
        helper.make_node("MatMul", ["x", "w"], ["y"], name="project"),
    ]
    return make(nodes, [("x", dtype, ["batch", 64])], [("y", dtype, ["batch", 64])])


def convolution(make, rank):
    shape = ["batch", 4, *[8] * rank]
    node = helper.make_node("Conv", ["x", "w"], ["y"], name="conv", pads=[1] * 2 * rank)
    weights = [("w", np.ones((4, 4, *[3] * rank), "f"))]
    return make([node], [("x", FLOAT, shape)], [("y", FLOAT, shape)], weights)


def quantised(make, dtype, around):
    """Q/DQ on both sides of a matrix product that is otherwise in `around`."""
    nodes = [
        helper.make_node("Constant", [], ["z"], value=helper.make_tensor("z", dtype, [], [0])),
        helper.make_node("Constant", [], ["s"], value=helper.make_tensor("s", around, [], [0.5])),
        helper.make_node("Constant", [], ["w"], value=helper.make_tensor("w", around, [64, 64], [0.5] * 4096)),
        helper.make_node("QuantizeLinear", ["x", "s", "z"], ["q"]),
        helper.make_node("DequantizeLinear", ["q", "s", "z"], ["d"]),
        helper.make_node("QuantizeLinear", ["w", "s", "z"], ["qw"]),
        helper.make_node("DequantizeLinear", ["qw", "s", "z"], ["dw"]),
        helper.make_node("MatMul", ["d", "dw"], ["y"], name="project"),
    ]
    return make(nodes, [("x", around, ["batch", 64])], [("y", around, ["batch", 64])], opset=19)


def weight_only_int4(make):
    nodes = [
        helper.make_node("Constant", [], ["q"], value=helper.make_tensor("q", INT4, [64, 64], [1] * 4096)),
        helper.make_node("Constant", [], ["s"], value=helper.make_tensor("s", HALF, [2, 64], [0.5] * 128)),
        helper.make_node("DequantizeLinear", ["q", "s"], ["w"], axis=0, block_size=32),
        helper.make_node("MatMul", ["x", "w"], ["y"], name="project"),
    ]
    return make(nodes, [("x", HALF, ["batch", 64])], [("y", HALF, ["batch", 64])], opset=21)


CASES = {
    "float16": (lambda make: product(make, HALF), ALL),
    "float32": (lambda make: product(make, FLOAT), ALL[1:]),
    "bfloat16": (lambda make: product(make, BF16), ALL[1:]),
    "float8": (lambda make: quantised(make, FP8, HALF), ALL[3:]),
    "int8 in float16": (lambda make: quantised(make, INT8, HALF), ALL),
    "int8 in float32": (lambda make: quantised(make, INT8, FLOAT), ALL[1:]),
    "int4": (weight_only_int4, ALL[1:]),
    "convolution": (lambda make: convolution(make, 2), ALL),
    "convolution in 3D": (lambda make: convolution(make, 3), ALL[1:]),
}


@pytest.mark.parametrize("name", CASES)
def test_the_table_says_which_targets_take_a_model(make, name):
    model, fitting = CASES[name]
    verdicts = preflight(model(make), ALL, rtx=True)
    assert tuple(v.target for v in verdicts if v.fits) == fitting


@needs_rtx
@pytest.mark.slow
@pytest.mark.parametrize("name", CASES)
def test_the_builder_agrees_with_the_table_on_every_target(make, tmp_path, name):
    model, fitting = CASES[name]
    request = BuildRequest(model(make), BATCH, ALL)
    if fitting == ALL:
        assert RtxBuilder().build(request, tmp_path / "m.engine").targets == ALL
        return
    with pytest.raises(BuildFailed) as caught:
        RtxBuilder().build(request, tmp_path / "m.engine")
    assert tuple(t for t, fine in caught.value.data["targets"].items() if fine) == fitting


def test_tensorrt_proper_builds_float32_for_turing(gemm):
    assert all(v.fits for v in preflight(gemm, ["7.5"], rtx=False))


def test_what_no_output_depends_on_stands_in_nobodys_way(make):
    nodes = [helper.make_node("MatMul", ["x", "x"], ["dead"]), helper.make_node("Relu", ["x"], ["y"])]
    model = make(nodes, [("x", FLOAT, [8, 8])], [("y", FLOAT, [8, 8])])
    assert preflight(model, ["7.5"], rtx=True)[0].fits


def test_a_product_in_a_branch_is_found_with_its_type(make):
    def branch(name, *nodes):
        return helper.make_graph(nodes, name, [], [helper.make_tensor_value_info("o", FLOAT, [8, 8])])

    then = branch("then", helper.make_node("MatMul", ["h", "h"], ["o"], name="inner"))
    other = branch("else", helper.make_node("Identity", ["h"], ["o"]))
    nodes = [
        helper.make_node("Relu", ["x"], ["h"]),
        helper.make_node("If", ["c"], ["y"], then_branch=then, else_branch=other),
    ]
    model = make(nodes, [("x", FLOAT, [8, 8]), ("c", TensorProto.BOOL, [])], [("y", FLOAT, [8, 8])])
    [obstacle] = preflight(model, ["7.5"], rtx=True)[0].obstacles
    assert obstacle.nodes == ("inner (MatMul)",)


def test_every_need_has_a_rule_of_check():
    from graphkit.support.rule import rule_of

    assert all(rule_of(need.code).title for need in NEEDS)


# --- building what can be ------------------------------------------------------------------------------------------


@needs_rtx
def test_a_target_that_cannot_is_left_out_and_the_others_are_built(gemm, tmp_path):
    set_provenance(next(iter(gemm.ir.graph)), [SourceLine("proj", "net.py", 9, "forward")])
    built = targets.build(RtxBuilder(), BuildRequest(gemm, BATCH, ("8.9", "7.5", "8.6")), tmp_path / "m.engine")
    assert built.engine.targets == ("8.6", "8.9")
    [left] = built.left_out
    assert (left.target, left.code, left.nodes) == ("7.5", "GKC205", ("project (MatMul)",))
    complaint = built.complaint()
    assert isinstance(complaint, TargetsLeftOut)
    assert complaint.exit_code == 1
    assert complaint.where == "net.py:9 in forward (module `proj`)"
    assert "for 8.6, 8.9, and not for 7.5: a matrix product in float32 needs compute capability 8.0" in str(complaint)
    assert complaint.data["built"] == ["8.6", "8.9"]
    assert LeftOut.from_json(complaint.data["left_out"][0]) == left


@needs_rtx
def test_where_no_target_can_nothing_is_built_and_no_file_left(gemm, tmp_path):
    with pytest.raises(TargetUnsupported, match=r"cannot build the model for 7\.5: a matrix product in float32"):
        targets.build(RtxBuilder(), BuildRequest(gemm, BATCH, ("7.5",)), tmp_path / "m.engine")
    assert list(tmp_path.iterdir()) == []


@needs_rtx
def test_all_is_every_target_that_the_library_knows(make, tmp_path):
    asked = expand(RtxBuilder(), ("all",))
    assert set(ALL) <= set(asked)
    built = targets.build(RtxBuilder(), BuildRequest(product(make, HALF), BATCH, asked), tmp_path / "m.engine")
    assert built.engine.targets == asked
    assert built.complaint() is None


@needs_rtx
def test_what_the_table_misses_the_builder_finds_one_by_one(gemm, tmp_path, monkeypatch):
    monkeypatch.setattr("graphkit.engine.preflight.NEEDS", ())
    built = targets.build(RtxBuilder(), BuildRequest(gemm, BATCH, ("7.5", "8.6")), tmp_path / "m.engine")
    assert built.engine.targets == ("8.6",)
    [left] = built.left_out
    assert (left.target, left.code) == ("7.5", "builder")
    assert "FP32 GEMM is not supported" in left.reason


def test_a_failure_that_is_no_targets_fault_stays_one(gemm, tmp_path):
    @dataclass
    class Failing:
        name: str = "rtx"
        asked: list = field(default_factory=list)

        def check(self, request): ...

        def build(self, request, output, *, durable=True):
            self.asked.append(request.compute_capabilities)
            raise BuildFailed("no memory", data={"targets": {}, "reasons": {}})

    failing = Failing()
    with pytest.raises(BuildFailed, match="no memory") as caught:
        targets.build(failing, BuildRequest(gemm, BATCH, ("7.5", "8.6")), tmp_path / "m.engine")
    assert failing.asked == [("8.6",)]
    assert caught.value.details[0].startswith("7.5: ")


def test_an_engine_with_every_target_ends_well(tmp_path):
    engine = Engine(tmp_path / "e", "tensorrt", "11", ("9.0",), 1, "", "", 1, 0.0, True, Profile({}))
    assert targets.Built(engine).complaint() is None
