"""A `Reduction` as text and as JSON."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING

from graphkit.report.wording import printable

if TYPE_CHECKING:
    from rich.text import Text

    from graphkit.shrink.result import Reduction

    Line = tuple[str, str]  # text and style

_STYLES = {
    "reduced": "bold green",
    "stopped": "bold yellow",
    "passes": "yellow",
    "flaky": "red",
    "not anonymous": "red",
}
_MOST_NODES = 20


def to_json(found: Reduction) -> str:
    """The answer as strict JSON (schema graphkit.reduce/1), ASCII only."""
    return json.dumps(found.to_json(), indent=2, allow_nan=False)


def to_text(found: Reduction) -> Text:
    """The answer on one screen: what is left, why it fails, and where it was written."""
    from rich.text import Text

    lines: list[Line] = [(f"{found.status}: {found.reason}", _STYLES[found.status]), (f"  check  {found.check}", "")]
    if found.same:
        lines.append((f"  why    {found.same}", ""))
    lines += [(f"         {line}", "dim") for line in found.failure.splitlines()[:8]]
    lines += _nodes(found)
    if found.folder is not None:
        sets = "1 set" if found.samples == 1 else f"{found.samples} sets"
        lines.append((f"  fed    {', '.join(map(str, found.inputs)) or 'nothing'}; {sets} of values", ""))
        minimal = "1-minimal: it does not fail without any one of them" if found.status == "reduced" else "not minimal"
        lines.append((f"  trials {found.trials}; {minimal}", ""))
    lines += [(f"  note   {note}", "dim") for note in found.notes]
    if found.folder is not None:
        lines.append((f"wrote {found.folder}/: in it, {found.command}", ""))
    return Text("\n").join(Text(printable(text), style=style) for text, style in lines)


def _nodes(found: Reduction) -> list[Line]:
    lines = []
    for node in found.nodes[:_MOST_NODES]:
        where = "; ".join(map(str, node.source))
        lines.append((f"  node   {node.op} '{node.name}'" + (f", from {where}" if where else ""), ""))
    more = len(found.nodes) - _MOST_NODES
    return [*lines, (f"         and {more} more", "dim")] if more > 0 else lines
