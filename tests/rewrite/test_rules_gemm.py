"""MatMul, Add, Transpose and Reshape around products of matrices."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
import onnx
import pytest
from onnx import numpy_helper

from tests.rewrite.support import assert_same, operators, optimised

_RNG = np.random.default_rng(8)


def _w(*shape: int) -> np.ndarray[Any, Any]:
    return _RNG.standard_normal(shape).astype(np.float32)


def _model(body: str, weights: Mapping[str, np.ndarray[Any, Any]], x: str) -> onnx.ModelProto:
    model = onnx.parser.parse_model(
        f'<ir_version: 10, opset_import: ["": 18]> g (float[{x}] x) => (float[] y) {{ {body} }}'
    )
    model.graph.initializer.extend(numpy_helper.from_array(np.asarray(v), k) for k, v in weights.items())
    model.graph.output[0].type.tensor_type.ClearField("shape")
    for index, node in enumerate(model.graph.node):
        node.name = f"n{index}"
    return onnx.shape_inference.infer_shapes(model)


_FLAT = {"f": np.array([-1, 4]), "r": np.array([-1, 3, 6])}

MERGED: dict[str, tuple[onnx.ModelProto, tuple[int, ...], dict[str, int]]] = {
    "MatMul and Add": (
        _model("c = MatMul(x, w) y = Add(q, c)", {"w": _w(4, 6), "q": _w(6)}, "N,4"),
        (5, 4),
        {"Gemm": 1},
    ),
    "MatMul and what another node gives": (
        _model("r = Relu(x) c = MatMul(x, w) y = Add(r, c)", {"w": _w(4, 4)}, "N,4"),
        (5, 4),
        {"Relu": 1, "Gemm": 1},
    ),
    "Gemm of a transposed matrix": (
        _model("r = Relu(x) t = Transpose<perm=[1,0]>(r) y = Gemm(t, w)", {"w": _w(5, 6)}, "5,4"),
        (5, 4),
        {"Relu": 1, "Gemm": 1},
    ),
    "product with itself": (_model("t = Transpose(x) y = MatMul(x, t)", {}, "N,4"), (5, 4), {"Gemm": 1}),
    "tied weights": (
        _model(
            "i = ReduceMax<keepdims=0>(x) j = Cast<to=7>(i) k = Mod(j, m) e = Gather(w, k) h = Add(x, e) "
            "t = Transpose(w) c = MatMul(h, t) y = Add(c, q)",
            {"w": _w(1500, 200), "q": _w(1500), "m": np.array(7)},
            "N,200",
        ),
        (3, 200),
        {"ReduceMax": 1, "Cast": 1, "Mod": 1, "Gather": 1, "Add": 1, "Gemm": 1},
    ),
    "flattened before, restored after": (
        _model("a = Reshape(x, f) c = Gemm(a, w, q) y = Reshape(c, r)", {"w": _w(4, 6), "q": _w(6), **_FLAT}, "N,3,4"),
        (2, 3, 4),
        {"MatMul": 1, "Add": 1},
    ),
    "flattened, weights transposed": (
        _model("a = Reshape(x, f) c = Gemm<transB=1>(a, w) y = Reshape(c, r)", {"w": _w(6, 4), **_FLAT}, "N,3,4"),
        (2, 3, 4),
        {"MatMul": 1},
    ),
}


@pytest.mark.parametrize("name", MERGED)
def test_merged(name: str) -> None:
    model, shape, left = MERGED[name]
    after, _ = optimised(model)
    assert dict(operators(after)) == left
    assert_same(model, after, {"x": _w(*shape)}, of_scale=1e-5)


KEPT: dict[str, tuple[onnx.ModelProto, tuple[int, ...]]] = {
    "tensors of three axes": (
        _model("c = MatMul(x, w) y = Add(c, q)", {"w": _w(4, 6), "q": _w(6)}, "N,S,4"),
        (2, 3, 4),
    ),
    "an Add that makes the result larger": (
        _model("c = MatMul(x, w) y = Add(c, q)", {"w": _w(4, 6), "q": _w(5, 6)}, "1,4"),
        (1, 4),
    ),
    "an Add of unknown rows": (
        _model(
            "z = Slice(x, s, e, a) c = MatMul(z, w) y = Add(c, x)",
            {"w": _w(4, 4), "s": np.array([0]), "e": np.array([1]), "a": np.array([0])},
            "N,4",
        ),
        (3, 4),
    ),
    "a vector": (_model("c = MatMul(x, w) y = Add(c, q)", {"w": _w(4), "q": _w(1)}, "N,4"), (5, 4)),
    "a product that is read twice": (
        _model("c = MatMul(x, w) d = Add(c, q) y = Mul(c, d)", {"w": _w(4, 6), "q": _w(6)}, "N,4"),
        (5, 4),
    ),
    "restored to other axes": (
        _model(
            "a = Reshape(x, f) c = Gemm(a, w, q) y = Reshape(c, r)",
            {"w": _w(4, 6), "q": _w(6), "f": np.array([-1, 4]), "r": np.array([3, -1, 6])},
            "N,3,4",
        ),
        (2, 3, 4),
    ),
    "flattened across the features": (
        _model(
            "a = Reshape(x, f) c = Gemm(a, w) y = Reshape(c, r)",
            {"w": _w(2, 2), "f": np.array([-1, 2]), "r": np.array([-1, 3, 4])},
            "N,3,4",
        ),
        (2, 3, 4),
    ),
    "a bias by rows": (
        _model(
            "a = Reshape(x, f) c = Gemm(a, w, q) y = Reshape(c, r)",
            {"w": _w(4, 6), "q": _w(6, 1), "f": np.array([-1, 4]), "r": np.array([2, 3, 6])},
            "2,3,4",
        ),
        (2, 3, 4),
    ),
}


@pytest.mark.parametrize("name", KEPT)
def test_kept(name: str) -> None:
    model, shape = KEPT[name]
    after, _ = optimised(model, only=("convolution",))
    assert operators(after) == operators(model)
    assert_same(model, after, {"x": _w(*shape)})


def test_tied_weights_are_stored_once() -> None:
    model = MERGED["tied weights"][0]
    after, _ = optimised(model)
    assert after.ByteSize() < model.ByteSize() + 10_000
