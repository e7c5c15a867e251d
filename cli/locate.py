"""`graphkit locate`."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from .shared import errors_in_json, given_inputs, source_options, source_values

if TYPE_CHECKING:
    from graphkit.capture.request import CaptureRequest
    from graphkit.parity.divergence import Location

_EXIT_CODES = {"equal": 0, "located": 1, "not comparable": 2}


@click.command()
@click.argument("ref")
@click.argument("cand")
@click.option("--shape", multiple=True, metavar="X=DIMS", help="An input's shape: x=batch,3,224,224[:float32].")
@click.option("--dim", multiple=True, metavar="D=RANGE", help="A dimension's range, min:opt:max: batch=1:4:8.")
@click.option("--input", multiple=True, metavar="X=VALUE", help="An input's value: x=file.npy, or sr=16000.")
@click.option("--submodule", metavar="PATH", help="Use a part of REF: decoder.layers.")
@click.option("--model", metavar="PKG.MOD:FUNC", help="The code that builds REF, for a file of weights.")
@source_options
@click.option("--trust", is_flag=True, help="Allow REF to run the code that it names.")
@click.option(
    "--seed", type=click.IntRange(min=0), metavar="N", default=0, show_default=True, help="Seed of the sample inputs."
)
@click.option("--plot", type=click.Path(path_type=Path), metavar="F.svg", help="Draw the error along depth.")
@click.option("--json", "as_json", is_flag=True, help="Print the result as JSON (schema graphkit.locate/1).")
@click.option("-q", "--quiet", is_flag=True, help="No progress on stderr.")
@click.option("-v", "--verbose", count=True, help="Every tensor that was compared; -vv: tracebacks.")
@click.pass_context
def locate(ctx: click.Context, /, ref: str, cand: str, **options: Any) -> None:
    """Find the first tensor at which CAND parts from REF.

    CAND is an ONNX file, or an engine that convert wrote (with a GPU); REF is an ONNX file, or a model as for
    convert. Exits with 0 if they are equal, 1 if the place is found, 2 if they cannot be compared.
    """
    ctx.obj.verbose = options["verbose"]
    with errors_in_json(options["as_json"], schema="graphkit.locate/1", status="error"):
        location = _located(ref, cand, options)
    _print(location, as_json=options["as_json"], verbose=bool(options["verbose"]))
    ctx.exit(_EXIT_CODES[location.status])


def _located(ref: str, cand: str, options: dict[str, Any]) -> Location:
    from graphkit import atomic
    from graphkit.location import locate as find
    from graphkit.report import progress

    from .shared import libraries_kept_off_stdout

    request = _request(options)
    if options["plot"] is not None:
        atomic.check_writable(options["plot"])
    with progress.shown_on(sys.stderr, quiet=options["quiet"]), libraries_kept_off_stdout(options["verbose"]):
        location = find(ref, cand, request)
    if options["plot"] is not None:
        _draw(location, options["plot"])
    return location


def _request(options: dict[str, Any]) -> CaptureRequest:
    from graphkit.capture.request import CaptureRequest

    return CaptureRequest(
        **given_inputs(options),
        **source_values(options),
        seed=options["seed"],
    )


def _draw(location: Location, path: Path) -> None:
    from graphkit import atomic
    from graphkit.report.location_plot import to_svg

    atomic.write_bytes(path, to_svg(location).encode())
    click.echo(f"wrote {path}", err=True)


def _print(location: Location, *, as_json: bool, verbose: bool) -> None:
    from graphkit.report.location import to_json, to_text

    if as_json:
        click.echo(to_json(location))
        return
    from rich.console import Console

    Console(file=sys.stdout, highlight=False).print(to_text(location, verbose=verbose), soft_wrap=True)
