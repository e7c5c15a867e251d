"""Loops over a recurrent cell become the ONNX operator where that is certain, and stay as they are where it is not."""

from collections import Counter
from dataclasses import replace

import numpy as np
import onnx
import onnx_ir as ir
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from onnxruntime.capi.onnxruntime_pybind11_state import Fail, InvalidArgument, RuntimeException

from graphkit.model import Model, Origin, provenance
from graphkit.optimization import Options, rewrite_model
from graphkit.rewrite import recurrent
from tests.rewrite.recurrent_loops import STEPS, Written, run

CELLS = sorted(STEPS)


def kinds(model) -> Counter:
    return Counter(n.op_type for n in model.ir.graph.all_nodes() if n.op_type in ("Loop", "GRU", "LSTM", "RNN"))


def operator(model) -> ir.Node:
    return next(n for n in model.ir.graph if n.op_type in ("GRU", "LSTM", "RNN"))


def sample(written: Written, batch: int, time: int, seed: int = 0) -> dict[str, np.ndarray]:
    rng = np.random.default_rng(seed)
    inputs = {"x": rng.normal(size=(batch, time, written.inputs)).astype(np.float32)}
    if written.masked:
        inputs["mask"] = rng.random((batch, time)) < 0.5
    if written.given:
        for name in ("h0", "c0") if written.cell == "LSTM" else ("h0",):
            inputs[name] = rng.normal(size=(batch, written.hidden)).astype(np.float32)
    return inputs


def assert_close(found: list[np.ndarray], wanted: list[np.ndarray]) -> None:
    assert [a.shape for a in found] == [b.shape for b in wanted]
    for a, b in zip(found, wanted, strict=True):
        np.testing.assert_allclose(a, b, rtol=0, atol=3e-6)


@pytest.mark.parametrize("given_states", [False, True], ids=["zero", "given"])
@pytest.mark.parametrize("cell", CELLS)
def test_a_loop_over_a_cell_becomes_the_operator_and_computes_the_same(cell, given_states):
    written = Written(cell, given=given_states)
    fused = recurrent.fuse(written.model())
    assert kinds(fused) == {cell.split()[0]: 1}
    for batch, time in ((2, 5), (3, 1)):
        inputs = sample(written, batch, time)
        assert_close(run(fused, **inputs), written.reference(**inputs))
        assert_close(run(written.model(), **inputs), written.reference(**inputs))


@pytest.mark.parametrize("cell", CELLS)
def test_the_rewriter_finds_them_and_says_so(cell):
    written = Written(cell)
    found = rewrite_model(written.model(), Options())
    assert kinds(found.model) == {cell.split()[0]: 1}
    assert found.changes.by_rule()["recurrent"] == 1
    inputs = sample(written, 2, 5)
    assert_close(run(found.model, **inputs), written.reference(**inputs))
    assert kinds(rewrite_model(written.model(), Options(skip=("recurrent",))).model)["Loop"] == 1
    assert kinds(rewrite_model(written.model(), Options(level=1)).model)["Loop"] == 1


def test_the_reset_before_and_after_the_product_are_told_apart():
    flags = {c: operator(recurrent.fuse(Written(c).model())).attributes.get("linear_before_reset") for c in CELLS}
    assert flags["GRU after"].as_int() == 1
    assert flags["GRU before"] is None


@st.composite
def masked_cells(draw):
    written = Written(
        draw(st.sampled_from(CELLS)),
        inputs=draw(st.integers(1, 4)),
        hidden=draw(st.integers(1, 5)),
        masked=draw(st.sampled_from(["where", "product"])),
        zero_output=draw(st.booleans()),
        given=draw(st.booleans()),
        seed=draw(st.integers(0, 99)),
    )
    batch, time = draw(st.integers(1, 4)), draw(st.integers(1, 7))
    inputs = sample(written, batch, time, written.seed)
    row = st.lists(st.booleans(), min_size=time, max_size=time)
    inputs["mask"] = np.array(draw(st.lists(row, min_size=batch, max_size=batch)))
    return written, inputs


@settings(max_examples=40, deadline=None)
@given(masked_cells())
def test_every_mask_gives_what_the_steps_one_by_one_give(case):
    written, inputs = case
    fused = recurrent.fuse(written.model())
    assert kinds(fused) == {written.cell.split()[0]: 1}
    assert_close(run(fused, **inputs), written.reference(**inputs))


