"""`assert_parity` in somebody's tests."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

import graphkit as gk
from graphkit.errors import BadOption
from tests.test_comparison import DIMS, OFF, Net, write

ROOT = Path(__file__).resolve().parents[1]

TESTS = """\
import graphkit as gk

def test_good():
    gk.assert_parity("ref.onnx", "good.onnx", dims={"batch": (1, 4, 8)}, metrics=["snr>=60"])

def test_bad():
    gk.assert_parity("ref.onnx", "bad.onnx")
"""


def test_a_module_and_its_export_are_equal(tmp_path):
    report = gk.assert_parity(Net(), write(tmp_path / "good.onnx"), dims={"batch": (1, 4, 8)})
    assert {c.sizes["batch"] for c in report.comparisons} >= {DIMS[0].min, DIMS[0].max}


def test_a_difference_is_an_assertion_error_that_shows_the_report(tmp_path):
    with pytest.raises(AssertionError, match=r"parity: fail against ref\.onnx"):
        gk.assert_parity(write(tmp_path / "ref.onnx"), write(tmp_path / "bad.onnx", w=OFF))


def test_a_malformed_condition_is_no_assertion_error(tmp_path):
    path = write(tmp_path / "ref.onnx")
    with pytest.raises(BadOption):
        gk.assert_parity(path, path, metrics=["psnr>=3"])


@pytest.fixture
def project(tmp_path) -> Path:
    write(tmp_path / "ref.onnx")
    write(tmp_path / "good.onnx")
    write(tmp_path / "bad.onnx", w=OFF)
    (tmp_path / "test_mine.py").write_text(TESTS)
    return tmp_path


def pytest_in(folder: Path, *options: str) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-m", "pytest", "-q", "-p", "graphkit.pytest_plugin", "-p", "no:cacheprovider", *options]
    environment = {**os.environ, "PYTHONPATH": str(ROOT)}
    return subprocess.run(command, cwd=folder, capture_output=True, text=True, check=False, env=environment)


def test_the_report_has_a_part_per_test(project):
    said = pytest_in(project, "--graphkit-report", "parity.md")
    assert "1 failed, 1 passed" in said.stdout, said.stdout + said.stderr
    assert "elements outside the tolerance" in said.stdout
    text = (project / "parity.md").read_text()
    assert "## `test_mine.py::test_good`\n\n### graphkit validate: pass\n" in text
    assert "## `test_mine.py::test_bad`\n\n### graphkit validate: fail\n" in text


def test_a_report_of_several_processes_is_refused(project):
    said = pytest_in(project, "--graphkit-report", "parity.md", "-n", "2")
    assert said.returncode == 4
    assert "leave out -n" in said.stderr
