"""`graphkit check`."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from .shared import errors_in_json, given_inputs, source_options, source_values

if TYPE_CHECKING:
    from graphkit.support.result import CheckResult
    from graphkit.support.subject import CheckRequest


@click.command()
@click.argument("model_", metavar="[MODEL]", required=False)
@click.option(
    "--target", type=click.Choice(["trt", "rtx", "ort"]), help="TensorRT, TensorRT-RTX or ONNX Runtime; needed."
)
@click.option("--cc", metavar="LIST", default="", help="Compute capabilities to build for: 8.6,8.9,12.0.")
@click.option("--shape", multiple=True, metavar="X=DIMS", help="An input's shape: x=batch,3,224,224[:float32].")
@click.option("--dim", multiple=True, metavar="D=RANGE", help="A dimension's range, min:opt:max: batch=1:4:8.")
@click.option("--input", multiple=True, metavar="X=VALUE", help="An input's value: x=file.npy, or sr=16000.")
@click.option("--submodule", metavar="PATH", help="Check a part of the model: decoder.layers.")
@click.option("--model", metavar="PKG.MOD:FUNC", help="The code that builds the model, for a file of weights.")
@source_options
@click.option("--trust", is_flag=True, help="Allow MODEL to run the code that it names.")
@click.option(
    "--partition", type=click.Path(path_type=Path), metavar="DIR", help="Write the parts that the target takes."
)
@click.option("--select", multiple=True, metavar="CODE", help="Show these rules only: GKC1, GKC321.")
@click.option("--ignore", multiple=True, metavar="CODE", help="Do not show these rules.")
@click.option("--explain", metavar="CODE", help="Explain a rule instead: GKC101.")
@click.option("--sarif", type=click.Path(path_type=Path), metavar="F", help="Write SARIF 2.1.0.")
@click.option("--github", is_flag=True, help="Print annotations for GitHub on stderr.")
@click.option("--json", "as_json", is_flag=True, help="Print the result as JSON (schema graphkit.check/1).")
@click.option("-q", "--quiet", is_flag=True, help="No progress on stderr.")
@click.option("-v", "--verbose", count=True, help="Every finding, and what nodes read; -vv: tracebacks.")
@click.pass_context
def check(ctx: click.Context, /, model_: str | None, **options: Any) -> None:
    """Say whether a target will build or load MODEL, and what stands in the way.

    MODEL is an ONNX file, or a model as for convert. Exits with 0 if it will, 1 if it will not, 3 if the
    target's library is not here: then the rules alone answer.
    """
    ctx.obj.verbose = options["verbose"]
    if options["explain"] is not None:
        _explain(options["explain"], as_json=options["as_json"])
        return
    with errors_in_json(options["as_json"], schema="graphkit.check/1", answer="error"):
        result = _checked(model_, options)
    _print(result, options)
    ctx.exit(result.exit_code)


def _explain(code: str, *, as_json: bool) -> None:
    from graphkit.report.check import rule_json, rule_text
    from graphkit.support.rule import rule_of

    rule = rule_of(code)
    click.echo(rule_json(rule) if as_json else rule_text(rule))


def _checked(model: str | None, options: dict[str, Any]) -> CheckResult:
    from graphkit import atomic
    from graphkit.errors import BadOption
    from graphkit.report import progress
    from graphkit.support.check import check as run

    from .shared import libraries_kept_off_stdout

    if model is None or options["target"] is None:
        lacks = "MODEL" if model is None else "--target"
        raise BadOption(f"{lacks} is missing", remedy="graphkit check MODEL --target rtx")
    request = _request(options)
    if options["sarif"] is not None:
        atomic.check_writable(options["sarif"])
    with progress.shown_on(sys.stderr, quiet=options["quiet"]), libraries_kept_off_stdout(options["verbose"]):
        return run(model, request)


def _request(options: dict[str, Any]) -> CheckRequest:
    from graphkit.capture.request import CaptureRequest
    from graphkit.support.subject import CheckRequest

    capture = CaptureRequest(
        **given_inputs(options),
        **source_values(options),
    )
    return CheckRequest(
        options["target"],
        capture,
        tuple(c.strip() for c in options["cc"].split(",") if c.strip()),
        options["partition"],
        options["select"],
        options["ignore"],
    )


def _print(result: CheckResult, options: dict[str, Any]) -> None:
    from graphkit.report import check as report

    if options["sarif"] is not None:
        from graphkit import atomic
        from graphkit.report.sarif import to_sarif

        atomic.write_bytes(options["sarif"], to_sarif(result).encode())
        click.echo(f"wrote {options['sarif']}", err=True)
    if options["github"]:
        click.echo(report.to_annotations(result), err=True, nl=False)
    if options["as_json"]:
        click.echo(report.to_json(result))
        return
    from rich.console import Console

    text = report.to_text(result, verbose=bool(options["verbose"]))
    Console(file=sys.stdout, highlight=False).print(text, soft_wrap=True)
