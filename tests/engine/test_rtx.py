"""Real engines of TensorRT-RTX, built without a GPU."""

from __future__ import annotations

import os
import re
from importlib.util import find_spec
from pathlib import Path

import numpy as np
import pytest
from onnx import TensorProto, helper

from graphkit import atomic, events, isolate
from graphkit.engine import plan, refusal, trt_child
from graphkit.engine.builder import BuildRequest
from graphkit.engine.rtx import RtxBuilder, library
from graphkit.errors import (
    BadDimRange,
    BuildFailed,
    CannotWrite,
    CorruptFile,
    GpuRequired,
    NativeCrash,
    TargetUnsupported,
    UnknownName,
    UnknownTarget,
)
from graphkit.model import SourceLine, file_sha256, set_provenance
from graphkit.shapes import DimRange

pytestmark = pytest.mark.skipif(find_spec("tensorrt_rtx") is None, reason="tensorrt-rtx is not installed")

FLOAT, INT64, DOUBLE = TensorProto.FLOAT, TensorProto.INT64, TensorProto.DOUBLE
BATCH = (DimRange("batch", 1, 4, 8),)


def build(model, folder, dims=BATCH, **options):
    return RtxBuilder().build(BuildRequest(model, dims, **options), folder / "m.engine")


def test_a_dynamic_batch_engine_is_built_and_described(cnn, tmp_path):
    engine = build(cnn, tmp_path)
    assert engine.path.read_bytes()[:4] == b"vtrt"
    assert (engine.kind, engine.targets[0], engine.targets[-1]) == ("tensorrt-rtx", "8.0", "later")
    assert engine.size == engine.path.stat().st_size
    assert engine.sha256 == file_sha256(engine.path)
    assert engine.profile.shapes == {"x": ((1, 3, 16, 16), (4, 3, 16, 16), (8, 3, 16, 16))}
    assert engine.precision == {
        "inputs": {"x": "float32"},
        "outputs": {"logits": "float32"},
        "weights": {"float32": 4 * (8 * 3 * 3 * 3 + 8 * 5)},
        "compute": {"float32": 2},
    }
    assert engine.findings == ()
    assert [p.name for p in tmp_path.iterdir()] == ["m.engine"]


def test_the_models_own_ranges_count_and_the_requests_win(cnn):
    declared = cnn.with_step("none", cnn.ir)
    object.__setattr__(declared, "dims", (DimRange("batch", 1, 2, 3), DimRange("gone", 1, 1, 1)))
    assert BuildRequest(declared).ranges == (DimRange("batch", 1, 2, 3),)
    assert BuildRequest(declared, BATCH).ranges == BATCH


def test_named_targets_and_only_those_are_built(gemm, tmp_path):
    assert build(gemm, tmp_path, compute_capabilities=("12.0", "8.6")).targets == ("8.6", "12.0")


@pytest.mark.parametrize("allowed", [True, False])
def test_tf32_is_what_was_asked_for_in_the_engine_itself(gemm, tmp_path, allowed):
    engine = build(gemm, tmp_path, tf32=allowed)
    assert engine.tf32 is allowed
    assert set(re.findall(rb"tf32=(\d)", engine.path.read_bytes())) == {b"1" if allowed else b"0"}


def test_the_same_request_gives_the_same_bytes(cnn, tmp_path):
    first = build(cnn, tmp_path)
    data = first.path.read_bytes()
    second = build(cnn, tmp_path)
    assert second.path.read_bytes() == data
    assert first.model_sha256 == second.model_sha256


def test_progress_reaches_the_parent(gemm, tmp_path):
    seen = []
    with events.listening(seen.append):
        build(gemm, tmp_path)
    assert {e["event"] for e in seen} == {"progress"}
    whole = [e for e in seen if e["phase"] == "Building engine"]
    assert (whole[0]["done"], whole[-1]["done"]) == (0, whole[-1]["total"])
    assert all(0 <= e["done"] <= e["total"] for e in seen)


def test_every_unsupported_node_is_listed_with_its_source_line(unsupported, tmp_path):
    with pytest.raises(TargetUnsupported, match="3 of 4 nodes: BitShift, Det, Unique") as caught:
        build(unsupported, tmp_path, ())
    assert caught.value.where == "net.py:41 in Vocab.forward (module `head.vocab`)"
    assert caught.value.details == (
        "uniq (Unique): TensorRT-RTX has no such operator, from net.py:41 in Vocab.forward (module `head.vocab`)",
        "BitShift -> b: TensorRT-RTX has no such operator, from bits.py:7 in Bits.forward (module `bits`)",
        "det (Det): TensorRT-RTX has no such operator",
    )
    assert [n["operator"] for n in caught.value.data["nodes"]] == ["Unique", "BitShift", "Det"]
    assert list(tmp_path.iterdir()) == []


