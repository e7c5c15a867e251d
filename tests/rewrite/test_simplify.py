"""onnxsim in its child: the same numbers, names and source lines; and a crash there is one clear error here."""

from pathlib import Path

import numpy as np
import onnx_ir as ir
import onnxruntime
import pytest
from onnx import TensorProto, helper, numpy_helper

from graphkit import isolate
from graphkit.errors import NativeCrash, OptimizationFailed
from graphkit.model import Model, Origin, SourceLine, provenance, set_provenance
from graphkit.rewrite import simplify
from graphkit.shapes import DimRange


@pytest.fixture(scope="module")
def captured() -> Model:
    """Conv, BatchNormalization, Relu, each with a line of its own; and a constant that is computed: 1 + 2."""
    rng = np.random.default_rng(0)
    weights = {
        "w": rng.standard_normal((6, 3, 3, 3)) / 5,
        "scale": rng.uniform(0.5, 1.5, 6),
        "bias": rng.standard_normal(6),
        "mean": rng.standard_normal(6),
        "var": rng.uniform(0.4, 2.0, 6),
        "one": np.ones(1),
        "two": np.full(1, 2.0),
    }
    nodes = [
        helper.make_node("Conv", ["x", "w"], ["conv"], pads=[1, 1, 1, 1]),
        helper.make_node("BatchNormalization", ["conv", "scale", "bias", "mean", "var"], ["norm"]),
        helper.make_node("Relu", ["norm"], ["relu"]),
        helper.make_node("Add", ["one", "two"], ["three"]),
        helper.make_node("Mul", ["relu", "three"], ["y"]),
    ]
    graph = helper.make_graph(
        nodes,
        "g",
        [helper.make_tensor_value_info("x", TensorProto.FLOAT, ["batch", 3, "side", "side"])],
        [helper.make_tensor_value_info("y", TensorProto.FLOAT, ["batch", 6, "side", "side"])],
        [numpy_helper.from_array(v.astype(np.float32), k) for k, v in weights.items()],
    )
    made = ir.from_proto(helper.make_model(graph, opset_imports=[helper.make_opsetid("", 20)], ir_version=10))
    for node in made.graph:
        set_provenance(node, [SourceLine(str(node.outputs[0].name), "net.py", 1)])
    return Model(made, Origin("test", sizes={"batch": 2}), (DimRange("batch", 1, 2, 4),))


@pytest.fixture(scope="module")
def simplified(captured) -> Model:
    return simplify.simplify(captured)


def run(model: Model, x: np.ndarray) -> np.ndarray:
    session = onnxruntime.InferenceSession(model.to_proto().SerializeToString())
    return session.run(None, {"x": x})[0]


@pytest.mark.parametrize("shape", [(1, 3, 8, 8), (4, 3, 5, 5)])
def test_the_numbers_stay(captured, simplified, shape):
    x = np.random.default_rng(1).standard_normal(shape, dtype=np.float32)
    np.testing.assert_allclose(run(simplified, x), run(captured, x), atol=1e-5, rtol=1e-5)


def test_convolution_and_normalization_are_one_node_with_both_lines(simplified):
    conv, *rest = [n for n in simplified.ir.graph.all_nodes() if n.op_type in ("Conv", "BatchNormalization")]
    assert rest == []
    assert {line.module for line in provenance(conv)} == {"conv", "norm"}


def test_the_other_nodes_keep_their_lines(simplified):
    found = {n.op_type: {line.module for line in provenance(n)} for n in simplified.ir.graph.all_nodes()}
    assert found["Relu"] == {"relu"}
    assert "y" in found["Mul"]
    assert "Add" not in found


def test_signature_ranges_and_origin_stay_and_the_step_is_recorded(captured, simplified):
    assert simplified.signature == captured.signature
    assert simplified.dims == captured.dims
    assert simplified.origin.sizes == {"batch": 2}
    [step] = simplified.origin.steps
    assert step.startswith("onnxsim ")


def test_the_model_that_was_given_is_unchanged(captured, simplified):
    assert captured.node_count == 5
    assert captured.origin.steps == ()


def test_a_crash_of_the_child_is_one_error_and_the_next_call_works(captured, monkeypatch):
    with monkeypatch.context() as patch:
        patch.setattr(simplify, "_CHILD", "tests.rewrite.crashing")
        patch.setenv("PYTHONPATH", str(Path(__file__).resolve().parents[2]))
        isolate.worker("onnxsim").close()
        with pytest.raises(NativeCrash, match="SIGABRT") as caught:
            simplify.simplify(captured)
    assert (caught.value.code, caught.value.exit_code) == ("GK401", 4)
    assert "onnxsim" in caught.value.message
    assert simplify.simplify(captured).origin.steps


def test_a_changed_signature_is_refused(captured, monkeypatch):
    renamed = captured.ir.clone()
    renamed.graph.outputs[0].name = "z"
    monkeypatch.setattr(simplify, "load", lambda _: Model(renamed, captured.origin))
    with pytest.raises(OptimizationFailed, match="outputs"):
        simplify.simplify(captured)


def test_a_model_too_large_for_a_proto_is_not_given_to_onnxsim(captured, monkeypatch):
    assert simplify.why_not(captured) is None
    monkeypatch.setattr(simplify, "INLINE_LIMIT", 16)
    assert "2 GB" in simplify.why_not(captured)
