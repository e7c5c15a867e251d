"""Reference against candidates at several sizes: planted faults are found, good conversions pass."""

from __future__ import annotations

import json
from dataclasses import dataclass, field

import numpy as np
import pytest

from graphkit.errors import GpuRequired, InvalidExport, UnknownName
from graphkit.parity.check import cases_of, check, check_cases, engine_status
from graphkit.parity.inputs import plan_inputs
from graphkit.parity.judge import Judge
from graphkit.parity.runners import OrtRunner
from graphkit.parity.sizes import choose_sizes
from graphkit.parity.verdict import ParityReport
from graphkit.quantization import engine_judge
from graphkit.request import QuantizeRequest
from graphkit.shapes import DimRange

TEXT = "g (float[batch, 6] x) => (float[batch, 6] y) { h = MatMul(x, w) r = Relu(h) y = Add(r, b) }"
DIMS = (DimRange("batch", 1, 4, 8),)


def weights():
    rng = np.random.default_rng(3)
    return {"w": rng.standard_normal((6, 6), dtype=np.float32), "b": rng.standard_normal(6, dtype=np.float32)}


@dataclass
class Python:
    """A runner made of a function."""

    function: object
    label: str = "python"
    seen: list = field(default_factory=list)

    def run(self, inputs):
        self.seen.append({name: value.copy() for name, value in inputs.items()})
        return self.function(**inputs)


def layer(x, w, b):
    return {"y": np.maximum(x @ w, 0) + b}


def reference():
    return Python(lambda x: layer(x, **weights()))


@pytest.fixture
def setting(graph):
    model = graph(TEXT, **weights())
    return plan_inputs(model), choose_sizes(model.signature, DIMS, [{"batch": 4}])


def test_a_good_conversion_passes_at_every_size(graph, setting):
    model = graph(TEXT, **weights())
    with OrtRunner(model, optimize=False) as off, OrtRunner(model, optimize=True) as on:
        done = check(reference(), [off, on], *setting, seed=5)
    assert [c.status for c in done] == ["pass"] * 8
    assert {c.candidate.rpartition(" ")[2] for c in done} == {"off)", "all)"}
    assert [c.sizes["batch"] for c in done[::2]] == [1, 4, 3, 8]
    assert [c.seen_in_capture for c in done[::2]] == [False, True, False, False]
    assert all(c.outputs[0].shape == (c.sizes["batch"], 6) and c.seed == 5 for c in done)
    assert ParityReport(done).status == "pass"
    json.dumps(ParityReport(done).to_json(), allow_nan=False)


def off_by_a_hundredth(w, b):
    w[2, 3] += 0.01 * abs(w).max()
    return w, b


FAULTS = {
    "a weight off by 1e-2": off_by_a_hundredth,
    "a transposed weight": lambda w, b: (w.T, b),
    "a NaN in a weight": lambda w, b: (np.where(np.arange(6) == 2, np.nan, w).astype(np.float32), b),
    "a dropped bias": lambda w, b: (w, b * 0),
    "swapped channels": lambda w, b: (w, b[::-1].copy()),
    "weights in half precision, badly scaled": lambda w, b: ((w / 64).astype("float16").astype("float32") * 63.5, b),
}


@pytest.mark.parametrize("fault", FAULTS)
def test_a_planted_fault_is_found(graph, setting, fault):
    w, b = FAULTS[fault](**weights())
    with OrtRunner(graph(TEXT, w=w, b=b), optimize=False) as runner:
        done = check(reference(), [runner], *setting)
    assert "fail" in {c.status for c in done}
    assert ParityReport(done).status == "fail"
    assert ParityReport(done).worst().mismatches > 0
    assert all(c.reason.startswith("`y`: ") for c in done if c.status == "fail")


def test_a_fault_at_one_size_alone_is_found(setting):
    frozen = Python(lambda x: layer(x, **weights()) if len(x) == 4 else {"y": layer(x, **weights())["y"] * 1.1})
    done = check(reference(), [frozen], *setting)
    assert {c.sizes["batch"]: c.status for c in done} == {1: "fail", 4: "pass", 3: "fail", 8: "fail"}


def test_a_candidate_that_does_not_run_fails_with_its_reason_and_spares_the_others(setting):
    def broken(x):
        raise InvalidExport("it does not load")

    done = check(reference(), [Python(broken), reference()], *setting)
    assert [c.status for c in done] == ["fail", "pass"] * 4
    assert done[0].reason == "it does not load"


def test_a_crash_of_onnx_runtime_is_a_failure_and_the_next_candidate_runs(graph):
    model = graph("g (int32[1] x) => (int32[1] y) { y = Div(x, d) }", d=np.array([-1], np.int32))
    wrong = Python(lambda x: {"y": -x.astype(np.int64)})
    points = choose_sizes(model.signature, (), count=1)
    given = {"x": np.array([-(2**31)], np.int32)}
    with OrtRunner(model, optimize=False) as crashing, OrtRunner(model, optimize=True) as other:
        first = check(wrong, [crashing], plan_inputs(model), points, given)
        then = check(Python(lambda x: {"y": -x}), [other], plan_inputs(model), points)
    assert first[0].status == "fail"
    assert "SIGFPE" in first[0].reason
    assert [c.status for c in then] == ["pass"]


