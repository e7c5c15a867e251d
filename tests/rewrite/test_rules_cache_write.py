"""Rows written into a cache of fixed length, as torch writes them, become TensorScatter."""

from __future__ import annotations

from typing import Any

import numpy as np
import onnx
import pytest

from tests.rewrite.support import assert_same, operators, optimised

GIVEN = "float[b, 4, 16, 8] cache, float[b, 4, {n}, 8] new"
OUT = "float[b, 4, 16, 8] y"
ROWS = (
    "at = Unsqueeze({p}, last) t = Transpose<perm = [2, 0, 1, 3]>(cache) u = Transpose<perm = [2, 0, 1, 3]>(new) "
    "w = ScatterND(t, at, u) y = Transpose<perm = [1, 2, 0, 3]>(w)"
)
SWAPPED = ROWS.replace("[2, 0, 1, 3]", "[2, 1, 0, 3]").replace("[1, 2, 0, 3]", "[2, 1, 0, 3]")
ELEMENTS = (
    "at = Unsqueeze({p}, around) s_ = Shape(new) wide = Expand(at, s_) y = ScatterElements<axis = 2>(cache, wide, new)"
)
NUMBERS: dict[str, Any] = {
    "last": np.array([-1]), "around": np.array([0, 1, 3]), "rows": np.array([5, 6, 7]), "gaps": np.array([5, 7, 8]),
    "behind": np.array([-3, -2, -1]), "i1": np.int64(1), "three": np.int64(3),
}  # fmt: skip


def graph(body: str, given: str) -> onnx.ModelProto:
    text = f'<ir_version: 10, opset_import: ["": 24]> g ({given}) => ({OUT}) {{ {body} }}'
    model = onnx.parser.parse_model(text)
    read = {name for node in model.graph.node for name in node.input}
    model.graph.initializer.extend(
        onnx.numpy_helper.from_array(np.asarray(NUMBERS[name]), name) for name in sorted(read & set(NUMBERS))
    )
    return model


def fed(model: onnx.ModelProto, b: int, position: int = 5) -> dict[str, Any]:
    rng = np.random.default_rng(3)
    feeds: dict[str, Any] = {}
    for value in model.graph.input:
        shape = [b if d.dim_param else d.dim_value for d in value.type.tensor_type.shape.dim]
        is_float = value.type.tensor_type.elem_type == onnx.TensorProto.FLOAT
        feeds[value.name] = rng.standard_normal(shape).astype(np.float32) if is_float else np.full(shape, position)
    return feeds


@pytest.mark.parametrize("body", [ROWS, SWAPPED, ELEMENTS], ids=["rows", "swapped", "elements"])
@pytest.mark.parametrize("kind", ["one row that is fed", "constant rows", "a Range"])
def test_rows_in_order_become_one_write(body: str, kind: str) -> None:
    more, given, position = "", GIVEN.format(n=3), "rows"
    if kind == "one row that is fed":
        given, position = GIVEN.format(n=1) + ", int64[1] place", "place"
    elif kind == "a Range":
        more = "z = Shape(seen) f = Squeeze(z) e = Add(f, three) p = Range(f, e, i1) "
        given, position = given + ", float[m] seen", "p"
    before = graph(more + body.format(p=position), given)
    after, changes = optimised(before)
    assert operators(after)["TensorScatter"] == 1
    assert not operators(after).keys() & {"ScatterND", "ScatterElements", "Transpose"}
    assert set(changes.by_rule()) & {"cache-write", "cache-write-elements"}
    for b, place in ((1, 0), (3, 12)):
        assert_same(before, after, fed(before, b, place))


STAYS = {"rows with a gap": "gaps", "rows from the end": "behind"}


@pytest.mark.parametrize("body", [ROWS, ELEMENTS], ids=["rows", "elements"])
@pytest.mark.parametrize("name", STAYS)
def test_other_rows_are_scattered(body: str, name: str) -> None:
    before = graph(body.format(p=STAYS[name]), GIVEN.format(n=3))
    after, changes = optimised(before)
    assert "TensorScatter" not in operators(after)
    assert any(miss.rule.startswith("cache-write") for miss in changes.missed)
    assert_same(before, after, fed(before, 2))


@pytest.mark.parametrize("body", [ROWS, ELEMENTS], ids=["rows", "elements"])
def test_what_is_added_or_for_tensorrt_is_scattered(body: str) -> None:
    adding = body.replace("ScatterND(", 'ScatterND<reduction = "add">(').replace(
        "axis = 2>", 'axis = 2, reduction = "add">'
    )
    for text, target in ((adding, "onnx"), (body, "rtx")):
        before = graph(text.format(p="rows"), GIVEN.format(n=3))
        after, _ = optimised(before, target=target)
        assert "TensorScatter" not in operators(after)
        assert_same(before, after, fed(before, 2))
