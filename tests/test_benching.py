"""`bench`: what is counted, compared, claimed and refused. No test looks at how long it took."""

from __future__ import annotations

import json
import math
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from xml.etree import ElementTree

import numpy as np
import onnx
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from onnx import numpy_helper, parser
from torch import nn

from graphkit import isolate
from graphkit.benching import BenchRequest, BenchResult, bench
from graphkit.engine import builder
from graphkit.errors import (
    BadOption,
    ExtraMissing,
    FileMissing,
    GpuRequired,
    NativeCrash,
    ParityFailed,
    ShapeMismatch,
    ShapeMissing,
    UnknownName,
)
from graphkit.model import file_sha256
from graphkit.report.bench import time_text, to_json, to_text
from graphkit.report.bench_plot import to_svg
from graphkit.shapes import DimRange, TensorSpec, parse_sizes
from graphkit.timing import trt_child
from graphkit.timing.points import choose_points, item_of
from graphkit.timing.rounds import FEWEST, MOST, Budget, interleaved
from graphkit.timing.statistics import CONFIDENCE, Latency, Ratio, latency, median_interval, ratio

QUICK = Budget(runs=7, warm_up=1)
GRAPH = "g (float[batch, 6] x) => (float[batch, 4] y) { y = MatMul(x, w) }"


def write(path: Path, text: str = GRAPH, scale: float = 1.0, metadata: dict[str, object] | None = None) -> Path:
    proto = parser.parse_model(f'<ir_version: 10, opset_import: ["" : 20]>\n{text}')
    weight = scale * np.random.default_rng(3).standard_normal((6, 4), dtype=np.float32)
    proto.graph.initializer.append(numpy_helper.from_array(weight, "w"))
    if metadata is not None:
        onnx.helper.set_model_props(proto, {"graphkit.origin": json.dumps(metadata)})
    onnx.save(proto, path)
    return path


# --- what is counted ---------------------------------------------------------------------------------------------


class Counting(nn.Module):
    """Counts its calls."""

    calls = 0

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        assert not self.training
        assert not torch.is_grad_enabled()
        self.calls += 1
        return x * 2


def test_the_warm_up_is_run_and_not_counted():
    net = Counting()
    asked = BenchRequest((TensorSpec("x", "float32", ("batch", 3)),), at=({"batch": 1}, {"batch": 2}))
    found = bench([net], replace(asked, budget=Budget(runs=23, warm_up=5)))
    assert [point.sides[0].latency.runs for point in found.points] == [23, 23]
    assert net.calls == 2 * (1 + 5 + 23)  # the first run, whose outputs are compared, is neither
    assert [dict(point.shapes) for point in found.points] == [{"x": (1, 3)}, {"x": (2, 3)}]
    assert found.sides[0].notes[-1] == "runs in this process: the memory is that of all it holds"
    assert net.training


class Fake:
    """A stopwatch that writes down what it was asked for."""

    label = "fake"

    def __init__(self, name: str, log: list, fails_at: int | None = None) -> None:
        self.name, self.log, self.fails_at = name, log, fails_at

    def block(self, runs: int, seconds: float) -> list[int]:
        self.log.append((self.name, runs, seconds))
        if self.fails_at is not None and len([1 for name, *_ in self.log if name == self.name]) > self.fails_at:
            raise NativeCrash(f"{self.name} died")
        return [1000] * runs


def test_sides_take_turns_and_share_the_runs():
    log: list = []
    found = interleaved({0: Fake("a", log), 1: Fake("b", log)}, Budget(runs=45, warm_up=4))
    assert log[:2] == [("a", 4, 0.0), ("b", 4, 0.0)]
    assert [name for name, *_ in log[2:]] == ["a", "b"] * MOST
    for side in found.times.values():
        assert [len(each) for each in side] == [3] * 5 + [2] * 15


@pytest.mark.parametrize(("runs", "rounds"), [(1, 1), (6, 6), (20, 20), (1000, 20)])
def test_there_are_as_many_rounds_as_runs_allow(runs, rounds):
    found = interleaved({0: Fake("a", [])}, Budget(runs=runs, warm_up=0))
    assert len(found.times[0]) == rounds
    assert sum(len(each) for each in found.times[0]) == runs


@pytest.mark.parametrize(("seconds", "rounds"), [(1.0, MOST), (1e-9, FEWEST), (1e-5, 10)])
def test_seconds_are_split_over_rounds_that_hold_a_run_each(seconds, rounds):
    log: list = []
    interleaved({0: Fake("a", log)}, Budget(seconds=seconds, warm_up=1))  # a run of the fake takes 1 us
    blocks = log[1:]
    assert len(blocks) == rounds
    assert sum(each for _, _, each in blocks) == pytest.approx(seconds)