def test_a_parser_reason_that_says_something_is_quoted(make, tmp_path):
    model = make(
        [helper.make_node("QuantizeLinear", ["x", "s", "z"], ["q"], name="quant")],
        [("x", FLOAT, [4, 4])],
        [("q", TensorProto.UINT8, [4, 4])],
        [("s", np.float32(0.1)), ("z", np.uint8(3))],
    )
    with pytest.raises(TargetUnsupported, match="QuantizeLinear") as caught:
        build(model, tmp_path, ())
    assert "zero point" in caught.value.details[0]


def test_an_operator_of_a_foreign_domain_is_named_plainly(make, tmp_path):
    node = helper.make_node("NonZero", ["x"], ["y"], name="nz")
    model = make([node], [("x", FLOAT, ["batch", 4])], [("y", INT64, [2, "n"])])
    with pytest.raises(TargetUnsupported, match="1 of 1 nodes: NonZero") as caught:
        build(model, tmp_path)
    assert caught.value.details[0].startswith("nz (NonZero): NonZero plugin creator version 1 was not found")


def test_a_type_that_no_engine_has_is_refused(make, tmp_path):
    string = TensorProto.STRING
    model = make([helper.make_node("Identity", ["x"], ["y"])], [("x", string, ["batch"])], [("y", string, ["batch"])])
    with pytest.raises(TargetUnsupported, match="cannot take the model: Failed to convert ONNX"):
        build(model, tmp_path)


def test_weights_in_a_file_of_their_own_are_built_in(gemm, tmp_path, monkeypatch):
    inline = build(gemm, tmp_path).path.read_bytes()
    monkeypatch.setattr("graphkit.model.INLINE_LIMIT", 10)
    assert build(gemm, tmp_path).path.read_bytes() == inline


def test_a_target_that_lacks_the_dtype_is_not_claimed(make, tmp_path):
    fp8 = helper.make_tensor("z", TensorProto.FLOAT8E4M3FN, [], [0.0])
    model = make(
        [
            helper.make_node("Constant", [], ["z"], value=fp8),
            helper.make_node("QuantizeLinear", ["x", "s", "z"], ["q"]),
            helper.make_node("DequantizeLinear", ["q", "s", "z"], ["d"]),
            helper.make_node("QuantizeLinear", ["w", "s", "z"], ["qw"]),
            helper.make_node("DequantizeLinear", ["qw", "s", "z"], ["dw"]),
            helper.make_node("MatMul", ["d", "dw"], ["y"], name="mm"),
        ],
        [("x", FLOAT, ["batch", 64])],
        [("y", FLOAT, ["batch", 64])],
        [("w", np.eye(64, dtype="f")), ("s", np.float32(0.1))],
        opset=19,
    )
    engine = build(model, tmp_path)
    assert engine.targets == ("8.9", "12.0", "12.1", "later")
    [finding] = [f for f in engine.findings if f.code == "target-lacks-dtype"]
    assert "8.0, 8.6 cannot run it" in finding.message
    assert "fp8_e4m3" in finding.message
    assert build(model, tmp_path, compute_capabilities=("8.9",)).findings == ()


def test_sizes_that_only_tensorrt_finds_wrong_are_the_ranges_fault(make, tmp_path):
    model = make(
        [
            helper.make_node("Shape", ["x"], ["shape"]),
            helper.make_node("Gather", ["shape", "zero"], ["rows"], axis=0),
            helper.make_node("Div", ["rows", "two"], ["half"]),
            helper.make_node("Concat", ["half", "eight"], ["target"], axis=0),
            helper.make_node("Reshape", ["x", "target"], ["y"], name="pairs"),
        ],
        [("x", FLOAT, ["batch", 4])],
        [("y", FLOAT, ["half", 8])],
        [("zero", np.array([0])), ("two", np.array([2])), ("eight", np.array([8]))],
    )
    set_provenance(list(model.ir.graph)[-1], [SourceLine("", "net.py", 5, "forward")])
    with pytest.raises(BadDimRange, match="does not hold at") as caught:
        build(model, tmp_path, (DimRange("batch", 1, 3, 5),))
    assert caught.value.where == "net.py:5 in forward"
    assert list(tmp_path.iterdir()) == []


def test_a_missing_range_is_refused(cnn, tmp_path):
    with pytest.raises(BadDimRange, match="`batch`"):
        build(cnn, tmp_path, ())
    assert list(tmp_path.iterdir()) == []


