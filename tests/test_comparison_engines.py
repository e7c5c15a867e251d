"""`validate` with engines, which no machine without a GPU runs."""

from __future__ import annotations

import json
import struct
from pathlib import Path

import pytest

from graphkit.comparison import ValidateRequest, error_of, status_of, validate
from graphkit.engine import builder
from graphkit.engine.rtx import RtxBuilder
from graphkit.errors import BadOption, UnknownName, UntrustedSource
from graphkit.model import file_sha256
from graphkit.shapes import DimRange, TensorSpec
from tests.test_comparison import DIMS, OFF, Net, write

pytestmark = pytest.mark.filterwarnings("ignore::DeprecationWarning", "ignore::FutureWarning")


@pytest.fixture
def good(tmp_path) -> Path:
    return write(tmp_path / "good.onnx")


def engine(folder: Path, *, vouched: bool = True) -> Path:
    """The header of an engine of TensorRT-RTX for compute capability 8.6, and its description."""
    path = folder / "m.engine"
    header = bytearray(128)
    header[:4] = b"vtrt"
    struct.pack_into("<Q", header, 16, len(header))
    header[24:28], header[32] = bytes((1, 7, 1, 116)), 4
    path.write_bytes(header)
    signature = {"inputs": [{"name": "x", "dtype": "float32", "shape": ["batch", 6]}], "outputs": []}
    facts = {
        "schema": "graphkit.engine/1",
        "engine": {"sha256": file_sha256(path) if vouched else "0" * 64},
        "model": {"signature": signature},
        "tf32": True,
        "profiles": [{"x": {"min": [2, 6], "opt": [3, 6], "max": [7, 6]}}],
    }
    (folder / "m.engine.json").write_text(json.dumps(facts))
    return path


def test_an_engine_without_a_gpu_is_not_run_and_that_is_no_pass(good, tmp_path, monkeypatch):
    monkeypatch.setattr(builder, "visible_gpus", lambda: ())
    report = validate(good, [good, engine(tmp_path)])
    assert status_of(report) == "not run"
    assert (report.engine, report.engine_reason) == ("not run", "no CUDA device")
    assert error_of(report).exit_code == 3
    statuses = {c.candidate.partition(":")[0]: c.status for c in report.comparisons}
    assert statuses == {"good.onnx (2)": "pass", "m.engine": "not run"}


def test_a_difference_counts_more_than_an_engine_that_was_not_run(good, tmp_path, monkeypatch):
    monkeypatch.setattr(builder, "visible_gpus", lambda: ())
    report = validate(good, [engine(tmp_path), write(tmp_path / "bad.onnx", w=OFF)])
    assert error_of(report).exit_code == 1


def test_nothing_is_proven_where_the_reference_is_an_engine_that_was_not_run(good, tmp_path, monkeypatch):
    monkeypatch.setattr(builder, "visible_gpus", lambda: ())
    report = validate(engine(tmp_path), [good])
    assert {c.status for c in report.comparisons} == {"not run"}


def test_an_engine_tells_a_module_its_inputs(tmp_path, monkeypatch):
    monkeypatch.setattr(builder, "visible_gpus", lambda: ())
    report = validate(Net(), [engine(tmp_path), Net()], ValidateRequest(dims=DIMS))
    assert [c.status for c in report.comparisons] == ["not run", "pass"] * 4


def test_sizes_are_those_that_the_engine_was_built_for(tmp_path, monkeypatch):
    """Where no other side declares any."""
    monkeypatch.setattr(builder, "visible_gpus", lambda: ())
    request = ValidateRequest(shapes=(TensorSpec("x", None, ("rows", 6)),))
    for sides in ([engine(tmp_path), write(tmp_path / "m.onnx")], [Net(), engine(tmp_path)], [engine(tmp_path)] * 2):
        report = validate(sides[0], sides[1:], request if isinstance(sides[0], Net) else None)
        sizes = [next(iter(c.sizes.values())) for c in report.comparisons]
        assert (min(sizes), max(sizes)) == (2, 7)


def test_options_that_engines_do_not_listen_to_are_refused(tmp_path, monkeypatch):
    monkeypatch.setattr(builder, "visible_gpus", lambda: ())
    path = engine(tmp_path)
    with pytest.raises(BadOption, match="--shape"):
        validate(path, [path], ValidateRequest(shapes=(TensorSpec("x", None, (1, 6)),)))
    with pytest.raises(UnknownName, match="`seq`"):
        validate(path, [path], ValidateRequest(dims=(DimRange("seq", 1, 2, 3),)))


def test_an_engine_that_its_description_does_not_vouch_for_is_refused(good, tmp_path, monkeypatch):
    monkeypatch.setattr(builder, "visible_gpus", lambda: ())
    path = engine(tmp_path, vouched=False)
    with pytest.raises(UntrustedSource, match=r"m\.engine\.json does not vouch"):
        validate(good, [path])
    assert status_of(validate(good, [path], ValidateRequest(trust=True))) == "not run"
    (tmp_path / "m.engine.json").unlink()
    with pytest.raises(UntrustedSource):
        validate(good, [path])


def test_an_engine_for_another_gpu_is_a_bad_request(good, tmp_path, monkeypatch):
    monkeypatch.setattr(builder, "visible_gpus", lambda: ("12.0",))
    with pytest.raises(Exception, match=r"was built for 8\.6; this machine's GPU is 12\.0") as caught:
        validate(good, [engine(tmp_path)])
    assert caught.value.exit_code == 2


@pytest.mark.parametrize("version", [(1, 6, 1, 9), (1, 8, 0, 1)])
def test_an_engine_of_another_release_is_not_run_and_both_releases_are_named(good, tmp_path, monkeypatch, version):
    monkeypatch.setattr(builder, "visible_gpus", lambda: ("8.6",))
    monkeypatch.setattr(builder, "choose", lambda backend=None: RtxBuilder())
    monkeypatch.setattr(RtxBuilder, "identity", lambda self: {"version": "1.7.1.116"})
    path = engine(tmp_path)
    data = bytearray(path.read_bytes())
    data[24:28] = bytes(version)
    path.write_bytes(data)
    described = json.loads((tmp_path / "m.engine.json").read_text())
    (tmp_path / "m.engine.json").write_text(json.dumps({**described, "engine": {"sha256": file_sha256(path)}}))
    report = validate(good, [path])
    assert (report.engine, status_of(report)) == ("not run", "not run")
    written = ".".join(map(str, version))
    assert report.engine_reason == (
        f"it was built with tensorrt-rtx {written}, which no other release runs; 1.7.1.116 is installed"
    )


@pytest.mark.parametrize(
    "damage",
    [
        {"profiles": [{"x": {"min": [], "opt": [3, 6], "max": [7, 6]}}]},
        {"profiles": [{"x": {"min": [9, 6], "opt": [3, 6], "max": [7, 6]}}]},
        {"profiles": [7]},
        {"model": {"signature": {"inputs": [{"name": 7, "dtype": "float32", "shape": ["batch", 6]}]}}},
        {"model": {"signature": {"inputs": [{"name": "x", "dtype": "float32", "shape": [1e400]}]}}},
    ],
)
def test_a_damaged_description_does_not_vouch(good, tmp_path, monkeypatch, damage):
    monkeypatch.setattr(builder, "visible_gpus", lambda: ())
    path = engine(tmp_path)
    described = json.loads((tmp_path / "m.engine.json").read_text())
    (tmp_path / "m.engine.json").write_text(json.dumps({**described, **damage}))
    with pytest.raises(UntrustedSource):
        validate(good, [path])
