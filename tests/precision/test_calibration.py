"""Calibration: what is measured is what numpy measures, data is read one sample at a time, and bad data is refused."""

from __future__ import annotations

import gc
import weakref

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from fixtures.precision_models import residual
from graphkit.errors import BadCallable, BadSample, FileMissing, ShapeMismatch, UnknownName
from graphkit.precision import quantize
from graphkit.precision.calibration import observe
from graphkit.precision.data import MOST, made_up, open_data
from graphkit.precision.quant_histogram import BINS, Histogram, entropy, percentile
from tests.precision.quantised import model, outputs, samples, text

F = np.float32
GRAPH = "g (float[batch, 3] x, int64[batch] i) => (float[batch, 3] y) { y = Relu(x) }"


@pytest.fixture(scope="module")
def two_inputs():
    return text(GRAPH)


@pytest.fixture(scope="module")
def one_input():
    return text("g (float[2, 3] x) => (float[2, 3] y) { y = Relu(x) }")


def sample(rows: int = 2) -> dict[str, np.ndarray]:
    return {"x": np.ones((rows, 3), F), "i": np.zeros(rows, np.int64)}


# --- measuring ---------------------------------------------------------------------------------------------------


def test_minmax_is_the_largest_absolute_value_of_every_tensor():
    source = model(residual())
    data = samples(source)
    names = ["x", "stem.relu", "pool", "one.sum", "flat"]
    seen = observe(source, names, data)
    assert seen.samples == len(data)
    full = source.with_step("all", source.ir.clone())
    full.ir.graph.outputs.extend(v for n in full.ir.graph for v in n.outputs if v.name in names)
    wanted = dict.fromkeys(names, 0.0)
    for each in data:
        for name, value in {**outputs(full, each), **each}.items():
            if name in wanted:
                wanted[name] = max(wanted[name], float(np.abs(value).max()))
    assert seen.amax == pytest.approx(wanted, rel=1e-5)


def test_percentile_and_entropy_clip_an_outlier_that_minmax_follows():
    source = text("g (float[n] x) => (float[n] y) { y = Relu(x) }")
    values = np.random.default_rng(0).standard_normal(400_000).astype(F)
    values[7] = 100.0
    found = {m: observe(source, ["x"], [{"x": values}], m).amax["x"] for m in ("minmax", "percentile", "entropy")}
    assert found["minmax"] == 100.0
    assert found["percentile"] < 6.0
    assert found["entropy"] < 20.0


@given(st.lists(st.floats(-1e6, 1e6, width=32), min_size=1, max_size=60), st.integers(1, 5))
@settings(max_examples=40, deadline=None)
def test_a_histogram_counts_every_value_once_however_the_data_is_cut(values, pieces):
    values = np.array(values, F)
    histogram = Histogram()
    for piece in np.array_split(values, pieces):
        histogram.add(piece)
    assert histogram.counts.sum() == values.size
    assert histogram.amax == float(np.abs(values).max())
    for share in (50.0, 99.0, 100.0):
        found = percentile(histogram, share)
        inside = (np.abs(values) <= found * (1 + 1e-6) + 1e-30).mean()
        assert inside >= share / 100 - 1e-9
        assert 0 <= found <= histogram.amax
    assert 0 <= entropy(histogram) <= histogram.amax


def test_a_histogram_widens_without_losing_counts():
    histogram = Histogram()
    histogram.add(np.full(10, 1e-3, F))
    histogram.add(np.full(5, 3.0, F))
    assert histogram.counts.sum() == 15
    assert histogram.counts[0] == 10
    assert histogram.width * BINS >= 3.0


def test_entropy_keeps_a_uniform_distribution_whole():
    histogram = Histogram()
    histogram.add(np.linspace(-1, 1, 200_001, dtype=F))
    assert entropy(histogram) > 0.95


def test_a_tensor_that_becomes_infinite_is_named():
    source = text("g (float[2] x) => (float[2] y) { big = Exp(x) y = Tanh(big) }")
    rows = [{"x": np.zeros(2, F)}, {"x": np.full(2, 200, F)}]
    with pytest.raises(BadSample, match="`big` is not finite in float32, on sample 2"):
        observe(source, ["big"], rows)


