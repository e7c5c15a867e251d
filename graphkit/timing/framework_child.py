"""A framework under the clock. The functions take the live source, in the process where it is."""

from __future__ import annotations

import os
import sys
import time
from pathlib import Path
from typing import Any
from weakref import WeakKeyDictionary

from graphkit.capture.request import RunnableSource, TimedSource
from graphkit.tensor_files import read_tensors, write_tensors
from graphkit.timing import memory
from graphkit.timing.clock import timed

_feeds: WeakKeyDictionary[Any, dict[str, Any]] = WeakKeyDictionary()


def put(source: RunnableSource, inputs: list[dict[str, str]], folder: str) -> dict[str, Any]:
    """Keep a set of inputs, and run the model on it for the first time.

    Returns:
        `seconds` of that run, what comes before and after included; `outputs` as tensor files in `folder`.

    Raises:
        GraphkitError: as `RunnableSource.run`.
    """
    _feeds[source] = feeds = read_tensors(inputs)
    started = time.perf_counter()
    outputs = source.run(feeds)
    seconds = time.perf_counter() - started
    return {"seconds": seconds, "outputs": write_tensors(outputs, Path(folder))}


def block(source: RunnableSource, runs: int, seconds: float) -> list[int]:
    """Nanoseconds of each run; see `clock.timed`. Inputs are handed to the framework before, outputs not converted."""
    feeds = _feeds[source]
    if not isinstance(source, TimedSource):
        return timed(lambda: source.run(feeds), runs=runs, seconds=seconds)
    with source.ready(feeds) as call:
        return timed(call, runs=runs, seconds=seconds)


def used(source: RunnableSource) -> dict[str, Any]:
    """`peak`: most bytes of this process so far. `threads` that one operator may use, where the framework says.
    `alone`: whether nothing but the model's own work is timed."""
    return {
        "peak": memory.resident()["peak"],
        "threads": _threads(source),
        "alone": isinstance(source, TimedSource),
    }


def _threads(source: RunnableSource) -> int | None:
    if "graphkit.capture.tflite_source" in sys.modules:
        from graphkit.capture.tflite_interpreter import THREADS
        from graphkit.capture.tflite_source import TFLiteSource

        if isinstance(source, TFLiteSource):
            return THREADS
    if "tensorflow" in sys.modules:  # which cannot be asked
        told = os.environ.get("TF_NUM_INTRAOP_THREADS", "")
        return int(told) if told.isdecimal() else None
    torch = sys.modules.get("torch")
    return None if torch is None else int(torch.get_num_threads())
