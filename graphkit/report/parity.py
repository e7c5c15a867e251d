"""A parity report as lines of text: the verdict, who differs where, under which tolerance."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import TYPE_CHECKING, TypeVar

from graphkit.parity.metrics import ERRORS

if TYPE_CHECKING:
    from graphkit.parity.verdict import Comparison, OutputComparison, ParityReport, Status

    Line = tuple[str, str]  # text and style

T = TypeVar("T")

GIVEN = "input set "
"""How the note of a comparison on given values begins."""

FEW = 3
"""Of anything that may come in dozens, a summary shows so many; `-v` shows all."""

_TELLING = ("snr", "cosine", "l2", "ulp", "argmax")
"""Metrics of the summary, beside `topK`; `-v` shows all."""

_STYLES = {"pass": "green", "fail": "bold red", "not run": "yellow"}


def lines(
    parity: ParityReport, verbose: bool, *, status: Status | None = None, engine: bool = True, captured: bool = False
) -> list[Line]:
    """The verdict, one line per candidate, the failing outputs, shapes and tolerances.

    Args:
        status: The verdict to show, where it is not the report's own.
        engine: Whether to say what became of an engine.
        captured: Whether the candidate was captured just now, so that it matters which sizes capture used.
    """
    references = dict.fromkeys(c.reference for c in parity.comparisons)
    seeds = list(dict.fromkeys(str(c.seed) for c in parity.comparisons))
    given = bool(parity.inputs) and set(parity.inputs.values()) == {"given"}
    on = f"{len(seeds)} given set{'' if len(seeds) == 1 else 's'} of inputs" if given else f"seed {', '.join(seeds)}"
    against = f" against {', '.join(references)}, {on}" if references else ""
    verdict = status or parity.status
    lines = [(f"parity: {verdict}{against}", _STYLES[verdict])]
    candidates = list(dict.fromkeys(c.candidate for c in parity.comparisons))
    width = max(map(len, candidates), default=0)
    for candidate in candidates:
        lines.append(_candidate(candidate, [c for c in parity.comparisons if c.candidate == candidate], width))
    lines += _failing(parity, verbose)
    lines += _metrics(parity, verbose)
    if candidates:
        lines += [
            (f"  shapes     {_shapes(parity.comparisons, captured)}", ""),
            (f"  tolerance  {_tolerances(parity)}", ""),
        ]
    if verbose:
        lines += [(f"  input      {name}: {how}", "") for name, how in parity.inputs.items()]
        lines += [(f"  version    {name} {version}", "") for name, version in parity.versions.items()]
    if engine:
        reason = f" ({parity.engine_reason})" if parity.engine_reason else ""
        lines.append((f"  engine: {parity.engine}{reason}", _STYLES[parity.engine]))
    return lines


def _candidate(name: str, comparisons: Sequence[Comparison], width: int) -> Line:
    statuses = {c.status for c in comparisons}
    status = "fail" if "fail" in statuses else "pass" if "pass" in statuses else "not run"
    ran = [c for c in comparisons if c.status != "not run"]
    outputs = [o for c in ran for o in c.outputs]
    shapes = len({tuple(c.sizes.items()) for c in ran})
    skipped = [c.reason or "no reason given" for c in comparisons if c.status == "not run"]
    facts = [
        f"max abs {_worst(o.max_abs for o in outputs)}{_share(outputs)} over {shapes} shape{'' if shapes == 1 else 's'}"
        if ran
        else "",
        f"not run at {len(skipped)}: {skipped[0]}" if ran and skipped else "".join(skipped[:1]),
    ]
    return f"  {status:<7}  {name:<{width}}  {'  '.join(filter(None, facts))}".rstrip(), _STYLES[status]


def _worst(values: Iterable[float | None]) -> str:
    known = [v for v in values if v is not None]
    if any(v != v for v in known):
        return "nan"
    return f"{max(known):.1e}" if known else "-"


def _share(outputs: Iterable[OutputComparison]) -> str:
    """How much of its tolerance the worst element uses. (The largest relative error says little: it sits where the
    expected value is all but zero.)"""
    shares = [
        abs(o.candidate_value - o.reference_value) / (o.atol + o.rtol * abs(o.reference_value))
        for o in outputs
        if o.candidate_value is not None and o.reference_value is not None and (o.atol or o.rtol)
    ]
    finite = [s for s in shares if s == s]
    if not finite:
        return ""
    return f" ({100 * max(finite):.2g}% of the tolerance)" if max(finite) < 10 else f" ({max(finite):.1e} tolerances)"


def _failing(parity: ParityReport, verbose: bool) -> list[Line]:
    failed = [c for c in parity.comparisons if c.status == "fail"]
    pairs = [(c, o) for c in failed for o in c.outputs if o.status == "fail"]
    lines = few(pairs, verbose, lambda pair: _failing_output(*pair), "failing outputs")
    without = [c for c in failed if not any(o.status == "fail" for o in c.outputs)]
    return lines + few(without, verbose, _failing_run, "failing runs")


def _failing_output(comparison: Comparison, output: OutputComparison) -> list[Line]:
    index = "" if not output.worst_index else f"[{', '.join(map(str, output.worst_index))}]"
    lines = [(f"    {output.output}{index} at {sizes_text(comparison)}, {comparison.candidate}", "bold")]
    if output.reference_value is not None or output.candidate_value is not None:
        expected, got = _value(output.reference_value), _value(output.candidate_value)
        worst = "-" if output.max_abs is None else f"{output.max_abs:.1e}"
        lines.append((f"      expected {expected}, got {got}; max abs {worst}, tolerance {tolerance_text(output)}", ""))
    if output.source is not None:
        lines.append((f"      made at {output.source}", ""))
    if output.reason or output.mismatches:
        lines.append((f"      {output.reason or f'{output.mismatches} elements are outside the tolerance'}", ""))
    return lines


def _failing_run(comparison: Comparison) -> list[Line]:
    return [(f"    {comparison.candidate} at {sizes_text(comparison)}: {comparison.reason or 'failed'}", "bold")]


def _metrics(parity: ParityReport, verbose: bool) -> list[Line]:
    """The worst of each metric, per candidate and output."""
    found: dict[tuple[str, str], dict[str, float]] = {}
    for comparison in parity.comparisons:
        for output in comparison.outputs:
            worst = found.setdefault((comparison.candidate, output.output), {})
            for name, value in output.metrics.items():
                pick = max if name in ERRORS else min
                if verbose or name in _TELLING or name.startswith("top"):
                    worst[name] = pick(worst.get(name, value), value)
    shown = [(c, o, m) for (c, o), m in found.items() if m]
    width = max((len(o) for _, o, _ in shown), default=0)
    several = len({c for c, _, _ in shown}) > 1
    return few(shown, verbose, lambda each: _worst_metrics(*each, width=width, several=several), "outputs' metrics")


def _worst_metrics(
    candidate: str, output: str, metrics: Mapping[str, float], *, width: int, several: bool
) -> list[Line]:
    whose = f"  ({candidate.partition(': ')[0]})" if several else ""
    text = ", ".join(f"{name} {metric_text(name, value)}" for name, value in metrics.items())
    return [(f"  worst      {output:<{width}}  {text}{whose}", "")]


def metric_text(name: str, value: float) -> str:
    """`132.4 dB`, `100%`, `0.99999`, `1.2e-07`."""
    if name == "snr":
        return f"{value:.1f} dB"
    if name == "argmax" or name.startswith("top"):
        return f"{100 * value:.4g}%"
    return f"{value:.7g}" if name == "cosine" else f"{value:.2g}" if value < 1 or name != "ulp" else f"{value:.0f}"


def _value(value: float | None) -> str:
    return "-" if value is None else f"{value:.9g}"


def _shapes(comparisons: Iterable[Comparison], captured: bool) -> str:
    seen: dict[str, bool] = {}
    for comparison in comparisons:
        if comparison.status != "not run":
            sizes = sizes_text(comparison)
            seen[sizes] = seen.get(sizes, False) or comparison.seen_in_capture
    unseen = " (not used in capture)" if captured or any(seen.values()) else ""
    return "; ".join(sizes if known else f"{sizes}{unseen}" for sizes, known in seen.items()) or "none"


def sizes_text(comparison: Comparison) -> str:
    """`batch=4 seq=7`."""
    return " ".join(f"{symbol}={size}" for symbol, size in comparison.sizes.items()) or "the declared shapes"


def _tolerances(parity: ParityReport) -> str:
    """Per dtype; the absolute part follows each output's magnitude, so it is given as a range."""
    by_dtype: dict[str, list[OutputComparison]] = {}
    for comparison in parity.comparisons:
        for output in comparison.outputs:
            by_dtype.setdefault(output.dtype, []).append(output)
    return "; ".join(f"{dtype}: {_range(found)}" for dtype, found in by_dtype.items()) or "none: no output compared"


