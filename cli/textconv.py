"""`graphkit textconv`."""

from __future__ import annotations

from pathlib import Path

import click


@click.command()
@click.argument("model", metavar="MODEL", type=click.Path(path_type=Path))
def textconv(model: Path) -> None:
    """Print an ONNX file as text that renaming and reordering do not change.

    For git, which stops showing a history at the first failure: a file that is not ONNX is one line, and exits with 0.
    """
    from graphkit import view
    from graphkit.delta.textconv import textconv as as_text
    from graphkit.errors import CorruptFile
    from graphkit.report.wording import printable

    try:
        text = as_text(view.read(model))
    except CorruptFile as error:
        text = f"not shown: {error.message}\n"
    click.echo(printable(text), nl=False)
