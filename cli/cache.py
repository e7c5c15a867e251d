"""`graphkit cache`."""

from __future__ import annotations

import json
import re
import time
from typing import TYPE_CHECKING

import click

if TYPE_CHECKING:
    from graphkit.engine.cache import Entry

SCHEMA = "graphkit.cache/1"
_UNITS = {"": 1, "k": 10**3, "m": 10**6, "g": 10**9}


@click.group()
def cache() -> None:
    """Look at the engines that were built before, or remove them.

    They are in GRAPHKIT_CACHE_DIR, else in graphkit in the user's cache folder.
    """


@cache.command(name="list", short_help="List the engines, the last used first.")
@click.option("--json", "as_json", is_flag=True, help=f"Print them as JSON (schema {SCHEMA}).")
def list_entries(as_json: bool) -> None:
    """List the engines, the last used first."""
    from graphkit.engine.cache import EngineCache

    store = EngineCache()
    found = store.entries()
    if as_json:
        click.echo(_json(found, "entries", str(store.root)))
        return
    click.echo("\n".join([*map(_row, found), f"{len(found)} engines, {_size(found)} in {store.root}"]))


@cache.command(short_help="Remove engines: all, or the old ones, or down to a size.")
@click.option("--older-than", type=click.FloatRange(min=0), metavar="DAYS", help="Those not used for so long.")
@click.option("--max-size", metavar="SIZE", help="The longest unused, until the rest fits: 500M, 2G.")
@click.option("--json", "as_json", is_flag=True, help=f"Print what was removed as JSON (schema {SCHEMA}).")
def prune(older_than: float | None, max_size: str | None, as_json: bool) -> None:
    """Remove engines: all, or the old ones, or down to a size."""
    from graphkit.engine.cache import EngineCache

    store = EngineCache()
    limit = None if max_size is None else _bytes(max_size)
    removed = store.prune(None if older_than is None else older_than * 86_400, limit)
    if as_json:
        click.echo(_json(removed, "removed", str(store.root)))
        return
    click.echo(f"removed {len(removed)} engines, {_size(removed)}, from {store.root}")


@cache.command(name="dir", short_help="Print the folder of the cache.")
@click.option("--json", "as_json", is_flag=True, help=f"Print it as JSON (schema {SCHEMA}).")
def print_folder(as_json: bool) -> None:
    """Print the folder of the cache."""
    from graphkit.engine.cache import EngineCache

    root = str(EngineCache().root)
    click.echo(json.dumps({"schema": SCHEMA, "folder": root}, indent=2) if as_json else root)


def _json(entries: list[Entry], what: str, root: str) -> str:
    return json.dumps({"schema": SCHEMA, "folder": root, what: [e.to_json() for e in entries]}, indent=2)


def _row(entry: Entry) -> str:
    used = time.strftime("%Y-%m-%d %H:%M", time.localtime(entry.used))
    library = entry.library or "damaged: it will be dropped"
    return f"{entry.key[:12]}  {used}  {entry.size / 1e6:9.2f} MB  {library}  {','.join(entry.targets)}  {entry.model}"


def _size(entries: list[Entry]) -> str:
    return f"{sum(entry.size for entry in entries) / 1e6:.2f} MB"


def _bytes(text: str) -> int:
    from graphkit.errors import BadOption

    found = re.fullmatch(r"(\d+(?:\.\d+)?)\s*([kmg]?)b?", text.strip().lower())
    if found is None:
        raise BadOption(f"--max-size {text!r} is not a size", remedy="--max-size 500M, or 2G")
    return int(float(found[1]) * _UNITS[found[2]])
