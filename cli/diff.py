"""`graphkit diff`."""

from __future__ import annotations

import json
from pathlib import Path
from typing import TYPE_CHECKING

import click

if TYPE_CHECKING:
    from graphkit.delta import Delta

_IGNORABLE = ("names", "doc", "order", "constants", "opset")


@click.command()
@click.argument("a", metavar="A")
@click.argument("b", metavar="B")
@click.option("--stat", "text", flag_value="stat", help="One line a section.")
@click.option("--name-status", "text", flag_value="name-status", help="One line a node: D, A, M, R, W and its name.")
@click.option("--full", "text", flag_value="full", help="Every node, not folded.")
@click.option("--signature", "text", flag_value="signature", help="Inputs and outputs alone; the exit code too.")
@click.option("--weights", "text", flag_value="weights", help="Weights alone, each of them; the exit code too.")
@click.option("-U", "--unified", type=click.IntRange(min=0), metavar="N", help="As --full, with N nodes of context.")
@click.option("--ignore", "ignored", metavar="LIST", help="Of names,doc,order,constants,opset.")
@click.option("--shape", multiple=True, metavar="X=DIMS", help="An input's shape, to capture what is not ONNX.")
@click.option("--trust", is_flag=True, help="Allow A and B to run the code that they name.")
@click.option("--json", "as_json", is_flag=True, help="Print JSON (schema graphkit.diff/1).")
@click.option("--format", "form", type=click.Choice(["text", "json", "model-explorer"]), help="[default: text]")
@click.option("-v", "--verbose", count=True, help="-vv: tracebacks.")
@click.pass_context
def diff(
    context: click.Context,
    a: str,
    b: str,
    text: str | None,
    unified: int | None,
    ignored: str | None,
    shape: tuple[str, ...],
    trust: bool,
    as_json: bool,
    form: str | None,
    verbose: int,
) -> None:
    """Say how two models differ, whatever their inner values are called.

    A and B are ONNX files, or anything that convert takes. Exits with 0 if they are the same, 1 if they differ.
    """
    context.obj.verbose = verbose
    form = _form(as_json, form, text)
    ignore = _ignored(ignored)
    if unified is not None:
        if text not in (None, "full"):
            raise click.UsageError(f"-U shows nodes one by one, --{text} does not")
        text = "full"
    from graphkit.capture.request import CaptureRequest
    from graphkit.delta import diff as compare
    from graphkit.shapes import parse_shape

    from .shared import each_once, errors_in_json, libraries_kept_off_stdout

    request = CaptureRequest(shapes=each_once("--shape", shape, parse_shape, lambda spec: spec.name), trust=trust)
    measured = text not in ("stat", "name-status", "signature")
    with (
        errors_in_json(form == "json", schema="graphkit.diff/1", status="error"),
        libraries_kept_off_stdout(verbose),
    ):
        found = compare(_source(a), _source(b), ignore=ignore, weights=measured, capture=request)
    click.echo(_shown(found, form, text, unified or 0))
    context.exit(1 if _differs(found, text) else 0)


def _source(text: str) -> Path | str:
    """A path, but for `package.module:callable`."""
    return text if ":" in text and not Path(text).exists() else Path(text)


def _form(as_json: bool, form: str | None, text: str | None) -> str:
    if as_json and form not in (None, "json"):
        raise click.UsageError(f"--json and --format {form} exclude one another")
    form = "json" if as_json else form or "text"
    if form != "text" and text is not None:
        raise click.UsageError(f"--{text} is a form of text, {form} is not")
    return form


def _ignored(text: str | None) -> tuple[str, ...]:
    parts = tuple(part.strip() for part in text.split(",") if part.strip()) if text else ()
    for part in parts:
        if part not in _IGNORABLE:
            raise click.UsageError(f"--ignore {part!r}: one of {', '.join(_IGNORABLE)}")
    return parts


def _shown(found: Delta, form: str, text: str | None, context: int) -> str:
    if form == "json":
        return json.dumps(found.to_json(), indent=2)
    if form == "model-explorer":
        from graphkit.delta.as_json import model_explorer

        return json.dumps(model_explorer(found), indent=2)
    from graphkit.report import diff as report

    if text == "stat":
        return report.stat(found)
    if text == "name-status":
        return report.name_status(found)
    if text == "signature":
        return report.signature(found)
    if text == "weights":
        return report.weights(found)
    return report.to_text(found, full=text == "full", context=context)


def _differs(found: Delta, text: str | None) -> bool:
    if text == "signature":
        return bool(found.signature)
    if text == "weights":
        return any(graph.weights for graph in found.graphs)
    return not found.empty
