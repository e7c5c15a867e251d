"""A `Location` as text and as JSON."""

from __future__ import annotations

import json
from collections.abc import Sequence
from typing import TYPE_CHECKING

from graphkit.report.wording import printable

if TYPE_CHECKING:
    from rich.text import Text

    from graphkit.parity.divergence import Location, TensorError

    Line = tuple[str, str]  # text and style

_SHOWN = 12
_STYLES = {"equal": "green", "located": "bold red", "not comparable": "yellow"}


def to_json(location: Location) -> str:
    """The answer as strict JSON (schema graphkit.locate/1), ASCII only."""
    return json.dumps(location.to_json(), indent=2, allow_nan=False)


def to_text(location: Location, *, verbose: bool = False) -> Text:
    """The answer on one screen: the node, its line, the errors around it, and where else errors grow.

    Args:
        verbose: Whether every tensor that was compared is listed.
    """
    from rich.text import Text

    lines = [_headline(location), *_around(location), *_sides(location)]
    if location.contributors:
        lines += [("", ""), ("where the error grows most, by how many times that of the node's inputs", "bold")]
        lines += _table(location.contributors)
    if verbose and location.measured:
        lines += [("", ""), ("every tensor that was compared", "bold"), *_table(location.measured)]
    return Text("\n").join(Text(printable(text), style=style) for text, style in lines)


def _headline(location: Location) -> Line:
    found = location.divergence
    if found is None:
        return f"{location.status}: {location.reason}", _STYLES[location.status]
    if location.fused:
        return f"first divergence: in a fusion that ends in '{found.tensor}'", _STYLES[location.status]
    return f"first divergence: {found.op} '{found.node}' -> '{found.tensor}'", _STYLES[location.status]


def _around(location: Location) -> list[Line]:
    found = location.divergence
    if found is None:
        return []
    lines = [(f"  where: {line}", "") for line in location.source] or [("  where: no source line is known", "dim")]
    lines.append((f"  why:   {location.reason}", ""))
    width = max(len(t.tensor) for t in (*location.inputs, found))
    lines += [(f"  input   {_measures(t, width)}", "") for t in location.inputs]
    lines.append((f"  output  {_measures(found, width)}", ""))
    lines += [(f"  weight  `{w.name}` differs: {_weight(w.max_abs, w.note)}", "") for w in location.weights]
    lines += [(f"  {d.what:<6}  {d.reference} in the reference, {d.candidate} in the candidate", "")
              for d in location.differences]  # fmt: skip
    if location.fused:
        lines.append((f"  fused:  {_few(location.fused)}", ""))
    if location.between:
        lines.append((f"  or in:  {', '.join(location.between)}, whose outputs were not compared", ""))
    return lines


def _few(labels: Sequence[str]) -> str:
    rest = len(labels) - _SHOWN
    return ", ".join(labels[:_SHOWN]) + (f" and {rest} more" if rest > 0 else "")


def _measures(tensor: TensorError, width: int) -> str:
    worst = "" if tensor.max_abs is None else f", max abs {tensor.max_abs:.1e}"
    l2 = "" if tensor.l2 is None else f", L2 {tensor.l2:.1e}"
    ranges = f"{_range(tensor.reference_range)} became {_range(tensor.candidate_range)}"
    return f"{tensor.tensor:<{width}}  {_error(tensor.error)} tolerances{worst}{l2}; {ranges}"


def _error(error: float) -> str:
    if error in (0.0, float("inf")) or 0.01 <= error < 100:
        return f"{error:.2g}"
    return f"{error:.0f}" if 100 <= error < 10_000 else f"{error:.1e}"


def _range(values: tuple[float, float] | None) -> str:
    return "no finite value" if values is None else f"[{values[0]:.4g}, {values[1]:.4g}]"


def _weight(max_abs: float | None, note: str) -> str:
    return "; ".join(filter(None, ["" if max_abs is None else f"max abs {max_abs:.1e}", note]))


def _sides(location: Location) -> list[Line]:
    sizes = [" ".join(f"{s}={n}" for s, n in each.items()) or "the declared shapes" for each in location.shapes]
    lines = [("", ""), (f"  reference  {location.reference}", ""), (f"  candidate  {location.candidate}", "")]
    if sizes:
        lines.append((f"  tried at   {'; '.join(dict.fromkeys(sizes))}, seed {location.seed}", ""))
    lines.append((f"  compared   {_compared(location)}", ""))
    return lines + [(f"  note       {note}", "dim") for note in location.notes]


def _compared(location: Location) -> str:
    counts = location.counts
    if location.matched_by == "value":
        all_of = counts.common + counts.unmatched
        return f"by value (the names tell nothing): {counts.common} of {all_of} tensors have an equal in the reference"
    rest = f"; {counts.unmatched} of the candidate's have no namesake in the reference" if counts.unmatched else ""
    return f"{counts.measured} of {counts.common} tensors that both graphs have{rest}"


def _table(tensors: Sequence[TensorError]) -> list[Line]:
    width = max(len(t.tensor) for t in tensors)
    lines = [(f"  {'tensor':<{width}}  {'error':>8}  {'growth':>8}  {'L2':>8}  node", "dim")]
    for tensor in tensors:
        growth = "-" if tensor.growth is None else _error(tensor.growth)
        l2 = "-" if tensor.l2 is None else f"{tensor.l2:.1e}"
        numbers = f"{_error(tensor.error):>8}  {growth:>8}  {l2:>8}"
        lines.append(
            (f"  {tensor.tensor:<{width}}  {numbers}  {tensor.op} '{tensor.node}'", "red" if tensor.error > 1 else "")
        )
    return lines
