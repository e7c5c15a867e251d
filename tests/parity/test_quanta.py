"""One step of quantisation is a rounding; two are a fault."""

from __future__ import annotations

import numpy as np
import pytest
from onnx import parser

from graphkit.model import Model, Origin
from graphkit.parity.quanta import WithinOneStep, is_quantised, steps_of


def model(body: str) -> Model:
    import onnx_ir as ir

    constants = "float s = {0.5}, int8 z = {3}"
    text = f'<ir_version: 10, opset_import: ["" : 20]>\ng (float[n, 4] x) => (out) <{constants}> {{ {body} }}'
    return Model(ir.from_proto(parser.parse_model(text)), Origin("test"))


@pytest.mark.parametrize(
    ("body", "step"),
    [
        ("out = QuantizeLinear (x, s, z)", 1.0),
        ("q = QuantizeLinear (x, s, z)  out = Transpose (q)", 1.0),
        ("q = QuantizeLinear (x, s, z)  out = DequantizeLinear (q, s, z)", 0.5),
        ("q = QuantizeLinear (x, s, z)  d = DequantizeLinear (q, s, z)  out = Softmax (d)", None),
        ("out = Neg (x)", None),
    ],
)
def test_the_step_of_an_output_is_read_from_the_graph(body, step):
    graph = model(body)
    assert is_quantised(graph) == ("QuantizeLinear" in body)
    assert steps_of(graph) == ({} if step is None else {"out": pytest.approx(step)})


@pytest.mark.parametrize(
    ("found", "status"),
    [([-128, 0, 127], "pass"), ([-127, 1, 126], "pass"), ([-126, 0, 127], "fail"), ([127, 0, 127], "fail")],
)
def test_one_step_passes_and_two_do_not(found, status):
    judge = WithinOneStep({"y": 1.0})
    judgement = judge({"y": np.int8([-128, 0, 127])}, {"y": np.int8(found)})
    assert [o.status for o in judgement.outputs] == [status]
    assert "`y` by 1" in judgement.notes[0]


def test_an_output_that_is_not_quantised_keeps_its_tolerance():
    judge = WithinOneStep({"y": 1.0})
    one, other = np.float32([1.0, 2.0]), np.float32([1.0, 2.1])
    assert [o.status for o in judge({"z": one}, {"z": one}).outputs] == ["pass"]
    assert [o.status for o in judge({"z": one}, {"z": other}).outputs] == ["fail"]


def test_outputs_of_one_side_alone_fail():
    judge = WithinOneStep({"y": 1.0})
    y = np.int8([1])
    assert [(o.output, o.status) for o in judge({"y": y}, {}).outputs] == [("y", "fail")]
    assert [(o.output, o.status) for o in judge({}, {"w": y}).outputs] == [("w", "fail")]
