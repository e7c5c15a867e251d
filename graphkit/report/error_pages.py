"""The page of each error code, made from its class: for `graphkit explain`, and for `docs/errors/`.

python -m graphkit.report.error_pages docs/errors
"""

from __future__ import annotations

import inspect
import json
import sys
from collections.abc import Iterable
from pathlib import Path

from graphkit import atomic
from graphkit.errors import GraphkitError, UnknownName, all_errors

_MEANING = {
    1: "the answer is no",
    2: "the request or the file is bad",
    3: "this machine lacks something",
    4: "a bug, or a crash in native code",
}


def find(code: str) -> type[GraphkitError]:
    """The error class of `code`, in upper or lower case.

    Raises:
        UnknownName: there is no such code.
    """
    known = {error.code: error for error in all_errors()}
    if code.upper() not in known:
        raise UnknownName(f"no error has the code {code!r}", remedy=f"one of {_ranges(known)}")
    return known[code.upper()]


def as_text(error: type[GraphkitError]) -> str:
    """The page for a terminal."""
    head = f"{error.code}: {error.__name__} (exit code {error.exit_code}: {_MEANING[error.exit_code]})"
    return f"{head}\n\n{_explanation(error)}"


def as_json_text(error: type[GraphkitError]) -> str:
    """The page as JSON, schema graphkit.explain/1."""
    page = {
        "schema": "graphkit.explain/1",
        "code": error.code,
        "name": error.__name__,
        "exit_code": error.exit_code,
        "explanation": _explanation(error),
    }
    return json.dumps(page, indent=2, allow_nan=False)


def pages() -> dict[str, str]:
    """Every page of `docs/errors/` by file name: one per code, and the index `README.md`."""
    errors = list(all_errors())
    return {"README.md": _index(errors)} | {f"{error.code}.md": _page(error) for error in errors}


def write(folder: Path) -> None:
    """Bring `folder` up to date; pages of codes that are gone are removed."""
    folder.mkdir(parents=True, exist_ok=True)
    wanted = pages()
    for name, text in wanted.items():
        atomic.write_bytes(folder / name, text.encode())
    for old in folder.glob("GK*.md"):
        if old.name not in wanted:
            old.unlink()


def _explanation(error: type[GraphkitError]) -> str:
    return inspect.cleandoc(error.__doc__ or "")


def _page(error: type[GraphkitError]) -> str:
    exit_code = f"Exit code {error.exit_code}: {_MEANING[error.exit_code]}."
    in_python = f"In Python: `graphkit.errors.{error.__name__}`."
    return f"# {error.code}: {error.__name__}\n\n{_explanation(error)}\n\n{exit_code} {in_python}\n"


def _index(errors: Iterable[type[GraphkitError]]) -> str:
    lines = [
        "# Error codes",
        "",
        "The first digit of a code is the exit code of the command. `graphkit explain CODE` prints these pages.",
        "Made by `python -m graphkit.report.error_pages docs/errors` from `graphkit/errors.py`.",
    ]
    group = 0
    for error in errors:
        if error.exit_code != group:
            group = error.exit_code
            lines += ["", f"## Exit code {group}: {_MEANING[group]}", "", "| code | name | meaning |", "|---|---|---|"]
        lines.append(f"| [{error.code}]({error.code}.md) | {error.__name__} | {_first_sentence(error)} |")
    return "\n".join(lines) + "\n"


def _first_sentence(error: type[GraphkitError]) -> str:
    text = " ".join(_explanation(error).split())
    return text.partition(". ")[0].rstrip(".").replace("|", "\\|") + "."


def _ranges(codes: Iterable[str]) -> str:
    groups: dict[str, list[str]] = {}
    for code in codes:
        groups.setdefault(code[:3], []).append(code)
    return ", ".join(f"{group[0]}-{group[-1]}" for group in groups.values())


if __name__ == "__main__":
    write(Path(sys.argv[1]))
