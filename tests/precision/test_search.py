"""The sensitivity search: it finds the layer that hurts, stays within its budget, and says what it ran."""

from __future__ import annotations

import json
import xml.etree.ElementTree as ElementTree

import numpy as np
import pytest

from fixtures.precision_models import Builder, vit
from graphkit.errors import BadOption, PrecisionRefused
from graphkit.precision import quantize
from graphkit.precision.quant_search import within
from graphkit.precision.search import distance, search
from graphkit.precision.search_groups import MOST, Layer, grouped, layers_of
from graphkit.report.sensitivity_plot import to_svg
from tests.precision.quantised import model, outputs, samples, text

F = np.float32
LAYERS = 6


def chain(bad: int):
    """x -> y [2, 16]: six linear layers; before one of them a channel is 3000 times as large, and as small after it.

    int8 with one scale for the tensor loses the other channels there; `percentile` moves no outliers into weights.
    """
    b = Builder()
    h = "x"
    large = np.ones(16)
    large[0] = 3000.0
    for number in range(LAYERS):
        if number == bad:
            h = b.op("Mul", [h, b.constant("large", large)], "enlarged")
        weight = b.rng.standard_normal((16, 16)) / 4
        if number == bad:
            weight /= large[:, None]
        h = b.op("MatMul", [h, b.constant(f"part{number}.weight", weight)], f"part{number}.product")
        h = b.op("Tanh", [h], f"part{number}.tanh" if number < LAYERS - 1 else "y")
    return model(b.model({"x": [2, 16]}, {"y": [2, 16]}))


@pytest.fixture(scope="module")
def found():
    source = chain(3)
    return within(source, "int8", samples(source), max_drop=0.01, method="percentile")


def test_the_one_layer_that_hurts_is_kept(found):
    assert found.keep == {"node.part3.product"}
    assert found.error <= 0.01 < found.trials[0].error
    assert found.lowering.nodes_low == LAYERS - 1
    assert found.lowering.share == pytest.approx((LAYERS - 1) / LAYERS)
    worst = found.rows[0]
    assert (worst.group, worst.kept, worst.layers) == ("net.node.part3", 1, 1)
    assert worst.error_alone > 10 * found.rows[1].error_alone
    assert worst.share == pytest.approx(1 / LAYERS)


def test_the_error_it_states_is_that_of_the_model_it_gives(found):
    source = chain(3)
    rows = samples(source)
    wanted = max(distance(outputs(source, s), outputs(found.lowering.model, s), "cosine") for s in rows)
    assert found.error == wanted


def test_the_same_request_gives_the_same_answer(found):
    source = chain(3)
    again = within(source, "int8", samples(source), max_drop=0.01, method="percentile")
    assert again.to_json() == found.to_json()
    assert json.loads(json.dumps(found.to_json(), allow_nan=False)) == found.to_json()


def test_a_bound_that_holds_already_takes_one_trial():
    source = model(vit())
    done = within(source, "int8", samples(source), max_drop=0.05)
    assert (len(done.trials), done.keep, done.complete) == (1, frozenset(), True)


def test_a_bound_that_nothing_meets_is_refused():
    source = chain(3)
    with pytest.raises(PrecisionRefused, match="the least is"):
        within(source, "int8", samples(source), max_drop=1e-9)


@pytest.mark.parametrize("most", [8, 10])
def test_the_number_of_trials_is_bounded_and_the_bound_holds_still(most):
    source = model(vit(layers=3))
    done = within(source, "int4", max_drop=0.004, block=16, most=most)
    assert len(done.trials) <= most
    assert done.error <= 0.004
    assert done.keep


def test_l2_is_another_metric():
    source = chain(2)
    done = within(source, "fp8", samples(source), max_drop=0.15, metric="l2")
    assert done.error <= 0.15
    assert done.metric == "l2"


def test_bad_requests_name_what_is_wrong():
    source = chain(3)
    prepared = quantize.prepare(source, "int8", samples(source))
    layers = layers_of(prepared.model, [c.name for c in prepared.found])
    for options, said in (
        ({"max_drop": 0}, "above 0"),
        ({"max_drop": float("nan")}, "above 0"),
        ({"max_drop": 0.1, "metric": "snr"}, "no metric"),
        ({"max_drop": 0.1, "most": 1}, "1 trials"),
    ):
        with pytest.raises(BadOption, match=said):
            search(source, prepared.lower, layers, samples(source), **options)
    whole = text("g (float[1, 4] x) => (int64[1] y) { h = MatMul(x, w) y = ArgMax <axis = 1, keepdims = 0> (h) }",
                 w=np.eye(4, dtype=F))  # fmt: skip
    with pytest.raises(BadOption, match="no output is a float"):
        within(whole, "int8", samples(whole), max_drop=0.1)


def test_an_output_that_becomes_nan_is_infinitely_far():
    good, bad = {"y": np.ones(3, F)}, {"y": np.array([1, np.nan, 1], F)}
    assert distance(good, bad, "cosine") == np.inf
    assert distance(good, good, "l2") == 0


# --- groups ------------------------------------------------------------------------------------------------------


def test_groups_are_modules_and_the_largest_is_split_first():
    layers = [Layer(f"b{b}.{part}", ("net", f"b{b}", part), 10.0 ** (b == 2)) for b in range(3) for part in "xyz"]
    assert [g.name for g in grouped(layers, 3)] == ["net.b0", "net.b1", "net.b2"]
    assert [g.name for g in grouped(layers, 5)] == ["net.b0", "net.b1", "net.b2.x", "net.b2.y", "net.b2.z"]
    every = [name for group in grouped(layers) for name in group.order]
    assert every == [layer.name for layer in layers]


def test_a_path_with_more_parts_than_there_are_groups_is_split_into_neighbours():
    layers = [Layer(f"Conv.{n}", ("Conv", str(n))) for n in range(60)] + [Layer("Gemm.0", ("Gemm", "0"))]
    groups = grouped(layers)
    assert 10 < len(groups) <= MOST
    assert max(len(g.order) for g in groups) <= 5
    assert [n for g in groups for n in g.order] == [layer.name for layer in layers]


def test_layers_without_a_path_go_by_their_place():
    layers = [Layer(f"node{n}", ()) for n in range(100)]
    groups = grouped(layers)
    assert len(groups) <= MOST
    assert [n for g in groups for n in g.order] == [layer.name for layer in layers]
    assert groups[0].name == "node0 to node6"


# --- the picture -------------------------------------------------------------------------------------------------


def test_the_plot_has_every_trial_and_the_bound(found):
    root = ElementTree.fromstring(to_svg(found))
    space = "{http://www.w3.org/2000/svg}"
    assert len(root.findall(f"{space}circle")) == len(found.trials)
    words = [t.text for t in root.iter(f"{space}text")]
    assert "bound" in words
    assert any("83 % of the FLOPs" in w for w in words)
    assert sum("stroke-width" in c.attrib for c in root.findall(f"{space}circle")) == 1
