"""`graphkit hash`."""

from __future__ import annotations

import json
from pathlib import Path
from typing import TYPE_CHECKING

import click

if TYPE_CHECKING:
    from graphkit.digests import Digest


@click.command()
@click.argument("models", nargs=-1, required=True, metavar="MODEL...", type=click.Path(path_type=Path))
@click.option("--json", "as_json", is_flag=True, help="Print the digests as JSON (schema graphkit.hash/1).")
def hash(models: tuple[Path, ...], as_json: bool) -> None:
    """Print digests of ONNX files that renaming and reordering do not change.

    Of the structure (operators, attributes, wiring), the weights, the signature (names, dtypes and shapes of inputs
    and outputs), and the whole model.
    """
    from graphkit.digests import digest

    from .shared import errors_in_json

    with errors_in_json(as_json, schema="graphkit.hash/1", status="error"):
        found = [(path, digest(path)) for path in models]
    click.echo(_json(found) if as_json else "\n\n".join(_text(path, each) for path, each in found))


def _text(path: Path, found: Digest) -> str:
    rows = [f"  {name:<10} {value}" for name, value in found.to_json().items()]
    return "\n".join([str(path), *rows])


def _json(found: list[tuple[Path, Digest]]) -> str:
    models = [{"file": str(path), **each.to_json()} for path, each in found]
    return json.dumps({"schema": "graphkit.hash/1", "models": models}, indent=2)