def test_a_model_that_is_nan_on_a_sample_is_refused():
    source = text("g (float[2] x) => (float[2] y) { r = Relu(x) y = Log(x) }")
    with pytest.raises(BadSample, match="`y` is not finite"):
        observe(source, ["r"], [{"x": np.full(2, -1, F)}])


def test_tensors_that_never_speak_are_told():
    source = text("g (float[1, 16] x) => (float[1, 4] y) { r = Relu(x) y = MatMul(r, w) }", w=np.ones((16, 4), F))
    lowered = quantize.lower(source, "int8", [{"x": -np.ones((1, 16), F)}])
    assert any("zero in every sample, the first `r`" in f.message for f in lowered.findings)


# --- reading -----------------------------------------------------------------------------------------------------


def test_archives_folders_and_arrays_are_read(two_inputs, one_input, tmp_path):
    np.savez(tmp_path / "one.npz", **sample())
    assert len(list(open_data(two_inputs, tmp_path / "one.npz"))) == 1
    np.savez(tmp_path / "many.npz", **{f"{n}/{k}": v for n in range(3) for k, v in sample(n + 1).items()})
    assert [len(s["x"]) for s in open_data(two_inputs, str(tmp_path / "many.npz"))] == [1, 2, 3]
    assert len(list(open_data(two_inputs, tmp_path))) == 4
    arrays = tmp_path / "arrays"
    arrays.mkdir()
    for number in range(3):
        np.save(arrays / f"picture{number}.npy", np.full((2, 3), number, F))
    assert [int(s["x"][0, 0]) for s in open_data(one_input, arrays)] == [0, 1, 2]
    inputs = tmp_path / "inputs"
    inputs.mkdir()
    for name, value in sample().items():
        np.save(inputs / f"{name}.npy", value)
    assert len(list(open_data(two_inputs, inputs))) == 1


def test_a_long_array_is_cut_to_what_one_run_takes(two_inputs, one_input, tmp_path):
    np.save(tmp_path / "long.npy", np.arange(30, dtype=F).reshape(10, 3))
    pieces = list(open_data(one_input, tmp_path / "long.npy"))
    assert [p["x"].shape for p in pieces] == [(2, 3)] * 5
    np.testing.assert_array_equal(np.concatenate([p["x"] for p in pieces]).reshape(-1), np.arange(30))
    assert [len(s["x"]) for s in open_data(two_inputs, [sample(19)])] == [8, 8, 3]
    np.save(tmp_path / "odd.npy", np.zeros((5, 3), F))
    with pytest.raises(ShapeMismatch, match="shape"):
        list(open_data(one_input, tmp_path / "odd.npy"))


def test_a_generator_is_taken_one_sample_at_a_time():
    source = text("g (float[1, 16] x) => (float[1, 4] y) { y = MatMul(x, w) }", w=np.ones((16, 4), F))
    alive: list[weakref.ref] = []
    most = 0

    def rows():
        nonlocal most
        for number in range(20):
            value = np.full((1, 16), number, F)
            alive.append(weakref.ref(value))
            gc.collect()
            most = max(most, sum(r() is not None for r in alive))
            yield {"x": value}

    calibrated = quantize.prepare(source, "int8", rows)
    assert most <= 3
    assert calibrated.ranges.amax["x"] == 19


def test_an_endless_generator_ends(one_input):
    def endless():
        while True:
            yield {"x": np.zeros((2, 3), F)}

    assert sum(1 for _ in open_data(one_input, endless)) == MOST


def test_a_function_of_the_user_is_called_by_name(one_input, tmp_path, monkeypatch):
    (tmp_path / "my_data.py").write_text(
        "import numpy as np\ndef rows():\n    yield {'x': np.ones((2, 3), 'f4')}\n"
        "def broken():\n    yield {'x': np.ones((2, 3), 'f4')}\n    raise RuntimeError('disk full')\n"
        "def wrong():\n    yield [1, 2]\ndef number():\n    return 3\n"
        "def leaves():\n    raise SystemExit(3)\ndef leaves_late():\n    yield from rows()\n    raise SystemExit(3)\n"
    )
    monkeypatch.chdir(tmp_path)
    monkeypatch.syspath_prepend(str(tmp_path))
    assert len(list(open_data(one_input, "my_data:rows"))) == 1
    for name, said in (
        ("broken", "disk full"),
        ("wrong", "yields a list"),
        ("number", "gives a int"),
        ("no", "no `no`"),
        ("leaves", "SystemExit: 3"),
        ("leaves_late", "SystemExit: 3"),
    ):
        with pytest.raises(BadCallable, match=said) as raised:
            list(open_data(one_input, f"my_data:{name}"))
        assert "the model" not in (raised.value.remedy or "")


