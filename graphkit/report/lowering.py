"""What stays in float32 after a lowering, as text."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from graphkit.lowering import Kept, Lowering

_MOST_KEPT = 12


def kept(lowering: Lowering) -> list[str]:
    """What stays in float32, alike reasons together."""
    grouped: dict[tuple[str, str], list[Kept]] = {}
    for each in lowering.kept:
        grouped.setdefault((each.op, each.why), []).append(each)
    lines = []
    for (op, why), alike in list(grouped.items())[:_MOST_KEPT]:
        where = f", {alike[0].where[0]}" if alike[0].where else ""
        more = f" and {len(alike) - 1} more" if len(alike) > 1 else ""
        lines.append(f"  float32: {op} `{alike[0].node}`{more}: {why}{where}")
    if len(grouped) > _MOST_KEPT:
        rest = sum(len(alike) for alike in list(grouped.values())[_MOST_KEPT:])
        lines.append(f"  float32: and {rest} more nodes: --json")
    return lines
