"""Small models as values: no file, no framework."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import onnx_ir as ir
import pytest
from onnx import TensorProto, helper, numpy_helper

from graphkit.engine import builder
from graphkit.model import Model, Origin, SourceLine, set_provenance

FLOAT, INT64, DOUBLE, UINT8 = TensorProto.FLOAT, TensorProto.INT64, TensorProto.DOUBLE, TensorProto.UINT8

Make = Callable[..., Model]


def _make(nodes, inputs, outputs, weights=(), functions=(), opset=18) -> Model:
    """A Model; inputs and outputs are (name, type, shape), weights (name, array)."""
    graph = helper.make_graph(
        nodes,
        "main",
        [helper.make_tensor_value_info(*i) for i in inputs],
        [helper.make_tensor_value_info(*o) for o in outputs],
        [numpy_helper.from_array(np.asarray(array), name) for name, array in weights],
    )
    proto = helper.make_model(
        graph, opset_imports=[helper.make_opsetid("", opset)], ir_version=9, functions=list(functions)
    )
    return Model(ir.from_proto(proto), Origin("torch module", "zoo:Small", versions={"torch": "2.13.0"}))


@pytest.fixture(scope="session")
def make() -> Make:
    return _make


@pytest.fixture
def cnn() -> Model:
    """Conv -> Relu -> global pool -> MatMul with a dynamic batch."""
    rng = np.random.default_rng(0)
    return _make(
        [
            helper.make_node("Conv", ["x", "w"], ["c"], name="conv", kernel_shape=[3, 3], pads=[1, 1, 1, 1]),
            helper.make_node("Relu", ["c"], ["r"], name="relu"),
            helper.make_node("GlobalAveragePool", ["r"], ["p"], name="pool"),
            helper.make_node("Flatten", ["p"], ["f"], name="flat"),
            helper.make_node("MatMul", ["f", "head"], ["logits"], name="head_mm"),
        ],
        [("x", FLOAT, ["batch", 3, 16, 16])],
        [("logits", FLOAT, ["batch", 5])],
        [
            ("w", rng.standard_normal((8, 3, 3, 3)).astype("f")),
            ("head", rng.standard_normal((8, 5)).astype("f")),
        ],
    )


@pytest.fixture
def gemm() -> Model:
    """One float32 matrix product."""
    return _make(
        [helper.make_node("MatMul", ["x", "w"], ["y"], name="project")],
        [("x", FLOAT, ["batch", 64])],
        [("y", FLOAT, ["batch", 64])],
        [("w", np.eye(64, dtype="f"))],
    )


@pytest.fixture
def unsupported() -> Model:
    """Three nodes that TensorRT's parser has nothing for, one of them without a name; two know their source."""
    model = _make(
        [
            helper.make_node("Relu", ["x"], ["r"], name="relu"),
            helper.make_node("Unique", ["r"], ["u"], name="uniq"),
            helper.make_node("BitShift", ["i", "i"], ["b"], direction="LEFT"),
            helper.make_node("Det", ["r"], ["d"], name="det"),
        ],
        [("x", FLOAT, [4, 4]), ("i", UINT8, [4])],
        [("u", FLOAT, ["n"]), ("b", UINT8, [4]), ("d", FLOAT, [])],
    )
    relu, uniq, shift, _det = model.ir.graph
    set_provenance(relu, [SourceLine("act", "net.py", 3, "forward")])
    set_provenance(uniq, [SourceLine("head.vocab", "net.py", 41, "Vocab.forward")])
    set_provenance(shift, [SourceLine("bits", "bits.py", 7, "Bits.forward")])
    return model


@pytest.fixture
def gpu() -> str:
    """Compute capability of the first GPU; the test is skipped where there is none."""
    if not builder.visible_gpus():
        pytest.skip("no CUDA device")
    return builder.visible_gpus()[0]