def test_a_side_that_dies_is_left_out_and_the_others_go_on():
    log: list = []
    found = interleaved({0: Fake("a", log), 1: Fake("b", log, fails_at=3)}, Budget(runs=10, warm_up=1))
    assert [name for name, *_ in log].count("b") == 4
    assert len(found.times[0]) == 10
    assert 1 not in found.times
    assert isinstance(found.errors[1], NativeCrash)


# --- statistics --------------------------------------------------------------------------------------------------


def test_percentiles_are_those_of_all_runs_and_absent_where_they_would_be_invented():
    found = latency([list(range(1000, 51000, 1000)), list(range(51000, 101000, 1000))])
    assert (found.runs, found.rounds) == (100, 2)
    assert (found.p50, found.p90, found.p99) == pytest.approx((50.5e-6, 90.1e-6, 99.01e-6))
    assert (found.least, found.mean, found.spread) == pytest.approx((1e-6, 50.5e-6, 49.5 / 50.5))
    assert found.medians == pytest.approx((25.5e-6, 75.5e-6))
    assert latency([[1] * 99]).p99 is None
    assert latency([[1] * 9]).p90 is None


@pytest.mark.parametrize(("count", "place"), [(6, 1), (8, 1), (9, 2), (10, 2), (12, 3), (15, 4), (20, 6)])
def test_the_interval_is_that_of_the_tables_of_the_sign_test(count, place):
    values = list(range(1, count + 1))
    assert median_interval(values[::-1]) == (place, count + 1 - place)


@given(st.integers(1, 60))
def test_the_interval_is_the_narrowest_that_holds_the_median_often_enough(count):
    def coverage(place: int) -> float:
        return 1 - 2 * sum(math.comb(count, k) for k in range(place)) / 2**count

    found = median_interval(list(range(1, count + 1)))
    place = found[0] if found is not None else 0
    assert place == 0 or coverage(place) >= CONFIDENCE
    assert place + 1 > count // 2 or coverage(place + 1) < CONFIDENCE


def timed(*medians: float) -> Latency:
    return latency([[round(m * 1e9)] for m in medians])


def test_a_ratio_is_paired_by_round_so_that_a_slow_round_slows_both():
    machine = [1, 5, 1, 9, 2, 1, 7, 1, 1, 3]
    found = ratio(timed(*(2 * m for m in machine)), timed(*machine))
    assert (found.value, found.low, found.high) == pytest.approx((2, 2, 2))
    assert found.verdict == "slower"


@pytest.mark.parametrize(
    ("low", "high", "verdict"),
    [(0.8, 0.9, "faster"), (1.1, 1.2, "slower"), (0.9, 1.1, "no difference seen"), (1.0, 1.1, "no difference seen"),
     (None, None, "no difference seen")],
)  # fmt: skip
def test_nothing_is_claimed_unless_the_whole_interval_says_so(low, high, verdict):
    assert Ratio(0.9, low, high, 5).verdict == verdict


def test_five_rounds_are_too_few_for_a_claim():
    assert ratio(timed(*[1] * 5), timed(*[9] * 5)).verdict == "no difference seen"
    assert ratio(timed(*[1] * 6), timed(*[9] * 6)).verdict == "faster"


# --- points ------------------------------------------------------------------------------------------------------

INPUTS = (TensorSpec("x", "float32", ("batch", "seq")), TensorSpec("m", "float32", (3,)))
SEQ = DimRange("seq", 4, 16, 32)


def test_sizes_come_from_the_request_then_the_range_then_the_capture_then_1_for_a_first_axis():
    assert choose_points(INPUTS, (SEQ,), ({"batch": 2, "seq": 8},), {}, {}) == [({"batch": 2, "seq": 8}, [])]
    assert choose_points(INPUTS, (SEQ,), (), {"batch": 7, "seq": 9}, {}) == [({"batch": 7, "seq": 16}, [])]
    ((sizes, notes),) = choose_points(INPUTS, (SEQ,), (), {}, {})
    assert sizes == {"batch": 1, "seq": 16}
    assert notes == ["batch=1, since nothing says its size: --at batch=N"]


def test_a_size_outside_the_declared_range_is_said():
    ((_, notes),) = choose_points(INPUTS, (SEQ,), ({"batch": 1, "seq": 64},), {}, {})
    assert notes == ["seq=64 is outside the declared range seq=4:16:32"]


