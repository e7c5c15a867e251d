"""`graphkit build`."""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from .engine_options import engine_options, engine_values
from .shared import each_once, errors_in_json

if TYPE_CHECKING:
    from graphkit.building import BuildResult, EngineRequest


@click.command()
@click.argument("model", type=click.Path(path_type=Path))
@click.option("--to", type=click.Choice(["trt"]), default="trt", show_default=True, help="An engine.")
@click.option("-o", "--output", type=click.Path(path_type=Path), help="File to write.  [default: MODEL.engine here]")
@click.option("--dim", multiple=True, metavar="D=RANGE", help="A dimension's range, min:opt:max: batch=1:4:8.")
@engine_options
@click.option("--json", "as_json", is_flag=True, help="Print the result as JSON (schema graphkit.build/1).")
@click.option("-q", "--quiet", is_flag=True, help="No progress on stderr.")
@click.option("-v", "--verbose", count=True, help="Libraries' warnings; -vv: tracebacks.")
@click.pass_context
def build(ctx: click.Context, /, model: Path, **options: Any) -> None:
    """Build an engine from MODEL, an ONNX file, as it is.

    One stage of convert: only what the library does not take is rewritten, and nothing is compared (parity: not run).
    An engine that was built from the same file with the same options comes from the cache. Exits with 1 if some of the
    targets cannot have one.
    """
    ctx.obj.verbose = options["verbose"]
    output = options["output"] or Path(f"{model.stem}.engine")
    with errors_in_json(options["as_json"], schema="graphkit.build/1", status="error"):
        result = _built(model, output, _request(options), options)
    click.echo(json.dumps(result.to_json(), indent=2, allow_nan=False) if options["as_json"] else _text(result))
    if result.complaint is not None:
        raise result.complaint


def _request(options: dict[str, Any]) -> EngineRequest:
    from graphkit import shapes
    from graphkit.building import EngineRequest

    dims = each_once("--dim", options["dim"], shapes.parse_dim, lambda d: d.symbol)
    return EngineRequest(dims=dims, **engine_values(options))


def _built(model: Path, output: Path, request: EngineRequest, options: dict[str, Any]) -> BuildResult:
    from graphkit import building

    if options["quiet"] or not sys.stderr.isatty():  # rich takes longer to import than a cached engine to come
        return building.build(model, output, request)
    from graphkit.report import progress

    from .shared import libraries_kept_off_stdout

    with progress.shown_on(sys.stderr, quiet=False), libraries_kept_off_stdout(options["verbose"]):
        return building.build(model, output, request)


def _text(result: BuildResult) -> str:
    from graphkit.building import NOT_COMPARED

    engine = result.engine
    how = "taken from the cache" if result.cached else f"built in {result.seconds:.1f} s"
    profiles = (
        f"  profile {number if len(engine.profiles) > 1 else ' '} {name} "
        f"{' '.join('x'.join(map(str, sizes)) or 'scalar' for sizes in triple)}"
        for number, profile in enumerate(engine.profiles, 1)
        for name, triple in profile.shapes.items()
    )
    lines = [
        f"{result.files[0]}  {engine.size / 1e6:.2f} MB, {how}",
        f"  engine    {engine.kind} {engine.version} for {', '.join(engine.targets)}",
        *profiles,
        f"  parity    not run: {NOT_COMPARED}",
        *(f"  warning   {finding}" for finding in result.findings),
        *(f"  wrote     {file}" for file in result.files),
    ]
    return "\n".join(lines)
