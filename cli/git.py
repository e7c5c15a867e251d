"""`graphkit git`."""

from __future__ import annotations

from pathlib import Path

import click


@click.group()
def git() -> None:
    """Let git show changes of models."""


@git.command(short_help="Set up git diff, git log -p and git show for models.")
@click.option("--global", "everywhere", is_flag=True, help="For all of your repositories.")
def install(everywhere: bool) -> None:
    """Make git diff, git log -p and git show tell how *.onnx files changed.

    Sets diff.graphkit in git's configuration, and adds a line to .gitattributes.
    """
    from graphkit.delta.git import install as set_up

    for line in set_up(everywhere=everywhere, folder=Path.cwd()):
        click.echo(line)
