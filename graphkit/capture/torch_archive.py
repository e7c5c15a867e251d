"""What a PyTorch file is, told from its bytes; nothing is unpickled to find out.

Marks of each kind were checked on files written by torch 2.13; see `torch.serialization`, `torch.export.pt2_archive`.
"""

from __future__ import annotations

import zipfile
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from graphkit.capture.pickle_globals import Globals, globals_in
from graphkit.errors import CorruptFile, UnknownFormat

Kind = Literal["torchscript", "pt2", "pickle", "pickle legacy", "tar", "package", "old export", "safetensors"]

_LEGACY_MAGIC = bytes.fromhex("80028a0a6cfc9c46f9206aa850192e")
_MAX_MEMBERS = 200_000


@dataclass(frozen=True, slots=True)
class Archive:
    """A PyTorch file.

    Attributes:
        kind: What it is.
        root: Folder inside the zip that holds everything, with its slash; "" where it is no zip.
        members: Names of the zip's members.
        globals: What its pickle names, for the pickled kinds.
    """

    path: Path
    kind: Kind
    root: str = ""
    members: tuple[str, ...] = ()
    globals: Globals | None = None


def recognise(path: Path, head: bytes) -> Archive | None:
    """The archive at `path`, or None where its first bytes are no PyTorch file's.

    Args:
        path: The file.
        head: Its first 512 bytes or more.

    Raises:
        CorruptFile: a PyTorch file that is truncated, or whose zip directory is damaged or ambiguous.
    """
    if head.startswith(b"PK\x03\x04"):
        return _from_zip(path)
    if head.startswith(_LEGACY_MAGIC):
        return Archive(path, "pickle legacy", globals=globals_in(path.read_bytes()))
    if head[257:262] == b"ustar" and path.suffix in (".pt", ".pth", ".tar"):
        return Archive(path, "tar")
    if len(head) > 9 and head[8:9] == b"{" and int.from_bytes(head[:8], "little") < path.stat().st_size:
        return Archive(path, "safetensors")
    if head[:1] == b"\x80" and head[1:2] in b"\x02\x03\x04\x05":
        return Archive(path, "pickle", globals=globals_in(path.read_bytes()))
    return None


def read_member(archive: Archive, name: str) -> bytes:
    """Bytes of a member, its checksum verified.

    Raises:
        CorruptFile: it is missing or damaged.
    """
    try:
        with zipfile.ZipFile(archive.path) as file:
            return file.read(archive.root + name)
    except (KeyError, zipfile.BadZipFile, OSError, EOFError) as error:
        raise CorruptFile(f"{archive.path.name}: member {name!r} is missing or damaged: {error}") from error


def repack(archive: Archive, target: Path, *, without: tuple[str, ...] = ()) -> Path:
    """Copy the archive member by member, checksums verified.

    PyTorch's reader ignores checksums and some flags, so it may see other content than was checked; it gets this
    copy instead.
    """
    try:
        with zipfile.ZipFile(archive.path) as old, zipfile.ZipFile(target, "w", zipfile.ZIP_STORED) as new:
            for info in old.infolist():
                if not info.filename.removeprefix(archive.root).startswith(without or ("\0",)):
                    new.writestr(zipfile.ZipInfo(info.filename), old.read(info))
    except (zipfile.BadZipFile, OSError, EOFError) as error:
        raise CorruptFile(f"{archive.path.name} is damaged: {error}") from error
    return target


def _from_zip(path: Path) -> Archive | None:
    try:
        with zipfile.ZipFile(path) as file:
            infos = file.infolist()
    except zipfile.BadZipFile as error:
        raise CorruptFile(
            f"{path.name} is a zip archive that is cut off or damaged: {error}", remedy="copy the file again"
        ) from error
    names = tuple(i.filename for i in infos)
    _check_names(path, infos)
    root = names[0].partition("/")[0] + "/" if names and "/" in names[0] else ""
    inner = {n.removeprefix(root) for n in names}
    if "serialized_exported_program.json" in inner or "serialized_exported_program.json" in names:
        return Archive(path, "old export", "", names)
    if "archive_format" in inner:
        return Archive(path, "pt2", root, names)
    if "constants.pkl" in inner:
        return Archive(path, "torchscript", root, names)
    if ".data/extern_modules" in inner:
        return Archive(path, "package", root, names)
    if "data.pkl" in inner:
        found = Archive(path, "pickle", root, names)
        return Archive(path, "pickle", root, names, globals_in(read_member(found, "data.pkl")))
    return None


def _check_names(path: Path, infos: list[zipfile.ZipInfo]) -> None:
    names = [i.filename for i in infos]
    if len(names) > _MAX_MEMBERS:
        raise CorruptFile(f"{path.name}: a zip archive of {len(names)} members is no model")
    if len(set(names)) != len(names):
        raise CorruptFile(f"{path.name}: the zip archive has two members of one name")
    bad = next((n for n in names if n.startswith("/") or ".." in Path(n).parts or "\\" in n), None)
    if bad is not None:
        raise CorruptFile(f"{path.name}: the zip archive has a member outside itself: {bad!r}")
    if any(i.flag_bits & 0x1 for i in infos):
        raise UnknownFormat(f"{path.name} is an encrypted zip archive", remedy="decrypt it first")
