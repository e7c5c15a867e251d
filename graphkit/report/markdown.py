"""A parity report as Markdown, for a comment on a pull request."""

from __future__ import annotations

from typing import TYPE_CHECKING

from graphkit.report.parity import metric_text, notes_of, sizes_text, tolerance_text
from graphkit.report.wording import printable

if TYPE_CHECKING:
    from graphkit.parity.verdict import Comparison, OutputComparison, ParityReport, Status

_HEAD = "| | candidate | output | at | max abs | tolerance | snr | cosine | why |"


def to_markdown(report: ParityReport, status: Status) -> str:
    """The verdict, a row for the worst of each output and candidate, and the conditions below."""
    references = ", ".join(dict.fromkeys(c.reference for c in report.comparisons))
    lines = [f"### graphkit validate: {status}", "", f"against {_cell(references)}", "", _HEAD, "|" + "---|" * 9]
    lines += [_row(comparison, output) for comparison, output in _worst(report)]
    inputs = [f"`{_code(name)}`: {_cell(how)}" for name, how in report.inputs.items()]
    versions = [f"{name} {version}" for name, version in report.versions.items()]
    files = [f"`{_code(name)}` `{digest[:12]}`" for name, digest in report.files.items()]
    for title, facts in (
        ("inputs", inputs),
        ("files", files),
        ("versions", versions),
        ("notes", map(_cell, notes_of(report))),
    ):
        text = "; ".join(facts)
        lines += ["", f"{title}: {text}"] if text else []
    return "\n".join(lines) + "\n"


def _worst(report: ParityReport) -> list[tuple[Comparison, OutputComparison | None]]:
    """What fails, else what comes nearest, of each candidate and output; and each run without outputs."""
    found: dict[tuple[str, str], tuple[Comparison, OutputComparison | None]] = {}
    for comparison in report.comparisons:
        if not comparison.outputs:
            found[comparison.candidate, f"\0{sizes_text(comparison)}{comparison.seed}"] = (comparison, None)
        for output in comparison.outputs:
            known = found.get((comparison.candidate, output.output))
            if known is None or known[1] is None or _badness(output) > _badness(known[1]):
                found[comparison.candidate, output.output] = (comparison, output)
    return list(found.values())


def _badness(output: OutputComparison) -> tuple[bool, int, float]:
    return output.status == "fail", output.mismatches, -1.0 if output.max_abs is None else output.max_abs


def _row(comparison: Comparison, output: OutputComparison | None) -> str:
    if output is None:
        cells = [comparison.status, comparison.candidate, "", sizes_text(comparison), "", "", "", "", comparison.reason]
    else:
        source = f" (made at {output.source})" if output.source is not None else ""
        cells = [
            output.status,
            comparison.candidate,
            output.output,
            sizes_text(comparison),
            "-" if output.max_abs is None else f"{output.max_abs:.1e}",
            tolerance_text(output),
            *(metric_text(n, output.metrics[n]) if n in output.metrics else "-" for n in ("snr", "cosine")),
            f"{output.reason or ''}{source}",
        ]
    return "| " + " | ".join(_cell(cell or "") for cell in cells) + " |"


def _cell(text: str) -> str:
    """Text that cannot end its cell, open a tag or become a link."""
    plain = " ".join(printable(text).split())
    for mark in "\\|<>[]*_`#@":
        plain = plain.replace(
            mark, f"\\{mark}" if mark not in "<>@" else {"<": "&lt;", ">": "&gt;", "@": "&#64;"}[mark]
        )
    return plain


def _code(text: str) -> str:
    return " ".join(printable(text).replace("`", "'").replace("|", "\\|").split())
