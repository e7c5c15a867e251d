"""A comparison as text, JSON, JUnit, Markdown and annotations: what each consumer reads, byte for byte the same."""

from __future__ import annotations

import json
import math
from dataclasses import replace

import pytest
from junitparser import Error, Failure, JUnitXml

from graphkit.comparison import error_of, status_of
from graphkit.model import SourceLine
from graphkit.parity.verdict import Comparison, ParityReport
from graphkit.report.github import to_annotations
from graphkit.report.junit import to_xml
from graphkit.report.markdown import to_markdown
from graphkit.report.validate import to_json, to_text
from tests.report.results import ORT_OFF, ORT_ON, compared

LINE = SourceLine("head", "src/net.py", 12, "Net.forward")


def passing() -> ParityReport:
    comparisons = tuple(good(c, b, metrics={"snr": 120.0, "cosine": 1.0}) for c in (ORT_OFF, ORT_ON) for b in (1, 4))
    return ParityReport(
        comparisons, "not run", "no engine was given", {"x": "N(0, 1)"}, {"graphkit": "0"}, {"m": "ab" * 32}
    )


def good(candidate: str, batch: int, **fields) -> Comparison:
    comparison = compared(candidate, batch)
    return replace(comparison, outputs=tuple(replace(o, **fields) for o in comparison.outputs))


def failing() -> ParityReport:
    bad = compared(
        ORT_ON, 4, max_abs=0.125, worst_index=(3, 2), reference_value=0.5, candidate_value=0.625, mismatches=3,
        reason="3 of 12 elements outside the tolerance", source=LINE, metrics={"snr": 12.5, "cosine": 0.9},
    )  # fmt: skip
    bad = replace(bad, reason="`logits`: 3 of 12 elements outside the tolerance")
    crashed = Comparison("torch 2.13.0 (cpu)", ORT_ON, {"batch": 8}, 0, False, "fail", reason="it | crashed")
    return ParityReport((good(ORT_OFF, 4, metrics={"snr": math.inf}), bad, crashed), "not run", "no engine was given")


def not_run() -> ParityReport:
    skipped = Comparison("torch", "m.engine: tensorrt-rtx", {"batch": 1}, 0, False, "not run", reason="no CUDA device")
    return ParityReport((good(ORT_ON, 1), skipped), "not run", "no CUDA device")


REPORTS = {"pass": passing, "fail": failing, "not run": not_run}


@pytest.mark.parametrize("status", REPORTS)
def test_the_verdict_and_its_exit_code(status):
    report = REPORTS[status]()
    error = error_of(report)
    assert status_of(report) == status
    assert (error.exit_code if error else 0) == {"pass": 0, "fail": 1, "not run": 3}[status]


def test_nothing_compared_is_no_pass():
    assert status_of(ParityReport(())) == "not run"
    assert error_of(ParityReport(())).exit_code == 3


@pytest.mark.parametrize("status", REPORTS)
def test_json_is_strict_and_embeds_the_parity_report(status):
    report = REPORTS[status]()
    text = to_json(report, status_of(report), error_of(report))
    data = json.loads(text, parse_constant=pytest.fail)
    assert (data["schema"], data["status"], data["parity"]) == ("graphkit.validate/1", status, report.to_json())
    assert text.isascii()


@pytest.mark.parametrize("status", REPORTS)
def test_the_same_report_gives_the_same_bytes(status):
    for of in (to_xml, to_annotations, lambda r: to_markdown(r, status), lambda r: str(to_text(r, status))):
        assert of(REPORTS[status]()) == of(REPORTS[status]())


FAILING = """\
parity: fail against torch 2.13.0 (cpu), seed 0
  pass     onnxruntime 1.32.0 (cpu, optimisations off)  max abs 1.2e-07 over 1 shape
  fail     onnxruntime 1.32.0 (cpu, optimised model)    max abs 1.2e-01 (2.1e+03 tolerances) over 2 shapes
    logits[3, 2] at batch=4, onnxruntime 1.32.0 (cpu, optimised model)
      expected 0.5, got 0.625; max abs 1.2e-01, tolerance 1e-05 + 0.0001 * |expected|
      made at src/net.py:12 in Net.forward (module `head`)
      3 of 12 elements outside the tolerance
    onnxruntime 1.32.0 (cpu, optimised model) at batch=8: it | crashed
  worst      logits  snr inf dB  (onnxruntime 1.32.0 (cpu, optimisations off))
  worst      logits  snr 12.5 dB, cosine 0.9  (onnxruntime 1.32.0 (cpu, optimised model))
  shapes     batch=4; batch=8
  tolerance  float32: 1e-05 + 0.0001 * |expected|"""


