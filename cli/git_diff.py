"""`graphkit git-diff`."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import click

_NOTHING = "/dev/null"


@click.command(name="git-diff")
@click.argument("arguments", nargs=-1, required=True, metavar="PATH OLD HEX MODE NEW HEX MODE")
def git_diff(arguments: tuple[str, ...]) -> None:
    """Show a changed model; git calls it with seven arguments, or nine for a renamed file.

    Exits with 0 whatever it finds: git takes anything else as a failure of the command, and stops.
    """
    if len(arguments) == 1:
        click.echo(f"* unmerged: {arguments[0]}")  # git says no more of a conflict
        return
    if len(arguments) not in (7, 9):
        raise click.UsageError(f"git gives 1, 7 or 9 arguments, not {len(arguments)}")
    path, old, _, _, new = arguments[:5]
    after = arguments[7] if len(arguments) == 9 else path
    click.echo(f"diff --graphkit a/{path} b/{after}")
    click.echo(_compared(old, new, path, after))


def _compared(old: str, new: str, path: str, after: str) -> str:
    from dataclasses import replace

    from graphkit import view
    from graphkit.delta import diff
    from graphkit.errors import GraphkitError
    from graphkit.report import diff as report
    from graphkit.report.wording import printable

    try:
        if _NOTHING in (old, new):
            shown = view.read(Path(new if old == _NOTHING else old))
            return f"{'new' if old == _NOTHING else 'deleted'} model, {_size(shown)}"
        # git's temporary copies have names of their own.
        before, then = replace(view.read(Path(old)), name=path), replace(view.read(Path(new)), name=after)
        return report.to_text(diff(before, then))
    except GraphkitError as error:
        return printable(f"not shown: {error.message}")


def _size(model: Any) -> str:
    return f"{len(model.graph)} nodes, {len(model.graph.initializers)} weights"