def test_a_reference_that_refuses_a_declared_size_fails_there(setting):
    def picky(x):
        if len(x) == 3:
            raise InvalidExport("only even batches")
        return layer(x, **weights())

    done = check(Python(picky), [reference()], *setting)
    failed = [c for c in done if c.status == "fail"]
    assert [c.sizes for c in failed] == [{"batch": 3}]
    assert "at batch=3 (inside the declared ranges): only even batches" in failed[0].reason


def test_what_this_machine_cannot_run_is_not_run_and_no_pass(setting):
    def absent(x):
        raise GpuRequired("no CUDA device")

    done = check(reference(), [Python(absent)], *setting)
    assert {(c.status, c.reason) for c in done} == {("not run", "no CUDA device")}
    assert ParityReport(done).status == "fail"


def test_a_random_source_is_blamed_and_not_the_conversion(setting):
    rng = np.random.default_rng(0)
    noisy = Python(lambda x: {"y": x + rng.standard_normal(x.shape, dtype=np.float32)})
    done = check(noisy, [Python(lambda x: {"y": x})], *setting)
    assert all(c.status == "fail" and c.reason.startswith("the source itself is random") for c in done)


def test_a_reference_of_nothing_but_nan_proves_nothing(setting):
    nan = Python(lambda x: {"y": np.full_like(x, np.nan)})
    done = check(nan, [nan], *setting)
    assert {c.status for c in done} == {"fail"}
    assert "nothing is proven" in done[0].reason


def test_a_reference_without_outputs_proves_nothing(setting):
    empty = Python(lambda x: {})
    assert {c.status for c in check(empty, [empty], *setting)} == {"fail"}


def test_every_side_gets_the_same_inputs_even_if_one_writes_into_them(setting):
    def careless(x):
        out = layer(x, **weights())
        x[:] = 0
        return out

    first, second = Python(careless), reference()
    done = check(first, [second], *setting)
    assert {c.status for c in done} == {"pass"}
    assert all(np.array_equal(a["x"], b["x"]) and a["x"].any() for a, b in zip(first.seen, second.seen, strict=True))


def test_given_values_are_used_and_set_the_size(setting):
    x = np.full((2, 6), 0.5, np.float32)
    source = reference()
    done = check(source, [reference()], *setting, given={"x": x})
    assert all(np.array_equal(each["x"], x) for each in source.seen)
    assert {c.sizes["batch"] for c in done} == {2}
    with pytest.raises(UnknownName, match="`z`"):
        check(source, [reference()], *setting, given={"z": x})


def test_further_draws_at_one_size_use_other_values(graph):
    model = graph("g (float[2] x) => (y) { y = Neg(x) }")
    source = Python(lambda x: {"y": -x})
    done = check(source, [source], plan_inputs(model), choose_sizes(model.signature, ()), seed=9)
    assert [c.seed for c in done] == [9, 10, 11]
    assert len({each["x"].tobytes() for each in source.seen}) == 3


def test_an_engine_that_nothing_can_run_is_not_run():
    verdict = engine_status(reference(), "no CUDA device", (), ())
    assert (verdict.status, verdict.reason, verdict.comparisons) == ("not run", "no CUDA device", ())


def test_an_engine_is_held_to_the_reference(setting):
    assert engine_status(reference(), reference(), *setting).status == "pass"
    verdict = engine_status(reference(), Python(lambda x: {"y": x}), *setting)
    assert verdict.status == "fail"
    assert "outside the tolerance" in verdict.reason
    assert engine_status(reference(), reference(), setting[0], ()).status == "not run"


def test_each_candidate_has_its_own_judge(graph):
    """What TF32 explains in an engine is a fault of a float32 program."""
    model = graph("g (float[2] x) => (y) { y = Neg(x) }")
    rounded = Python(lambda x: {"y": -x * np.float32(1 + 2**-8.5)})
    cases = cases_of(plan_inputs(model), choose_sizes(model.signature, ()), None, 0)
    done = check_cases(Python(lambda x: {"y": -x}), [rounded, rounded], cases, [Judge(), Judge(tf32=True)])
    assert {c.status for c in done[::2]} == {"fail"}
    assert {c.status for c in done[1::2]} == {"pass"}


@pytest.mark.parametrize(
    ("asked", "tf32", "off", "passes"),
    [
        (None, False, 1e-2, False),
        (None, True, 1e-2, True),
        (QuantizeRequest("fp16"), False, 1e-2, True),
        (QuantizeRequest("bf16"), False, 3e-2, True),
        (QuantizeRequest("fp16"), True, 1e-1, False),
        (QuantizeRequest("int8"), False, 1e-2, True),
        (QuantizeRequest("int8"), False, 2.0, False),
    ],
)
def test_an_engine_is_judged_by_the_precision_that_it_was_asked_for(asked, tf32, off, passes):
    values = np.random.default_rng(0).standard_normal(64).astype("f")
    judged = engine_judge(asked, tf32=tf32)({"y": values}, {"y": values * np.float32(1 + off)})
    assert (judged.outputs[0].status == "pass") is passes
