"""Transposes cancel, join what is beside them, and move through regions where fewer are left then."""

from __future__ import annotations

import itertools
import json
from collections.abc import Mapping
from typing import Any

import numpy as np
import onnx
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from onnx import numpy_helper

from graphkit.rewrite.rules.transpose_cut import AFTER, BEFORE, Cut
from graphkit.rewrite.rules.transpose_perms import composed, dropped, inverse, with_new
from tests.rewrite.support import assert_same, operators, optimised

_RNG = np.random.default_rng(10)
_ONLY = ("transpose",)


def _w(*shape: int) -> np.ndarray[Any, Any]:
    return _RNG.standard_normal(shape).astype(np.float32)


def _ints(*numbers: int) -> np.ndarray[Any, Any]:
    return np.asarray(numbers, np.int64)


def _model(
    body: str,
    weights: Mapping[str, np.ndarray[Any, Any]] | None = None,
    x: str = "N,3,4,5",
    y: str = "float[] y",
    opset: int = 18,
    more: str = "",
) -> onnx.ModelProto:
    model = onnx.parser.parse_model(
        f'<ir_version: 10, opset_import: ["": {opset}]> g (float[{x}] x{more}) => ({y}) {{ {body} }}'
    )
    model.graph.initializer.extend(numpy_helper.from_array(np.asarray(v), k) for k, v in (weights or {}).items())
    for output in model.graph.output:
        output.type.tensor_type.ClearField("shape")
    for index, node in enumerate(model.graph.node):
        node.name = f"n{index}"
    return onnx.shape_inference.infer_shapes(model)


LAST = "Transpose<perm=[0,2,3,1]>"
FIRST = "Transpose<perm=[0,3,1,2]>"