def test_sizes_that_cannot_be_are_refused():
    with pytest.raises(ShapeMissing, match="nothing says the size of `seq`"):
        choose_points(INPUTS, (), (), {}, {})
    with pytest.raises(UnknownName, match="no input has a dimension called `length`"):
        choose_points(INPUTS, (SEQ,), ({"length": 2},), {}, {})
    with pytest.raises(ShapeMismatch, match="fixes `batch` at 4"):
        choose_points(INPUTS, (SEQ,), ({"batch": 2},), {}, {"batch": 4})


def test_items_are_batch_else_the_first_axis_else_runs():
    assert item_of(INPUTS, {"batch": 4, "seq": 2}) == ("batch", 4)
    assert item_of((TensorSpec("x", "float32", ("n", 3)),), {"n": 5}) == ("n", 5)
    assert item_of((TensorSpec("x", "float32", (8, 3)),), {}) == (None, 1)


@pytest.mark.parametrize("text", ["", "batch", "batch=", "batch=0", "batch=-1", "batch=1:2:3", "batch=1,batch=2", "=1"])
def test_sizes_that_cannot_be_read_are_refused(text):
    with pytest.raises(BadOption):
        parse_sizes(text)
    assert parse_sizes("batch=1, seq=2") == {"batch": 1, "seq": 2}


# --- whole benchmarks --------------------------------------------------------------------------------------------

REFUSES_3 = """g (float[batch, 6] x) => (float[batch, 4] y)
{ s = Constant <value_ints=[2, 6]>() z = Reshape(x, s) y = MatMul(z, w) }"""


@pytest.fixture(scope="module")
def found(tmp_path_factory) -> BenchResult:
    """A model; one with other weights and other names; one that runs at one of the two sizes alone."""
    folder = tmp_path_factory.mktemp("bench")
    renamed = GRAPH.replace("batch", "n").replace(" x)", " rows)").replace("(x,", "(rows,")
    targets = [
        write(folder / "a.onnx"),
        write(folder / "b.onnx", renamed, scale=1.1),
        write(folder / "c.onnx", REFUSES_3),
    ]
    return bench(targets, BenchRequest(at=({"batch": 2}, {"batch": 3}), budget=QUICK, threads=1))


def test_every_side_is_timed_as_often_on_its_threads(found):
    assert [(s.name, s.status, s.threads) for s in found.sides] == [
        ("a.onnx", "measured", 1), ("b.onnx", "measured", 1), ("c.onnx", "failed", 1),
    ]  # fmt: skip
    assert [len(point.sides) for point in found.points] == [3, 3]
    assert {t.latency.runs for p in found.points for t in p.sides if t.latency is not None} == {7}
    assert all(s.load_seconds > 0 and s.label.startswith("onnxruntime") for s in found.sides)


def test_the_memory_of_a_side_is_that_of_its_own_process(found):
    for side in found.sides[:2]:
        assert 10e6 < side.memory_before <= side.memory_peak < 1e9
        assert side.gpu_memory is None


def test_outputs_that_differ_are_said_and_no_error(found):
    assert [t.outputs.status for t in found.points[0].sides] == ["reference", "differ", "agree"]
    assert found.points[0].sides[1].outputs.reason.startswith("`y`: ")
    assert found.points[0].sides[1].ratio.rounds == 7


def test_a_side_that_fails_at_one_point_fails_there_alone_and_is_the_answer(found):
    first, second = found.points
    assert first.sides[2].latency.runs == 7
    assert second.sides[2].latency is None
    assert isinstance(second.sides[2].error, ParityFailed)
    assert second.sides[0].latency.runs == second.sides[1].latency.runs == 7
    assert found.error() is second.sides[2].error


def test_throughput_and_work_are_at_the_size_of_the_point_by_each_models_own_names(found):
    for point, batch in zip(found.points, (2, 3), strict=True):
        assert (point.item, point.items) == ("batch", batch)
        for each in point.sides[:2]:
            assert each.throughput == pytest.approx(batch / each.latency.mean)
            assert each.work.flops == 2 * batch * 6 * 4
            assert each.work.moved == 4 * (batch * 6 + 6 * 4 + batch * 4)
            assert each.work.achieved(each.latency.p50) == each.work.flops / each.latency.p50