def test_the_text_says_what_failed_where():
    assert to_text(failing(), "fail").plain == FAILING


def test_the_text_says_what_was_not_run_and_shows_notes():
    noted = replace(not_run(), comparisons=tuple(replace(c, note="a note") for c in not_run().comparisons))
    plain = to_text(noted, "not run").plain
    assert plain.startswith("parity: not run against")
    assert "  engine: not run (no CUDA device)" in plain
    assert plain.count("note       a note") == 1


def test_junit_is_read_by_its_consumers():
    xml = JUnitXml.fromstring(to_xml(failing()))
    assert (xml.tests, xml.failures, xml.errors, xml.skipped) == (3, 2, 0, 0)
    first, second = list(xml)
    assert (first.name, second.name) == (ORT_OFF, ORT_ON)
    (passed,) = list(first)
    wrong, crashed = list(second)
    assert (passed.name, passed.is_passed) == ("logits at batch=4, seed 0", True)
    assert isinstance(wrong.result[0], Failure)
    assert wrong.result[0].message == "3 of 12 elements outside the tolerance"
    assert "made at src/net.py:12" in wrong.result[0].text
    assert (wrong._elem.get("file"), wrong._elem.get("line")) == ("src/net.py", "12")
    assert (crashed.name, crashed.result[0].message) == ("every output at batch=8, seed 0", "it | crashed")


def test_what_was_not_run_is_not_green_in_junit():
    xml = JUnitXml.fromstring(to_xml(not_run()))
    assert (xml.tests, xml.failures, xml.errors) == (2, 0, 1)
    (case,) = list(list(xml)[1])
    assert isinstance(case.result[0], Error)
    assert case.result[0].message == "no CUDA device"


def test_input_sets_have_test_cases_of_their_own():
    two = tuple(replace(good(ORT_ON, 4), note=f"input set {n} of 2; tiny", seed=n - 1) for n in (1, 2))
    cases = [case.name for suite in JUnitXml.fromstring(to_xml(ParityReport(two))) for case in suite]
    assert cases == ["logits at batch=4, input set 1 of 2", "logits at batch=4, input set 2 of 2"]


def test_names_from_a_model_do_not_break_the_files():
    evil = good('a<b>&"\x00\x1b', 1, output="|`x`\n@all <script>")
    report = ParityReport((evil,))
    assert "\x1b" not in str(JUnitXml.fromstring(to_xml(report)))
    text = to_markdown(report, "pass")
    assert "<script>" not in text
    assert "@all" not in text
    row = next(line for line in text.splitlines() if "script" in line)
    assert row.replace("\\|", "").count("|") == 10


MARKDOWN = f"""\
### graphkit validate: pass

against torch 2.13.0 (cpu)

| | candidate | output | at | max abs | tolerance | snr | cosine | why |
|---|---|---|---|---|---|---|---|---|
| pass | {ORT_OFF} | logits | batch=1 | 1.2e-07 | 1e-05 + 0.0001 \\* \\|expected\\| | 120.0 dB | 1 |  |
| pass | {ORT_ON} | logits | batch=1 | 1.2e-07 | 1e-05 + 0.0001 \\* \\|expected\\| | 120.0 dB | 1 |  |

inputs: `x`: N(0, 1)

files: `m` `abababababab`

versions: graphkit 0
"""


def test_markdown_is_a_comment_for_a_pull_request():
    assert to_markdown(passing(), "pass") == MARKDOWN


def test_markdown_shows_the_worst_and_what_crashed():
    text = to_markdown(failing(), "fail")
    assert "made at src/net.py:12" in text
    assert "it \\| crashed" in text


def test_annotations_stand_on_the_line_that_makes_the_output():
    first, second = to_annotations(failing()).splitlines()
    assert first == (
        "::error file=src/net.py,line=12,title=graphkit validate::`logits` of onnxruntime 1.32.0 "
        "(cpu, optimised model) at batch=4: 3 of 12 elements outside the tolerance"
    )
    assert second.startswith(
        "::error title=graphkit validate::onnxruntime 1.32.0 (cpu, optimised model): fails at batch=8"
    )
    assert to_annotations(passing()) == ""


def test_annotations_are_escaped():
    odd = replace(LINE, file="a,b:c.py")
    bad = compared(ORT_ON, 4, reason="50% off\nand more", source=odd)
    (line,) = to_annotations(ParityReport((bad,))).splitlines()
    assert line.startswith("::error file=a%2Cb%3Ac.py,line=12,")
    assert line.endswith("50%25 off%0Aand more")
