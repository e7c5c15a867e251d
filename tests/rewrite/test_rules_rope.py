"""Rotary position embedding: tables of half the width, with the batch of what is rotated."""

from __future__ import annotations

import numpy as np
import onnx
import pytest

from tests.rewrite.support import assert_same, operators, optimised

X = "float[b, 4, s, 8] x"
FREQUENCIES = (10000.0 ** (-np.arange(4) / 4)).astype(np.float32)
TABLES = (
    "n = Shape<start = 2, end = 3>(x) e = Squeeze(n) r = Range(i0, e, i1) u = Unsqueeze(r, outer) f = Cast<to = 1>(u) "
    "a = Mul(f, freq) c2 = Concat<axis = -1>(a, a) cos3 = Cos(c2) sin3 = Sin(c2) cos = Unsqueeze(cos3, one) "
    "sin = Unsqueeze(sin3, one)"
)
ROTATE = (
    "left = Slice(x, zero, four, three) right = Slice(x, four, end, three) minus = Neg(right) "
    "turned = Concat<axis = -1>(minus, left) p = Mul(x, cos) q = Mul(turned, sin) y = Add(p, q)"
)


def graph(body: str, given: str = X) -> onnx.ModelProto:
    model = onnx.parser.parse_model(
        f'<ir_version: 10, opset_import: ["": 23]> g ({given}) => (float[b, 4, s, 8] y) {{ {body} }}'
    )
    known = {
        "i0": np.int64(0), "i1": np.int64(1), "outer": np.array([0, 2]), "one": np.array([1]), "zero": np.array([0]),
        "four": np.array([4]), "three": np.array([3]), "end": np.array([2**63 - 1]), "freq": FREQUENCIES,
        "other": FREQUENCIES * 2, "halves": np.array([4, 4]),
    }  # fmt: skip
    read = {name for node in model.graph.node for name in node.input}
    model.graph.initializer.extend(
        onnx.numpy_helper.from_array(np.asarray(known[name]), name) for name in sorted(read & set(known))
    )
    return model


def fed(model: onnx.ModelProto, b: int, s: int) -> dict[str, np.ndarray]:
    rng = np.random.default_rng(7)
    sizes = {"b": b, "s": s}
    return {
        v.name: rng.standard_normal([sizes.get(d.dim_param, d.dim_value) for d in v.type.tensor_type.shape.dim]).astype(
            np.float32
        )
        for v in model.graph.input
    }


SPLIT = ROTATE.replace(
    "left = Slice(x, zero, four, three) right = Slice(x, four, end, three)",
    "left, right = Split<axis = 3>(x, halves)",
)


@pytest.mark.parametrize("rotate", [ROTATE, SPLIT], ids=["Slice", "Split"])
@pytest.mark.parametrize(("b", "s"), [(1, 5), (3, 5), (2, 1)])
def test_rotate_half_becomes_the_operator_for_any_batch(rotate: str, b: int, s: int) -> None:
    before = graph(f"{TABLES} {rotate}")
    after, _ = optimised(before)
    assert operators(after)["RotaryEmbedding"] == 1
    assert "Neg" not in operators(after)
    assert_same(before, after, fed(before, b, s), of_scale=2e-6)


STAYS = {
    "halves that differ": (TABLES.replace("Concat<axis = -1>(a, a)", "Concat<axis = -1>(a, o)").replace(
        "c2 =", "o = Mul(f, other) c2 ="), ROTATE),
    "halves the wrong way": (TABLES, ROTATE.replace("(minus, left)", "(left, minus)")),
    "not negated": (TABLES, ROTATE.replace("Neg", "Abs")),
    "a table that is fed": ("", ROTATE),
}  # fmt: skip


@pytest.mark.parametrize("name", STAYS)
def test_what_only_looks_like_it_stays(name: str) -> None:
    tables, rotate = STAYS[name]
    before = graph(f"{tables} {rotate}", X if tables else f"{X}, float[1, 1, s, 8] cos, float[1, 1, s, 8] sin")
    after, _ = optimised(before)
    assert "RotaryEmbedding" not in operators(after)
    assert_same(before, after, fed(before, 2, 3), of_scale=2e-6)


@pytest.mark.parametrize("level", [1, 2])
def test_tables_of_batch_1_are_broadcast(level: int) -> None:
    """As torch 2.13 writes them at opset 23, and as they run with batch 1 only."""
    before = graph("y = RotaryEmbedding(x, cos, sin)", f"{X}, float[1, s, 4] cos, float[1, s, 4] sin")
    after, changes = optimised(before, level=level)
    assert changes.by_rule()["rope-batch"] == 1
    assert_same(before, after, fed(before, 1, 5))
    whole = graph("y = RotaryEmbedding(x, cos, sin)", f"{X}, float[b, s, 4] cos, float[b, s, 4] sin")
    feeds = fed(before, 3, 5)
    wide = {name: np.broadcast_to(value, (3, *value.shape[1:])) for name, value in feeds.items() if name != "x"}
    from tests.rewrite.support import run

    (expected,) = run(whole, {**feeds, **{k: np.ascontiguousarray(v) for k, v in wide.items()}})
    (found,) = run(after, feeds)
    np.testing.assert_array_equal(found, expected)


