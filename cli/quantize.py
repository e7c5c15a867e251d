"""`graphkit quantize`."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from .shared import precision_options

if TYPE_CHECKING:
    from graphkit.request import QuantizeRequest


@click.command()
@click.argument("model")
@click.option(
    "-o", "--output", type=click.Path(path_type=Path), help="File to write.  [default: MODEL.PRECISION.onnx here]"
)
@precision_options(required=True)
@click.option("--plot", type=click.Path(path_type=Path), metavar="F.svg", help="Draw the search.")
@click.option("--shape", multiple=True, metavar="X=DIMS", help="Names for an input's dimensions: x=batch,3,h,w.")
@click.option("--dim", multiple=True, metavar="D=RANGE", help="Range of a dimension, to compare in: batch=1:4:8.")
@click.option("--input", multiple=True, metavar="X=VALUE", help="An input's value, to compare on: x=file.npy.")
@click.option("--seed", type=click.IntRange(min=0), metavar="N", default=0, show_default=True, help="Seed of values.")
@click.option("--json", "as_json", is_flag=True, help="Print the answer as JSON (schema graphkit.quantize/1).")
@click.option("-q", "--quiet", is_flag=True, help="No progress on stderr.")
@click.option("-v", "--verbose", count=True, help="Libraries' warnings; -vv: tracebacks.")
@click.pass_context
def quantize(ctx: click.Context, /, model: str, **options: Any) -> None:
    """Bring MODEL, an ONNX file, to a lower precision, and compare it with what it was.

    Says which layers stay in float32 and why. Exits with 1 if nothing would run in that precision, or if the result
    differs by more than it may; nothing is written then.
    """
    ctx.obj.verbose = options["verbose"]
    if options["plot"] is not None and options["max_drop"] is None:
        raise click.UsageError("--plot shows a search: give --max-drop too")
    from graphkit import atomic, quantization
    from graphkit.report import progress
    from graphkit.report import quantize as report

    from .shared import errors_in_json, libraries_kept_off_stdout

    output = options["output"] or Path(f"{Path(model).stem}.{options['precision']}.onnx")
    with (
        errors_in_json(options["as_json"], schema="graphkit.quantize/1", status="error"),
        progress.shown_on(sys.stderr, quiet=options["quiet"]),
        libraries_kept_off_stdout(options["verbose"]),
    ):
        request = _request(options)
        atomic.keep(Path(model), output)
        for place in (output, options["plot"]):
            if place is not None:
                atomic.check_writable(place)
        found = quantization.quantize(Path(model), request)
        files = [str(path) for path in found.model.save(output)]
        if options["plot"] is not None and found.search is not None:
            from graphkit.report.sensitivity_plot import to_svg

            atomic.write_bytes(options["plot"], to_svg(found.search).encode())
            files.append(str(options["plot"]))
    shown = report.to_json if options["as_json"] else report.to_text
    click.echo(shown(found, Path(model).name, files))


def _request(options: dict[str, Any]) -> QuantizeRequest:
    from dataclasses import replace

    from graphkit import shapes

    from .shared import each_once, precision_request

    request = precision_request(options)
    assert request is not None
    return replace(
        request,
        shapes=each_once("--shape", options["shape"], shapes.parse_shape, lambda s: s.name),
        dims=each_once("--dim", options["dim"], shapes.parse_dim, lambda d: d.symbol),
        samples=each_once("--input", options["input"], shapes.parse_sample, lambda s: s.name),
        seed=options["seed"],
    )
