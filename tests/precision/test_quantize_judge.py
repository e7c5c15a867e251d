"""The tolerance of a quantised precision: rounding passes, a wrong layer does not."""

from __future__ import annotations

import numpy as np
import pytest

from fixtures.precision_models import residual
from graphkit.errors import BadOption
from graphkit.parity.metrics import parse_condition
from graphkit.precision import quantize
from graphkit.precision.quant_judge import QuantisedJudge
from tests.precision.quantised import model, outputs, samples

F = np.float32
GOOD = {"y": np.array([[1, 2, -3], [0.5, 1, 0]], F), "label": np.array([1, 2], np.int64)}


def status(found: dict[str, np.ndarray], **options) -> dict[str, str]:
    judgement = QuantisedJudge("int8", **options)({k: GOOD[k] for k in found}, found)
    return {o.output: o.status for o in judgement.outputs}


def test_a_quantised_model_passes_and_a_broken_one_does_not():
    source = model(residual())
    rows = samples(source)
    lowered = quantize.lower(source, "int8", rows).model
    expected, found = outputs(source, rows[0]), outputs(lowered, rows[0])
    assert QuantisedJudge("int8")(expected, found).outputs[0].status == "pass"
    scale = lowered.ir.graph.initializers["two.out_scale"]
    scale.const_value = type(scale.const_value)(scale.const_value.numpy() * F(200), name=scale.name)
    (broken,) = QuantisedJudge("int8")(expected, outputs(lowered, rows[0])).outputs
    assert broken.status == "fail"
    assert "was asked for" in broken.reason


@pytest.mark.parametrize(
    ("change", "verdict"),
    [
        (lambda y: y * F(1.01), "pass"),
        (lambda y: y * F(1.5), "fail"),  # the cosine is 1, the error is not
        (lambda y: -y, "fail"),
        (lambda y: y[:1], "fail"),
        (lambda y: np.where(y == 2, np.nan, y).astype(F), "fail"),
        (lambda y: np.where(y == 2, np.inf, y).astype(F), "fail"),
    ],
)
def test_float_outputs_are_judged_as_a_whole(change, verdict):
    assert status({"y": change(GOOD["y"])}) == {"y": verdict}


def test_a_class_that_moved_is_told_and_not_judged():
    judgement = QuantisedJudge("int8")(GOOD, {**GOOD, "label": np.array([1, 0], np.int64)})
    assert [o.status for o in judgement.outputs] == ["pass", "pass"]
    assert judgement.notes == ("not judged, since quantisation may move them: label",)
    assert status({"label": np.array([1], np.int64)}) == {"label": "fail"}


def test_the_users_own_conditions_stand_instead():
    strict = (parse_condition("cosine>=0.999999999"),)
    assert status({"y": GOOD["y"] * F(1.4)}, conditions=strict) == {"y": "pass"}
    assert status({"y": GOOD["y"] + F(0.1)}, conditions=strict) == {"y": "fail"}


def test_a_precision_without_quantisation_is_refused():
    with pytest.raises(BadOption, match="fp16"):
        QuantisedJudge("fp16")
