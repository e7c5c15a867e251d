"""The innermost loop: nothing but the call stands between two looks at the clock."""

from __future__ import annotations

import gc
import time
from collections.abc import Callable
from typing import Any


def timed(call: Callable[[], Any], *, runs: int, seconds: float) -> list[int]:
    """Call again and again, at least `runs` times and until `seconds` have passed.

    The garbage collector rests meanwhile, as in Python's `timeit`.

    Returns:
        Nanoseconds of each call, by the monotonic wall clock.
    """
    now, found = time.perf_counter_ns, list[int]()
    collecting = gc.isenabled()
    gc.disable()
    try:
        end = now() + int(seconds * 1e9)
        while len(found) < runs or (seconds and now() < end):
            started = now()
            call()
            found.append(now() - started)
    finally:
        if collecting:
            gc.enable()
    return found