def _range(outputs: Sequence[OutputComparison]) -> str:
    low, high = (pick(outputs, key=lambda o: (o.atol, o.rtol)) for pick in (min, max))
    if low.atol == high.atol or low.rtol != high.rtol or not low.atol:
        return " or ".join(dict.fromkeys((tolerance_text(low), tolerance_text(high))))
    return f"A + {high.rtol:.2g} * |expected|, A from {low.atol:.1e} to {high.atol:.1e} by the output's magnitude"


def draw_text(comparison: Comparison) -> str:
    """`seed 0`, or `input set 2 of 8` where the values were given."""
    first = (comparison.note or "").partition("; ")[0]
    return first if first.startswith(GIVEN) else f"seed {comparison.seed}"


def notes_of(report: ParityReport) -> list[str]:
    """What a reader should know, each once; not which set of inputs a comparison had."""
    notes = dict.fromkeys(note for c in report.comparisons for note in (c.note or "").split("; ") if note)
    return [note for note in notes if not note.startswith(GIVEN)]


def tolerance_text(output: OutputComparison) -> str:
    """`1e-06 + 0.001 * |expected|`."""
    if output.atol == 0 and output.rtol == 0:
        return "exact"
    return f"{output.atol:.2g} + {output.rtol:.2g} * |expected|"


def few(items: Sequence[T], verbose: bool, lines_of: Callable[[T], list[Line]], what: str) -> list[Line]:
    """The lines of the first items, and how many more there are; of all where `verbose`."""
    shown = items if verbose or len(items) <= FEW + 1 else items[:FEW]
    lines = [line for item in shown for line in lines_of(item)]
    if len(shown) < len(items):
        lines.append((f"  ... and {len(items) - len(shown)} more {what} (-v lists them)", "dim"))
    return lines
