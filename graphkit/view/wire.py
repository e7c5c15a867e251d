"""The protobuf wire format: tags, varints and lengths, each checked before it is believed.

Source: https://protobuf.dev/programming-guides/encoding/. A message is a run of fields; a field is a varint tag
(`number << 3 | wire type`) and a value: VARINT 0, I64 1, LEN 2, I32 5. Groups (3, 4) are obsolete and not in ONNX.
"""

from __future__ import annotations

from mmap import mmap
from typing import TypeAlias

Buffer: TypeAlias = bytes | mmap
"""Indexing gives an int, slicing gives bytes: all that a reader needs."""

VARINT, I64, LEN, I32 = 0, 1, 2, 5

Occurrence: TypeAlias = tuple[int, int, int, int]
"""Wire type, start, stop, and value of a varint."""


class WireError(Exception):
    """What is wrong, and at which byte; whoever knows more puts the path of the message in front (`within`)."""

    def __init__(self, what: str, position: int) -> None:
        super().__init__(what)
        self.what = what
        self.position = position
        self.path: list[str] = []

    def within(self, step: str) -> WireError:
        """The same error, one message further out."""
        self.path.insert(0, step)
        return self


def varint(buffer: Buffer, position: int) -> tuple[int, int]:
    """An unsigned varint of at most 64 bits, and the position after it."""
    start, value, shift = position, 0, 0
    while True:
        byte = buffer[position]
        position += 1
        value |= (byte & 0x7F) << shift
        if byte < 0x80:
            if value >> 64:
                raise WireError("a number of more than 64 bits", start)
            return value, position
        shift += 7
        if shift > 63:
            raise WireError("a number of more than 10 bytes", start)


def signed(value: int) -> int:
    """A varint as int64 or int32: negative numbers are written as two's complement of 64 bits."""
    return value - (1 << 64) if value >> 63 else value


def field(buffer: Buffer, position: int, end: int) -> tuple[int, int, int, int]:
    """The field at `position`: its tag, its value's start and stop, and the value itself where it is a varint (else 0).

    A reader goes on at the stop. A value that runs over `end`, the end of the message, is an error.
    """
    start = position
    tag = buffer[position]
    position += 1
    if tag >= 0x80:
        tag, position = varint(buffer, start)
    if tag < 8 or tag >> 32:
        raise WireError(f"no field has the number {tag >> 3}", start)
    kind = tag & 7
    value = 0
    if kind == LEN:
        size = buffer[position]
        if size < 0x80:
            position += 1
        else:
            size, position = varint(buffer, position)
        stop = position + size
    elif kind == VARINT:
        value, stop = varint(buffer, position)
    elif kind == I32:
        stop = position + 4
    elif kind == I64:
        stop = position + 8
    else:
        raise WireError(f"wire type {kind} of field {tag >> 3} is not used in ONNX", start)
    if stop > end:
        raise WireError(f"field {tag >> 3} ends at byte {stop}, its message at byte {end}", start)
    return tag, position, stop, value


def text(buffer: Buffer, start: int, stop: int) -> str:
    """A string field; protobuf's strings are UTF-8."""
    try:
        return str(buffer[start:stop], "utf-8")
    except UnicodeDecodeError:
        raise WireError("a name that is not UTF-8", start) from None


def unknown(tag: int, numbers: frozenset[int], position: int) -> None:
    """Let a field pass that is none of the message's own `numbers`; refuse one of them that has another wire type.

    Libraries for protobuf put such a field among the unknown ones and go on with its default: a silently wrong model.
    """
    if tag < 8:
        raise WireError("no field has the number 0", position)
    if tag >> 3 in numbers:
        raise WireError(f"field {tag >> 3} has wire type {tag & 7}", position)


def collect(buffer: Buffer, position: int, end: int, known: dict[int, frozenset[int]]) -> dict[int, list[Occurrence]]:
    """Occurrences of the `known` fields of a message, by number; the wire types allowed for each are its values."""
    found: dict[int, list[Occurrence]] = {}
    while position < end:
        tag, start, stop, value = field(buffer, position, end)
        kinds = known.get(tag >> 3)
        if kinds is not None:
            if tag & 7 not in kinds:
                raise WireError(f"field {tag >> 3} has wire type {tag & 7}", position)
            found.setdefault(tag >> 3, []).append((tag & 7, start, stop, value))
        position = stop
    return found


def string(buffer: Buffer, found: dict[int, list[Occurrence]], number: int) -> str:
    """The last occurrence of a string field, "" without one."""
    if number not in found:
        return ""
    _, start, stop, _ = found[number][-1]
    return text(buffer, start, stop)


def integer(found: dict[int, list[Occurrence]], number: int) -> int:
    """The last occurrence of an int64 field, 0 without one."""
    return signed(found[number][-1][3]) if number in found else 0
