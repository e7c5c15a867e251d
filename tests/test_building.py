"""`build` gives the library the form of the graph that it takes."""

from __future__ import annotations

from importlib.util import find_spec

import onnx
import pytest
from onnx import TensorProto, helper

from graphkit.building import EngineRequest, build
from graphkit.shapes import DimRange

pytestmark = pytest.mark.skipif(find_spec("tensorrt_rtx") is None, reason="tensorrt-rtx is not installed")


def attention(path):
    """float32 Attention with four axes, which TensorRT-RTX has no kernel for, and a LayerNormalization with three
    outputs, which its parser refuses."""
    value = [helper.make_tensor_value_info(n, TensorProto.FLOAT, ["batch", 2, 8, 16]) for n in ("q", "k", "v")]
    nodes = [
        helper.make_node("Attention", ["q", "k", "v"], ["attended"], "attend"),
        helper.make_node("LayerNormalization", ["attended", "scale"], ["y", "mean", "inverse"], "norm"),
    ]
    scale = helper.make_tensor("scale", TensorProto.FLOAT, [16], [1.0] * 16)
    out = helper.make_tensor_value_info("y", TensorProto.FLOAT, ["batch", 2, 8, 16])
    graph = helper.make_graph(nodes, "g", value, [out], [scale])
    onnx.save(helper.make_model(graph, opset_imports=[helper.make_opsetid("", 24)], ir_version=10), path)


def test_what_needs_another_form_is_built_all_the_same(tmp_path):
    attention(tmp_path / "m.onnx")
    request = EngineRequest(dims=(DimRange("batch", 1, 2, 4),), compute_capabilities=("8.6",))
    made = build(tmp_path / "m.onnx", tmp_path / "m.engine", request)
    assert made.engine.targets == ("8.6",)
    assert (tmp_path / "m.engine").stat().st_size == made.engine.size
    assert build(tmp_path / "m.onnx", tmp_path / "again.engine", request).cached
