"""`graphkit validate`."""

from __future__ import annotations

import sys
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from .shared import source_options, source_values

if TYPE_CHECKING:
    from graphkit.comparison import ValidateRequest
    from graphkit.errors import GraphkitError
    from graphkit.parity.verdict import ParityReport
    from graphkit.shapes import Sample

_FILE = click.Path(path_type=Path)


@click.command()
@click.argument("models", nargs=-1, metavar="REF CAND...")
@click.option("--shape", multiple=True, metavar="X=DIMS", help="An input's shape: x=batch,3,224,224[:float32].")
@click.option("--dim", multiple=True, metavar="D=RANGE", help="A dimension's range, min:opt:max: batch=1:4:8.")
@click.option(
    "--input", multiple=True, metavar="X=VALUE", help="An input's value: x=file.npy; or all: FILE.npz, FOLDER."
)
@click.option("--data", metavar="PKG.MOD:FUNC", help="Your generator of inputs: dicts of arrays.")
@click.option("--save-inputs", type=_FILE, metavar="F.npz", help="Keep the inputs that were compared on.")
@click.option(
    "--seed", type=click.IntRange(min=0), metavar="N", default=0, show_default=True, help="Seed of drawn inputs."
)
@click.option(
    "--ort-level",
    type=click.Choice(["off", "all"]),
    default="all",
    show_default=True,
    help="ONNX Runtime's optimisations for CAND; REF runs without.",
)
@click.option("--rtol", multiple=True, metavar="[OUT=]R", help="Relative tolerance.  [default: by dtype]")
@click.option("--atol", multiple=True, metavar="[OUT=]A", help="Absolute tolerance.  [default: by dtype and magnitude]")
@click.option("--metric", multiple=True, metavar="[OUT:]COND", help="What has to hold too: 'snr>=40', 'top5>=0.99'.")
@click.option("--submodule", metavar="PATH", help="Use a part of PyTorch models: decoder.layers.")
@click.option("--model", metavar="PKG.MOD:FUNC", help="The code that builds the model, for a file of weights.")
@source_options
@click.option("--trust", is_flag=True, help="Allow files to run the code that they name.")
@click.option("--save-certificate", type=_FILE, metavar="F", help="Keep the report: CAND.parity.json, beside CAND.")
@click.option("--certificate", type=_FILE, metavar="F", help="Hash again the files that a .parity.json speaks of.")
@click.option("--junit", type=_FILE, metavar="F", help="Write JUnit XML.")
@click.option("--markdown", type=_FILE, metavar="F", help="Write Markdown, for a comment on a pull request.")
@click.option("--github", is_flag=True, help="Print annotations for GitHub on stderr.")
@click.option("--json", "as_json", is_flag=True, help="Print the result as JSON (schema graphkit.validate/1).")
@click.option("-q", "--quiet", is_flag=True, help="No progress on stderr.")
@click.option("-v", "--verbose", count=True, help="More in the summary, and libraries' warnings; -vv: tracebacks.")
@click.pass_context
def validate(ctx: click.Context, /, models: tuple[str, ...], **options: Any) -> None:
    """Compare every CAND with REF on the same inputs.

    Each is an ONNX file, a model as for convert, or an engine. Exits with 0 if all are equal, 1 if one
    differs, 3 if none differs but one could not be run here.
    """
    ctx.obj.verbose = options["verbose"]
    if options["certificate"] is not None:
        _recheck(ctx, models, options)
        return
    report: ParityReport | None = None
    try:
        report = _compared(models, options)
        error = _verdict(report)
        _write(report, options)
    except Exception as exception:  # with --json, stdout has an answer even after a bug
        from .failure import as_error

        error = as_error(exception)
    _print(report, error, options)
    if error is not None:
        raise error


def _compared(models: tuple[str, ...], options: dict[str, Any]) -> ParityReport:
    from graphkit import atomic, comparison
    from graphkit.errors import BadOption
    from graphkit.report import progress

    from .shared import libraries_kept_off_stdout

    if len(models) < 2:
        raise BadOption("validate compares at least two models", remedy="graphkit validate REF CAND")
    for name in ("junit", "markdown", "save_inputs", "save_certificate"):
        if options[name] is not None:
            atomic.check_writable(options[name])
    with progress.shown_on(sys.stderr, quiet=options["quiet"]), libraries_kept_off_stdout(options["verbose"]):
        return comparison.validate(models[0], models[1:], _request(options))


