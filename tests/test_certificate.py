"""A certificate read again: it speaks of the very files that were compared, or of none."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from graphkit.certificate import recheck
from graphkit.errors import CorruptFile, FileMissing, UnsafePath
from graphkit.model import file_sha256


def certificate(folder: Path, status: str = "pass", **files: str) -> Path:
    """A parity report of `m.onnx`, which is there, and of other files by digest."""
    model = folder / "m.onnx"
    model.write_bytes(b"model")
    path = folder / "m.onnx.parity.json"
    report = {"schema": "graphkit.parity/1", "status": status, "files": {"m.onnx": file_sha256(model), **files}}
    path.write_text(json.dumps(report))
    return path


def states(path: Path) -> dict[str, str]:
    return {f.name: f.state for f in recheck(path).files}


def test_unchanged_files_are_certified(tmp_path):
    found = recheck(certificate(tmp_path))
    assert (found.status, found.error(), states(tmp_path / "m.onnx.parity.json")) == ("pass", None, {"m.onnx": "same"})


def test_a_changed_file_is_found(tmp_path):
    path = certificate(tmp_path)
    (tmp_path / "m.onnx").write_bytes(b"mode!")
    assert states(path) == {"m.onnx": "changed"}
    assert (recheck(path).status, recheck(path).error().exit_code) == ("fail", 1)


def test_a_missing_file_is_a_bad_request(tmp_path):
    path = certificate(tmp_path)
    (tmp_path / "m.onnx").unlink()
    assert states(path) == {"m.onnx": "missing"}
    assert isinstance(recheck(path).error(), FileMissing)


def test_a_comparison_that_failed_is_not_certified(tmp_path):
    assert recheck(certificate(tmp_path, "fail")).error().exit_code == 1


def test_the_source_need_not_lie_beside_but_counts_where_it_does(tmp_path):
    path = certificate(tmp_path, **{"source: m.pt": "0" * 64})
    assert states(path)["source: m.pt"] == "not here"
    assert recheck(path).status == "pass"
    (tmp_path / "m.pt").write_bytes(b"another")
    assert recheck(path).error().exit_code == 1


@pytest.mark.parametrize("name", ["/etc/passwd", "../m.onnx", "source: ../m.pt"])
def test_files_outside_its_folder_are_not_read(name, tmp_path):
    with pytest.raises(UnsafePath):
        recheck(certificate(tmp_path, **{name: "0" * 64}))


@pytest.mark.parametrize(
    "text",
    ["", "[]", "{}", "[" * 100_000, '{"schema": "graphkit.convert/1"}',
     '{"schema": "graphkit.parity/1", "status": "maybe", "files": {}}',
     '{"schema": "graphkit.parity/1", "status": "pass", "files": {"m": 3}}',
     '{"schema": "graphkit.parity/1", "status": "pass", "files": {}}'],
)  # fmt: skip
def test_what_is_no_certificate_is_refused(text, tmp_path):
    (tmp_path / "c.json").write_text(text)
    with pytest.raises(CorruptFile):
        recheck(tmp_path / "c.json")


def test_a_certificate_that_is_not_there_is_missing(tmp_path):
    with pytest.raises(FileMissing):
        recheck(tmp_path / "none.json")


def test_the_answer_is_strict_json(tmp_path):
    data = json.loads(json.dumps(recheck(certificate(tmp_path)).to_json(), allow_nan=False))
    assert data["schema"] == "graphkit.certificate/1"
    assert data["files"] == {"m.onnx": "same"}
