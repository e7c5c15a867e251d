"""Keys and values of earlier steps: they become the cache of Attention, which hands out what is present."""

from __future__ import annotations

from typing import Any

import numpy as np
import onnx
import pytest

from tests.rewrite.support import assert_same, operators, optimised

H, D = 4, 8
NEW = "float[b, 4, s, 8] q, float[b, 4, s, 8] k, float[b, 4, s, 8] v"
PAST = "float[b, 4, p, 8] pk, float[b, 4, p, 8] pv"
OUT = "float[b, 4, s, 8] y, float[b, 4, n, 8] keys, float[b, 4, n, 8] values"
JOIN = "keys = Concat<axis = 2>(pk, k) values = Concat<axis = -2>(pv, v)"
TURN = "t = Transpose<perm = [0, 1, 3, 2]>(keys)"
PRODUCTS = f"{JOIN} {TURN} m = MatMul(q, t) c = Mul(m, scale) p_ = Softmax(c) y = MatMul(p_, values)"
COUNT = (
    "zp = Shape<start = 2, end = 3>(pk) np_ = Squeeze(zp) zs = Shape<start = 2, end = 3>(q) ns = Squeeze(zs) "
    "nt = Add(np_, ns) cols = Range(i0, nt, i1) col = Unsqueeze(cols, front) "
)
SHIFTED = f"{COUNT} from0 = Range(i0, ns, i1) rows = Add(from0, np_) row = Unsqueeze(rows, behind)"
STARTED = f"{COUNT} rows = Range(np_, nt, i1) row = Unsqueeze(rows, behind)"
_RNG = np.random.default_rng(11)
NUMBERS: dict[str, Any] = {
    "scale": np.float32(D**-0.5), "zero": np.float32(0), "inf": np.float32([-np.inf]), "i0": np.int64(0),
    "low": np.float32(np.finfo(np.float32).min), "i1": np.int64(1), "front": np.array([0, 1, 2]),
    "behind": np.array([0, 1, 3]), "heads": np.array([0, 0, H, D]), "flat": np.array([0, 0, H * D]),
    "third": np.array([2]), "whole": np.array([0, 4, -1, 8]), "times": np.array([1, 1, 2, 1, 1]),
    **{f"w{n}": _RNG.standard_normal((H * D, H * D)).astype(np.float32) * 0.2 for n in "qkv"},
}  # fmt: skip


def graph(body: str, given: str = f"{NEW}, {PAST}", out: str = OUT, opset: int = 24) -> onnx.ModelProto:
    text = f'<ir_version: 10, opset_import: ["": {opset}]> g ({given}) => ({out}) {{ {body} }}'
    model = onnx.parser.parse_model(text)
    read = {name for node in model.graph.node for name in node.input} - {i.name for i in model.graph.input}
    for name in sorted(read & set(NUMBERS)):
        model.graph.initializer.append(onnx.numpy_helper.from_array(np.asarray(NUMBERS[name]), name))
    return model


def fed(model: onnx.ModelProto, b: int = 2, s: int = 3, p: int = 4) -> dict[str, Any]:
    rng = np.random.default_rng(12)
    feeds: dict[str, Any] = {}
    for value in model.graph.input:
        sizes = {"b": b, "s": s, "p": p, "n": p + s}
        shape = [sizes.get(d.dim_param, d.dim_value) for d in value.type.tensor_type.shape.dim]
        if value.type.tensor_type.elem_type == onnx.TensorProto.FLOAT:
            feeds[value.name] = rng.standard_normal(shape).astype(np.float32)
        else:
            kept = rng.integers(0, 2, shape)
            kept[..., 0] = 1
            feeds[value.name] = kept.astype(bool)
    return feeds


def attention(model: onnx.ModelProto) -> onnx.NodeProto:
    (node,) = (n for n in model.graph.node if n.op_type == "Attention")
    return node


def is_causal(model: onnx.ModelProto) -> bool:
    return any(a.name == "is_causal" and a.i == 1 for a in attention(model).attribute)