def _request(options: dict[str, Any]) -> ValidateRequest:
    from graphkit import shapes
    from graphkit.comparison import ValidateRequest
    from graphkit.parity.metrics import parse_condition

    from .shared import each_once

    request = ValidateRequest(
        shapes=each_once("--shape", options["shape"], shapes.parse_shape, lambda s: s.name),
        dims=each_once("--dim", options["dim"], shapes.parse_dim, lambda d: d.symbol),
        save_inputs=options["save_inputs"],
        save_certificate=options["save_certificate"],
        seed=options["seed"],
        optimize=options["ort_level"] == "all",
        atol=_tolerances("--atol", options["atol"]),
        rtol=_tolerances("--rtol", options["rtol"]),
        conditions=tuple(parse_condition(text) for text in options["metric"]),
        **source_values(options),
    )
    return _with_inputs(request, options["input"], options["data"])


def _with_inputs(request: ValidateRequest, texts: tuple[str, ...], data: str | None) -> ValidateRequest:
    """`--input x=file.npy` is a value for one input, anything without `=` whole sets of them."""
    from graphkit import input_sets
    from graphkit.errors import BadOption

    whole = [text for text in texts if "=" not in text]
    if len(whole) + (data is not None) > 1 or (whole and len(whole) < len(texts)) or (data is not None and texts):
        raise BadOption(
            "inputs are given in more than one way", remedy="one of --input X=VALUE ..., --input FILE.npz, --data"
        )
    if data is not None:
        sets, more = input_sets.generated(data)
        note = f"only the first {input_sets.MOST} sets of {data} were used"
        return replace(request, sets=sets, notes=(note,) if more else ())
    if whole:
        return replace(request, sets=input_sets.read(Path(whole[0])))
    return replace(request, samples=_samples(texts))


def _samples(texts: tuple[str, ...]) -> tuple[Sample, ...]:
    from graphkit import shapes

    from .shared import each_once

    return each_once("--input", texts, shapes.parse_sample, lambda s: s.name)


def _tolerances(option: str, texts: tuple[str, ...]) -> dict[str, float]:
    """`1e-3` for every output, `out=1e-3` for one."""
    from graphkit.errors import BadOption

    found: dict[str, float] = {}
    for text in texts:
        name, _, number = text.rpartition("=")
        try:
            value = float(number)
        except ValueError:
            value = -1.0
        if not 0 <= value < float("inf"):
            raise BadOption(f"{option} {text!r} is not a number from 0", remedy=f"{option} 1e-3 or {option} out=1e-3")
        if name in found:
            raise BadOption(f"{option} is given twice for `{name or 'every output'}`", remedy="give it once")
        found[name] = value
    return found


def _verdict(report: ParityReport) -> GraphkitError | None:
    from graphkit.comparison import error_of

    return error_of(report)


def _write(report: ParityReport, options: dict[str, Any]) -> None:
    from graphkit import atomic
    from graphkit.comparison import status_of
    from graphkit.report import github, junit, markdown

    if options["junit"] is not None:
        atomic.write_bytes(options["junit"], junit.to_xml(report))
    if options["markdown"] is not None:
        atomic.write_bytes(options["markdown"], markdown.to_markdown(report, status_of(report)).encode())
    if options["github"]:
        click.echo(github.to_annotations(report), nl=False, err=True)


def _print(report: ParityReport | None, error: GraphkitError | None, options: dict[str, Any]) -> None:
    from graphkit.report.validate import to_json, to_text

    status = None
    if report is not None:
        from graphkit.comparison import status_of

        status = status_of(report)
    if options["as_json"]:
        click.echo(to_json(report, status, error))
    elif report is not None and status is not None:
        _show(to_text(report, status, verbose=bool(options["verbose"])))


def _recheck(ctx: click.Context, models: tuple[str, ...], options: dict[str, Any]) -> None:
    from click.core import ParameterSource

    from graphkit.certificate import recheck
    from graphkit.errors import BadOption
    from graphkit.report.validate import certificate_to_json, certificate_to_text

    fitting = {"certificate", "as_json", "quiet", "verbose"}
    given = {n for n in options if ctx.get_parameter_source(n) == ParameterSource.COMMANDLINE} - fitting
    if models or given:
        other = f"--{min(given).replace('_', '-')}" if given else models[0]
        raise BadOption(f"--certificate reads a report again and compares nothing; {other} says nothing to it")
    found = recheck(options["certificate"])
    if options["as_json"]:
        click.echo(certificate_to_json(found))
    else:
        _show(certificate_to_text(found))
    error = found.error()
    if error is not None:
        raise error


def _show(text: Any) -> None:
    from rich.console import Console

    Console(file=sys.stdout, highlight=False).print(text, soft_wrap=True)
