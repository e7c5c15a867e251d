"""Tensors, as many at a time as are read into memory."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from typing import TypeVar

T = TypeVar("T")

TENSORS_AT_ONCE = 64
BYTES_AT_ONCE = 256_000_000
"""Of one run, both sides together."""


def in_chunks(items: Iterable[T], bytes_of: Callable[[T], int]) -> Iterator[list[T]]:
    """The items in order, cut where there are too many of them or too many bytes; a larger one stands alone.

    Args:
        bytes_of: Bytes of an item, asked for when its turn comes.
    """
    chunk: list[T] = []
    size = 0
    for item in items:
        more = bytes_of(item)
        if chunk and (len(chunk) >= TENSORS_AT_ONCE or size + more > BYTES_AT_ONCE):
            yield chunk
            chunk, size = [], 0
        chunk.append(item)
        size += more
    if chunk:
        yield chunk
