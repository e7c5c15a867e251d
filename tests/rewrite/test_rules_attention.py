"""Attention, its heads and masks, rotary embedding and merged projections: from what exporters write."""

from __future__ import annotations

from typing import Any

import numpy as np
import onnx
import pytest

from tests.rewrite.support import assert_same, operators, optimised

B, S, H, D = 2, 5, 4, 8
HEADS = "float[b, 4, s, 8] q, float[b, 4, s, 8] k, float[b, 4, s, 8] v"
OUT = "float[b, 4, s, 8] y"
TURN = "t = Transpose<perm = [0, 1, 3, 2]>(k)"
_RNG = np.random.default_rng(5)

NUMBERS: dict[str, Any] = {
    "scale": np.float32(D**-0.5), "root": np.float32(D**-0.25), "width": np.float32(D**0.5), "zero": np.float32(0),
    "low": np.float32(np.finfo(np.float32).min), "inf": np.float32([-np.inf]), "minus": np.float32(-1),
    "i0": np.int64(0), "i1": np.int64(1), "first": np.array([0]), "second": np.array([1]), "third": np.array([2]),
    "rows": np.array([0, 1]), "heads": np.array([0, 0, H, D]), "flat": np.array([0, 0, H * D]),
    "pairs": np.array([0, 0, 2, D]), "behind": np.array([1, 2, 3]), "front": np.array([0, 1, 2]),
    "half": np.array([D // 2]), "end": np.array([2**63 - 1]), "lastaxis": np.array([3]),
    "bias": _RNG.standard_normal((1, H, S, S)).astype(np.float32),
    "tril": np.tril(np.ones((1, 1, 16, 16), bool)), "triu": np.triu(np.ones((S, S), bool)),
}  # fmt: skip
WEIGHTS = {f"w{n}": _RNG.standard_normal((H * D, H * D)).astype(np.float32) * 0.2 for n in "qkvo"}
BIASES = {f"b{n}": _RNG.standard_normal(H * D).astype(np.float32) for n in "qkvo"}


def graph(body: str, given: str = HEADS, out: str = OUT, opset: int = 24, **more: Any) -> onnx.ModelProto:
    model = onnx.parser.parse_model(
        f'<ir_version: 10, opset_import: ["": {opset}]> g ({given}) => ({out}) {{ {body} }}'
    )
    known = NUMBERS | WEIGHTS | BIASES | more
    read = {name for node in model.graph.node for name in node.input} - {i.name for i in model.graph.input}
    made = {name for node in model.graph.node for name in node.output}
    for name in sorted((read & set(known)) - made):
        model.graph.initializer.append(onnx.numpy_helper.from_array(np.asarray(known[name]), name))
    return model


def fed(model: onnx.ModelProto, b: int = B, s: int = S) -> dict[str, Any]:
    rng = np.random.default_rng(6)
    feeds: dict[str, Any] = {}
    for value in model.graph.input:
        dims = value.type.tensor_type.shape.dim
        shape = [{"b": b, "s": s}.get(d.dim_param, d.dim_value) for d in dims]
        if value.type.tensor_type.elem_type == onnx.TensorProto.FLOAT:
            feeds[value.name] = rng.standard_normal(shape).astype(np.float32)
        else:  # a mask under which every query has a key
            kept = rng.integers(0, 2, shape)
            kept[..., 0] = 1
            feeds[value.name] = kept.astype(bool if value.type.tensor_type.elem_type == 9 else np.int64)
    return feeds


SPELLINGS = {
    "scale behind": f"{TURN} m = MatMul(q, t) c = Mul(m, scale) p = Softmax(c) y = MatMul(p, v)",
    "divided": f"{TURN} m = MatMul(q, t) c = Div(m, width) p = Softmax(c) y = MatMul(p, v)",
    "on the queries": f"{TURN} a = Mul(scale, q) m = MatMul(a, t) p = Softmax(m) y = MatMul(p, v)",
    "on the keys": "a = Mul(k, scale) t = Transpose<perm = [0, 1, 3, 2]>(a) m = MatMul(q, t) "
    "p = Softmax(m) y = MatMul(p, v)",
    "on both": f"{TURN} a = Mul(q, root) c = Mul(t, root) m = MatMul(a, c) p = Softmax(m) y = MatMul(p, v)",
    "NaN guard": f"{TURN} m = MatMul(q, t) c = Mul(m, scale) p = Softmax(c) n = IsNaN(p) "
    "w = Where(n, zero, p) y = MatMul(w, v)",
    "none at all": f"{TURN} m = MatMul(q, t) p = Softmax<axis = 3>(m) y = MatMul(p, v)",
}  # fmt: skip


@pytest.mark.parametrize("name", SPELLINGS)
def test_products_and_softmax_become_attention(name: str) -> None:
    before = graph(SPELLINGS[name])
    after, _ = optimised(before)
    assert operators(after) == {"Attention": 1}
    for b, s in ((2, 5), (3, 1)):
        assert_same(before, after, fed(before, b, s), of_scale=3e-6)


MASKS = {
    "float": (f"{HEADS}, float[b, 1, s, s] mask", "a = Add(c, mask)", {}),
    "heads of their own": (HEADS.replace("s,", "5,"), "a = Add(bias, c)", {}),
    "boolean": (f"{HEADS}, bool[b, 1, s, s] mask", "a = Where(mask, c, inf)", {}),
    "boolean, the other way": (f"{HEADS}, bool[b, 1, s, s] mask", "n = Not(mask) a = Where(n, inf, c)", {}),
    "Where added": (f"{HEADS}, bool[b, 1, s, s] mask", "n = Where(mask, zero, low) a = Add(c, n)", {"Where": 1}),
}


@pytest.mark.parametrize("name", MASKS)
def test_masks(name: str) -> None:
    given, body, beside = MASKS[name]
    out = OUT.replace("s,", "5,") if "5," in given else OUT
    before = graph(f"{TURN} m = MatMul(q, t) c = Mul(m, scale) {body} p = Softmax(a) y = MatMul(p, v)", given, out)
    after, _ = optimised(before)
    assert operators(after) == {"Attention": 1, **beside}
    assert_same(before, after, fed(before), of_scale=3e-6)


RANGES = (
    "z = Shape<start = 2, end = 3>(q) n = Squeeze(z) r = Range(i0, n, i1) row = Unsqueeze(r, front) "
    "col = Unsqueeze(r, cols) "
)
CAUSAL = {
    "ranges": f"{RANGES} low_ = LessOrEqual(row, col) a = Where(low_, c, inf)",
    "ranges, turned": f"{RANGES} low_ = GreaterOrEqual(col, row) n_ = Where(low_, zero, low) a = Add(c, n_)",
    "not above": f"{RANGES} up = Greater(row, col) low_ = Not(up) a = Where(low_, c, inf)",
    "corner of a constant": "z = Shape<start = 2, end = 3>(q) zz = Concat<axis = 0>(z, z) "
    "low_ = Slice(tril, rows0, zz, axes23) a = Where(low_, c, inf)",
}
MORE = {"cols": np.array([0, 1, 3]), "rows0": np.array([0, 0]), "axes23": np.array([2, 3])}


@pytest.mark.parametrize("name", CAUSAL)
def test_a_mask_that_is_only_causal_is_said_so(name: str) -> None:
    body = f"{TURN} m = MatMul(q, t) c = Mul(m, scale) {CAUSAL[name]} p = Softmax(a) y = MatMul(p, v)"
    before = graph(body, **MORE)
    after, _ = optimised(before)
    assert operators(after) == {"Attention": 1}
    assert {a.name: a.i for a in after.graph.node[-1].attribute}["is_causal"] == 1
    assert_same(before, after, fed(before), of_scale=3e-6)


@pytest.mark.parametrize(
    "body",
    [
        f"{RANGES} low_ = Less(row, col) a = Where(low_, c, low)",
        f"{RANGES} low_ = LessOrEqual(col, row) a = Where(low_, c, inf)",
        "a = Where(triu, c, inf)",
    ],
    ids=["strictly below", "above", "constant above"],
)
def test_a_mask_that_is_nearly_causal_stays_a_mask(body: str) -> None:
    given = HEADS.replace("s,", "5,")
    body = f"{TURN} m = MatMul(q, t) c = Mul(m, scale) {body} p = Softmax(a) y = MatMul(p, v)"
    before = graph(body, given, OUT.replace("s,", "5,"), **MORE)
    after, _ = optimised(before)
    (attention,) = (n for n in after.graph.node if n.op_type == "Attention")
    assert {a.name: a.i for a in attention.attribute}["is_causal"] == 0
    feeds = fed(before)
    first = slice(1, None) if "Less(" in body else slice(None)  # the first query has no key at all
    for old, new in zip(*(onnx_run(m, feeds) for m in (before, after)), strict=True):
        np.testing.assert_allclose(new[:, :, first], old[:, :, first], atol=1e-5)


def onnx_run(model: onnx.ModelProto, feeds: dict[str, Any]) -> list[Any]:
    from tests.rewrite.support import run

    return run(model, feeds)


APART = {
    "softmax over another axis": f"{TURN} m = MatMul(q, t) p = Softmax<axis = 2>(m) y = MatMul(p, v)",
    "negative scale": f"{TURN} m = MatMul(q, t) c = Mul(m, minus) p = Softmax(c) y = MatMul(p, v)",
    "weights read elsewhere": f"{TURN} m = MatMul(q, t) p = Softmax(m) y = MatMul(p, v) z = Identity(p)",
    "something else between": f"{TURN} m = MatMul(q, t) c = Tanh(m) p = Softmax(c) y = MatMul(p, v)",
    "small number added": f"{TURN} m = MatMul(q, t) g = Greater(m, zero) c = Where(g, m, minus) "
    "p = Softmax(c) y = MatMul(p, v)",
}  # fmt: skip


@pytest.mark.parametrize("name", APART)
def test_what_is_no_attention_stays(name: str) -> None:
    out = f"{OUT}, float[b, 4, s, s] z" if "elsewhere" in name else OUT
    before = graph(APART[name], out=out)
    after, changes = optimised(before)
    assert "Attention" not in operators(after)
    assert name == "softmax over another axis" or any(miss.rule == "attention" for miss in changes.missed)
    assert_same(before, after, fed(before), of_scale=3e-6)


def test_keys_of_another_batch_are_not_fused() -> None:
    given = "float[b, 4, s, 8] q, float[1, 4, s, 8] k, float[1, 4, s, 8] v"
    before = graph(SPELLINGS["scale behind"], given)
    after, _ = optimised(before)
    assert "Attention" not in operators(after)
    assert_same(before, after, fed(before), of_scale=3e-6)


PROJECT = " ".join(f"m{n} = MatMul(x, w{n}) a{n} = Add(m{n}, b{n}) r{n} = Reshape(a{n}, heads)" for n in "qkv")
SPLIT = " ".join(f"{n} = Transpose<perm = [0, 2, 1, 3]>(r{n})" for n in "qkv")
JOIN = "o = Transpose<perm = [0, 2, 1, 3]>(y4) f = Reshape(o, flat) z = MatMul(f, wo) y = Add(z, bo)"
BLOCK = f"{PROJECT} {SPLIT} {SPELLINGS['scale behind'].replace('y = MatMul', 'y4 = MatMul')} {JOIN}"
ROWS = ("float[b, s, 32] x", "float[b, s, 32] y")


def test_a_block_is_one_projection_and_attention_of_three_axes() -> None:
    before = graph(BLOCK, *ROWS)
    after, _ = optimised(before)
    assert operators(after) == {"MatMul": 2, "Add": 2, "Split": 1, "Attention": 1}
    for b, s in ((2, 5), (1, 9)):
        assert_same(before, after, fed(before, b, s), of_scale=5e-6)


def test_tensorrt_merges_projections_itself() -> None:
    after, _ = optimised(graph(BLOCK, *ROWS), target="rtx")
    assert operators(after) == {"MatMul": 4, "Add": 4, "Attention": 1}


def test_two_projections_without_bias_are_not_merged() -> None:
    before = graph("a = MatMul(x, wq) c = MatMul(x, wk) s_ = Sigmoid(a) y = Mul(s_, c)", *ROWS)
    after, _ = optimised(before)
    assert operators(after)["MatMul"] == 2


def test_a_weight_that_something_else_reads_is_not_merged() -> None:
    before = graph("a = MatMul(x, wq) c = MatMul(x, wk) d = MatMul(x, wv) e = Max(a, c, d) y = MatMul(e, wq)", *ROWS)
    after, _ = optimised(before)
    assert "Split" not in operators(after)
    assert_same(before, after, fed(before), of_scale=3e-6)


def test_heads_that_something_else_reads_are_split_for_it_too() -> None:
    before = graph(f"{BLOCK} g = Relu(q)", *ROWS[:1], f"{ROWS[1]}, float[b, 4, s, 8] g")
    after, _ = optimised(before)
    assert operators(after)["Attention"] == 1
    assert_same(before, after, fed(before), of_scale=5e-6)


def test_repeated_heads_of_keys_are_grouped_queries() -> None:
    few = "float[b, 4, s, 8] q, float[b, 2, s, 8] k0, float[b, 2, s, 8] v0"
    repeat = (
        "z = Shape<start = 0, end = 1>(q) n = Shape<start = 2, end = 3>(q) w = Concat<axis = 0>(z, two, two, n, eight) "
        + (" ".join(f"u{n} = Unsqueeze({n}0, third) e{n} = Expand(u{n}, w) {n} = Reshape(e{n}, whole)" for n in "kv"))
    )
    more = {"two": np.array([2]), "eight": np.array([8]), "whole": np.array([0, 4, -1, 8])}
    before = graph(f"{repeat} {SPELLINGS['scale behind']}", few, **more)
    after, _ = optimised(before)
    assert operators(after) == {"Attention": 1}
    assert_same(before, after, fed(before), of_scale=3e-6)


def test_heads_repeated_as_a_whole_are_not_grouped_queries() -> None:
    """k0 k1 k0 k1 is not k0 k0 k1 k1."""
    few = "float[b, 4, s, 8] q, float[b, 2, s, 8] k0, float[b, 2, s, 8] v0"
    body = f"k = Concat<axis = 1>(k0, k0) v = Concat<axis = 1>(v0, v0) {SPELLINGS['scale behind']}"
    before = graph(body, few)
    after, _ = optimised(before)
    assert operators(after) == {"Attention": 1, "Concat": 2}
    assert_same(before, after, fed(before), of_scale=3e-6)


def test_a_mask_gathered_at_every_index_is_the_mask() -> None:
    grid = (
        "zb = Shape<start = 0, end = 1>(mask) nb = Squeeze(zb) rb = Range(i0, nb, i1) ub = Unsqueeze(rb, behind) "
        "zk = Shape<start = 1, end = 2>(mask) nk = Squeeze(zk) rk = Range(i0, nk, i1) uk = Unsqueeze(rk, front) "
        "mx = Max(ub, uk) sh = Shape(mx) eb = Expand(ub, sh) ek = Expand(uk, sh) lb = Unsqueeze(eb, minus1) "
        "lk = Unsqueeze(ek, minus1) at = Concat<axis = -1>(lb, lk) y = GatherND(mask, at)"
    )
    before = graph(grid, "bool[b, s] mask", "bool[b, 1, 1, s] y", minus1=np.array([-1]))
    after, _ = optimised(before)
    assert operators(after) == {"Unsqueeze": 1}
    for b, s in ((2, 5), (5, 2)):
        assert_same(before, after, fed(before, b, s))


def test_a_mask_gathered_from_its_flat_form_is_the_mask() -> None:
    grid = (
        "zb = Shape<start = 0, end = 1>(mask) nb = Squeeze(zb) rb = Range(i0, nb, i1) ub = Unsqueeze(rb, behind) "
        "zk = Shape<start = 1, end = 2>(mask) nk = Squeeze(zk) rk = Range(i0, nk, i1) uk = Unsqueeze(rk, front) "
        "f = Flatten<axis = 2>(mask) p = Mul(ub, zk) at = Add(uk, p) g = Gather(f, at) y = Squeeze(g, minus1)"
    )
    before = graph(grid, "bool[b, s] mask", "bool[b, 1, 1, s] y", minus1=np.array([-1]))
    after, _ = optimised(before)
    assert "Gather" not in operators(after)
    assert_same(before, after, fed(before, 3, 4))


def test_rows_of_a_table_in_order_are_a_slice() -> None:
    table = _RNG.standard_normal((16, 8)).astype(np.float32)
    body = "n = Shape<start = 1, end = 2>(x) i = Slice(order, first, n, second) p = Gather(table, i) y = Add(x, p)"
    before = graph(body, "float[b, s, 8] x", "float[b, s, 8] y", table=table, order=np.arange(16)[None])
    after, _ = optimised(before)
    assert operators(after) == {"Shape": 1, "Slice": 1, "Add": 1}
    assert_same(before, after, fed(before))


def test_rows_in_another_order_stay_gathered() -> None:
    table = _RNG.standard_normal((16, 8)).astype(np.float32)
    body = "n = Shape<start = 1, end = 2>(x) i = Slice(order, first, n, second) p = Gather(table, i) y = Add(x, p)"
    before = graph(body, "float[b, s, 8] x", "float[b, s, 8] y", table=table, order=np.arange(16)[None, ::-1].copy())
    after, _ = optimised(before)
    assert operators(after)["Gather"] == 1
    assert_same(before, after, fed(before))
