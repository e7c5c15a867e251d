"""For TensorRT, operators get the forms that it takes: the same numbers, and its parser and builder take them."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import onnx
import onnx_ir as ir
import pytest

from fixtures import legal_table
from fixtures.legal_variants import VARIANTS, attention
from graphkit import marks
from graphkit.model import Model, Origin
from tests.rewrite.support import assert_same, operators, optimised, run

FREE = {"batch": 3, "seq": 5}
TYPES = {1: np.float32, 10: np.float16}


def fed(model: onnx.ModelProto) -> dict[str, Any]:
    rng = np.random.default_rng(4)
    feeds: dict[str, Any] = {}
    for value in model.graph.input:
        kind = value.type.tensor_type.elem_type
        shape = [FREE.get(d.dim_param, d.dim_value) for d in value.type.tensor_type.shape.dim]
        if kind in TYPES:
            feeds[value.name] = rng.standard_normal(shape).astype(TYPES[kind])
        elif kind == onnx.TensorProto.BOOL:
            feeds[value.name] = rng.integers(0, 2, shape).astype(bool)
            feeds[value.name][..., 0] = True
        else:
            feeds[value.name] = rng.integers(1, 5, shape)
    return feeds


@pytest.mark.parametrize("name", [n for n in VARIANTS if n != "RotaryEmbedding, tables of batch 1"])
def test_the_same_numbers(name: str) -> None:
    before = VARIANTS[name]()
    after, _ = optimised(before, level=0, target="rtx")
    assert_same(before, after, fed(before), of_scale=2e-3 if "float16" in name else 2e-6)


@pytest.mark.parametrize("name", VARIANTS)
def test_other_targets_change_nothing(name: str) -> None:
    before = VARIANTS[name]()
    after, changes = optimised(before, level=0)
    assert operators(after) == operators(before)
    assert not [rule for rule in changes.by_rule() if rule.startswith("legal")]


def test_valid_keys_become_a_mask_because_tensorrt_ignores_their_number() -> None:
    before = attention(length=True)
    after, _ = optimised(before, level=0, target="rtx")
    (node,) = (n for n in after.graph.node if n.op_type == "Attention")
    assert len(node.input) == 4
    feeds = fed(before)
    feeds["length"] = np.array([1, 4])
    assert_same(before, after, feeds, of_scale=2e-6)
    changed = feeds | {"v": np.where(np.arange(6)[:, None] >= 4, 99.0, feeds["v"]).astype(np.float32)}
    np.testing.assert_array_equal(run(after, changed)[0], run(after, feeds)[0])


def test_what_is_counted_from_the_end_of_the_keys_is_left_and_said() -> None:
    before = attention(length=True, is_causal=1)
    after, changes = optimised(before, level=0, target="rtx")
    assert operators(after) == {"Attention": 1}
    assert any(miss.rule == "legal-attention-length" for miss in changes.missed)


def test_axes_that_are_fed_are_left_and_said() -> None:
    text = (
        '<ir_version: 10, opset_import: ["": 24]> g (float[2, 3] x, int64[1] a) => (float[m, k] y) '
        "{ y = ReduceSum(x, a) }"
    )
    after, changes = optimised(onnx.parser.parse_model(text), level=0, target="rtx")
    assert operators(after) == {"ReduceSum": 1}
    assert any(miss.rule == "legal-axes" for miss in changes.missed)


def test_marking_makes_another_model_and_shares_its_weights() -> None:
    proto = onnx.parser.parse_model(
        '<ir_version: 11, opset_import: ["": 24]> g (float[2, 4, 5, 8] q) => (float[2, 4, 5, 8] y) '
        "{ y = Attention(q, k, k) }"
    )
    proto.graph.initializer.append(onnx.numpy_helper.from_array(np.ones((2, 4, 5, 8), np.float32), "k"))
    plain = Model(ir.from_proto(proto), Origin("onnx file"))
    marked = marks.mark(plain)
    assert [marks.DECOMPOSABLE in n.attributes for m in (plain, marked) for n in m.ir.graph] == [False, True]
    weights = [m.ir.graph.initializers["k"].const_value for m in (plain, marked)]
    assert weights[0] is weights[1]
    assert marks.mark(marked) is marked
    onnx.checker.check_model(ir.to_proto(plain.ir))
    with pytest.raises(onnx.checker.ValidationError, match="Unrecognized attribute"):
        onnx.checker.check_model(ir.to_proto(marked.ir))


def test_constants_get_the_rank_of_what_they_meet_for_tensorrt_only() -> None:
    text = (
        '<ir_version: 10, opset_import: ["": 24]> g (float[n, 3, 4] x) => (float[n, 3, 4] y) '
        "<float[4] b = {1, 2, 3, 4}> { a = Add(x, b) y = Tanh(a) }"
    )
    before = onnx.parser.parse_model(text)
    feeds = {"x": np.random.default_rng(0).standard_normal((2, 3, 4)).astype(np.float32)}
    for target, rank in (("rtx", 3), ("onnx", 1)):
        after, _ = optimised(before, target=target)
        assert len(after.graph.initializer[0].dims) == rank
        assert_same(before, after, feeds)


@pytest.mark.slow
def test_tensorrt_takes_every_variant(tmp_path: Path) -> None:
    pytest.importorskip("tensorrt_rtx")
    refused = {name: outcome.after for name, outcome in legal_table.variants().items() if outcome.after}
    assert refused == {}
