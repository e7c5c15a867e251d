"""A benchmark as a screen of text and as JSON."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING

from graphkit.report.wording import bytes_text, printable

if TYPE_CHECKING:
    from collections.abc import Iterator

    from rich.text import Text

    from graphkit.errors import GraphkitError
    from graphkit.timing.result import BenchPoint, BenchResult, BenchSide, Timed

    Line = tuple[str, str]  # text and style

_COLUMNS = ("p50", "p90", "p99", "min", "mean", "spread", "per s", "runs", "GFLOP/s", "FLOP/B")
_STYLES = {"measured": "", "failed": "bold red", "not run": "yellow"}


def to_json(result: BenchResult | None, error: GraphkitError | None) -> str:
    """The answer as strict JSON, schema graphkit.bench/1, ASCII only. Times are in seconds, memory in bytes.

    Args:
        result: None where nothing could be timed.
        error: What ended it, or why not every side was timed.
    """
    data = {
        "schema": "graphkit.bench/1",
        "status": "error" if result is None else "measured" if error is None else "incomplete",
        **(result.to_json() if result is not None else {}),
        "error": error.to_json() if error is not None else None,
    }
    return json.dumps(data, indent=2, allow_nan=False)


def to_text(result: BenchResult) -> Text:
    """The sides, and at every point a table of times, and who is faster, where that can be said."""
    from rich.text import Text

    lines = list(_sides(result))
    for point in result.points:
        lines += [("", ""), *_point(point, result.sides)]
    lines += [("", ""), *_conditions(result)]
    return Text("\n").join(Text(printable(text), style=style) for text, style in lines)


def time_text(seconds: float) -> str:
    """`0.61 us`, `12.3 us`, `1.23 ms`, `4.56 s`: three digits."""
    for unit, size in (("us", 1e-6), ("ms", 1e-3)):
        if seconds < 999.5 * size:
            return f"{_digits(seconds / size)} {unit}"
    return f"{_digits(seconds)} s"


def _digits(value: float) -> str:
    return f"{value:.0f}" if value >= 99.95 else f"{value:.1f}" if value >= 9.995 else f"{value:.2f}"


def _sides(result: BenchResult) -> Iterator[Line]:
    width = max(len(side.name) for side in result.sides)
    for side in result.sides:
        yield f"{side.name:<{width}}  {side.label.removeprefix(f'{side.name}: ')}{_facts(side)}", ""
        if side.reason is not None:
            yield f"{'':<{width}}  {side.status}: {side.reason}", _STYLES[side.status]
        for note in side.notes:
            yield f"{'':<{width}}  {note}", "dim"


def _facts(side: BenchSide) -> str:
    facts = []
    if side.threads is not None:
        facts.append(f"{side.threads} thread{'' if side.threads == 1 else 's'}")
    if side.load_seconds is not None:
        facts.append(f"loads in {time_text(side.load_seconds)}")
    if side.memory_peak is not None:
        before = f", {bytes_text(side.memory_before)} without the model" if side.memory_before is not None else ""
        facts.append(f"process {bytes_text(side.memory_peak)} at most{before}")
    if side.gpu_memory is not None:
        facts.append(f"GPU {bytes_text(side.gpu_memory)}")
    return "".join(f"; {fact}" for fact in facts)


def _point(point: BenchPoint, sides: tuple[BenchSide, ...]) -> Iterator[Line]:
    sizes = ", ".join(f"{symbol}={size}" for symbol, size in point.sizes.items()) or "the fixed shapes"
    unit = f"{point.item} item" if point.item is not None else "run"
    yield f"{sizes}; per s: {unit}s", "bold"
    rows = [("", *_COLUMNS), *(_row(each, sides[each.side].name) for each in point.sides if each.latency is not None)]
    if len(rows) > 1:
        shown = [i for i in range(len(rows[0])) if i == 0 or any(row[i] != "-" for row in rows[1:])]
        widths = {i: max(len(row[i]) for row in rows) for i in shown}
        for number, row in enumerate(rows):
            cells = "  ".join(f"{row[i]:>{widths[i]}}" if i else f"{row[i]:<{widths[i]}}" for i in shown)
            yield f"  {cells}".rstrip(), "dim" if number == 0 else ""
    first = next((sides[each.side].name for each in point.sides if each.latency is not None), "")
    for each in point.sides:
        yield from _verdict(each, sides[each.side].name, first)


def _row(each: Timed, name: str) -> tuple[str, ...]:
    mine = each.latency
    assert mine is not None
    tail = [time_text(q) if q is not None else "-" for q in (mine.p50, mine.p90, mine.p99, mine.least, mine.mean)]
    rate = f"{each.throughput:,.0f}" if each.throughput is not None and each.throughput >= 10 else "-"
    if each.throughput is not None and each.throughput < 10:
        rate = f"{each.throughput:.3g}"
    achieved = each.work.achieved(mine.p50) if each.work is not None else None
    more = "+" if each.work is not None and each.work.at_least else ""
    flops = f"{achieved / 1e9:.3g}{more}" if achieved is not None else "-"
    intensity = each.work.intensity if each.work is not None and achieved is not None else None
    return (
        name, *tail, f"{100 * mine.spread:.0f} %", rate, str(mine.runs), flops,
        f"{intensity:.3g}" if intensity is not None else "-",
    )  # fmt: skip


def _verdict(each: Timed, name: str, first: str) -> Iterator[Line]:
    if each.error is not None:
        yield f"  {name}: {each.error.message}", "bold red"
        return
    same = {"agree": "outputs agree", "differ": f"outputs differ: {each.outputs.reason}"}.get(each.outputs.status, "")
    style = "yellow" if each.outputs.status == "differ" else ""
    if each.ratio is None:
        if same:
            yield f"  {name}: {same}", style
        return
    found = each.ratio
    between = f" [{found.low:.3g}, {found.high:.3g}]" if found.low is not None else ", too few rounds for an interval"
    yield f"  {name}: {found.value:.3g} x the time of {first}{between}: {found.verdict}; {same}", style


def _conditions(result: BenchResult) -> Iterator[Line]:
    inputs = ", ".join(f"{name}: {how}" for name, how in result.inputs.items())
    yield f"  inputs     {inputs}; seed {result.seed}", ""
    rounds = sorted({t.latency.rounds for p in result.points for t in p.sides if t.latency is not None})
    spans = "-".join(str(n) for n in dict.fromkeys((rounds[0], rounds[-1]))) if rounds else "0"
    yield f"  rounds     {spans} in turns, after {result.warm_up} runs of warm-up; [ ]: 95 % interval of the ratio", ""
    first = [(t, result.sides[t.side].name) for t in (result.points[0].sides if result.points else ())]
    runs = [f"{name} {time_text(t.first_seconds)}" for t, name in first if t.first_seconds is not None]
    if runs:
        yield f"  first run  {', '.join(runs)}", ""
    if any(t.work is not None for p in result.points for t in p.sides):
        yield "  GFLOP/s    estimated from the graph at p50; FLOP/B: per byte that its nodes read and write", ""
    for note in result.notes:
        yield f"  note       {note}", "yellow"
