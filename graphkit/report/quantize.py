"""A `Quantization` as text and as JSON."""

from __future__ import annotations

import json
from collections.abc import Iterable
from typing import Any

from graphkit.quantization import Quantization
from graphkit.report.lowering import kept
from graphkit.report.wording import counted, printable

_MOST_ROWS = 12


def to_json(found: Quantization, source: str, files: Iterable[str]) -> str:
    """The answer as strict JSON (schema graphkit.quantize/1)."""
    answer: dict[str, Any] = {
        "schema": "graphkit.quantize/1",
        "status": "ok",
        "source": source,
        "files": list(files),
        **found.lowering.to_json(),
        "search": found.search.to_json() if found.search is not None else None,
        "parity": {"status": found.status, "comparisons": [c.to_json() for c in found.comparisons]},
    }
    return json.dumps(answer, indent=2, allow_nan=False)


def to_text(found: Quantization, source: str, files: Iterable[str]) -> str:
    """The answer on one screen."""
    lines = [f"{source}: {found.lowering.summary}", *kept(found.lowering), *_search(found)]
    lines += [f"  note: {finding}" for finding in found.lowering.findings]
    lines += ["", _proof(found), *(f"wrote {file}" for file in files)]
    return printable("\n".join(lines))


def _search(found: Quantization) -> list[str]:
    result = found.search
    if result is None:
        return []
    ended = "" if result.complete else ", stopped at the limit on trials"
    lines = [
        "",
        f"  {counted(len(result.keep), 'layer')} kept: {result.metric} error {result.error:.3g} of {result.max_drop:g} "
        f"allowed, {counted(len(result.trials), 'trial')} on {counted(result.samples, 'sample')}{ended}",
    ]
    width = max((len(row.group) for row in result.rows[:_MOST_ROWS]), default=5)
    lines.append(f"  {'group':<{width}}  layers   alone  share  kept")
    for row in result.rows[:_MOST_ROWS]:
        alone = f"{row.error_alone:.2g}" if row.error_alone is not None else "not run"
        lines.append(f"  {row.group:<{width}}  {row.layers:>6}  {alone:>6}  {row.share:>5.0%}  {row.kept:>4}")
    more = len(result.rows) - _MOST_ROWS
    return [*lines, f"  and {more} more groups: --json"] if more > 0 else lines


def _proof(found: Quantization) -> str:
    worst = max((o.max_abs or 0.0 for c in found.comparisons for o in c.outputs), default=0.0)
    cosines = [o.metrics["cosine"] for c in found.comparisons for o in c.outputs if o.metrics.get("cosine") is not None]
    like = f", least cosine {min(c for c in cosines if c is not None):.5f}" if cosines else ""
    comparisons = counted(len(found.comparisons), "comparison")
    return f"parity: {found.status}, {comparisons}, largest difference {worst:.2g}{like}"
