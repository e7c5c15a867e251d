"""`graphkit optimize`."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

if TYPE_CHECKING:
    from graphkit.optimization import Optimization, Proving
    from graphkit.rewrite.passes import Options


@click.command()
@click.argument("model", required=False)
@click.option("-o", "--output", type=click.Path(path_type=Path), help="File to write.  [default: MODEL.opt.onnx here]")
@click.option(
    "--level",
    type=click.IntRange(0, 2),
    metavar="N",
    default=2,
    show_default=True,
    help="0: for the target; 1: the same arithmetic; 2: fusions.",
)
@click.option(
    "--target", type=click.Choice(["onnx", "trt", "rtx", "ort"]), default="onnx", show_default=True,
    help="What takes the result; onnx: anything.",
)  # fmt: skip
@click.option("--opset", type=click.IntRange(min=1), metavar="N", help="Opset of the result.  [default: the newest]")
@click.option("--only", metavar="LIST", help="These rules or groups alone.")
@click.option("--skip", metavar="LIST", help="All but these rules or groups.")
@click.option("--onnxsim", is_flag=True, help="Let onnxsim go first; it is kept where it leaves fewer nodes.")
@click.option("--explain", is_flag=True, help="Say which rule fired where, and where one nearly did.")
@click.option(
    "--verify", type=click.Choice(["none", "final", "each"]), default="final", show_default=True,
    help="Prove the result, every rule, or nothing.",
)  # fmt: skip
@click.option("--shape", multiple=True, metavar="X=DIMS", help="Names for an input's dimensions: x=batch,3,h,w.")
@click.option("--dim", multiple=True, metavar="D=RANGE", help="Range of a dimension, to prove in: batch=1:4:8.")
@click.option("--input", multiple=True, metavar="X=VALUE", help="An input's value, to prove on: x=file.npy, sr=16000.")
@click.option("--seed", type=click.IntRange(min=0), metavar="N", default=0, show_default=True, help="Seed of values.")
@click.option("--rules", "list_rules", is_flag=True, help="List the rules, and do nothing.")
@click.option("--json", "as_json", is_flag=True, help="Print the answer as JSON (schema graphkit.optimize/1).")
@click.option("-q", "--quiet", is_flag=True, help="No progress on stderr.")
@click.option("-v", "--verbose", count=True, help="Libraries' warnings; -vv: tracebacks.")
@click.pass_context
def optimize(ctx: click.Context, /, model: str | None, **options: Any) -> None:
    """Rewrite MODEL, an ONNX file, with fewer nodes, and prove that it computes the same.

    A rule that breaks the result is left out and named. Exits with 1 if it cannot be proved.
    """
    ctx.obj.verbose = options["verbose"]
    if options["list_rules"]:
        from graphkit.report.optimize import rule_table
        from graphkit.rewrite import rules

        click.echo(rule_table(rules.every()))
        return
    if model is None:
        raise click.UsageError("Missing argument 'MODEL'.")
    from graphkit import atomic, optimization
    from graphkit.report import optimize as report
    from graphkit.report import progress

    from .shared import errors_in_json, libraries_kept_off_stdout

    output = options["output"] or Path(f"{Path(model).stem}.opt.onnx")
    with (
        errors_in_json(options["as_json"], schema="graphkit.optimize/1", status="error"),
        progress.shown_on(sys.stderr, quiet=options["quiet"]),
        libraries_kept_off_stdout(options["verbose"]),
    ):
        atomic.keep(Path(model), output)
        atomic.check_writable(output)
        found: Optimization = optimization.optimize(Path(model), _options(options), _proving(options))
        files = [str(path) for path in found.for_target.save(output)]
    name = Path(model).name
    if options["as_json"]:
        click.echo(report.to_json(found, name, files))
    else:
        click.echo(report.to_text(found, name, files, explain=options["explain"]))


def _options(options: dict[str, Any]) -> Options:
    from graphkit.rewrite.passes import Options

    return Options(
        level=options["level"],
        target=options["target"],
        opset=options["opset"],
        only=_names(options["only"]),
        skip=_names(options["skip"]),
    )


def _proving(options: dict[str, Any]) -> Proving:
    from graphkit import shapes
    from graphkit.optimization import Proving

    from .shared import each_once

    return Proving(
        verify=options["verify"],
        onnxsim=options["onnxsim"],
        shapes=each_once("--shape", options["shape"], shapes.parse_shape, lambda s: s.name),
        dims=each_once("--dim", options["dim"], shapes.parse_dim, lambda d: d.symbol),
        samples=each_once("--input", options["input"], shapes.parse_sample, lambda s: s.name),
        seed=options["seed"],
    )


def _names(text: str | None) -> tuple[str, ...]:
    return tuple(part.strip() for part in text.split(",") if part.strip()) if text else ()