def test_an_unknown_symbol_is_refused(cnn, tmp_path):
    with pytest.raises(UnknownName):
        build(cnn, tmp_path, (*BATCH, DimRange("seq", 1, 1, 1)))


@pytest.mark.parametrize("capability", ["8.7", "sm86", "86", "", "8.6 "])
def test_an_unknown_compute_capability_lists_the_known_ones(gemm, tmp_path, capability):
    with pytest.raises(UnknownTarget, match=re.escape(repr(capability))) as caught:
        build(gemm, tmp_path, compute_capabilities=(capability,))
    assert {"8.6", "8.9", "12.0"} <= set(caught.value.data["known"])


def test_float32_products_on_turing_are_refused_with_nvidias_reason(gemm, tmp_path):
    set_provenance(next(iter(gemm.ir.graph)), [SourceLine("proj", "net.py", 9, "forward")])
    with pytest.raises(BuildFailed, match=r"for 7\.5: .*FP32 GEMM is not supported") as caught:
        build(gemm, tmp_path, compute_capabilities=("7.5",))
    assert caught.value.where == "net.py:9 in forward (module `proj`)"
    assert "float16" in str(caught.value.remedy)
    assert "/_src" not in caught.value.render()
    assert list(tmp_path.iterdir()) == []


def test_one_bad_target_among_several_is_named_and_the_good_ones_offered(gemm, tmp_path):
    with pytest.raises(BuildFailed, match=r"for 7\.5:") as caught:
        build(gemm, tmp_path, compute_capabilities=("8.9", "7.5", "8.6"))
    assert caught.value.remedy == "--cc 8.9,8.6 builds"
    assert caught.value.data["targets"] == {"8.9": True, "7.5": False, "8.6": True}


def test_float64_does_not_become_float32_unsaid(make, tmp_path):
    model = make([helper.make_node("Exp", ["x"], ["y"])], [("x", DOUBLE, ["batch", 4])], [("y", DOUBLE, ["batch", 4])])
    with pytest.raises(TargetUnsupported, match="`x` from float64 into float32"):
        build(model, tmp_path)
    assert list(tmp_path.iterdir()) == []


def test_float64_inside_is_a_finding(make, tmp_path):
    model = make(
        [
            helper.make_node("Cast", ["x"], ["d"], name="up", to=DOUBLE),
            helper.make_node("Exp", ["d"], ["e"], name="exp"),
            helper.make_node("Cast", ["e"], ["y"], name="down", to=FLOAT),
        ],
        [("x", FLOAT, ["batch", 4])],
        [("y", FLOAT, ["batch", 4])],
    )
    up, exp, _down = model.ir.graph
    for node in (up, exp):
        node.outputs[0].dtype = model.ir.graph.outputs[0].dtype.DOUBLE
    found = [f for f in build(model, tmp_path).findings if f.code == "float64-as-float32"]
    assert [f.message for f in found] == [
        "TensorRT-RTX computes float64 as float32: 2 nodes, the first is up (Cast)",
    ]


def test_an_input_whose_values_are_a_shape_is_refused(make, tmp_path):
    model = make(
        [helper.make_node("Reshape", ["x", "s"], ["y"])],
        [("x", FLOAT, ["batch", 4]), ("s", INT64, [2])],
        [("y", FLOAT, ["a", "b"])],
    )
    with pytest.raises(TargetUnsupported, match="input `s` decide shapes"):
        build(model, tmp_path)


def test_names_with_brackets_are_names_not_patterns(make, tmp_path):
    model = make(
        [helper.make_node("Exp", ["x[0]"], ["y"])], [("x[0]", FLOAT, ["batch", 4])], [("y", FLOAT, ["batch", 4])]
    )
    assert build(model, tmp_path).profile.shapes == {"x[0]": ((1, 4), (4, 4), (8, 4))}


def test_a_model_without_operators_is_refused(make, tmp_path):
    with pytest.raises(TargetUnsupported):
        build(make([], [("x", FLOAT, [4])], [("x", FLOAT, [4])]), tmp_path, ())
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("data", [b"<!DOCTYPE html><html><body>404</body></html>", b"", bytes(1000)])
def test_what_the_parser_takes_for_an_empty_network_never_builds(tmp_path, data):
    (tmp_path / "m.onnx").write_bytes(data)
    reply = library().worker.call(
        "graphkit.engine.trt_child:build",
        model_path=str(tmp_path / "m.onnx"),
        engine_path=str(tmp_path / "m.engine"),
        profiles=[{}],
        capabilities=[],
        tf32=True,
        rtx=True,
        settings={},
    )
    assert reply["status"] == "refused"
    assert not (tmp_path / "m.engine").exists()


