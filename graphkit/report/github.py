"""A parity report as annotations that GitHub shows beside the lines of a pull request.

The form is that of workflow commands: `::error file=net.py,line=12,title=...::message`.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from graphkit.report.parity import sizes_text
from graphkit.report.wording import printable

if TYPE_CHECKING:
    from graphkit.parity.verdict import Comparison, OutputComparison, ParityReport


def to_annotations(report: ParityReport) -> str:
    """One line per output that fails, at the first shape where it does, and per candidate that did not run."""
    found: dict[tuple[str, str], str] = {}
    for comparison in report.comparisons:
        if comparison.status == "pass":
            continue
        for output in comparison.outputs:
            if output.status == "fail":
                found.setdefault((comparison.candidate, output.output), _output(comparison, output))
        if not comparison.outputs:
            how = "not run" if comparison.status == "not run" else "fails"
            text = f"{comparison.candidate}: {how} at {sizes_text(comparison)}: {comparison.reason}"
            found.setdefault((comparison.candidate, "\0"), _command(text, title="graphkit validate"))
    return "".join(f"{line}\n" for line in found.values())


def _output(comparison: Comparison, output: OutputComparison) -> str:
    text = f"`{output.output}` of {comparison.candidate} at {sizes_text(comparison)}: {output.reason}"
    place = {}
    if output.source is not None and output.source.file is not None:
        place = {"file": output.source.file, "line": str(output.source.line or 1)}
    return _command(text, **place, title="graphkit validate")


def _command(text: str, **properties: str) -> str:
    shown = ",".join(f"{name}={escaped_property(value)}" for name, value in properties.items())
    return f"::error {shown}::{escaped_data(text)}"


def escaped_data(text: str) -> str:
    """As `escapeData` of GitHub's toolkit (packages/core/src/command.ts)."""
    return printable(text).replace("%", "%25").replace("\r", "%0D").replace("\n", "%0A")


def escaped_property(text: str) -> str:
    """As `escapeProperty` there."""
    return escaped_data(text).replace(":", "%3A").replace(",", "%2C")
