"""Whole sets of inputs: read, generated, saved, and compared on."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from graphkit import input_sets
from graphkit.comparison import ValidateRequest, status_of, validate
from graphkit.errors import BadCallable, BadSample, FileMissing, UnknownName
from tests.test_comparison import W, write

pytestmark = pytest.mark.filterwarnings("ignore::DeprecationWarning", "ignore::FutureWarning")


@pytest.fixture
def good(tmp_path) -> Path:
    return write(tmp_path / "good.onnx")


def sets(*batches: int) -> tuple[dict[str, np.ndarray], ...]:
    return tuple({"x": np.full((n, 6), n / 10, np.float32)} for n in batches)


def test_saved_inputs_give_the_same_comparison_again(good, tmp_path):
    close = write(tmp_path / "close.onnx", w=W * np.float32(1.0001))
    first = validate(good, [close], ValidateRequest(save_inputs=tmp_path / "in.npz", seed=7))
    bytes_of = (tmp_path / "in.npz").read_bytes()
    again = validate(good, [close], ValidateRequest(sets=input_sets.read(tmp_path / "in.npz")))
    assert [c.outputs for c in again.comparisons] == [c.outputs for c in first.comparisons]
    validate(good, [close], ValidateRequest(save_inputs=tmp_path / "in.npz", seed=7))
    assert (tmp_path / "in.npz").read_bytes() == bytes_of


def test_small_floats_can_be_saved_too(tmp_path):
    text = "g (bfloat16[batch, 6] x) => (float[batch, 6] y) { c = Cast<to = 1>(x) y = Mul(c, b) }"
    path = write(tmp_path / "m.onnx", text)
    first = validate(path, [path], ValidateRequest(save_inputs=tmp_path / "in.npz"))
    again = validate(path, [path], ValidateRequest(sets=input_sets.read(tmp_path / "in.npz")))
    assert (status_of(first), status_of(again)) == ("pass", "pass")


def test_one_set_is_an_archive_that_numpy_reads(tmp_path):
    input_sets.write(tmp_path / "one.npz", sets(2))
    with np.load(tmp_path / "one.npz", allow_pickle=False) as file:
        assert file["x"].shape == (2, 6)
    assert len(input_sets.read(tmp_path / "one.npz")) == 1


def test_a_set_of_arrays_is_compared_on(good):
    report = validate(good, [good], ValidateRequest(sets=sets(1, 3)))
    assert [c.sizes for c in report.comparisons] == [{"batch": 1}, {"batch": 3}]
    assert [c.note for c in report.comparisons] == ["input set 1 of 2", "input set 2 of 2"]
    assert report.inputs == {"x": "given"}


def test_a_folder_holds_one_set_or_several(tmp_path):
    np.save(tmp_path / "x.npy", np.ones(3))
    (only,) = input_sets.read(tmp_path)
    assert list(only) == ["x"]
    (tmp_path / "x.npy").unlink()
    for number, each in enumerate(sets(1, 2)):
        np.savez(tmp_path / f"{number}.npz", **each)
    assert [len(s["x"]) for s in input_sets.read(tmp_path)] == [1, 2]


def test_sets_that_cannot_be_read_are_refused(tmp_path):
    with pytest.raises(FileMissing):
        input_sets.read(tmp_path / "none.npz")
    with pytest.raises(BadSample, match="neither"):
        input_sets.read(tmp_path)
    (tmp_path / "bad.npz").write_bytes(b"PK\x03\x04 cut off")
    with pytest.raises(BadSample, match=r"bad\.npz"):
        input_sets.read(tmp_path / "bad.npz")
    np.save(tmp_path / "pickled.npy", np.array([{}], object), allow_pickle=True)
    with pytest.raises(BadSample, match="no plain arrays"):
        input_sets.read(tmp_path / "pickled.npy")


def test_a_set_that_lacks_an_input_or_has_another_is_refused(good):
    with pytest.raises(BadSample, match="no values for x"):
        validate(good, [good], ValidateRequest(sets=({"z": np.ones(3)},)))
    with pytest.raises(UnknownName, match="no input `z`"):
        validate(good, [good], ValidateRequest(sets=({**sets(1)[0], "z": np.ones(3)},)))


def test_a_users_generator_gives_sets(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    Path("gk_feed.py").write_text(
        "import numpy as np\n"
        "def forever():\n    while True:\n        yield {'x': np.ones(3)}\n"
        "def broken():\n    yield {'x': np.ones(3)}\n    raise RuntimeError('no more')\n"
        "def wrong():\n    yield 3\n"
    )
    found, more = input_sets.generated("gk_feed:forever")
    assert (len(found), more) == (input_sets.MOST, True)
    for name, why in (("broken", "no more"), ("wrong", "yields a int")):
        with pytest.raises(BadCallable, match=why):
            input_sets.generated(f"gk_feed:{name}")
