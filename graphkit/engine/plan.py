"""What an engine file says about itself, read from its header: no GPU and no TensorRT needed."""

from __future__ import annotations

import struct
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from graphkit.errors import CorruptFile, FileMissing, UnknownFormat

HEADER_BYTES = 64


@dataclass(frozen=True, slots=True)
class Plan:
    """The header of an engine file.

    Attributes:
        kind: `tensorrt-rtx` or `tensorrt`.
        version: Version of the library that wrote it: `1.7.1.116`. Only that release reads it.
        targets: Compute capabilities that it was built for, `later` where newer ones are included; () where the
            header does not say, as in TensorRT's.
        size: Bytes of the file.
        size_ok: Whether the size written inside equals the size of the file; None where the header's layout is not
            known (TensorRT's, of which only the magic and the version are public).
    """

    kind: Literal["tensorrt-rtx", "tensorrt"]
    version: str
    targets: tuple[str, ...]
    size: int
    size_ok: bool | None


def is_engine(path: Path) -> bool:
    """Whether a file begins as an engine does."""
    if not path.is_file():
        return False
    with path.open("rb") as file:
        return file.read(4) in _KINDS


_KINDS: dict[bytes, Literal["tensorrt-rtx", "tensorrt"]] = {b"vtrt": "tensorrt-rtx", b"ftrt": "tensorrt"}

# Bits of the byte at 32 in a TensorRT-RTX engine, measured on engines of 1.4.0, 1.5.0, 1.6.1 and 1.7.1 that were built
# for one target each, and for none. `later` is the bit after those of the release, so a new target moves it.
_TARGET_BITS = ("7.5", "8.0", "8.6", "8.9", "12.0", "12.1", "later")
_TARGET_BITS_TO_1_4 = ("7.5", "8.0", "8.6", "8.9", "12.0", "later")


def read(path: Path | str) -> Plan:
    """Read the header of the engine file at `path`.

    The layout: magic at 0, file size (u64) at 16, version at 24 (one byte a part), mask of targets at 32. Magic and
    version are as trtexec prints them (`printPlanVersion` in TensorRT's samples); the rest was measured.

    Raises:
        FileMissing: there is no such file.
        UnknownFormat: it is not an engine.
        CorruptFile: it is an engine that was cut off.
    """
    path = Path(path)
    if not path.is_file():
        raise FileMissing(f"no such file: {path}")
    size = path.stat().st_size
    with path.open("rb") as file:
        header = file.read(HEADER_BYTES)
    kind = _KINDS.get(header[:4])
    if kind is None:
        raise UnknownFormat(
            f"{path.name} is not a TensorRT engine: it starts with {header[:8]!r}",
            remedy="an engine starts with `vtrt` (TensorRT-RTX) or `ftrt` (TensorRT)",
        )
    if len(header) < HEADER_BYTES:
        raise CorruptFile(f"{path.name} ends after {len(header)} bytes, inside the engine's header", remedy=_AGAIN)
    version = ".".join(str(part) for part in header[24:28])
    if kind == "tensorrt":
        return Plan(kind, version, (), size, None)
    (declared,) = struct.unpack_from("<Q", header, 16)
    if declared != size:
        raise CorruptFile(
            f"{path.name} holds {size} bytes, but its header says {declared}",
            remedy=_AGAIN if size < declared else "copy or build the engine again: something was added to it",
        )
    bits = _TARGET_BITS_TO_1_4 if header[24:26] <= b"\x01\x04" else _TARGET_BITS
    targets = tuple(name for bit, name in enumerate(bits) if header[32] >> bit & 1)
    return Plan(kind, version, targets, size, True)


_AGAIN = "copy or build the engine again: it was cut off"
