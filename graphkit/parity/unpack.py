"""An ONNX file with its weights inside as a small graph and a file of weights beside it.

ONNX Runtime maps such a file: of a model of 100 MB it holds 100 MB then, and 200 MB while it loads the same one with
its weights inside (1.32, all optimisations). Whoever only asks what the graph looks like holds next to nothing.
"""

from __future__ import annotations

import mmap
from collections.abc import Iterator
from pathlib import Path
from typing import BinaryIO

from graphkit.view.wire import LEN, VARINT, WireError, field

WEIGHTS = "weights.unpacked"
"""Name of the file of weights."""

_LARGE = 1 << 16
_WORTH = 1 << 22  # bytes of a file below which writing it again costs more than loading it as it is
_ALIGNED = 4096
_CHUNK = 1 << 20
_GRAPH, _INITIALIZER, _RAW_DATA, _EXTERNAL = (number << 3 | LEN for number in (7, 5, 9, 13))
_LOCATION = 14 << 3 | VARINT

Part = tuple[int, int] | bytes


def unpack(path: Path, folder: Path) -> Path | None:
    """Write `path` into an empty folder under its own name, its large weights in `WEIGHTS`.

    Returns:
        The new file; None where nothing was written: the file is small, or has no large weights inside, or has some
        outside already, or is not ONNX, which is for its reader to say.
    """
    if path.stat().st_size < _WORTH:
        return None
    target = folder / path.name
    with path.open("rb") as file, mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ) as buffer:
        pieces: list[tuple[int, int]] = []
        try:
            parts = list(_model(buffer, pieces))
        except (WireError, IndexError):
            return None
        if not pieces or b"" in parts:
            return None
        with target.open("wb") as written:
            for part in parts:
                written.write(part if isinstance(part, bytes) else buffer[part[0] : part[1]])
        with (folder / WEIGHTS).open("wb") as weights:
            for start, stop in pieces:
                weights.seek(-weights.tell() % _ALIGNED, 1)
                _copy(file, start, stop, weights)
    return target


def _model(buffer: mmap.mmap, pieces: list[tuple[int, int]]) -> Iterator[Part]:
    for tag, begin, start, stop in _fields(buffer, 0, len(buffer)):
        if tag == _GRAPH:
            yield from _message(tag, list(_graph(buffer, start, stop, pieces)))
        else:
            yield begin, stop


def _graph(buffer: mmap.mmap, start: int, end: int, pieces: list[tuple[int, int]]) -> Iterator[Part]:
    """The graph's fields; an empty one says that weights lie outside already."""
    offset = 0
    for tag, begin, inner, stop in _fields(buffer, start, end):
        if tag != _INITIALIZER:
            yield begin, stop
            continue
        fields = list(_fields(buffer, inner, stop))
        if any(t in (_EXTERNAL, _LOCATION) for t, *_ in fields):
            yield b""
        raw = next(((s, e) for t, _, s, e in fields if t == _RAW_DATA and e - s >= _LARGE), None)
        if raw is None:
            yield begin, stop
            continue
        offset += -offset % _ALIGNED
        place = {"location": WEIGHTS, "offset": str(offset), "length": str(raw[1] - raw[0])}
        offset += raw[1] - raw[0]
        pieces.append(raw)
        kept: list[Part] = [(b, e) for t, b, _, e in fields if t != _RAW_DATA]
        kept += [_bytes(_EXTERNAL, _text(1, key) + _text(2, value)) for key, value in place.items()]
        yield from _message(tag, [*kept, _varint(_LOCATION) + _varint(1)])


def _message(tag: int, parts: list[Part]) -> Iterator[Part]:
    size = sum(len(p) if isinstance(p, bytes) else p[1] - p[0] for p in parts)
    yield _varint(tag) + _varint(size)
    yield from parts


def _fields(buffer: mmap.mmap, position: int, end: int) -> Iterator[tuple[int, int, int, int]]:
    """Tag, begin, and start and stop of the value, of every field of a message."""
    while position < end:
        tag, start, stop, _ = field(buffer, position, end)
        yield tag, position, start, stop
        position = stop


def _copy(file: BinaryIO, start: int, stop: int, target: BinaryIO) -> None:
    """Read, not mapped: mapped pages count as memory of the process."""
    file.seek(start)
    while start < stop:
        start += target.write(file.read(min(_CHUNK, stop - start)))


def _text(number: int, value: str) -> bytes:
    return _bytes(number << 3 | LEN, value.encode())


def _bytes(tag: int, value: bytes) -> bytes:
    return _varint(tag) + _varint(len(value)) + value


def _varint(value: int) -> bytes:
    done = bytearray()
    while value > 0x7F:
        done.append(value & 0x7F | 0x80)
        value >>= 7
    done.append(value)
    return bytes(done)
