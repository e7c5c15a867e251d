"""Padding: what a graph gives on the places that a mask hides is told apart from those that it keeps."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper

import graphkit as gk
from graphkit.parity.inputs import plan_specs
from graphkit.parity.padding import measure_padding
from graphkit.parity.sizes import SizePoint
from graphkit.report.optimize import to_json, to_text
from graphkit.shapes import TensorSpec

SPECS = (TensorSpec("attention_mask", "int64", ("b", "s")), TensorSpec("x", "float32", ("b", "s", 4)))
POINTS = [SizePoint({"b": 1, "s": 6}, "min"), SizePoint({"b": 3, "s": 5}, "opt")]


class Runs:
    """A runner: x, with something added on the kept and on the hidden places."""

    name, versions, optimize = "a function", (), False

    def __init__(self, kept: float = 0.0, hidden: float = 0.0) -> None:
        self.kept, self.hidden = kept, hidden
        self.mask = np.zeros(())

    def run(self, inputs):  # type: ignore[no-untyped-def]
        self.mask = inputs["attention_mask"]
        more = np.where(self.mask.astype(bool), self.kept, self.hidden)[..., None]
        return {"y": (inputs["x"] + more).astype(np.float32)}


def _measured(candidate, specs=SPECS, given=None):  # type: ignore[no-untyped-def]
    return measure_padding(
        Runs(), candidate, plan_specs(specs), POINTS, given or {}, 0, lambda _, __, scale: (1e-5 * scale, 1e-5)
    )


def test_the_sequences_are_padded_on_the_left_and_the_first_is_nothing_but_padding() -> None:
    candidate = Runs()
    found = _measured(candidate)
    assert candidate.mask.shape == (3, 5)
    assert not candidate.mask[0].any()
    assert all(np.array_equal(row, np.sort(row)) and 0 < row.sum() < 5 for row in candidate.mask[1:])
    assert found.places == (int(candidate.mask.sum()), 15 - int(candidate.mask.sum()))


@pytest.mark.parametrize(("kept", "hidden", "holds"), [(0.0, 2.0, True), (0.5, 0.0, False), (0.0, np.nan, True)])
def test_a_difference_counts_where_the_mask_keeps(kept, hidden, holds):  # type: ignore[no-untyped-def]
    found = _measured(Runs(kept, hidden))
    assert found.holds is holds
    assert (found.kept > 0.01) is bool(kept)
    assert (found.hidden > 0.1) is bool(hidden)
    json.dumps(found.to_json(), allow_nan=False)


def test_a_mask_whose_ones_hide_is_turned() -> None:
    named = (TensorSpec("padding_mask", "int64", ("b", "s")), SPECS[1])

    class Turned(Runs):
        def run(self, inputs):  # type: ignore[no-untyped-def]
            return super().run({"attention_mask": inputs["padding_mask"], "x": inputs["x"]})

    turned = Turned()
    measure_padding(Turned(), turned, plan_specs(named), POINTS, {}, 0, lambda *_: (0.0, 0.0))
    assert turned.mask[0].all()


def test_without_a_mask_that_is_drawn_nothing_is_said() -> None:
    assert _measured(Runs(), SPECS[1:]) is None
    assert _measured(Runs(), given={"attention_mask": np.ones((3, 5), np.int64)}) is None


def test_optimize_measures_padding_and_says_so(tmp_path: Path) -> None:
    found = gk.optimize(_attention(tmp_path / "m.onnx"))
    assert found.after["Attention"] == 1
    assert found.padding is not None
    assert found.padding.holds
    assert found.padding.kept < 1e-5
    assert min(found.padding.places) > 0
    assert "by `attention_mask`" in to_text(found, "m", [])
    assert json.loads(to_json(found, "m", []))["padding"]["places"]["hidden"] == found.padding.places[1]


def test_without_a_fusion_there_is_nothing_to_say(tmp_path: Path) -> None:
    found = gk.optimize(_attention(tmp_path / "m.onnx"), skip=("attention",))
    assert "Attention" not in found.after
    assert found.padding is None
    assert found.caveats == ()


def _attention(path: Path) -> Path:
    graph = onnx.parser.parse_graph(
        """masked (float[b,s,8] x, int64[b,s] attention_mask) => (float[b,s,8] y)
        <float scale = {0.35355339}, float low = {-inf}, float zero = {0}, int64[1] one = {1}, int64[2] both = {1, 2}> {
            q = Unsqueeze(x, one) t = Transpose<perm = [0, 1, 3, 2]>(q) m = MatMul(q, t) c = Mul(m, scale)
            seen = Cast<to = 9>(attention_mask) wide = Unsqueeze(seen, both) a = Where(wide, c, low)
            p = Softmax<axis = -1>(a) n = IsNaN(p) g = Where(n, zero, p) r = MatMul(g, q) y = Squeeze(r, one)
        }""".replace("float low = {-inf}, ", "")
    )
    graph.initializer.append(helper.make_tensor("low", TensorProto.FLOAT, [], [-np.inf]))
    onnx.save(helper.make_model(graph, opset_imports=[helper.make_opsetid("", 20)], ir_version=10), path)
    return path
