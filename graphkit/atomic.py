"""Files that appear whole or not at all."""

from __future__ import annotations

import contextlib
import errno
import os
import tempfile
from collections.abc import Iterator
from pathlib import Path

from graphkit.errors import BadOption, CannotWrite

_OUR_DISK = {errno.ENOSPC, errno.EDQUOT, errno.EFBIG, errno.EROFS, errno.EACCES, errno.EIO}


def check_writable(path: Path) -> None:
    """Refuse early what `replacing` would refuse after minutes of work.

    Raises:
        CannotWrite: the folder is missing or read-only, or `path` is a folder.
    """
    with replacing(path) as temporary:
        temporary.unlink()


def keep(source: Path, *places: Path) -> None:
    """Refuse to write over the file that a command was given.

    Raises:
        BadOption: one of `places` is `source`.
    """
    for place in places:
        if place.resolve() == source.resolve():
            raise BadOption(f"{place} is the given model: the result would replace it", remedy="name another with -o")


@contextlib.contextmanager
def replacing(path: Path, *, durable: bool = True) -> Iterator[Path]:
    """A temporary path beside `path`; what is written there replaces `path` when the block ends well.

    The file is synced and renamed, so that a killed run leaves the old file or none. A block that removes the
    temporary file leaves `path` alone.

    Args:
        path: The file.
        durable: Whether to sync; a file that is not published yet need not survive a crash.

    Raises:
        CannotWrite: the folder is missing or read-only, or `path` is a folder.
    """
    path = Path(path)
    if path.is_dir():
        raise CannotWrite(f"{path} is a folder", remedy="name a file with -o")
    try:
        handle, name = tempfile.mkstemp(prefix=f".{path.name}.gktmp.", dir=path.parent)
    except OSError as error:
        raise CannotWrite(
            f"cannot write {path}: {error.strerror}", remedy="name a file in a folder that exists and is yours"
        ) from error
    os.close(handle)
    temporary = Path(name)
    try:
        yield temporary
        if temporary.exists():
            publish(temporary, path, durable=durable)
    except OSError as error:
        if error.errno not in _OUR_DISK:
            raise
        raise CannotWrite(f"cannot write {path}: {error.strerror}") from error
    finally:
        temporary.unlink(missing_ok=True)


def publish(temporary: Path, path: Path, *, durable: bool = True) -> None:
    """Give a finished file its name, and the rights that a new file has; for who learns the name from the content."""
    if durable:
        _sync(temporary)
    temporary.chmod(_default_mode())
    temporary.replace(path)
    if durable:
        _sync(path.parent)


def write_bytes(path: Path, data: bytes, *, durable: bool = True) -> None:
    """Write `data` to `path`, whole or not at all; synced, if it is to be `durable`."""
    with replacing(path, durable=durable) as temporary:
        temporary.write_bytes(data)


def _sync(path: Path) -> None:
    handle = os.open(path, os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)


def _default_mode() -> int:
    mask = os.umask(0)
    os.umask(mask)
    return 0o666 & ~mask
