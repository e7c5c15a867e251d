"""A check as text, as JSON, and as annotations that GitHub shows beside the lines of a pull request."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Sequence
from typing import TYPE_CHECKING

from graphkit.report.github import escaped_data, escaped_property
from graphkit.report.wording import printable

if TYPE_CHECKING:
    from rich.text import Text

    from graphkit.support.result import CheckResult, Finding
    from graphkit.support.rule import Rule

    Line = tuple[str, str]  # text and style

_STYLES = {"error": "bold red", "warning": "yellow", "note": "cyan"}
_PER_RULE = 5
"""Findings of one rule that are shown without -v; errors, of each operator."""

_NAMED = 6
"""Nodes of further errors that are named."""


def to_json(result: CheckResult) -> str:
    """The result as strict JSON (schema graphkit.check/1), ASCII only."""
    return json.dumps(result.to_json(), indent=2, allow_nan=False)


def to_text(result: CheckResult, *, verbose: bool = False) -> Text:
    """The verdict last, above it a few findings of each rule, and the nodes of further errors.

    Args:
        verbose: Whether all findings are shown, and what each node reads.
    """
    from rich.text import Text

    lines: list[Line] = []
    left: dict[tuple[str, str, str], list[Finding]] = {}
    shown: Counter[tuple[str, str, str]] = Counter()
    for finding in result.findings:
        op = finding.node.op if finding.node is not None and finding.severity == "error" else ""
        kind = finding.code, finding.severity, op
        shown[kind] += 1
        if verbose or shown[kind] <= _PER_RULE:
            lines += _finding(finding, verbose=verbose)
        else:
            left.setdefault(kind, []).append(finding)
    lines += [(_more(code, findings), "dim") for (code, _, _), findings in left.items()]
    lines += _partitions(result)
    lines += [("", "")] if lines else []
    lines += _verdict(result)
    return Text("\n").join(Text(printable(text), style=style) for text, style in lines)


def to_annotations(result: CheckResult) -> str:
    """One line per finding with a source line, and one that sums up: GitHub shows ten of a kind per step."""
    found: dict[str, None] = {}
    for finding in result.findings:
        if finding.severity != "note" and finding.node is not None and finding.node.file is not None:
            place = {"file": finding.node.file, "line": str(finding.node.line or 1)}
            text = f"{finding.message}: {finding.fix}"
            found[_command(finding.severity, text, **place, title=f"{finding.code} {finding.title}")] = None
    level = "error" if result.answer == "no" else "notice"
    found[_command(level, "\n".join(t for t, _ in _verdict(result)), title="graphkit check")] = None
    return "".join(f"{line}\n" for line in found)


def _command(level: str, text: str, **properties: str) -> str:
    shown = ",".join(f"{name}={escaped_property(value)}" for name, value in properties.items())
    return f"::{level} {shown}::{escaped_data(text)}"


def rule_text(rule: Rule) -> str:
    """The page of one rule."""
    from graphkit.support.rule import TARGETS

    targets = ", ".join(TARGETS[t] for t in rule.targets)
    head = f"{rule.code} ({rule.severity}; {targets}): {rule.title}"
    return f"{head}\n\n{rule.explanation}\n\ntry: {rule.fix}"


def rule_json(rule: Rule) -> str:
    """The same as JSON (schema graphkit.check-rule/1)."""
    names = ("code", "title", "severity", "targets", "explanation", "fix", "seen_by")
    return json.dumps({"schema": "graphkit.check-rule/1", **{n: getattr(rule, n) for n in names}}, indent=2)


def _finding(finding: Finding, *, verbose: bool) -> list[Line]:
    only = f" [{', '.join(finding.capabilities)}]" if finding.capabilities else ""
    lines = [(f"{finding.severity}[{finding.code}]{only}: {finding.message}", _STYLES[finding.severity])]
    node = finding.node
    if node is not None:
        inside = f" in {' / '.join(node.path)}" if node.path else ""
        lines.append((f"  node:  {node.label}{inside}", ""))
        if node.source or node.module:
            lines.append((f"  where: {node.source or f'module `{node.module}`'}", ""))
        if verbose or finding.severity == "error":
            lines += [
                (f"  reads: {r.name}: {r.type}{f', made by {r.made_by}' if r.made_by else ''}", "") for r in node.reads
            ]
    lines += [(f"  says:  {said}", "") for said in finding.said if said]
    return [*lines, (f"  try:   {finding.fix}", "")]


def _more(code: str, findings: Sequence[Finding]) -> str:
    named = [f.node.name or f.node.label for f in findings if f.severity == "error" and f.node is not None]
    at = f" at {', '.join(named[:_NAMED])}{', ...' if len(named) > _NAMED else ''}" if named else ""
    return f"{code}: {len(findings)} more{at}, see them with -v"


def _partitions(result: CheckResult) -> list[Line]:
    lines: list[Line] = [("", "")] if result.partitions else []
    for part in result.partitions:
        ends = f"{', '.join(part.inputs)} -> {', '.join(part.outputs)}"
        lines.append((f"{part.file or 'not written'}: {part.nodes} nodes, {ends}", ""))
        if part.problem:
            lines.append((f"  {part.problem}", "yellow"))
    return lines


def _verdict(result: CheckResult) -> list[Line]:
    does = "load" if result.target == "ort" else "build"
    errors = len(result.errors)
    by = ", ".join(a.who if a.who == "rules" else f"{a.who} ({a.detail})" for a in result.asked if a.ran)
    lines: list[Line] = []
    for each in result.asked:
        if not each.ran:
            lines.append((f"{each.who}: not run, {each.detail}", "dim"))
    lines += [
        (f"{capability}: {'yes' if fine else 'no'}", "green" if fine else "bold red")
        for capability, fine in result.capabilities.items()
    ]
    if result.hidden:
        lines.append((f"{result.hidden} findings are hidden by --select or --ignore, and count all the same", "yellow"))
    what = f"{result.source}: {result.title} will {'' if result.answer == 'yes' else 'not '}{does} it"
    if result.answer == "no":
        what += f": {errors} error{'s' if errors != 1 else ''}"
        what += f" at {result.refused} of {result.nodes} nodes" if result.refused else ""
    said = " by the rules alone, static" if result.static else f"; asked: {by}"
    return [*lines, (what + said, "green" if result.answer == "yes" else "bold red")]
