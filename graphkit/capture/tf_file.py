"""TensorFlow's files and folders, told by content: `.keras`, Keras `.h5`, a frozen GraphDef, a SavedModel."""

from __future__ import annotations

import re
import zipfile
from pathlib import Path

from graphkit.capture.isolated import IsolatedSource
from graphkit.capture.options import GRAPH_DEF, SAVED_MODEL, TENSORFLOW
from graphkit.capture.request import CaptureRequest, Source
from graphkit.capture.tf_worker import tensorflow_worker
from graphkit.errors import CorruptFile, FileMissing, UnknownFormat

_AGAIN = "copy or save it again"
_OPTIONS = {"saved_model": SAVED_MODEL, "graph_def": GRAPH_DEF, "keras": TENSORFLOW, "keras_h5": TENSORFLOW}
_KERAS_MEMBERS = ("metadata.json", "config.json", "model.weights.h5")


def recognise(path: Path, head: bytes, request: CaptureRequest) -> Source | None:
    """The source for a file or folder of TensorFlow's, or None. Starts the child, so that it imports meanwhile.

    Args:
        path: The file or folder.
        head: The file's first bytes; empty for a folder.
        request: What was asked.

    Raises:
        CorruptFile: damaged, as far as can be seen from outside. `FileMissing`: a part of a SavedModel is not there.
        UnknownFormat: a SavedModel as text.
    """
    kind = kind_of_folder(path) if path.is_dir() else kind_of_file(path, head)
    if kind is None:
        return None
    spec = {"file": str(path.resolve()), "kind": kind}
    opener = "graphkit.capture.tf_child:open_source"
    return IsolatedSource(path.name, spec, opener=opener, worker=tensorflow_worker(), options=_OPTIONS[kind])


def versions_in(folder: Path) -> list[Path]:
    """The numbered versions in a folder of TensorFlow Serving's, the oldest first."""
    found = [p for p in folder.iterdir() if p.name.isdecimal() and (p / "saved_model.pb").is_file()]
    return sorted(found, key=lambda p: int(p.name))


def kind_of_folder(path: Path) -> str | None:
    """`saved_model`, or None; raises where a SavedModel is there in part or as text."""
    if (path / "saved_model.pb").is_file() or versions_in(path):
        return "saved_model"
    if (path / "saved_model.pbtxt").is_file():
        raise UnknownFormat(
            f"{path.name} is a SavedModel as text (saved_model.pbtxt)", remedy="save it again as saved_model.pb"
        )
    if (path / "variables").is_dir():
        raise FileMissing(f"{path.name} looks like a SavedModel, but holds no saved_model.pb", remedy=_AGAIN)
    return None


def kind_of_file(path: Path, head: bytes) -> str | None:
    """`keras`, `keras_h5` or `graph_def`, by content; else None."""
    if head.startswith(b"\x89HDF\r\n\x1a\n"):
        return "keras_h5"
    if head.startswith(b"PK\x03\x04"):
        return _kind_of_zip(path, head)
    return "graph_def" if _is_graph_def(head) else None


def _kind_of_zip(path: Path, head: bytes) -> str | None:
    """Keras writes one of its own members first, so that a truncated file can be told too."""
    length = int.from_bytes(head[26:28], "little")
    first = head[30 : 30 + length].decode("utf-8", "replace")
    try:
        with zipfile.ZipFile(path) as archive:
            names = set(archive.namelist())
    except (zipfile.BadZipFile, OSError) as error:
        if first in _KERAS_MEMBERS:
            raise CorruptFile(f"{path.name} is a damaged .keras file: {error}", remedy=_AGAIN) from error
        return None
    if "config.json" in names and "model.weights.h5" in names:
        return "keras"
    if first in _KERAS_MEMBERS:
        lost = " and ".join(n for n in ("config.json", "model.weights.h5") if n not in names)
        raise CorruptFile(f"{path.name} is a .keras file without {lost}", remedy=_AGAIN)
    return None


_OP = re.compile(rb"^[A-Z_][A-Za-z0-9_>]*$")


def _is_graph_def(head: bytes) -> bool:
    """A GraphDef begins with a node (field 1): a message with a name (field 1) and an operation (field 2)."""
    if head[:1] != b"\x0a":
        return False
    _, at = _varint(head, 1)
    fields = {}
    for tag in (0x0A, 0x12):
        if head[at : at + 1] != bytes([tag]):
            return False
        length, start = _varint(head, at + 1)
        fields[tag] = head[start : start + length]
        at = start + length
    return bool(_OP.match(fields[0x12])) and fields[0x0A].isascii() and fields[0x0A].decode("ascii").isprintable()


def _varint(data: bytes, at: int) -> tuple[int, int]:
    """A protobuf varint, and the position behind it."""
    value = 0
    for shift in range(0, 35, 7):
        if at >= len(data):
            return 0, at
        value |= (data[at] & 0x7F) << shift
        at += 1
        if not data[at - 1] & 0x80:
            break
    return value, at