@pytest.mark.parametrize("cell", ["GRU after", "LSTM"])
@pytest.mark.parametrize("start", ["zero", "given"])
def test_padding_left_and_right_holes_and_rows_without_a_step(cell, start):
    written = Written(cell, masked="where", given=start == "given")
    inputs = sample(written, 6, 5)
    masks = ["11111", "11100", "00111", "10101", "00000", "00010"]
    inputs["mask"] = np.array([[c == "1" for c in row] for row in masks])
    fused = recurrent.fuse(written.model())
    assert operator(fused).inputs[4] is not None, "sequence_lens"
    assert_close(run(fused, **inputs), written.reference(**inputs))


def test_a_nan_on_a_masked_step_is_not_seen():
    written = Written("GRU after", masked="where")
    inputs = sample(written, 2, 4)
    inputs["mask"] = np.array([[True, False, True, False], [False, True, True, True]])
    wanted = written.reference(**inputs)
    inputs["x"][~inputs["mask"]] = np.nan
    assert_close(run(recurrent.fuse(written.model()), **inputs), wanted)


def test_a_mask_of_one_row_counts_for_all_rows_as_in_the_loop():
    written = Written("GRU after", masked="where")
    inputs = sample(written, 3, 5)
    inputs["mask"] = np.array([[True, False, True, True, False]])
    fused = recurrent.fuse(written.model())
    assert_close(run(fused, **inputs), written.reference(inputs["x"], np.repeat(inputs["mask"], 3, axis=0)))


def test_a_mask_longer_than_the_sequence_is_cut_as_in_the_loop_and_a_shorter_one_is_an_error():
    written = Written("GRU after", masked="where")
    inputs = sample(written, 2, 5)
    fused = recurrent.fuse(written.model())
    longer = np.concatenate([inputs["mask"], ~inputs["mask"]], axis=1)
    assert_close(run(fused, x=inputs["x"], mask=longer), written.reference(**inputs))
    for model in (written.model(), fused):
        with pytest.raises((Fail, InvalidArgument, RuntimeException)):
            run(model, x=inputs["x"], mask=inputs["mask"][:, :1])


NEAR_MISSES = {
    "update gate swapped": STEPS["GRU after"].replace("Mul(rest, n)", "Mul(rest, h)").replace("Mul(z, h)", "Mul(z, n)"),
    "no reset": STEPS["GRU after"].replace("Mul(r, gn)", "Identity(gn)"),
    "reset of the input": STEPS["GRU after"].replace("Mul(r, gn)", "Mul(r, an)"),
    "scaled": STEPS["GRU after"].replace("new = Add(old, fresh)", "sum = Add(old, fresh)  new = Mul(sum, half)"),
    "residual": STEPS["GRU after"].replace("new = Add(old, fresh)", "sum = Add(old, fresh)  new = Add(sum, h)"),
    "two activations": STEPS["GRU after"].replace("z = Sigmoid(sz)", "z = Tanh(sz)"),
    "unknown activation": STEPS["GRU after"].replace("n = Tanh(sn)", "n = Sin(sn)"),
    "activation twice": STEPS["GRU after"].replace("n = Tanh(sn)", "n_ = Tanh(sn)  n = Tanh(n_)"),
}


@pytest.mark.parametrize("name", NEAR_MISSES)
def test_a_step_that_is_nearly_a_cell_stays_a_loop(name):
    model = Written("GRU after", step=NEAR_MISSES[name]).model()
    run(model, **sample(Written("GRU after"), 2, 3))
    assert recurrent.fuse(model) is model


@pytest.mark.parametrize(
    "change",
    [
        {"trips": "trips = Identity(seven)"},
        {"trips": "size = Size(x)  trips = Identity(size)"},
        {"condition": "top = ReduceMax <keepdims = 0> (new)  go = Less(top, half)"},
        {"output": "out = Mul(h2, two)"},
        {"output": "out = Identity(x_)", "cell": "RNN"},
    ],
    ids=["fixed trips", "other trips", "may end early", "other output", "collects a product"],
)
def test_a_loop_that_is_not_one_step_for_each_entry_stays(change):
    model = replace(Written("GRU after"), **change).model()
    assert recurrent.fuse(model) is model