@pytest.mark.parametrize(
    ("change", "error", "said"),
    [
        ({"x": np.ones((2, 4), F)}, ShapeMismatch, "the model takes"),
        ({"x": np.ones((2, 3))}, BadSample, "is float64, the model takes float32"),
        ({"i": None}, BadSample, "lacks the input `i`"),
        ({"more": np.ones(2, F)}, UnknownName, "no input `more`"),
        ({"x": np.array([[1, 2, np.nan]] * 2, F)}, BadSample, "2 values that are not finite, the first is nan"),
        ({"x": np.array([[1, np.inf, 0]] * 2, F)}, BadSample, "the first is inf"),
        ({"i": np.zeros(3, np.int64)}, ShapeMismatch, "batch"),
    ],
)
def test_a_sample_that_does_not_fit_is_refused_with_its_place(two_inputs, change, error, said):
    bad = {k: v for k, v in {**sample(), **change}.items() if v is not None}
    with pytest.raises(error, match=said) as raised:
        list(open_data(two_inputs, [sample(), bad]))
    assert raised.value.where == "the given samples, sample 1"


def test_files_that_hold_no_arrays_are_refused(two_inputs, one_input, tmp_path):
    with pytest.raises(FileMissing, match="nowhere"):
        open_data(one_input, tmp_path / "nowhere")
    (tmp_path / "text.txt").write_text("1 2 3")
    with pytest.raises(BadSample, match="no calibration data"):
        open_data(one_input, tmp_path / "text.txt")
    (tmp_path / "broken.npz").write_bytes(b"PK\x03\x04 no archive")
    (tmp_path / "broken.npy").write_bytes(b"\x93NUMPY")
    np.save(tmp_path / "objects.npy", np.array([{}], object), allow_pickle=True)
    for name in ("broken.npz", "broken.npy", "objects.npy"):
        with pytest.raises(BadSample, match=name):
            list(open_data(one_input, tmp_path / name))
    (tmp_path / "garbage.npz").write_bytes(b"no archive, and no pickle either")
    with pytest.raises(BadSample, match=r"garbage\.npz") as raised:
        list(open_data(one_input, tmp_path / "garbage.npz"))
    assert "allow_pickle" not in raised.value.render()
    np.savez(tmp_path / "nothing.npz", x=np.zeros((0, 3), F))
    with pytest.raises(BadSample, match="a sample is empty"):
        list(open_data(one_input, tmp_path / "nothing.npz"))
    np.savez(tmp_path / "empty.npz")
    with pytest.raises(BadSample, match="no arrays"):
        list(open_data(one_input, tmp_path / "empty.npz"))
    np.save(tmp_path / "array.npy", np.zeros((2, 3), F))
    with pytest.raises(BadSample, match="has 2 inputs: x, i"):
        list(open_data(two_inputs, tmp_path / "array.npy"))
    (tmp_path / "folder").mkdir()
    with pytest.raises(BadSample, match="neither"):
        list(open_data(one_input, tmp_path / "folder"))
    with pytest.raises(BadSample, match="holds no samples"):
        list(open_data(one_input, []))
    with pytest.raises(BadSample, match="read more than once"):
        open_data(one_input, iter([sample()]))


def test_made_up_samples_are_the_same_every_time(two_inputs):
    first, second = list(made_up(two_inputs)), list(made_up(two_inputs))
    assert len(first) == 8
    assert len({s["x"].shape for s in first}) > 1
    for a, b in zip(first, second, strict=True):
        np.testing.assert_array_equal(a["x"], b["x"])