def test_the_report_is_strict_json_one_screen_and_a_picture(found):
    read = json.loads(to_json(found, found.error()), parse_constant=pytest.fail)
    assert (read["schema"], read["status"], read["error"]["code"]) == ("graphkit.bench/1", "incomplete", "GK112")
    assert [s["outputs"]["status"] for s in read["points"][0]["sides"]] == ["reference", "differ", "agree"]
    assert read["points"][0]["sides"][0]["roofline"]["estimated"] is True
    text = to_text(found).plain
    assert text.count("\n") < 40
    assert "b.onnx: " in text
    assert "outputs differ: `y`" in text
    picture = to_svg(found)
    root = ElementTree.fromstring(picture)
    assert len([e for e in root.iter() if e.tag.endswith("rect")]) == 1 + 5  # the paper, and a bar for each
    assert "not timed" in picture
    assert "http" not in picture.replace("http://www.w3.org/2000/svg", "")


def test_names_from_files_steer_neither_terminal_nor_picture(found):
    hostile = replace(found, sides=tuple(replace(s, name="<b>\x1b[31m&") for s in found.sides))
    assert "\x1b" not in to_text(hostile).plain
    assert "<b>" not in to_svg(hostile)
    ElementTree.fromstring(to_svg(hostile))


@pytest.mark.parametrize(
    ("seconds", "text"),
    [(6.1e-7, "0.61 us"), (1.23e-5, "12.3 us"), (9.996e-4, "1.00 ms"), (0.123, "123 ms"), (4.5, "4.50 s")],
)
def test_times_have_three_digits(seconds, text):
    assert time_text(seconds) == text