GONE: dict[str, tuple[onnx.ModelProto, int]] = {
    "undone": (_model(f"r = Relu(x) t = {LAST}(r) u = {FIRST}(t) y = Neg(u)"), 0),
    "three in a row": (_model(f"t = {LAST}(x) u = {LAST}(t) y = {LAST}(u)"), 0),
    "two that stay one": (_model(f"t = {LAST}(x) y = {LAST}(t)"), 1),
    "undone, and used": (_model(f"t = {LAST}(x) u = {FIRST}(t) v = Neg(u) y = Shape(t)", y="int64[] y, float[] v"), 1),
    "identity": (_model("r = Relu(x) t = Transpose<perm=[0,1,2,3]>(r) y = Neg(t)"), 0),
    "of a constant": (_model("t = Transpose(w) y = Add(x, t)", {"w": _w(5, 4)}), 0),
    "unary": (_model(f"t = {LAST}(x) a = Sigmoid(t) b = Clip(a, lo) y = {FIRST}(b)", {"lo": np.float32(0.5)}), 0),
    "constants of every rank": (
        _model(
            f"t = {LAST}(x) a = Add(t, p) b = Mul(q, a) c = Sub(b, r) d = Where(m, c, b) y = {FIRST}(d)",
            {"p": _w(3), "q": _w(5, 1), "r": _w(1), "m": _w(1, 4, 5, 3) > 0},
        ),
        0,
    ),
    "two branches": (
        _model(f"t = {LAST}(x) r = Relu(x) u = {LAST}(r) a = Add(t, u) y = {FIRST}(a)"),
        0,
    ),
    "two branches that need one": (_model(f"t = {LAST}(x) r = Relu(x) u = {LAST}(r) y = Add(t, u)"), 1),
    "a branch that needs another": (
        _model(
            f"t = {LAST}(x) a = Add(t, z) y = {FIRST}(a) b = Relu(a) v = {FIRST}(b)",
            more=", float[N,4,5,3] z",
            y="float[] y, float[] v",
        ),
        1,
    ),
    "Pad": (_model(f"t = {LAST}(x) a = Pad(t, p) y = {FIRST}(a)", {"p": _ints(0, 1, 2, 0, 0, 3, 0, 4)}), 0),
    "Pad of some axes": (
        _model(f"t = {LAST}(x) a = Pad(t, p, , a0) y = {FIRST}(a)", {"p": _ints(1, 2, 3, 4), "a0": _ints(-1, 1)}),
        0,
    ),
    "mean over space": (_model(f"t = {LAST}(x) y = ReduceMean<keepdims=0>(t, a)", {"a": _ints(1, 2)}), 0),
    "mean over space, axes kept": (
        _model(f"t = {LAST}(x) m = ReduceMean(t, a) y = Reshape(m, s)", {"a": _ints(1, 2), "s": _ints(-1, 3)}),
        0,
    ),
    "mean, axes as an attribute": (_model(f"t = {LAST}(x) m = ReduceMax<axes=[-1]>(t) y = {FIRST}(m)", opset=13), 0),
    "mean over all": (_model(f"t = {LAST}(x) y = ReduceMean<keepdims=0>(t)"), 0),
    "one axis reduced": (
        _model(f"t = {LAST}(x) m = ReduceSum<keepdims=0>(t, a) y = Transpose<perm=[0,2,1]>(m)", {"a": _ints(1)}),
        0,
    ),
    "ArgMax": (_model(f"t = {LAST}(x) y = ArgMax<axis=-1, keepdims=0>(t)", y="int64[] y"), 0),
    "Concat and Split": (
        _model(
            f"t = {LAST}(x) r = Exp(t) c = Concat<axis=-1>(t, r, w) a, b = Split<axis=3>(c, s) "
            f"y = {FIRST}(a) z = {FIRST}(b)",
            {"w": _w(2, 4, 5, 1), "s": _ints(3, 4)},
            x="2,3,4,5",
            y="float[] y, float[] z",
        ),
        0,
    ),
    "Slice": (
        _model(
            f"t = {LAST}(x) a = Slice(t, s, e, i, j) y = {FIRST}(a)",
            {"s": _ints(1, 0), "e": _ints(4, 2), "i": _ints(2, -1), "j": _ints(2, 1)},
        ),
        0,
    ),
    "Slice of the first axes": (
        _model(f"t = {LAST}(x) a = Slice(t, s, e) y = {FIRST}(a)", {"s": _ints(0, 1), "e": _ints(9, 3)}),
        0,
    ),
    "Slice with 32 bit indices": (
        _model(
            f"t = {LAST}(x) a = Slice(t, s, e) y = {FIRST}(a)",
            {"s": np.array([0, 1], np.int32), "e": np.array([9, 3], np.int32)},
        ),
        0,
    ),
    "Squeeze and Unsqueeze": (
        _model(
            f"m = ReduceMax(x, i) t = {LAST}(m) a = Squeeze(t, j) b = Relu(a) c = Unsqueeze(b, j) y = {FIRST}(c)",
            {"i": _ints(3), "j": _ints(2)},
        ),
        0,
    ),
    "Softmax": (_model(f"t = {LAST}(x) a = Softmax(t) y = {FIRST}(a)"), 0),
    "CumSum": (_model(f"t = {LAST}(x) a = CumSum(t, i) y = {FIRST}(a)", {"i": np.int64(-1)}), 0),
    "Gather": (_model(f"t = {LAST}(x) a = Gather<axis=3>(t, i) y = {FIRST}(a)", {"i": _ints(2, 0)}), 0),
    "Tile": (_model(f"t = {LAST}(x) a = Tile(t, i) y = {FIRST}(a)", {"i": _ints(1, 1, 2, 3)}), 0),
    "Resize": (
        _model(
            f't = {LAST}(x) a = Resize<mode="nearest">(t, , s) y = {FIRST}(a)',
            {"s": np.array([1, 2, 3, 1], np.float32)},
        ),
        0,
    ),
    "PRelu": (_model(f"t = {LAST}(x) a = PRelu(t, s) y = {FIRST}(a)", {"s": _w(3)}), 0),
    "quantised per tensor": (
        _model(
            f"t = {LAST}(x) q = QuantizeLinear(t, s, z) d = DequantizeLinear(q, s, z) y = {FIRST}(d)",
            {"s": np.float32(0.1), "z": np.int8(3)},
        ),
        0,
    ),
    "quantised per channel": (
        _model(
            f"t = {LAST}(x) q = QuantizeLinear<axis=-1>(t, s, z) d = DequantizeLinear<axis=3>(q, s, z) y = {FIRST}(d)",
            {"s": np.array([0.1, 0.2, 0.3], np.float32), "z": np.array([1, 2, 3], np.uint8)},
        ),
        0,
    ),
    "LayerNormalization": (
        _model(
            "t = Transpose<perm=[0,2,1,3]>(x) a = LayerNormalization(t, w) y = Transpose<perm=[0,2,1,3]>(a)",
            {"w": _w(5)},
        ),
        0,
    ),
    "sides of size 1": (
        _model(f"t = {LAST}(x) y = Reshape(t, s)", {"s": _ints(-1, 3)}, x="N,3,1,1"),
        0,
    ),
    "attention heads of one row": (
        _model("t = Transpose<perm=[0,2,1,3]>(x) y = Flatten(t)", x="N,1,4,5"),
        0,
    ),
    "a sum with its own transpose": (
        _model(
            "t = Transpose<perm=[0,2,1,3]>(x) a = Relu(t) u = Transpose<perm=[0,2,1,3]>(a) b = Add(a, u) "
            "y = ReduceMax(b, i) v = Neg(a)",
            {"i": _ints(3)},
            x="N,4,4,5",
            y="float[] y, float[] v",
        ),
        2,
    ),
    "an output between": (
        _model(f"t = {LAST}(x) a = Relu(t) u = {FIRST}(a) y = Neg(u)", y="float[] y, float[] a"),
        1,
    ),
    "a long way": (
        _model(
            f"t = {LAST}(x) a = Relu(t) b = Add(a, p) c = Sigmoid(b) d = Mul(c, a) e = Add(d, t) u = {FIRST}(e) "
            f"f = GlobalAveragePool(u) v = {LAST}(f) y = Mul(v, e)",
            {"p": _w(3)},
        ),
        1,
    ),
}


