"""`graphkit inspect`."""

from __future__ import annotations

import os
from pathlib import Path
from typing import TYPE_CHECKING

import click

if TYPE_CHECKING:
    from collections.abc import Iterator

    from graphkit.analyze.inspection import Inspection
    from graphkit.report.inspect_tables import Rows
    from graphkit.support.readiness import Readiness

_MOST_COLUMNS = 120


@click.command()
@click.argument("model", metavar="MODEL", type=click.Path(path_type=Path))
@click.option("--by", type=click.Choice(["module"]), help="Parameters and cost as a tree.")
@click.option("--layers", is_flag=True, help="Every node, in the order in which they run.")
@click.option("--top", type=click.Choice(["flops", "params", "memory"]), help="The nodes that have most of it.")
@click.option(
    "-n",
    "number",
    metavar="N",
    type=click.IntRange(min=1),
    default=10,
    show_default=True,
    help="Nodes that --top shows.",
)
@click.option("--find", metavar="PATTERN", help="Paths of operators: 'MatMul > Add > Gelu'.")
@click.option("--weights", is_flag=True, help="Every weight, with statistics of its values.")
@click.option("--dim", "dims", multiple=True, metavar="D=N", help="Evaluate at a dimension's size: batch=8.")
@click.option("--json", "as_json", is_flag=True, help="Print it as JSON (schema graphkit.inspect/1).")
def inspect(
    model: Path,
    by: str | None,
    layers: bool,
    top: str | None,
    number: int,
    find: str | None,
    weights: bool,
    dims: tuple[str, ...],
    as_json: bool,
) -> None:
    """Say what the file MODEL is, what it holds and what it costs.

    ONNX, TorchScript, .pt2, state_dict, safetensors, SavedModel, .keras, GraphDef, TFLite, or a TensorRT engine.
    Nothing in it is run.
    """
    from graphkit.analyze.inspection import inspect as look_at
    from graphkit.report import inspect as report

    from .shared import errors_in_json

    with errors_in_json(as_json, schema="graphkit.inspect/1", status="error"):
        found = look_at(model, _sizes(dims))
        parts = list(_parts(found, by, layers, top, number, find, weights))
        ready = _readiness(found) if as_json or not parts else ()
    if as_json:
        click.echo(report.to_json(found, {part.key: part.to_json() for part in parts}, ready))
    elif parts:
        click.echo("\n\n".join(part.to_text() for part in parts))
    else:
        click.echo(report.to_text(found, min(_columns(), _MOST_COLUMNS), ready))


def _readiness(found: Inspection) -> tuple[Readiness, ...]:
    if found.graph is None:
        return ()
    from graphkit.support.readiness import readiness

    return readiness(found.graph.view, found.graph.table)


def _columns() -> int:
    """Width of the terminal; `shutil`, which knows it too, takes 8 ms to import."""
    try:
        return int(os.environ.get("COLUMNS", "")) or 100
    except ValueError:
        pass
    try:
        return os.get_terminal_size().columns or 100
    except OSError:
        return 100


def _sizes(written: tuple[str, ...]) -> dict[str, int]:
    from graphkit.errors import BadOption

    sizes: dict[str, int] = {}
    for each in written:
        name, _, size = each.rpartition("=")
        if not name or not (size.isascii() and size.isdigit()) or int(size) < 1 or name in sizes:
            raise BadOption(f"--dim {each} is not a name and a size, once", remedy="--dim batch=8")
        sizes[name] = int(size)
    return sizes


def _parts(
    found: Inspection, by: str | None, layers: bool, top: str | None, number: int, find: str | None, weights: bool
) -> Iterator[Rows]:
    if not (by or layers or top or find is not None or weights):
        return
    from graphkit.errors import BadOption
    from graphkit.report import inspect_tables as tables

    summary = found.graph
    if summary is None:
        if layers and found.engine_layers is not None:
            yield tables.engine_layers(found)
            layers = False
        if by or layers or top or find is not None:
            raise BadOption(
                f"{found.file} is a {found.kind}: modules, layers and paths are those of ONNX files",
                remedy="graphkit convert makes one of it",
            )
    else:
        if by:
            yield tables.by_module(summary)
        if layers:
            yield tables.layers(summary)
        if top:
            yield tables.top(summary, top, number)
        if find is not None:
            yield tables.matches(summary, find)
    if weights:
        yield tables.weights(found)
