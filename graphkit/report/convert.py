"""A `ConvertResult` as a summary on one screen, and as JSON."""

from __future__ import annotations

import json
from collections.abc import Sequence
from typing import TYPE_CHECKING

from graphkit.report import parity
from graphkit.report.lowering import kept
from graphkit.report.wording import bytes_text, printable

if TYPE_CHECKING:
    from pathlib import Path

    from rich.text import Text

    from graphkit.model import Finding
    from graphkit.report.parity import Line
    from graphkit.result import ConvertResult
    from graphkit.shapes import TensorSpec


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
        sections.append(parity.lines(result.parity, verbose, captured=_was_captured(result)))
    if sections:
        sections += [_warnings(result.warnings, verbose), _files(result)]
    blocks = [Text("\n").join(Text(printable(t), style=s) for t, s in section) for section in sections if section]
    return Text("\n\n").join(blocks)


def _was_captured(result: ConvertResult) -> bool:
    return result.model is not None and bool(result.model.origin.sizes)


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
    if result.lowering is not None:
        lines.append((f"  lowered {result.lowering.summary}", ""))
        lines += [(text, "dim") for text in kept(result.lowering)]
    return lines


def _tensors(kind: str, specs: Sequence[TensorSpec], verbose: bool) -> list[Line]:
    return parity.few(specs, verbose, lambda spec: [(f"  {kind:<6}  {spec}", "")], f"{kind}s")


def _warnings(findings: Sequence[Finding], verbose: bool) -> list[Line]:
    lines = parity.few(findings, verbose, _warning, "warnings")
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
