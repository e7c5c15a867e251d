"""A comparison, or a certificate that was read again, as a summary on one screen, and as JSON."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING

from graphkit.report import parity
from graphkit.report.wording import printable

if TYPE_CHECKING:
    from rich.text import Text

    from graphkit.certificate import Recheck
    from graphkit.errors import GraphkitError
    from graphkit.parity.verdict import ParityReport, Status

_STYLES = {"same": "green", "changed": "bold red", "missing": "bold red", "not here": "dim"}


def to_text(report: ParityReport, status: Status, *, verbose: bool = False) -> Text:
    """The verdict with its conditions: who differs where, metrics, shapes, tolerance, notes."""
    engine = report.engine_reason != "no engine was given"
    lines = parity.lines(report, verbose, status=status, engine=engine)
    lines += parity.few(parity.notes_of(report), verbose, lambda note: [(f"  note       {note}", "yellow")], "notes")
    return _text(lines)


def to_json(report: ParityReport | None, status: Status | None, error: GraphkitError | None) -> str:
    """The comparison as strict JSON, schema graphkit.validate/1, ASCII only.

    Args:
        report: None where the comparison could not begin.
        status: The verdict; None where there is none.
        error: What ended it, or the verdict as an error.
    """
    data = {
        "schema": "graphkit.validate/1",
        "status": status or "error",
        "parity": report.to_json() if report is not None else None,
        "error": error.to_json() if error is not None else None,
    }
    return json.dumps(data, indent=2, allow_nan=False)


def certificate_to_text(recheck: Recheck) -> Text:
    """Each file that the certificate speaks of, and whether it is still that file."""
    width = max(len(f.name) for f in recheck.files) if recheck.files else 0
    head = (f"{recheck.certificate}: parity {recheck.verdict}", "bold")
    return _text([head, *((f"  {f.name:<{width}}  {f.state}", _STYLES[f.state]) for f in recheck.files)])


def certificate_to_json(recheck: Recheck) -> str:
    """The same as strict JSON, schema graphkit.certificate/1, ASCII only."""
    return json.dumps(recheck.to_json(), indent=2, allow_nan=False)


def _text(lines: list[parity.Line]) -> Text:
    from rich.text import Text

    return Text("\n").join(Text(printable(text), style=style) for text, style in lines)
