"""`graphkit doctor`."""

from __future__ import annotations

import click


@click.command()
@click.option("--json", "as_json", is_flag=True, help="Print the report as JSON (schema graphkit.doctor/1).")
def doctor(as_json: bool) -> None:
    """Say what this machine can build and run, and how to get what it lacks.

    Exits with 0 whatever the findings are: it is a report.
    """
    from graphkit.doctor import diagnose
    from graphkit.report.doctor import print_text, to_json

    diagnosis = diagnose()
    if as_json:
        click.echo(to_json(diagnosis))
        return
    from rich.console import Console

    print_text(diagnosis, Console())
