import json
import math
from dataclasses import replace
from pathlib import Path

import pytest

from graphkit.errors import FileMissing
from graphkit.model import Finding
from graphkit.parity.verdict import Comparison, ParityReport
from graphkit.report.convert import to_json, to_text
from graphkit.result import ConvertResult
from tests.report.results import ORT_ON, compared, failing_parity, passing, with_warnings

PASSING = """\
m.engine  1.5 kB
  input   x: float32[batch, 3]
  output  logits: float32[batch, 3]
  dims    batch=1:4:8

parity: pass against torch 2.13.0 (cpu), seed 0
  pass     onnxruntime 1.32.0 (cpu, optimisations off)  max abs 8.0e-07 over 3 shapes
  pass     onnxruntime 1.32.0 (cpu, optimised model)    max abs 8.0e-07 over 3 shapes
  shapes     batch=4; batch=1 (not used in capture); batch=8 (not used in capture)
  tolerance  float32: 1e-05 + 0.0001 * |expected|
  engine: not run (no CUDA device)

warnings: 1
  GK105: right for `batch` up to 8 only
    where: m.py:3 in forward
    try:   --via script

files
  m.engine              1.5 kB
  m.engine.parity.json  2 B"""

FAILING = """\
parity: fail against torch 2.13.0 (cpu), seed 0
  fail     onnxruntime 1.32.0 (cpu, optimised model)  max abs 1.2e-01 (2.1e+03 tolerances) over 2 shapes
    logits[7, 2] at batch=8, onnxruntime 1.32.0 (cpu, optimised model)
      expected 0.5, got 0.625; max abs 1.2e-01, tolerance 1e-05 + 0.0001 * |expected|
      3 of 24 elements differ
  shapes     batch=4; batch=8 (not used in capture)
  tolerance  float32: 1e-05 + 0.0001 * |expected|
  engine: not run (an engine was not asked for)

files
  m.onnx.parity.json"""


@pytest.fixture(autouse=True)
def _here(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)


def test_summary_of_a_conversion(tmp_path):
    assert to_text(passing(tmp_path)).plain == PASSING


def test_summary_of_a_failed_parity_shows_the_output_that_differs():
    assert to_text(failing_parity()).plain == FAILING


def test_a_conversion_that_ended_early_has_no_summary():
    assert to_text(ConvertResult("m.pt", "onnx", error=FileMissing("no file"))).plain == ""


def test_verbose_adds_the_inputs_and_versions(tmp_path):
    plain = to_text(passing(tmp_path), verbose=True).plain
    assert "  input      x: N(0, 1)\n  version    torch 2.13.0\n" in plain


def test_summary_fits_one_screen_unless_verbose():
    result = with_warnings(100)
    plain = to_text(result).plain
    assert "finding 2\n  ... and 97 more warnings (-v lists them)" in plain
    assert "warnings: 100" in plain
    assert len(plain.splitlines()) <= 24
    assert "finding 99" in to_text(result, verbose=True).plain


def test_a_candidate_that_ran_at_some_shapes_only_says_so():
    skipped = Comparison("torch", ORT_ON, {"batch": 8}, 0, False, "not run", reason="out of memory")
    plain = to_text(replace(failing_parity(), parity=ParityReport((compared(ORT_ON, 4), skipped)))).plain
    assert "over 1 shape  not run at 1: out of memory" in plain
    assert "batch=8" not in plain


def test_a_run_that_raised_is_shown_with_its_reason():
    broken = Comparison("torch", ORT_ON, {"batch": 1}, 0, False, "fail", reason="onnxruntime: bad shape")
    plain = to_text(replace(failing_parity(), parity=ParityReport((broken,)))).plain
    assert f"    {ORT_ON} at batch=1: onnxruntime: bad shape" in plain
    assert "tolerance  none: no output compared" in plain


def test_a_nan_difference_is_not_hidden_by_a_finite_one():
    parity = ParityReport((compared(ORT_ON, 4), compared(ORT_ON, 8, max_abs=math.nan, mismatches=1)))
    assert "max abs nan" in to_text(replace(failing_parity(), parity=parity)).plain


def test_names_cannot_steer_the_terminal(tmp_path):
    evil = replace(passing(tmp_path), warnings=(Finding("GK105", "\x1b]0;owned\x07"),))
    assert "\x1b" not in to_text(evil).plain


@pytest.mark.parametrize("make", [passing, lambda _: failing_parity(), lambda _: with_warnings(3)])
def test_json_is_strict_and_holds_the_result(make, tmp_path):
    result = make(tmp_path)
    text = to_json(result)
    assert json.loads(text, parse_constant=pytest.fail) == result.to_json()
    assert text.isascii()


def test_json_spells_an_infinite_difference_as_a_string():
    parity = ParityReport((compared(ORT_ON, 8, max_abs=math.inf, mismatches=1),))
    data = json.loads(to_json(replace(failing_parity(), parity=parity)), parse_constant=pytest.fail)
    assert data["parity"]["comparisons"][0]["outputs"][0]["max_abs"] == "inf"


def test_json_refuses_a_number_that_is_not_finite():
    with pytest.raises(ValueError, match="JSON"):
        to_json(ConvertResult("m.pt", "onnx", error=FileMissing("x", data={"size": math.nan})))


def test_a_missing_size_is_left_out():
    assert to_text(with_warnings(0)).plain.startswith("m.onnx\n")
    assert not Path("m.onnx").exists()
