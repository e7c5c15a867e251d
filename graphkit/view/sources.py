"""Where the bytes of weights lie, and how they are read: in pieces, on demand, and only if the file is the one seen.

Weights are read with `pread`, never through a mapping: a mapped file that somebody truncates ends the process, and
mapped pages count as resident.
"""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple, Protocol

from graphkit.errors import CorruptFile, FileMissing, UnsafePath

if TYPE_CHECKING:
    import onnx_ir as ir

PIECE = 1 << 20
"""Bytes that are read at a time."""


class Source(Protocol):
    """Something with bytes at offsets."""

    def pieces(self, offset: int, length: int | None) -> Iterator[bytes]:
        """The bytes in order, in pieces of at most `PIECE` where they come from disk; all to the end, if None."""
        ...


class FileSource(NamedTuple):
    """The model's own file.

    Attributes:
        path: As it was given.
        stamp: Device, inode, size and time of change when it was seen.
    """

    path: Path
    stamp: tuple[int, int, int, int]

    def pieces(self, offset: int, length: int | None) -> Iterator[bytes]:
        try:
            descriptor = os.open(self.path, os.O_RDONLY | os.O_CLOEXEC)
        except OSError as error:
            raise FileMissing(f"cannot read {self.path}: {error.strerror}") from error
        try:
            if stamp_of(os.fstat(descriptor)) != self.stamp:
                raise CorruptFile(f"{self.path.name} has changed since it was looked at", remedy="read it again")
            yield from _read(descriptor, offset, self.stamp[2] - offset if length is None else length, self.path.name)
        finally:
            os.close(descriptor)


class ExternalSource(NamedTuple):
    """A file of weights beside the model.

    Attributes:
        folder: The model's.
        location: Relative path of the file, as the model states it.
        tensor: Name of the weight, for errors.
        problem: What is wrong with the statement itself, None if nothing is.
    """

    folder: Path
    location: str
    tensor: str
    problem: str | None = None

    def size(self) -> int:
        """Bytes of the file. Raises: `UnsafePath`, `FileMissing`, `CorruptFile`."""
        from graphkit.model import size_inside

        if self.problem is not None:
            raise CorruptFile(f"weight `{self.tensor}`: {self.problem}", remedy="export the model again")
        return size_inside(self.location, self.folder, self.tensor)

    def pieces(self, offset: int, length: int | None) -> Iterator[bytes]:
        size = self.size()
        end = size if length is None else offset + length
        if offset > size or end > size:
            raise CorruptFile(
                f"{self.location} holds {size} bytes, but weight `{self.tensor}` ends at byte {max(offset, end)}",
                remedy="copy the weights file again: it was cut off",
            )
        try:
            # Not through a link, and not waiting on a pipe, should one have taken the file's place since the check.
            flags = os.O_RDONLY | os.O_CLOEXEC | os.O_NOFOLLOW | os.O_NONBLOCK
            descriptor = os.open(self.folder.joinpath(self.location), flags)
        except OSError as error:
            raise UnsafePath(f"weight `{self.tensor}`: cannot open {self.location!r}: {error.strerror}") from error
        try:
            yield from _read(descriptor, offset, end - offset, self.location)
        finally:
            os.close(descriptor)


class BytesSource(NamedTuple):
    """Bytes in memory: a serialised message, or a few bytes of a file that were cheaper to keep than to find again.

    Attributes:
        data: The bytes.
        base: Offset of the first of them.
    """

    data: bytes
    base: int = 0

    def pieces(self, offset: int, length: int | None) -> Iterator[bytes]:
        start = offset - self.base
        yield self.data[start:] if length is None else self.data[start : start + length]


class TensorSource(NamedTuple):
    """A tensor of an onnx_ir graph in memory."""

    tensor: ir.TensorProtocol

    def pieces(self, offset: int, length: int | None) -> Iterator[bytes]:
        yield from BytesSource(self.tensor.tobytes()).pieces(offset, length)


def stamp_of(status: os.stat_result) -> tuple[int, int, int, int]:
    """What tells a file from another, or from itself after a change."""
    return status.st_dev, status.st_ino, status.st_size, status.st_mtime_ns


def _read(descriptor: int, offset: int, length: int, name: str) -> Iterator[bytes]:
    end = offset + length
    while offset < end:
        piece = os.pread(descriptor, min(PIECE, end - offset), offset)
        if not piece:
            raise CorruptFile(f"{name} ends at byte {offset}, where {end} were expected", remedy="copy it again")
        yield piece
        offset += len(piece)
