"""Rewriting a small model, and running it before and after."""

from __future__ import annotations

import tempfile
from collections import Counter
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import onnx_ir as ir
import onnxruntime

from graphkit import view
from graphkit.rewrite.passes import Options, rewrite
from graphkit.rewrite.rule import Changes


def optimised(proto: onnx.ModelProto, **options: Any) -> tuple[onnx.ModelProto, Changes]:
    """The rewritten model, which ONNX's checker has accepted, and what was done to it."""
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "before.onnx"
        onnx.save(proto, path)
        graph = ir.load(path)
        changes = rewrite(graph, view.read(path), Options(**options))
        after = ir.to_proto(graph)
    onnx.checker.check_model(after, full_check=True)
    return after, changes


def run(proto: onnx.ModelProto, feeds: Mapping[str, Any]) -> list[Any]:
    """Outputs by ONNX Runtime with its own optimisations off."""
    options = onnxruntime.SessionOptions()
    options.graph_optimization_level = onnxruntime.GraphOptimizationLevel.ORT_DISABLE_ALL
    options.intra_op_num_threads = 1
    options.log_severity_level = 4
    session = onnxruntime.InferenceSession(proto.SerializeToString(), options, providers=["CPUExecutionProvider"])
    return list(session.run(None, dict(feeds)))


def assert_same(
    before: onnx.ModelProto, after: onnx.ModelProto, feeds: Mapping[str, Any], *, of_scale: float = 0.0
) -> None:
    """Same signature; same results, bit for bit or within a part of the largest magnitude."""
    for old, new in ((before.graph.output, after.graph.output), (_fed(before), _fed(after))):
        assert [(v.name, v.type.tensor_type.elem_type) for v in old] == [
            (v.name, v.type.tensor_type.elem_type) for v in new
        ]
    for old, new in zip(run(before, feeds), run(after, feeds), strict=True):
        old, new = np.asarray(old), np.asarray(new)
        assert old.shape == new.shape
        assert old.dtype == new.dtype
        if of_scale and old.dtype.kind == "f" and old.size:
            scale = float(np.abs(old[np.isfinite(old)]).max(initial=1e-30))
            np.testing.assert_allclose(new, old, rtol=0, atol=of_scale * scale)
        else:
            np.testing.assert_array_equal(new, old)


def operators(proto: onnx.ModelProto) -> Counter[str]:
    """How many nodes of each operator there are; Constant nodes do not count."""
    return Counter(node.op_type for node in proto.graph.node if node.op_type != "Constant")


def _fed(proto: onnx.ModelProto) -> list[onnx.ValueInfoProto]:
    held = {tensor.name for tensor in proto.graph.initializer}
    return [v for v in proto.graph.input if v.name not in held]
