"""`graphkit bench`."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from .shared import given_inputs, source_options, source_values

if TYPE_CHECKING:
    from graphkit.benching import BenchRequest
    from graphkit.timing.result import BenchResult


@click.command()
@click.argument("models", nargs=-1, required=True, metavar="MODEL...")
@click.option("--shape", multiple=True, metavar="X=DIMS", help="An input's shape: x=batch,3,224,224[:float32].")
@click.option("--dim", multiple=True, metavar="D=RANGE", help="A dimension's range, min:opt:max: batch=1:4:8.")
@click.option("--input", multiple=True, metavar="X=VALUE", help="An input's value: x=file.npy, or sr=16000.")
@click.option(
    "--at", multiple=True, metavar="D=N[,D=N]", help="Sizes to time at; again for more points.  [default: opt of --dim]"
)
@click.option("--runs", type=int, metavar="N", help="Timed runs of each side at each point, instead of --seconds.")
@click.option("--seconds", type=float, metavar="S", help="Time for each side at each point.  [default: 2]")
@click.option("--warm-up", type=int, metavar="N", default=3, show_default=True, help="Runs that are not counted.")
@click.option("--threads", type=int, metavar="N", help="For each side.  [default: as many as processors]")
@click.option(
    "--provider",
    multiple=True,
    type=click.Choice(["cpu", "cuda"]),
    default=("cpu",),
    show_default=True,
    help="What ONNX Runtime runs on; again for both.",
)
@click.option("--against-source", is_flag=True, help="Time the file beside it, too, that MODEL was converted from.")
@click.option(
    "--seed", type=click.IntRange(min=0), metavar="N", default=0, show_default=True, help="Seed of drawn inputs."
)
@click.option("--submodule", metavar="PATH", help="Use a part of PyTorch models: decoder.layers.")
@click.option("--model", metavar="PKG.MOD:FUNC", help="The code that builds the model, for a file of weights.")
@source_options
@click.option("--trust", is_flag=True, help="Allow files to run the code that they name.")
@click.option("--plot", type=click.Path(path_type=Path), metavar="F.svg", help="Draw the times.")
@click.option("--json", "as_json", is_flag=True, help="Print the result as JSON (schema graphkit.bench/1).")
@click.option("-q", "--quiet", is_flag=True, help="No progress on stderr.")
@click.option("-v", "--verbose", count=True, help="Libraries' warnings; -vv: tracebacks.")
@click.pass_context
def bench(ctx: click.Context, /, models: tuple[str, ...], **options: Any) -> None:
    """Time every MODEL on the same inputs, taking turns.

    Each is an ONNX file, a model as for convert, or an engine. That outputs differ is said, and no error: validate
    answers that. Exits with 0 if all were timed, 3 if one could not be run here, else as the failure of one says.
    """
    ctx.obj.verbose = options["verbose"]
    result: BenchResult | None = None
    try:
        result = _timed(models, options)
        error = result.error()
    except Exception as exception:  # with --json, stdout has an answer even after a bug
        from .failure import as_error

        error = as_error(exception)
    if options["as_json"]:
        from graphkit.report.bench import to_json

        click.echo(to_json(result, error))
    elif result is not None:
        _show(result)
    if error is not None:
        raise error


def _timed(models: tuple[str, ...], options: dict[str, Any]) -> BenchResult:
    from graphkit import atomic, benching
    from graphkit.report import progress

    from .shared import libraries_kept_off_stdout

    request = _request(options)
    if options["plot"] is not None:
        atomic.check_writable(options["plot"])
    with progress.shown_on(sys.stderr, quiet=options["quiet"]), libraries_kept_off_stdout(options["verbose"]):
        result = benching.bench(models, request)
    if options["plot"] is not None:
        from graphkit.report.bench_plot import to_svg

        atomic.write_bytes(options["plot"], to_svg(result).encode())
        click.echo(f"wrote {options['plot']}", err=True)
    return result


def _request(options: dict[str, Any]) -> BenchRequest:
    from graphkit import shapes
    from graphkit.benching import BenchRequest
    from graphkit.errors import BadOption
    from graphkit.timing.rounds import Budget

    if options["runs"] is not None and options["seconds"] is not None:
        raise BadOption("--runs and --seconds exclude one another", remedy="give one")
    at = tuple(shapes.parse_sizes(text) for text in options["at"])
    if len({frozenset(sizes.items()) for sizes in at}) != len(at):
        raise BadOption("an --at is given twice", remedy="give each one once")
    seconds = Budget().seconds if options["seconds"] is None else options["seconds"]
    return BenchRequest(
        **given_inputs(options),
        at=at,
        budget=Budget(options["runs"], seconds, options["warm_up"]),
        threads=options["threads"],
        providers=options["provider"],
        against_source=options["against_source"],
        seed=options["seed"],
        **source_values(options),
    )


def _show(result: BenchResult) -> None:
    from rich.console import Console

    from graphkit.report.bench import to_text

    Console(file=sys.stdout, highlight=False).print(to_text(result), soft_wrap=True)
