"""A parity report as JUnit XML: a suite per candidate, in it a test case per output at each shape.

What was not run is an error there and never skipped, which most consumers count as good.
"""

from __future__ import annotations

from typing import TYPE_CHECKING
from xml.etree import ElementTree

from graphkit.report.parity import draw_text, sizes_text, tolerance_text
from graphkit.report.wording import printable

if TYPE_CHECKING:
    from graphkit.parity.verdict import Comparison, OutputComparison, ParityReport


def to_xml(report: ParityReport) -> bytes:
    """The report as a JUnit file; the same report gives the same bytes, since there are no times in it."""
    root = ElementTree.Element("testsuites", name="graphkit validate")
    for candidate in dict.fromkeys(c.candidate for c in report.comparisons):
        mine = [c for c in report.comparisons if c.candidate == candidate]
        suite = ElementTree.SubElement(root, "testsuite", name=printable(candidate))
        for comparison in mine:
            for case in _cases(comparison):
                suite.append(case)
        _count(suite)
    _count(root)
    ElementTree.indent(root)
    text: bytes = ElementTree.tostring(root, encoding="utf-8", xml_declaration=True)
    return text + b"\n"


def _cases(comparison: Comparison) -> list[ElementTree.Element]:
    if not comparison.outputs:  # it did not run, or failed while it ran
        case = _case(comparison, "every output")
        bad = ElementTree.SubElement(case, "failure" if comparison.status == "fail" else "error")
        bad.attrib.update(type=comparison.status, message=printable(comparison.reason or comparison.status))
        return [case]
    return [_output(comparison, output) for output in comparison.outputs]


def _output(comparison: Comparison, output: OutputComparison) -> ElementTree.Element:
    case = _case(comparison, output.output)
    if output.source is not None and output.source.file is not None:
        case.attrib.update(file=printable(output.source.file), line=str(output.source.line or 1))
    facts = [f"max abs {_number(output.max_abs)}, tolerance {tolerance_text(output)}"]
    facts += [f"{name} {value:.6g}" for name, value in output.metrics.items()]
    facts += [comparison.note] if comparison.note else []
    if output.status == "fail":
        bad = ElementTree.SubElement(case, "failure", type="fail", message=printable(output.reason or "it differs"))
        source = [f"made at {output.source}"] if output.source is not None else []
        bad.text = printable("\n".join([*source, f"against {comparison.reference}", *facts]))
    else:
        ElementTree.SubElement(case, "system-out").text = printable("\n".join(facts))
    return case


def _case(comparison: Comparison, output: str) -> ElementTree.Element:
    name = f"{output} at {sizes_text(comparison)}, {draw_text(comparison)}"
    return ElementTree.Element("testcase", classname=printable(comparison.candidate), name=printable(name))


def _count(suite: ElementTree.Element) -> None:
    cases = list(suite.iter("testcase"))
    failures, errors = (sum(c.find(kind) is not None for c in cases) for kind in ("failure", "error"))
    suite.attrib.update(tests=str(len(cases)), failures=str(failures), errors=str(errors), skipped="0")


def _number(value: float | None) -> str:
    return "-" if value is None else f"{value:.3g}"
