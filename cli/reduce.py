"""`graphkit reduce`."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from .shared import errors_in_json, given_inputs

if TYPE_CHECKING:
    from graphkit.reduction import ReduceRequest
    from graphkit.shrink.result import Reduction

_EXIT_CODES = {"reduced": 0, "stopped": 0, "passes": 1, "flaky": 1, "not anonymous": 1}


@click.command()
@click.argument("model")
@click.option("--check", metavar="CMD", help="Command that fails on the model: 'python check.py {model} {inputs}'.")
@click.option("--until", type=click.Choice(["parity", "build", "ort"]), help="What fails, instead of a command.")
@click.option("--against", metavar="RIGHT", help="ONNX file that is right.  [default: MODEL, not optimised]")
@click.option("-o", "--output", type=click.Path(path_type=Path), help="Folder to write.  [default: MODEL-reduced here]")
@click.option("--anonymize", is_flag=True, help="Random weights and inputs, neutral names.")
@click.option("--shape", multiple=True, metavar="X=DIMS", help="An input's shape: x=batch,3,224,224[:float32].")
@click.option("--dim", multiple=True, metavar="D=RANGE", help="A dimension's range, min:opt:max: batch=1:4:8.")
@click.option(
    "--input", multiple=True, metavar="X=VALUE", help="An input's value: x=file.npy; or all: FILE.npz, FOLDER."
)
@click.option("--seed", type=click.IntRange(min=0), metavar="N", default=0, show_default=True, help="Seed of values.")
@click.option("--backend", type=click.Choice(["rtx", "tensorrt"]), help="Engine builder.  [default: what is there]")
@click.option("--cc", metavar="LIST", help="Compute capabilities of the engine: 8.6,8.9,12.0.")
@click.option(
    "--timeout", type=click.FloatRange(min=0, min_open=True), metavar="S",
    help="Seconds that one trial may take; not for builds.  [default: 300]",
)  # fmt: skip
@click.option(
    "--max-trials", type=click.IntRange(min=1), metavar="N", default=500, show_default=True, help="Most trials."
)
@click.option(
    "--max-seconds", type=click.FloatRange(min=0, min_open=True), metavar="S", help="Most time.  [default: any]"
)
@click.option("--json", "as_json", is_flag=True, help="Print the result as JSON (schema graphkit.reduce/1).")
@click.option("-q", "--quiet", is_flag=True, help="No progress on stderr.")
@click.option("-v", "--verbose", count=True, help="Libraries' warnings; -vv: tracebacks.")
@click.pass_context
def reduce(ctx: click.Context, /, model: str, **options: Any) -> None:
    """Find a smallest part of MODEL that fails as it does.

    MODEL is an ONNX file. The part, its inputs and how to see the failure are written to a folder, ready to attach to
    a bug report. Exits with 1 if MODEL does not fail, or not always.
    """
    ctx.obj.verbose = options["verbose"]
    with errors_in_json(options["as_json"], schema="graphkit.reduce/1", status="error"):
        found = _reduced(model, options)
    _print(found, as_json=options["as_json"])
    ctx.exit(_EXIT_CODES[found.status])


def _reduced(model: str, options: dict[str, Any]) -> Reduction:
    from graphkit import reduction
    from graphkit.report import progress

    from .shared import libraries_kept_off_stdout

    request = _request(options)
    output = options["output"] or Path(f"{Path(model).stem}-reduced")
    with progress.shown_on(sys.stderr, quiet=options["quiet"]), libraries_kept_off_stdout(options["verbose"]):
        return reduction.reduce(
            model, output=output, check=options["check"], until=options["until"], against=options["against"],
            request=request,
        )  # fmt: skip


def _request(options: dict[str, Any]) -> ReduceRequest:
    from graphkit import input_sets
    from graphkit.errors import BadOption
    from graphkit.reduction import ReduceRequest

    whole = [text for text in options["input"] if "=" not in text]
    if len(whole) > 1 or (whole and len(whole) < len(options["input"])):
        raise BadOption("inputs are given in more than one way", remedy="--input X=VALUE ..., or one --input FILE.npz")
    texts = () if whole else options["input"]
    return ReduceRequest(
        **given_inputs({**options, "input": texts}),
        sets=input_sets.read(Path(whole[0])) if whole else (),
        seed=options["seed"],
        anonymize=options["anonymize"],
        timeout=options["timeout"],
        trials=options["max_trials"],
        seconds=options["max_seconds"],
        backend=options["backend"],
        compute_capabilities=tuple(options["cc"].split(",")) if options["cc"] else (),
    )


def _print(found: Reduction, *, as_json: bool) -> None:
    from graphkit.report.reduction import to_json, to_text

    if as_json:
        click.echo(to_json(found))
        return
    from rich.console import Console

    Console(file=sys.stdout, highlight=False).print(to_text(found), soft_wrap=True)