def test_a_crash_in_the_parser_is_one_error_and_the_next_build_works(make, gemm, tmp_path):
    rank = 300  # TensorRT-RTX 1.7.1 logs that 8 is the limit, then dereferences a null pointer
    model = make(
        [helper.make_node("Reshape", ["x", "s"], ["y"])],
        [("x", FLOAT, [4])],
        [("y", FLOAT, [f"d{i}" for i in range(rank)])],
        [("s", np.array([1] * (rank - 1) + [4]))],
    )
    with pytest.raises(NativeCrash, match=r"TensorRT-RTX .* crashed"):
        build(model, tmp_path, ())
    assert list(tmp_path.iterdir()) == []
    assert build(gemm, tmp_path).size > 0


def test_a_truncated_engine_is_refused(gemm, tmp_path):
    path = build(gemm, tmp_path).path
    assert plan.read(path).size_ok
    path.write_bytes(path.read_bytes()[:-1])
    with pytest.raises(CorruptFile, match="its header says"):
        plan.read(path)


def test_an_unwritable_output_is_refused_before_the_build(gemm, tmp_path, monkeypatch):
    monkeypatch.setattr(isolate.Worker, "call", lambda *_, **__: pytest.fail("started work"))
    with pytest.raises(CannotWrite):
        RtxBuilder().build(BuildRequest(gemm, BATCH), tmp_path / "no" / "m.engine")
    with pytest.raises(CannotWrite):
        RtxBuilder().build(BuildRequest(gemm, BATCH), tmp_path)


def test_an_old_engine_survives_a_failed_build(gemm, tmp_path):
    (tmp_path / "m.engine").write_bytes(b"old")
    with pytest.raises(BuildFailed):
        build(gemm, tmp_path, compute_capabilities=("7.5",))
    assert (tmp_path / "m.engine").read_bytes() == b"old"


def test_a_users_switch_in_the_environment_changes_nothing(gemm, tmp_path, monkeypatch):
    monkeypatch.setitem(os.environ, "POLYGRAPHY_USE_TENSORRT_RTX", "0")
    isolate.close_all()
    assert build(gemm, tmp_path).kind == "tensorrt-rtx"


def test_running_without_a_gpu_says_so(gemm, tmp_path, monkeypatch):
    monkeypatch.setattr("graphkit.engine.builder.visible_gpus", tuple)
    engine = build(gemm, tmp_path)
    with pytest.raises(GpuRequired, match="GPU"):
        RtxBuilder().run(engine, {"x": np.zeros((2, 64), "f")})


@pytest.mark.gpu
def test_an_engine_computes_what_the_model_says(gemm, tmp_path, gpu):
    builder = RtxBuilder()
    if gpu not in library().worker.call("graphkit.engine.trt_child:known_capabilities"):
        pytest.skip(f"TensorRT-RTX does not name {gpu} as a target")
    engine = build(gemm, tmp_path, tf32=False)
    x = np.random.default_rng(0).standard_normal((3, 64)).astype("f")
    np.testing.assert_allclose(builder.run(engine, {"x": x})["y"], x, rtol=1e-5, atol=1e-6)


# --- what the library builds, and could not run --------------------------------------------------------------------


def test_a_maximum_that_the_engine_would_refuse_is_refused(cnn, tmp_path):
    """TensorRT-RTX only warns: the volume of a tensor exceeds what it can address."""
    with pytest.raises(BadDimRange, match=r"does not hold at the max sizes: .*tensor volume exceeds"):
        build(cnn, tmp_path, dims=(DimRange("batch", 1, 4, 2**31 - 1),))
    assert not list(tmp_path.glob("*.engine"))


def test_a_workspace_that_no_kernel_fits_in_is_the_options_fault(cnn, tmp_path):
    reply = {
        "status": "failed", "lines": ["Myelin (no tactics to implement the operation within workspace limit.)"],
        "targets": {}, "asked": [], "version": "1.7",
    }  # fmt: skip
    with pytest.raises(BuildFailed) as failure:
        refusal.check(reply, cnn, "TensorRT-RTX")
    assert failure.value.remedy == "give more with --workspace MIB, or leave it out"


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="the disk that is always full is Linux's")
def test_a_full_disk_is_not_a_bug(cnn, tmp_path):
    reply = trt_child.write("/dev/full", b"an engine")
    with pytest.raises(CannotWrite, match="No space left"), atomic.replacing(tmp_path / "m.engine"):
        refusal.check(reply, cnn, "TensorRT-RTX")
    assert list(tmp_path.iterdir()) == []