def _feeds(model: onnx.ModelProto, batch: int) -> dict[str, Any]:
    shapes = {i.name: [d.dim_value or batch for d in i.type.tensor_type.shape.dim] for i in model.graph.input}
    return {name: _w(*shape) for name, shape in shapes.items()}


@pytest.mark.parametrize("name", GONE)
def test_gone(name: str) -> None:
    model, left = GONE[name]
    after, _ = optimised(model)
    assert operators(after)["Transpose"] == left
    assert len(after.graph.node) <= len(model.graph.node)
    for batch in (1, 3):
        assert_same(model, after, _feeds(model, batch), of_scale=1e-6)


KEPT: dict[str, onnx.ModelProto] = {
    "nothing undoes it": _model(f"t = {LAST}(x) a = Relu(t) y = Add(a, p)", {"p": _w(3)}),
    "Softmax that flattens": _model(f"t = {LAST}(x) a = Softmax<axis=1>(t) y = {FIRST}(a)", opset=11),
    "normalization over an axis that moves": _model(
        f"t = {LAST}(x) a = LayerNormalization(t, w) y = {FIRST}(a)", {"w": _w(3)}
    ),
    "Resize of the channels": _model(
        f't = {LAST}(x) a = Resize<mode="linear">(t, , s) y = {FIRST}(a)', {"s": np.array([1, 1, 1, 2], np.float32)}
    ),
    "an operand of lower rank": _model(f"t = {LAST}(x) a = Add(t, z) y = {FIRST}(a)", more=", float[3] z"),
    "an operand of higher rank": _model(
        f"t = {LAST}(x) a = Add(t, w) y = Transpose<perm=[0,1,4,2,3]>(a)", {"w": _w(2, 1, 4, 5, 3)}
    ),
    "elements that move": _model(f"t = {LAST}(x) y = Reshape(t, s)", {"s": _ints(-1, 3)}),
    "MatMul between": _model(f"t = {LAST}(x) a = MatMul(t, w) y = {FIRST}(a)", {"w": _w(3, 3)}),
}


