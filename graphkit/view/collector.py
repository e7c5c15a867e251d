"""Python's garbage collector, kept from looking through large graphs again and again."""

from __future__ import annotations

import contextlib
import gc
from collections.abc import Iterator


@contextlib.contextmanager
def collector_paused() -> Iterator[None]:
    """Without garbage collection: 100,000 nodes are a million objects and no cycles, and looking through them again
    and again takes as long as reading them.

    Nor is it looked through as soon as this ends: what came is put with the oldest objects, unless more than
    `_MOST_UNSEEN` have come in that way since those were collected.
    """
    collecting = gc.isenabled()
    gc.disable()
    try:
        yield
    finally:
        if collecting:
            _put_aside()
            gc.enable()


_MOST_UNSEEN = 3_000_000
_unseen = [0, 0]
"""Objects that were put aside, and how many collections of the oldest there had been then."""


def _put_aside() -> None:
    collections = gc.get_stats()[2]["collections"]
    count = gc.get_count()[0] + (_unseen[0] if _unseen[1] == collections else 0)
    if count > _MOST_UNSEEN or gc.get_freeze_count():  # who froze objects does not want them thawed
        return
    _unseen[:] = count, collections
    gc.freeze()
    gc.unfreeze()