WIDE = "float[b, 4, s, 12] x"
PARTS = {
    "Slice": "head = Slice(x, zero, eight, three) tail = Slice(x, eight, end, three)",
    "Split": "head, tail = Split<axis = -1>(x, parts)",
    "counted from the end": "head = Slice(x, zero, fromend, three) tail = Slice(x, fromend, end, last)",
}
PARTIAL = f"{{}} {TABLES} {ROTATE} whole = Concat<axis = -1>(y, tail)".replace("(x, zero, four", "(head, zero, four")
PARTIAL = PARTIAL.replace("(x, four, end", "(head, four, end").replace("Mul(x, cos)", "Mul(head, cos)")


def partial(body: str) -> onnx.ModelProto:
    model = graph(body, WIDE)
    model.graph.output[0].name = "whole"
    model.graph.output[0].type.tensor_type.shape.dim[3].dim_value = 12
    more = {"eight": [8], "parts": [8, 4], "fromend": [-4], "last": [-1], "five": [5], "nine": [9]}
    read = {name for node in model.graph.node for name in node.input}
    model.graph.initializer.extend(
        onnx.numpy_helper.from_array(np.array(more[name]), name) for name in sorted(read & set(more))
    )
    return model


@pytest.mark.parametrize("name", PARTS)
@pytest.mark.parametrize(("b", "s"), [(1, 5), (3, 2)])
def test_the_first_numbers_rotated_and_the_others_kept_are_one_operator(name: str, b: int, s: int) -> None:
    before = partial(PARTIAL.format(PARTS[name]))
    after, _ = optimised(before)
    (rotary,) = (n for n in after.graph.node if n.op_type == "RotaryEmbedding")
    assert {a.name: a.i for a in rotary.attribute}["rotary_embedding_dim"] == 8
    assert not {"Slice", "Split"} & set(operators(after))
    assert_same(before, after, fed(before, b, s), of_scale=2e-6)


def test_other_numbers_behind_the_rotated_ones_are_no_part_of_them() -> None:
    before = partial(PARTIAL.format("head = Slice(x, zero, eight, three) tail = Slice(x, five, nine, three)"))
    after, changes = optimised(before)
    assert operators(after)["Concat"] >= 1
    assert any(miss.rule == "rope-partial" for miss in changes.missed)
    assert_same(before, after, fed(before, 2, 3), of_scale=2e-6)


TWICE = {
    "Expand": "u2 = Unsqueeze(a, last) w2 = Expand(u2, pair) c2 = Reshape(w2, rows)",
    "Tile": "u2 = Unsqueeze(a, last) w2 = Tile(u2, tiles) c2 = Reshape(w2, rows)",
    "stacked": "u2 = Unsqueeze(a, last) w2 = Concat<axis = -1>(u2, u2) c2 = Reshape(w2, rows)",
}
STACK = (
    "even = Slice(x, zero, end, three, two) odd = Slice(x, one, end, three, two) minus = Neg(odd) "
    "ue = Unsqueeze(even, last) uo = Unsqueeze(minus, last) st = Concat<axis = -1>(uo, ue) turned = Reshape(st, same) "
    "p = Mul(x, cos) q = Mul(turned, sin) y = Add(p, q)"
)


def interleaved(body: str, given: str = X) -> onnx.ModelProto:
    model = graph(body, given)
    more = {
        "last": [-1],
        "pair": [1, 1, 1, 2],
        "tiles": [1, 1, 1, 2],
        "rows": [0, 0, 8],
        "same": [0, 0, 0, 8],
        "two": [2],
    }
    read = {name for node in model.graph.node for name in node.input}
    model.graph.initializer.extend(
        onnx.numpy_helper.from_array(np.array(more[name]), name) for name in sorted(read & set(more))
    )
    return model


@pytest.mark.parametrize("name", TWICE)
@pytest.mark.parametrize(("b", "s"), [(1, 5), (3, 2)])
def test_interleaved_pairs_become_the_operator(name: str, b: int, s: int) -> None:
    before = interleaved(f"{TABLES.replace('c2 = Concat<axis = -1>(a, a)', TWICE[name])} {STACK}")
    after, _ = optimised(before)
    (rotary,) = (n for n in after.graph.node if n.op_type == "RotaryEmbedding")
    assert {a.name: a.i for a in rotary.attribute}["interleaved"] == 1
    assert "Neg" not in operators(after)
    assert_same(before, after, fed(before, b, s), of_scale=2e-6)


DOUBLED = TABLES.replace("c2 = Concat<axis = -1>(a, a)", TWICE["Tile"])
NOT_INTERLEAVED = {
    "tables of equal halves": (TABLES, STACK),
    "stacked the wrong way": (DOUBLED, STACK.replace("uo, ue", "ue, uo")),
    "every second from the same": (DOUBLED, STACK.replace("odd = Slice(x, one", "odd = Slice(x, zero")),
}


@pytest.mark.parametrize("name", NOT_INTERLEAVED)
def test_what_only_looks_interleaved_stays(name: str) -> None:
    before = interleaved(" ".join(NOT_INTERLEAVED[name]))
    after, _ = optimised(before)
    assert "RotaryEmbedding" not in operators(after)
    assert_same(before, after, fed(before, 2, 3), of_scale=2e-6)
