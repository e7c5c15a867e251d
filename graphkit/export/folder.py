"""Folders that appear whole or not at all."""

from __future__ import annotations

import contextlib
import shutil
import tempfile
from collections.abc import Iterator
from pathlib import Path

from graphkit.errors import CannotWrite


def check_writable(folder: Path) -> None:
    """Refuse early what `replacing` would refuse later.

    Raises:
        CannotWrite: the parent is missing or read-only, or `folder` holds something else than a SavedModel.
    """
    if folder.exists() and not _may_go(folder):
        raise CannotWrite(f"{folder} exists, and is no SavedModel that could be replaced", remedy="name a new folder")
    with _beside(folder):
        pass


@contextlib.contextmanager
def replacing(folder: Path) -> Iterator[Path]:
    """A path in a temporary folder beside `folder`; what is made there takes its place when the block ends well.

    An older SavedModel of that name is moved aside first and removed last.

    Raises:
        CannotWrite: as `check_writable`.
    """
    check_writable(folder)
    with _beside(folder) as scratch:
        made = scratch / folder.name
        yield made
        if made.exists():
            if folder.exists():
                folder.rename(scratch / "old")
            made.rename(folder)


@contextlib.contextmanager
def _beside(folder: Path) -> Iterator[Path]:
    try:
        scratch = Path(tempfile.mkdtemp(prefix=f".{folder.name}.gktmp.", dir=folder.parent))
    except OSError as error:
        raise CannotWrite(
            f"cannot write {folder}: {error.strerror}", remedy="name a folder inside one that exists and is yours"
        ) from error
    try:
        yield scratch
    finally:
        shutil.rmtree(scratch, ignore_errors=True)


def _may_go(folder: Path) -> bool:
    """Whether it is an empty folder or a SavedModel: nothing else is ever removed."""
    return folder.is_dir() and ((folder / "saved_model.pb").is_file() or not any(folder.iterdir()))
