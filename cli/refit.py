"""`graphkit refit`."""

from __future__ import annotations

import json
from pathlib import Path

import click

from .shared import errors_in_json

SCHEMA = "graphkit.refit/1"


@click.command()
@click.argument("engine", type=click.Path(path_type=Path))
@click.argument("weights", type=click.Path(path_type=Path))
@click.option("-o", "--output", type=click.Path(path_type=Path), required=True, help="File to write.")
@click.option("--seed", type=click.IntRange(min=0), metavar="N", default=0, show_default=True, help="Seed of inputs.")
@click.option("--json", "as_json", is_flag=True, help=f"Print the result as JSON (schema {SCHEMA}).")
@click.option("-v", "--verbose", count=True, help="-vv: tracebacks.")
@click.pass_context
def refit(
    ctx: click.Context, /, engine: Path, weights: Path, output: Path, seed: int, as_json: bool, verbose: int
) -> None:
    """Put the weights of an ONNX file into a refittable ENGINE of TensorRT's, and compare them.

    WEIGHTS is the ONNX file that convert makes of the new checkpoint, with the options that made ENGINE. The result is
    written if it computes what WEIGHTS does. Needs the GPU.
    """
    ctx.obj.verbose = verbose
    with errors_in_json(as_json, schema=SCHEMA, status="error"):
        from graphkit.refitting import refit as run

        from .shared import libraries_kept_off_stdout

        with libraries_kept_off_stdout(verbose):
            made = run(engine, weights, output, seed=seed)
    if as_json:
        files = [str(file) for file in made.files]
        answer = {"schema": SCHEMA, "status": "ok", "files": files, "parity": made.parity.to_json()}
        click.echo(json.dumps(answer, indent=2, allow_nan=False))
        return
    click.echo(f"{made.files[0]}: {len(made.parity.comparisons)} comparisons with {weights.name}, all equal")