def test_a_masked_lstm_with_peepholes_stays():
    step = STEPS["LSTM"].replace("f = Sigmoid(sf)", "sfc = Add(sf, c)  f = Sigmoid(sfc)")
    model = Written("LSTM", masked="where", step=step).model()
    assert recurrent.fuse(model) is model


def test_a_masked_step_that_changes_the_state_stays():
    model = Written("RNN", masked="where", step="pre = Add(xb, g)  new = Tanh(pre)").model()
    (loop,) = (n for n in model.ir.graph if n.op_type == "Loop")
    body = loop.attributes["body"].as_graph()
    where = next(n for n in body if n.op_type == "Where")
    where.replace_input_with(2, next(n for n in body if n.op_type == "Tanh").outputs[0])
    assert recurrent.fuse(model) is model


def test_double_precision_stays_since_no_runtime_has_it():
    model = Written("RNN").model()
    weight = model.ir.graph.initializers["W"]
    weight.const_value = ir.tensor(weight.const_value.numpy().astype(np.float64), name="W")
    assert recurrent.fuse(model) is model


def test_a_model_without_loops_is_returned_as_it_is_and_no_weight_is_read(monkeypatch):
    fused = recurrent.fuse(Written("GRU after").model())
    monkeypatch.setattr(ir.Value, "const_value", property(lambda _: pytest.fail("a weight was read")))
    assert recurrent.fuse(fused) is fused


def test_fusing_is_deterministic_and_leaves_the_given_model_alone():
    model = Written("LSTM", masked="product").model()
    before = model.to_proto().SerializeToString(deterministic=True)
    first, second = (recurrent.fuse(model).to_proto().SerializeToString(deterministic=True) for _ in range(2))
    assert first == second
    assert model.to_proto().SerializeToString(deterministic=True) == before


def test_the_origin_says_what_was_made():
    fused = recurrent.fuse(Written("GRU before").model())
    assert fused.origin.steps == ("recurrent: 1 GRU",)


def test_outputs_keep_names_types_and_symbols():
    model = Written("LSTM", given=True).model()
    fused = recurrent.fuse(model)
    assert fused.signature == model.signature


def test_nothing_is_left_of_what_only_the_loop_needed():
    fused = recurrent.fuse(Written("GRU after").model())
    assert sorted(n.op_type for n in fused.ir.graph) == ["GRU", "Squeeze", "Squeeze", "Transpose"]
    used = {v for n in fused.ir.graph for v in n.inputs}
    assert all(v in used for v in fused.ir.graph.initializers.values() if v.name.startswith("node"))
    assert not {"W", "R", "b", "rb"} & set(fused.ir.graph.initializers)


def test_the_operator_has_the_source_lines_of_the_loop_and_its_body():
    model = Written("RNN").model()
    (loop,) = (n for n in model.ir.graph if n.op_type == "Loop")
    lines = {line for n in (loop, *loop.attributes["body"].as_graph()) for line in provenance(n)}
    assert lines <= set(provenance(operator(recurrent.fuse(model))))


def test_a_loop_inside_a_branch_is_replaced_there():
    written = Written("GRU after")
    proto = written.model().to_proto()
    branch = onnx.GraphProto.FromString(proto.graph.SerializeToString())
    del branch.input[:]
    choose = onnx.helper.make_tensor_value_info("choose", onnx.TensorProto.BOOL, [])
    outputs = [onnx.ValueInfoProto(name=f"if_{o.name}", type=o.type) for o in branch.output]
    names = [o.name for o in outputs]
    switch = onnx.helper.make_node("If", ["choose"], names, then_branch=branch, else_branch=branch)
    proto.graph.CopyFrom(onnx.helper.make_graph([switch], "g", [*proto.graph.input, choose], outputs))
    fused = recurrent.fuse(Model(ir.from_proto(proto), Origin("test")))
    assert kinds(fused) == {"GRU": 2}
    inputs = sample(written, 2, 4)
    for chosen in (True, False):
        assert_close(run(fused, choose=np.array(chosen), **inputs), written.reference(**inputs))
