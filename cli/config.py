"""Defaults of options from `[tool.graphkit]` in `pyproject.toml`, or from `graphkit.toml`; flags win."""

from __future__ import annotations

import tomllib
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

import click

from graphkit.errors import BadOption

COMMAND_LINE_ONLY = frozenset(
    {
        "trust", "model", "data", "check", "output", "junit", "markdown", "save-inputs", "save-certificate",
        "certificate", "timing-cache", "plot", "sarif", "partition", "explain", "json", "quiet", "verbose",
    }
)  # fmt: skip
"""A folder that was downloaded may hold a configuration file: it must not decide that code is run (`--trust`,
`--model`, `--data`, `--check`), nor which file is overwritten."""


def defaults(command_name: str, command: click.Command, commands: Iterable[str]) -> dict[str, Any]:
    """Defaults for one command, keyed as click's `default_map` wants them.

    The working directory's `graphkit.toml` (tables `[convert]`, ...) is read if there is one, otherwise its
    `pyproject.toml` (tables `[tool.graphkit.convert]`, ...). Keys are the long names of options; `--shape`, `--dim`
    and `--input` take a list of strings or a table: `shape = { x = "batch,3,224,224" }`.

    Raises:
        BadOption: a file is not TOML, or a table, a key or the type of a value is not known.
    """
    path, prefix, tables = _read()
    for table, value in tables.items():
        if table not in commands or not isinstance(value, dict):
            raise _unknown(f"[{prefix}{table}] is not the table of a command", table, commands, path)
    options = _options(command)
    where = f"[{prefix}{command_name}] in {path}"
    return {
        _option(key, options, where).name or key: _value(key, value, options[key], where)
        for key, value in tables.get(command_name, {}).items()
    }


def _read() -> tuple[Path, str, Mapping[str, Any]]:
    own, project = Path("graphkit.toml"), Path("pyproject.toml")
    if own.is_file():
        return own, "", _parse(own)
    tool = _parse(project).get("tool") if project.is_file() else None
    tables = tool.get("graphkit", {}) if isinstance(tool, dict) else {}
    if not isinstance(tables, dict):
        raise BadOption(f"tool.graphkit is {tables!r}, which is not a table", where=str(project))
    return project, "tool.graphkit.", tables


def _parse(path: Path) -> dict[str, Any]:
    try:
        return tomllib.loads(path.read_text(encoding="utf-8"))
    except (tomllib.TOMLDecodeError, UnicodeDecodeError) as error:
        raise BadOption(f"{path} is not TOML: {error}", where=str(path), remedy=f"correct {path}") from error
    except OSError as error:
        raise BadOption(f"{path} cannot be read: {error.strerror}", where=str(path)) from error


def _options(command: click.Command) -> dict[str, click.Option]:
    options = (p for p in command.params if isinstance(p, click.Option))
    return {long.removeprefix("--"): p for p in options for long in p.opts if long.startswith("--")}


def _option(key: str, options: Mapping[str, click.Option], where: str) -> click.Option:
    if key not in options:
        raise _unknown(f"unknown option `{key}`", key, sorted(set(options) - COMMAND_LINE_ONLY), where)
    if key in COMMAND_LINE_ONLY:
        raise BadOption(
            f"`{key}` cannot be set in a configuration file", where=where, remedy=f"give --{key} on the command line"
        )
    return options[key]


def _unknown(message: str, name: str, known: Iterable[str], where: object) -> BadOption:
    from difflib import get_close_matches

    names = list(known)
    near = get_close_matches(name, names, n=1)
    remedy = f"did you mean `{near[0]}`?" if near else f"one of: {', '.join(names)}"
    return BadOption(message, where=str(where), remedy=remedy)


def _value(key: str, value: Any, option: click.Option, where: str) -> Any:
    if option.multiple and isinstance(value, dict) and all(isinstance(v, str | int | float) for v in value.values()):
        return [f"{name}={_spelled(v)}" for name, v in value.items()]
    if option.multiple:
        good, wanted = (
            isinstance(value, list) and all(isinstance(v, str) for v in value),
            "a list of strings or a table",
        )
    elif option.is_flag:
        good, wanted = isinstance(value, bool), "true or false"
    elif isinstance(option.type, click.types.IntParamType):
        good, wanted = isinstance(value, int) and not isinstance(value, bool), "a whole number"
    else:
        good, wanted = isinstance(value, str), "a string"
    if not good:
        raise BadOption(f"`{key}` is {value!r}, which is not {wanted}", where=where, remedy=f"{key} = {wanted}")
    return value


def _spelled(value: str | float) -> str:
    return str(value).lower() if isinstance(value, bool) else str(value)
