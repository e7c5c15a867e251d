"""`graphkit explain`."""

from __future__ import annotations

import click


@click.command()
@click.argument("code")
@click.option("--json", "as_json", is_flag=True, help="Print the page as JSON (schema graphkit.explain/1).")
def explain(code: str, as_json: bool) -> None:
    """Explain the error CODE: what it means, and what to do about it."""
    from graphkit.report.error_pages import as_json_text, as_text, find

    error = find(code)
    click.echo(as_json_text(error) if as_json else as_text(error))