@pytest.mark.parametrize("opset", [23, 24])
@pytest.mark.parametrize(
    "body", [PRODUCTS, f"{JOIN} y = Attention<scale = 0.3>(q, keys, values)"], ids=["products", "Attention"]
)
def test_what_is_joined_with_its_past_is_a_cache(body: str, opset: int) -> None:
    before = graph(body, opset=opset)
    after, changes = optimised(before, opset=24)
    assert operators(after) == {"Attention": 1}
    assert list(attention(after).output) == ["y", "keys", "values"]
    assert changes.by_rule()["attention-cache"] == 1
    for b, s, p in ((2, 3, 4), (1, 1, 7), (3, 5, 0)):
        assert_same(before, after, fed(before, b, s, p), of_scale=3e-6)


MASKS = {
    "boolean": ("bool[b, 1, s, n] mask", "a = Where(mask, c, inf)"),
    "float": ("float[b, 1, s, n] mask", "a = Add(c, mask)"),
}


@pytest.mark.parametrize("name", MASKS)
def test_a_mask_of_past_and_new_keys_stays(name: str) -> None:
    given, body = MASKS[name]
    shapes = f"{NEW}, {PAST}, {given}".replace("s,", "3,").replace("p,", "4,").replace("n]", "7]")
    before = graph(PRODUCTS.replace("Softmax(c)", "Softmax(a)").replace("p_ =", f"{body} p_ ="), shapes)
    after, _ = optimised(before)
    assert operators(after) == {"Attention": 1}
    assert list(attention(after).input)[3:] == ["mask", "pk", "pv"]
    assert_same(before, after, fed(before), of_scale=3e-6)


CAUSAL = {
    "shifted": f"{SHIFTED} low_ = LessOrEqual(col, row) a = Where(low_, c, inf)",
    "started": f"{STARTED} low_ = GreaterOrEqual(row, col) a = Where(low_, c, inf)",
    "not above": f"{SHIFTED} up = Greater(col, row) low_ = Not(up) a = Where(low_, c, inf)",
    "added": f"{STARTED} low_ = LessOrEqual(col, row) w = Where(low_, zero, low) a = Add(c, w)",
}


@pytest.mark.parametrize("name", CAUSAL)
@pytest.mark.parametrize("opset", [23, 24])
def test_a_mask_that_counts_from_the_past_is_causal(name: str, opset: int) -> None:
    body = PRODUCTS.replace("Softmax(c)", "Softmax(a)").replace("p_ =", f"{CAUSAL[name]} p_ =")
    before = graph(body, opset=opset)
    after, _ = optimised(before, opset=opset)
    assert operators(after) == {"Attention": 1}
    assert is_causal(after)
    for b, s, p in ((2, 3, 4), (1, 1, 7), (3, 5, 0)):
        assert_same(before, after, fed(before, b, s, p), of_scale=3e-6)


NOT_CAUSAL = {
    "counted from 0": CAUSAL["shifted"].replace("rows = Add(from0, np_)", "rows = Identity(from0)"),
    "strictly below": CAUSAL["shifted"].replace("LessOrEqual", "Less"),
    "counted from elsewhere": CAUSAL["shifted"].replace("Add(from0, np_)", "Add(from0, ns)"),
}


@pytest.mark.parametrize("name", NOT_CAUSAL)
def test_a_mask_that_counts_from_elsewhere_stays(name: str) -> None:
    body = PRODUCTS.replace("Softmax(c)", "Softmax(a)").replace("p_ =", f"{NOT_CAUSAL[name]} p_ =")
    before = graph(body)
    after, _ = optimised(before)
    assert not is_causal(after)
    assert_same(before, after, fed(before), of_scale=3e-6)


FLAT = "float[b, s, 32] x"
BLOCK = (
    " ".join(
        f"m{n} = MatMul(x, w{n}) r{n} = Reshape(m{n}, heads) {n} = Transpose<perm = [0, 2, 1, 3]>(r{n})" for n in "qkv"
    )
    + f" {PRODUCTS.replace('y = MatMul', 'y4 = MatMul')} o = Transpose<perm = [0, 2, 1, 3]>(y4) y = Reshape(o, flat)"
)


