"""Laws of `diff`, on graphs wired at random, with subgraphs that read values from outside."""

import copy
import json

from hypothesis import HealthCheck, assume, given, settings
from hypothesis import strategies as st

from fixtures.planted_edits import KINDS, decomposed_transformer, plant
from tests.delta.models import diff
from tests.test_digests import _reads as reads
from tests.test_digests import dags, renamed, reordered

LAW = settings(
    max_examples=60,
    deadline=None,
    suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.filter_too_much],
)


@LAW
@given(model=dags())
def test_a_model_does_not_differ_from_itself(model, tmp_path):
    assert diff(model, model, tmp_path).empty


@LAW
@given(model=dags(), seed=st.integers(0, 99))
def test_renaming_and_reordering_are_no_difference(model, seed, tmp_path):
    delta = diff(model, renamed(reordered(model, seed)), tmp_path)
    assert delta.empty, delta.to_json()
    assert len(delta.graphs[0].pairs) == len(model.graph.node)


@LAW
@given(a=dags(), b=dags())
def test_the_diff_of_b_and_a_mirrors_that_of_a_and_b(a, b, tmp_path):
    forward, backward = diff(a, b, tmp_path), diff(b, a, tmp_path)
    assert facts(forward) == facts(backward, turned=True)


def test_the_mirror_holds_for_a_transformer_with_edits_of_every_kind(tmp_path):
    base = decomposed_transformer(1000)
    other = plant(base, KINDS, count=3, seed=2).model
    assert facts(diff(base, other, tmp_path)) == facts(diff(other, base, tmp_path), turned=True)


@LAW
@given(model=dags(), data=st.data())
def test_an_edit_is_seen(model, data, tmp_path):
    other = copy.deepcopy(model)
    node = data.draw(st.sampled_from([n for n in other.graph.node if n.op_type in ("Add", "Sub", "Softmax")] or [None]))
    if node is None:
        return
    node.op_type = {"Add": "Mul", "Sub": "Div", "Softmax": "LogSoftmax"}[node.op_type]
    delta = diff(model, renamed(other), tmp_path)
    assert not delta.empty
    assert len(delta.graphs[0].pairs) + delta.graphs[0].removed == len(model.graph.node)


@LAW
@given(a=dags(), b=dags())
def test_the_same_models_give_the_same_bytes(a, b, tmp_path):
    first, second = (json.dumps(diff(a, b, tmp_path).to_json()) for _ in range(2))
    assert first == second


@LAW
@given(model=dags(), seed=st.integers(0, 99))
def test_the_text_for_git_does_not_change_with_names_and_order(model, seed, tmp_path):
    from graphkit import view
    from graphkit.delta.textconv import textconv

    # A node that no output needs has no place of its own in the text.
    read = set().union({model.graph.output[0].name}, *map(reads, model.graph.node))
    assume(all(node.output[0] in read for node in model.graph.node))
    texts = []
    for name, each in (("a", model), ("b", renamed(reordered(model, seed)))):
        (tmp_path / f"{name}.onnx").write_bytes(each.SerializeToString())
        texts.append(textconv(view.read(tmp_path / f"{name}.onnx")))
    assert texts[0] == texts[1]


def facts(delta, *, turned=False):
    """What a delta says, without an order, with `a` and `b` exchanged if it is turned."""

    def sides(first, second):
        return (second, first) if turned else (first, second)

    found = []
    for graph in delta.graphs:
        found.append(
            (
                {sides(*pair) for pair in graph.pairs},
                {sides(hunk.removed, hunk.added) for hunk in graph.hunks},
                {(sides(c.a, c.b), tuple((w, *sides(x, y)) for w, x, y in c.details)) for c in graph.changes},
                {(sides(r.a, r.b), sides(r.before, r.after)) for r in graph.rewires},
                {sides(w.type_a, w.type_b) for w in graph.weights},
            )
        )
    ports = {(p.side, sides(p.a, p.b)) for p in delta.signature}
    return found[0], ports, delta.approximate
