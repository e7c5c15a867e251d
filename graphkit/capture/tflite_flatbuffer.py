"""FlatBuffers read with every offset checked, so that a damaged file is an error and never a read elsewhere.

The format: https://flatbuffers.dev/internals/. A table begins with the signed distance to its vtable, which holds its
own size, the table's size and one offset per field; offsets to vectors, strings and tables are unsigned and relative.
"""

from __future__ import annotations

import contextlib
import struct
from dataclasses import dataclass, field
from typing import Any

from graphkit.errors import CorruptFile

_LARGEST = 1 << 31
"""Offsets are 32 bits wide and readers take them as signed; bytes above are raw data that no offset points to."""


@dataclass(slots=True)
class FlatBuffer:
    """The bytes of a file.

    Attributes:
        data: Anything that `struct` reads from: bytes, or a mapped file.
        name: What to call it in errors.
        budget: How many more tables may be read. A sound file has at most one per 4 bytes; one whose vectors point
            at one another has more than anybody can read.
    """

    data: Any
    name: str
    budget: int = field(init=False)

    def __post_init__(self) -> None:
        self.budget = len(self.data) // 4

    def root(self) -> Table:
        """The root table.

        Raises:
            CorruptFile: as everything here.
        """
        return self.table_at(0, "the root")

    def table_at(self, position: int, what: str) -> Table:
        """The table that the offset at `position` leads to."""
        start = position + self.scalar("I", position, what)
        self.budget -= 1
        if self.budget < 0:
            raise self.corrupt("it holds more tables than fit into it")
        vtable = start - self.scalar("i", start, what)
        size, extent = (self.scalar("H", vtable + at, what) for at in (0, 2))
        if size < 4 or size % 2 or extent < 4 or vtable + size > len(self.data) or start + extent > len(self.data):
            raise self.corrupt(f"{what} is cut off or no table")
        return Table(self, start, vtable, size, extent, what)

    def scalar(self, code: str, position: int, what: str) -> Any:
        """The value of `struct` code `code` at `position`."""
        if not 0 <= position <= min(len(self.data), _LARGEST) - struct.calcsize(f"<{code}"):
            raise self.corrupt(f"{what} lies outside of it")
        return struct.unpack_from(f"<{code}", self.data, position)[0]

    def corrupt(self, why: str) -> CorruptFile:
        """The error that says why the file cannot be read."""
        return CorruptFile(f"{self.name} is damaged: {why}", remedy="copy or convert the file again")


@dataclass(frozen=True, slots=True)
class Table:
    """A table; its fields are read by their number in the schema."""

    buffer: FlatBuffer
    start: int
    vtable: int
    size: int
    extent: int
    what: str

    def has(self, number: int) -> bool:
        """Whether the field is there."""
        return self._offset(number, 1) != 0

    def scalar(self, number: int, code: str, default: int = 0) -> int:
        """A number of `struct` code `code`."""
        offset = self._offset(number, struct.calcsize(f"<{code}"))
        return int(self.buffer.scalar(code, self.start + offset, self.what)) if offset else default

    def numbers(self, number: int, code: str) -> tuple[Any, ...]:
        """A vector of numbers; empty where it is absent."""
        start, count = self._vector(number, struct.calcsize(f"<{code}"))
        return struct.unpack_from(f"<{count}{code}", self.buffer.data, start)

    def extent_of(self, number: int) -> int:
        """Number of elements of a vector of bytes, unread."""
        return self._vector(number, 1)[1]

    def text(self, number: int) -> str:
        """A string; empty where it is absent."""
        start, count = self._vector(number, 1)
        content = bytes(self.buffer.data[start : start + count])
        with contextlib.suppress(UnicodeDecodeError):
            if b"\0" not in content:  # native code would end the name there
                return content.decode()
        raise self.buffer.corrupt(f"a name in {self.what} is no text")

    def table(self, number: int, what: str) -> Table | None:
        """A table; None where it is absent."""
        offset = self._offset(number, 4)
        return self.buffer.table_at(self.start + offset, what) if offset else None

    def tables(self, number: int, what: str) -> list[Table]:
        """A vector of tables; empty where it is absent."""
        start, count = self._vector(number, 4)
        return [self.buffer.table_at(start + 4 * i, f"{what} {i}") for i in range(count)]

    def _vector(self, number: int, width: int) -> tuple[int, int]:
        offset = self._offset(number, 4)
        if not offset:
            return 0, 0
        start = self.start + offset
        start += self.buffer.scalar("I", start, self.what)
        count = self.buffer.scalar("I", start, self.what)
        if start + 4 + count * width > len(self.buffer.data):
            raise self.buffer.corrupt(f"a list in {self.what} is longer than the file")
        return start + 4, count

    def _offset(self, number: int, width: int) -> int:
        """Where the field lies in the table; 0 where it is absent."""
        if 4 + 2 * number + 2 > self.size:
            return 0
        offset: int = self.buffer.scalar("H", self.vtable + 4 + 2 * number, self.what)
        if offset and not 4 <= offset <= self.extent - width:
            raise self.buffer.corrupt(f"a field of {self.what} lies outside of it")
        return offset