def test_a_framework_an_onnx_file_and_an_engine_side_by_side(tmp_path, monkeypatch):
    monkeypatch.setattr(builder, "visible_gpus", tuple)

    class Product(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.w = nn.Parameter(torch.from_numpy(np.random.default_rng(3).standard_normal((6, 4), dtype=np.float32)))

        def forward(self, x: torch.Tensor) -> torch.Tensor:
            return x @ self.w

    (tmp_path / "m.engine").write_bytes(b"ftrt" + bytes(124))
    found = bench(
        [Product(), write(tmp_path / "a.onnx"), tmp_path / "m.engine"], BenchRequest(trust=True, budget=QUICK)
    )
    assert [(s.name, s.status, s.reason) for s in found.sides] == [
        ("Product", "measured", None),
        ("a.onnx", "measured", None),
        ("m.engine", "not run", "no CUDA device"),
    ]
    assert [t.outputs.status for t in found.points[0].sides] == ["reference", "agree"]
    assert isinstance(found.error(), GpuRequired)
    assert "m.engine" in to_text(found).plain


def test_cuda_that_is_not_there_is_not_run_and_nothing_falls_back_to_the_cpu(tmp_path):
    import onnxruntime

    if "CUDAExecutionProvider" in onnxruntime.get_available_providers():
        pytest.skip("this onnxruntime has CUDA")
    found = bench([write(tmp_path / "a.onnx")], BenchRequest(providers=("cuda",), budget=QUICK))
    assert (found.sides[0].status, found.points[0].sides) == ("not run", ())
    assert isinstance(found.error(), ExtraMissing)
    assert "onnxruntime-gpu" in found.error().remedy
    ElementTree.fromstring(to_svg(found))


@pytest.mark.parametrize(
    "asked",
    [
        BenchRequest(budget=Budget(runs=0)),
        BenchRequest(budget=Budget(seconds=0)),
        BenchRequest(budget=Budget(seconds=float("nan"))),
        BenchRequest(budget=Budget(warm_up=-1)),
        BenchRequest(threads=0),
        BenchRequest(providers=("tpu",)),
        BenchRequest(providers=("cpu", "cpu")),
        BenchRequest(providers=()),
    ],
)
def test_requests_that_would_time_nothing_are_refused(asked):
    with pytest.raises(BadOption):
        bench(["m.onnx"], asked)


def test_no_model_is_refused():
    with pytest.raises(BadOption, match="nothing to time"):
        bench([])


@pytest.mark.slow  # TensorFlow
@pytest.mark.filterwarnings("ignore::DeprecationWarning", "ignore::FutureWarning", "ignore::UserWarning")
def test_variables_of_tensorflow_are_as_they_were_after_the_clock_ran():
    tf = pytest.importorskip("tensorflow")

    class Summing(tf.Module):
        def __init__(self) -> None:
            super().__init__()
            self.total = tf.Variable([5.0, 7.0])

        @tf.function(input_signature=[tf.TensorSpec([2], tf.float32, name="x")])
        def __call__(self, x):
            return self.total.assign_add(x) * 2.0

    net = Summing()
    found = bench([net.__call__], BenchRequest(state="inputs", budget=QUICK))
    assert [s.status for s in found.sides] == ["measured"]
    assert found.points[0].sides[0].latency.runs == 7
    assert set(found.inputs) == {"x", "Variable"}
    np.testing.assert_array_equal(net.total.numpy(), [5.0, 7.0])


# --- the file that a model was converted from --------------------------------------------------------------------


def test_the_source_is_found_beside_the_model_by_its_digest(tmp_path):
    from graphkit.timing.source_file import source_beside

    source = tmp_path / "net.pt"
    source.write_bytes(b"weights")
    model = write(tmp_path / "m.onnx", metadata={"name": "net.pt", "sha256": file_sha256(source)})
    assert source_beside([model]) == [source]
    assert source_beside([str(source), model]) == []
    source.write_bytes(b"other weights")
    with pytest.raises(FileMissing, match="which is not beside it"):
        source_beside([model])


@pytest.mark.parametrize("metadata", [None, {}, {"name": "net.pt"}, {"name": "m", "sha256": None}])
def test_a_model_that_does_not_say_its_source_is_refused(tmp_path, metadata):
    with pytest.raises(BadOption, match="no ONNX file here says"):
        bench([write(tmp_path / "m.onnx", metadata=metadata)], BenchRequest(against_source=True))


def test_a_model_does_not_choose_code_to_run(tmp_path):
    with pytest.raises(BadOption, match="only where you name it"):
        bench([write(tmp_path / "m.onnx", metadata={"name": "os:abort"})], BenchRequest(against_source=True))


# --- processes ---------------------------------------------------------------------------------------------------


def test_workers_of_a_measurement_are_its_own_with_its_environment():
    shared = isolate.worker("bench test")
    with isolate.own_workers({"GRAPHKIT_TEST_THREADS": "3"}):
        mine = isolate.worker("bench test", env={"GRAPHKIT_TEST_THREADS": "1"})
        assert mine is not shared
        assert mine is isolate.worker("bench test")
        assert mine.call("os:getenv", key="GRAPHKIT_TEST_THREADS") == "3"
        child = mine._process
    assert child.poll() is not None
    assert isolate.worker("bench test") is shared


# --- engines -----------------------------------------------------------------------------------------------------


def test_events_stand_right_before_and_after_the_enqueued_run(monkeypatch):
    log = []

    def cuda(function: str, *arguments: object) -> None:
        log.append(function)
        if function == "cudaEventElapsedTime":
            arguments[0]._obj.value = 0.25

    context = SimpleNamespace(execute_async_v3=lambda stream: log.append(f"run on {stream}") or True)
    runner = SimpleNamespace(context=context, stream=SimpleNamespace(ptr=7))
    monkeypatch.setattr(trt_child, "_cuda", cuda)
    monkeypatch.setitem(trt_child._open, "m.engine", trt_child._Open(None, None, None, runner))
    assert trt_child.block("m.engine", runs=2, seconds=0.0) == [250_000] * 2
    once = ["cudaEventRecord", "run on 7", "cudaEventRecord", "cudaEventSynchronize", "cudaEventElapsedTime"]
    assert log == ["cudaEventCreate"] * 2 + once * 2 + ["cudaEventDestroy"] * 2


def test_what_is_called_of_tensorrt_and_polygraphy_is_there():
    trt = pytest.importorskip("tensorrt_rtx")
    from polygraphy.backend.trt import TrtRunner
    from polygraphy.cuda.cuda import Cuda

    assert hasattr(trt.IExecutionContext, "execute_async_v3")
    assert all(hasattr(TrtRunner, name) for name in ("activate", "deactivate", "infer"))
    assert hasattr(Cuda, "check")


@pytest.mark.gpu
def test_an_engine_is_timed_beside_its_graph(tmp_path):
    if not builder.visible_gpus():
        pytest.skip("no CUDA device")
    from graphkit.pipeline import convert

    model = write(tmp_path / "a.onnx")
    engine = tmp_path / "a.engine"
    convert(model, to="trt", dims={"batch": (1, 2, 4)}, output=engine)
    found = bench([model, engine], BenchRequest(at=({"batch": 2},), budget=QUICK))
    assert [s.status for s in found.sides] == ["measured", "measured"]
    assert [t.outputs.status for t in found.points[0].sides] == ["reference", "agree"]
    assert found.points[0].sides[1].latency.runs == 7