def test_heads_are_split_inside_and_the_cache_keeps_its_four_axes() -> None:
    before = graph(BLOCK, f"{FLAT}, {PAST}", OUT.replace("float[b, 4, s, 8] y", "float[b, s, 32] y"))
    after, _ = optimised(before)
    assert operators(after) == {"MatMul": 1, "Split": 1, "Attention": 1}
    for b, s, p in ((2, 3, 4), (1, 1, 7)):
        assert_same(before, after, fed(before, b, s, p), of_scale=5e-6)


def test_a_cache_of_grouped_queries() -> None:
    given = "float[b, 4, s, 8] q, " + f"{NEW}, {PAST}".split(" q, ")[1].replace("[b, 4", "[b, 2")
    repeat = " ".join(
        f"u{n} = Unsqueeze({n}, third) e{n} = Tile(u{n}, times) all_{n} = Reshape(e{n}, whole)"
        for n in ("keys", "values")
    )
    body = f"{JOIN} {repeat} t = Transpose<perm = [0, 1, 3, 2]>(all_keys) m = MatMul(q, t) p_ = Softmax(m) "
    before = graph(f"{body} y = MatMul(p_, all_values)", given, OUT.replace("4, n", "2, n"))
    after, _ = optimised(before)
    assert operators(after) == {"Attention": 1}
    assert_same(before, after, fed(before), of_scale=3e-6)


STAYS = {
    "one of them turned around": PRODUCTS.replace("(pk, k)", "(k, pk)"),
    "keys alone": PRODUCTS.replace("values = Concat<axis = -2>(pv, v)", "values = Identity(pv)"),
    "read elsewhere": PRODUCTS + " more = Relu(keys)",
    "causal from the first query": f"{JOIN} y = Attention<is_causal = 1>(q, keys, values)",
    "joined along the heads": PRODUCTS.replace("axis = 2", "axis = 1").replace("axis = -2", "axis = 1"),
}


@pytest.mark.parametrize("name", STAYS)
def test_what_is_no_cache_stays(name: str) -> None:
    given, out = f"{NEW}, {PAST}", OUT
    if name == "read elsewhere":
        out += ", float[b, 4, n, 8] more"
    if name == "keys alone":
        given = given.replace("p, 8] pv", "n, 8] pv")
    if name == "joined along the heads":
        given, out = f"{NEW}, {PAST}".replace("p,", "s,"), OUT.replace("4, n", "8, s")
        given, out = given.replace("[b, 4, s, 8] q", "[b, 8, s, 8] q"), out.replace("4, s, 8] y", "8, s, 8] y")
    before = graph(STAYS[name], given, out)
    after, _ = optimised(before)
    assert not [value for node in after.graph.node if node.op_type == "Attention" for value in node.input[4:6]]
    assert_same(before, after, fed(before), of_scale=3e-6)


def test_prefixes_that_are_computed_are_no_cache() -> None:
    """Joint attention over two sequences: nobody hands the keys out, and nobody feeds them."""
    body = "pk = Relu(first) pv = Relu(second) " + PRODUCTS
    given = f"{NEW}, {PAST}".replace("pk", "first").replace("pv", "second")
    before = graph(body, given, OUT.split(", float[b, 4, n")[0])
    after, _ = optimised(before)
    assert operators(after) == {"Relu": 2, "Concat": 2, "Attention": 1}
    assert_same(before, after, fed(before), of_scale=3e-6)


@pytest.mark.parametrize("target", ["trt", "rtx"])
def test_tensorrt_gets_no_cache(target: str) -> None:
    before = graph(PRODUCTS)
    after, _ = optimised(before, target=target)
    assert operators(after) == {"Concat": 2, "Attention": 1}
    assert list(attention(after).output) == ["y"]
    assert_same(before, after, fed(before), of_scale=3e-6)
