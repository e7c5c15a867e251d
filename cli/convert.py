"""`graphkit convert`."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click
from click.core import ParameterSource

from .engine_options import NAMES as engine_options_names
from .engine_options import default_of, engine_options, engine_values
from .shared import (
    each_once,
    libraries_kept_off_stdout,
    precision_options,
    precision_request,
    source_options,
    source_values,
)

if TYPE_CHECKING:
    from graphkit.pipeline import ConvertRequest
    from graphkit.result import ConvertResult


@click.command()
@click.argument("src")
@click.option(
    "--to",
    type=click.Choice(["onnx", "trt", "saved_model", "tflite"]),
    metavar="TARGET",
    default="onnx",
    show_default=True,
    help="onnx; trt: an engine; of TensorFlow models also saved_model, tflite.",
)
@click.option(
    "-o", "--output", type=click.Path(path_type=Path), help="File to write.  [default: SRC.onnx/.engine here]"
)
@click.option("--shape", multiple=True, metavar="X=DIMS", help="An input's shape: x=batch,3,224,224[:float32].")
@click.option("--dim", multiple=True, metavar="D=RANGE", help="A dimension's range, min:opt:max: batch=1:4:8.")
@click.option("--input", multiple=True, metavar="X=VALUE", help="An input's value: x=file.npy, or sr=16000.")
@click.option(
    "--opset", type=click.IntRange(min=1), metavar="N", help="ONNX operator set.  [default: graphkit chooses]"
)
@click.option("--via", type=click.Choice(["export", "script", "trace"]), help="Way of capture.  [default: the safest]")
@click.option("--submodule", metavar="PATH", help="Convert a part of the model: decoder.layers.")
@click.option("--model", metavar="PKG.MOD:FUNC", help="The code that builds the model, for a file of weights.")
@source_options
@click.option("--trust", is_flag=True, help="Allow SRC to run the code that it names.")
@precision_options(required=False)
@click.option("--freeze", multiple=True, metavar="X=VALUE", help="Make an input a constant: sr=16000, mask=file.npy.")
@click.option("--optimize/--no-optimize", default=True, show_default=True, help="Simplify the graph.")
@engine_options
@click.option(
    "--seed", type=click.IntRange(min=0), metavar="N", default=0, show_default=True, help="Seed of the sample inputs."
)
@click.option("--json", "as_json", is_flag=True, help="Print the result as JSON (schema graphkit.convert/1).")
@click.option("-q", "--quiet", is_flag=True, help="No progress on stderr.")
@click.option("-v", "--verbose", count=True, help="More in the summary, and libraries' warnings; -vv: tracebacks.")
@click.pass_context
def convert(ctx: click.Context, /, src: str, **options: Any) -> None:
    """Convert the model SRC and compare the result with it.

    SRC is a PyTorch file (TorchScript, .pt2, pickled module, weights with --model), a TensorFlow one (SavedModel,
    .keras, .h5, GraphDef, .tflite), an ONNX file, or package.module:callable.
    """
    ctx.obj.verbose = options["verbose"]
    result = _converted(ctx, src, options)
    _print(result, as_json=options["as_json"], verbose=options["verbose"])
    if result.error is not None:
        raise result.error


def _converted(ctx: click.Context, src: str, options: dict[str, Any]) -> ConvertResult:
    from graphkit.result import ConvertResult

    try:
        request = _request(ctx, options)
        return _run(src, request, quiet=options["quiet"], verbose=options["verbose"])
    except Exception as exception:  # everything becomes an answer: with --json, stdout has one even after a bug
        from .failure import as_error

        return ConvertResult(src, options["to"], error=as_error(exception))


def _request(ctx: click.Context, options: dict[str, Any]) -> ConvertRequest:
    from graphkit import shapes
    from graphkit.pipeline import ConvertRequest

    if options["to"] != "trt":
        _refuse_engine_options(ctx, options)
    return ConvertRequest(
        to=options["to"],
        output=options["output"],
        shapes=each_once("--shape", options["shape"], shapes.parse_shape, lambda s: s.name),
        dims=each_once("--dim", options["dim"], shapes.parse_dim, lambda d: d.symbol),
        samples=each_once("--input", options["input"], shapes.parse_sample, lambda s: s.name),
        precision=precision_request(options),
        freeze=each_once("--freeze", options["freeze"], shapes.parse_sample, lambda s: s.name),
        opset=options["opset"],
        via=options["via"],
        **source_values(options),
        optimize=options["optimize"],
        **engine_values(options),
        seed=options["seed"],
    )


def _refuse_engine_options(ctx: click.Context, options: dict[str, Any]) -> None:
    """Options of an engine that were given for ONNX are refused; those of a configuration file are for other runs."""
    from graphkit.errors import BadOption

    for name in engine_options_names:
        option = f"--{name.replace('_', '-')}"
        if ctx.get_parameter_source(name) == ParameterSource.COMMANDLINE:
            raise BadOption(
                f"{option} says how an engine is built, but --to is {options['to']}",
                remedy=f"add --to trt, or leave {option} out",
            )
        options[name] = default_of(name)


def _run(src: str, request: ConvertRequest, *, quiet: bool, verbose: int) -> ConvertResult:
    from graphkit import pipeline
    from graphkit.report import progress

    with progress.shown_on(sys.stderr, quiet=quiet), libraries_kept_off_stdout(verbose):
        return pipeline.run(src, request)


def _print(result: ConvertResult, *, as_json: bool, verbose: int) -> None:
    from graphkit.report.convert import to_json, to_text

    if as_json:
        click.echo(to_json(result))
        return
    text = to_text(result, verbose=bool(verbose))
    if text.plain:
        from rich.console import Console

        Console(file=sys.stdout, highlight=False).print(text, soft_wrap=True)