@pytest.mark.parametrize("name", KEPT)
def test_kept(name: str) -> None:
    model = KEPT[name]
    after, _ = optimised(model, only=_ONLY, opset=model.opset_import[0].version)
    assert operators(after) == operators(model)
    assert_same(model, after, _feeds(model, 2), of_scale=1e-6)


def test_a_near_miss_is_told() -> None:
    model = _model(
        f"t = {LAST}(x) a = Add(t, z) b = Relu(a) y = {FIRST}(b) v = Neg(a)",
        more=", float[N,4,5,3] z",
        y="float[] y, float[] v",
    )
    after, changes = optimised(model, only=_ONLY)
    assert operators(after)["Transpose"] == 2
    assert any(miss.rule == "transpose-region" for miss in changes.missed)


def test_a_node_keeps_its_own_lines_when_a_region_moves() -> None:
    model = GONE["unary"][0]
    for node, line in zip(model.graph.node, (3, 4, 5, 6), strict=True):
        node.metadata_props.add(key="graphkit.source", value=f'[["net","net.py",{line},"forward"]]')
    after, _ = optimised(model)
    lines = {n.op_type: [json.loads(p.value)[0][2] for p in n.metadata_props] for n in after.graph.node}
    assert lines == {"Sigmoid": [4], "Clip": [5]}


@given(st.permutations(range(4)), st.permutations(range(4)), st.sets(st.integers(0, 3), min_size=1, max_size=3))
def test_permutations_are_those_of_numpy(first: list[int], second: list[int], axes: set[int]) -> None:
    p, q, x = tuple(first), tuple(second), _w(2, 3, 4, 5)
    np.testing.assert_array_equal(x.transpose(p).transpose(q), x.transpose(composed(p, q)))
    np.testing.assert_array_equal(x.transpose(p).transpose(inverse(p)), x)
    reduced = x.sum(axis=tuple(p[a] for a in axes)).transpose(dropped(p, sorted(axes)))
    np.testing.assert_allclose(reduced, x.transpose(p).sum(axis=tuple(axes)), rtol=1e-4, atol=1e-4)
    places = tuple(sorted(axes))
    np.testing.assert_array_equal(
        np.expand_dims(x.transpose(p), places), np.expand_dims(x, places).transpose(with_new(p, places))
    )


@settings(deadline=None)
@given(st.data())
def test_the_cut_is_the_best_of_all_choices(data: st.DataObject) -> None:
    count = data.draw(st.integers(1, 5))
    side = st.one_of(st.sampled_from([BEFORE, AFTER]), st.integers(2, count + 1))
    values = data.draw(
        st.lists(st.tuples(st.one_of(st.none(), side), st.lists(side, min_size=1, max_size=4)), max_size=8)
    )
    cut = Cut()
    for _ in range(count):
        cut.vertex()
    for maker, readers in values:
        cut.value(maker, readers)

    def cost(choice: tuple[int, ...]) -> int:
        where = {BEFORE: BEFORE, AFTER: AFTER, **{index + 2: c for index, c in enumerate(choice)}}
        total = 0
        for maker, readers in values:
            makers = [BEFORE, AFTER] if maker is None else [where[maker]]
            total += min(sum({where[r] != m for r in readers} & {True}) for m in makers)
        return total

    fewest, before = cut.best()
    assert fewest == min(cost(choice) for choice in itertools.product((BEFORE, AFTER), repeat=count))
    assert cost(tuple(BEFORE if index + 2 in before else AFTER for index in range(count))) == fewest
