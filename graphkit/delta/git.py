"""Makes git show changes of models: `diff.graphkit` in its configuration, `*.onnx diff=graphkit` in its attributes."""

from __future__ import annotations

import shlex
import shutil
import subprocess
import sys
from pathlib import Path

from graphkit import atomic
from graphkit.errors import CannotWrite, FileMissing

ATTRIBUTE = "*.onnx diff=graphkit"


def install(*, everywhere: bool, folder: Path) -> list[str]:
    """Set up a repository, or all of the user's; twice is the same as once. Returns what was set, a line each.

    Both forms are set: `git diff` runs `git-diff`, while `git log -p` and `git show`, which run no external command
    unless asked to, use `textconv`, whose texts git keeps.

    Args:
        everywhere: Whether to change the user's own configuration instead of the repository's.
        folder: In the repository.

    Raises:
        FileMissing: git is not installed, or `folder` is in no repository.
        CannotWrite: git could not change its configuration.
    """
    program = _program()
    scope = "--global" if everywhere else "--local"
    if everywhere:
        attributes = _global_attributes(folder)
    else:
        attributes = Path(_git(folder, "rev-parse", "--show-toplevel")) / ".gitattributes"
    settings = {"diff.graphkit.textconv": f"{program} textconv", "diff.graphkit.command": f"{program} git-diff"}
    if _git(folder, "var", "GIT_COMMITTER_IDENT", missing=""):
        # The texts are kept in a commit: without an author git (2.39) would refuse to show anything.
        settings["diff.graphkit.cachetextconv"] = "true"
    for key, value in settings.items():
        _git(folder, "config", scope, key, value)
    known = attributes.read_text() if attributes.exists() else ""
    if ATTRIBUTE not in known.splitlines():
        attributes.parent.mkdir(parents=True, exist_ok=True)
        separator = "" if not known or known.endswith("\n") else "\n"
        atomic.write_bytes(attributes, f"{known}{separator}{ATTRIBUTE}\n".encode())
    return [
        *(f"git config {scope} {key} {shlex.quote(value)}" for key, value in settings.items()),
        f"{attributes}: {ATTRIBUTE}",
    ]


def _program() -> str:
    """How git is to call graphkit: by name where that is found, else by the path of this one."""
    if shutil.which("graphkit"):
        return "graphkit"
    beside = Path(sys.executable).with_name("graphkit")
    return shlex.quote(str(beside)) if beside.exists() else f"{shlex.quote(sys.executable)} -m graphkit_cli.main"


def _global_attributes(folder: Path) -> Path:
    stated = _git(folder, "config", "--global", "--get", "core.attributesFile", missing="")
    if stated:
        return Path(stated).expanduser()
    import os

    home = os.environ.get("XDG_CONFIG_HOME")
    return (Path(home) if home else Path.home() / ".config") / "git" / "attributes"


def _git(folder: Path, *arguments: str, missing: str | None = None) -> str:
    """What git says; `missing` where a setting is not there."""
    try:
        done = subprocess.run(["git", *arguments], cwd=folder, capture_output=True, text=True, check=False)
    except FileNotFoundError:
        raise FileMissing("git is not installed", remedy="install git") from None
    if done.returncode == 0:
        return done.stdout.strip()
    if missing is not None and done.returncode in (1, 128):
        return missing
    said = done.stderr.strip().splitlines()
    if arguments[0] == "rev-parse":
        raise FileMissing(
            f"{folder} is in no git repository", remedy="run it inside one, or with --global for all of them"
        )
    raise CannotWrite(f"git {arguments[0]} failed: {said[-1] if said else done.returncode}")
