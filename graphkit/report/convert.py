"""A `ConvertResult` as a summary on one screen, and as JSON."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterable, Sequence
from typing import TYPE_CHECKING, TypeVar

from graphkit.report.wording import bytes_text, printable

if TYPE_CHECKING:
    from pathlib import Path

    from rich.text import Text

    from graphkit.model import Finding
    from graphkit.parity.verdict import Comparison, OutputComparison, ParityReport
    from graphkit.result import ConvertResult
    from graphkit.shapes import TensorSpec

    Line = tuple[str, str]  # text and style

T = TypeVar("T")

FEW = 3
"""Of anything that may come in dozens, the summary shows so many; `-v` shows all."""

_STYLES = {"pass": "green", "fail": "bold red", "not run": "yellow"}


def to_json(result: ConvertResult) -> str:
    """The result as strict JSON (schema graphkit.convert/1), ASCII only, so that any stdout can take it.

    Raises:
        ValueError: a number is not finite; a report must spell it as a string.
    """
    return json.dumps(result.to_json(), indent=2, allow_nan=False)


def to_text(result: ConvertResult, *, verbose: bool = False) -> Text:
    """The closing summary: the file, its signature, the verdict with its conditions, warnings, files.

    The error of a failed conversion is not in it; where parity was the reason, the outputs that differ are. A
    conversion that ended earlier has no summary: the text is empty.
    """
    from rich.text import Text

    sections = []
    if result.error is None:
        sections.append(_made(result, verbose))
    if result.parity is not None:
        sections.append(_parity(result.parity, verbose))
    if sections:
        sections += [_warnings(result.warnings, verbose), _files(result)]
    blocks = [Text("\n").join(Text(printable(t), style=s) for t, s in section) for section in sections if section]
    return Text("\n\n").join(blocks)


def _made(result: ConvertResult, verbose: bool) -> list[Line]:
    if result.output is None:
        lines = [("nothing was written", "bold")]
    else:
        lines = [("  ".join(filter(None, [str(result.output), _size(result.output)])), "bold")]
    if result.model is not None:
        signature = result.model.signature
        lines += _tensors("input", signature.inputs, verbose)
        lines += _tensors("output", signature.outputs, verbose)
        if result.model.dims:
            lines.append((f"  dims    {', '.join(map(str, result.model.dims))}", ""))
    return lines


def _tensors(kind: str, specs: Sequence[TensorSpec], verbose: bool) -> list[Line]:
    return _few(specs, verbose, lambda spec: [(f"  {kind:<6}  {spec}", "")], f"{kind}s")


def _parity(parity: ParityReport, verbose: bool) -> list[Line]:
    references = dict.fromkeys(c.reference for c in parity.comparisons)
    seeds = dict.fromkeys(str(c.seed) for c in parity.comparisons)
    against = f" against {', '.join(references)}, seed {', '.join(seeds)}" if references else ""
    lines = [(f"parity: {parity.status}{against}", _STYLES[parity.status])]
    candidates = list(dict.fromkeys(c.candidate for c in parity.comparisons))
    width = max(map(len, candidates), default=0)
    for candidate in candidates:
        lines.append(_candidate(candidate, [c for c in parity.comparisons if c.candidate == candidate], width))
    lines += _failing(parity, verbose)
    if candidates:
        lines += [(f"  shapes     {_shapes(parity.comparisons)}", ""), (f"  tolerance  {_tolerances(parity)}", "")]
    if verbose:
        lines += [(f"  input      {name}: {how}", "") for name, how in parity.inputs.items()]
        lines += [(f"  version    {name} {version}", "") for name, version in parity.versions.items()]
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
    lines = _few(pairs, verbose, lambda pair: _failing_output(*pair), "failing outputs")
    without = [c for c in failed if not any(o.status == "fail" for o in c.outputs)]
    return lines + _few(without, verbose, _failing_run, "failing runs")


def _failing_output(comparison: Comparison, output: OutputComparison) -> list[Line]:
    index = "" if not output.worst_index else f"[{', '.join(map(str, output.worst_index))}]"
    lines = [(f"    {output.output}{index} at {_sizes(comparison)}, {comparison.candidate}", "bold")]
    if output.reference_value is not None or output.candidate_value is not None:
        expected, got = _value(output.reference_value), _value(output.candidate_value)
        worst = "-" if output.max_abs is None else f"{output.max_abs:.1e}"
        lines.append((f"      expected {expected}, got {got}; max abs {worst}, tolerance {_tolerance(output)}", ""))
    if output.reason or output.mismatches:
        lines.append((f"      {output.reason or f'{output.mismatches} elements are outside the tolerance'}", ""))
    return lines


def _failing_run(comparison: Comparison) -> list[Line]:
    return [(f"    {comparison.candidate} at {_sizes(comparison)}: {comparison.reason or 'failed'}", "bold")]


def _value(value: float | None) -> str:
    return "-" if value is None else f"{value:.9g}"


def _shapes(comparisons: Iterable[Comparison]) -> str:
    seen: dict[str, bool] = {}
    for comparison in comparisons:
        if comparison.status != "not run":
            sizes = _sizes(comparison)
            seen[sizes] = seen.get(sizes, False) or comparison.seen_in_capture
    return "; ".join(sizes if known else f"{sizes} (not used in capture)" for sizes, known in seen.items()) or "none"


def _sizes(comparison: Comparison) -> str:
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
        return " or ".join(dict.fromkeys((_tolerance(low), _tolerance(high))))
    return f"A + {high.rtol:.2g} * |expected|, A from {low.atol:.1e} to {high.atol:.1e} by the output's magnitude"


def _tolerance(output: OutputComparison) -> str:
    if output.atol == 0 and output.rtol == 0:
        return "exact"
    return f"{output.atol:.2g} + {output.rtol:.2g} * |expected|"


def _warnings(findings: Sequence[Finding], verbose: bool) -> list[Line]:
    lines = _few(findings, verbose, _warning, "warnings")
    return [(f"warnings: {len(findings)}", "yellow"), *lines] if lines else []


def _warning(finding: Finding) -> list[Line]:
    lines = [(f"  {finding.code}: {finding.message}", "")]
    if finding.where:
        lines.append((f"    where: {finding.where}", ""))
    if finding.remedy:
        lines.append((f"    try:   {finding.remedy}", ""))
    return lines


def _files(result: ConvertResult) -> list[Line]:
    if not result.files:
        return []
    width = max(len(str(f)) for f in result.files)
    return [("files", ""), *((f"  {f!s:<{width}}  {_size(f)}".rstrip(), "") for f in result.files)]


def _size(path: Path) -> str:
    return bytes_text(path.stat().st_size) if path.is_file() else ""


def _few(items: Sequence[T], verbose: bool, lines_of: Callable[[T], list[Line]], what: str) -> list[Line]:
    shown = items if verbose or len(items) <= FEW + 1 else items[:FEW]
    lines = [line for item in shown for line in lines_of(item)]
    if len(shown) < len(items):
        lines.append((f"  ... and {len(items) - len(shown)} more {what} (-v lists them)", "dim"))
    return lines
