"""What runs in a framework's child: open the source, capture it, run it."""

from __future__ import annotations

import importlib
import time
from pathlib import Path
from typing import Any

from graphkit.capture.request import CaptureRequest, RunnableSource
from graphkit.capture.taps import TappedSource
from graphkit.tensor_files import read_tensors, write_tensors

_sources: dict[str, RunnableSource] = {}


def capture(
    handle: str, opener: str, spec: dict[str, str], name: str, request: dict[str, Any], target: str
) -> dict[str, str]:
    """Capture the source that `opener` makes of `spec`, and write the model to `target`.

    The source is kept under `handle` for `run`.
    """
    asked = CaptureRequest.from_json(request)
    source = _open(opener, spec, name, asked)
    model = source.capture(asked)
    model.save(target, durable=False)
    _sources[handle] = source
    return {"label": source.label}


def prepare(handle: str, opener: str, spec: dict[str, str], name: str, request: dict[str, Any]) -> dict[str, Any]:
    """Make the source that `opener` makes of `spec` ready for `run`, without capturing it; returns its inputs."""
    asked = CaptureRequest.from_json(request)
    started = time.perf_counter()
    source = _open(opener, spec, name, asked)
    inputs = source.prepare(asked)
    seconds = time.perf_counter() - started
    _sources[handle] = source
    dims = [[d.symbol, d.min, d.opt, d.max] for d in getattr(source, "dims", asked.dims)]
    specs = [[t.name, t.dtype, t.shape] for t in inputs]
    return {"label": source.label, "inputs": specs, "dims": dims, "seconds": seconds}


def run(handle: str, inputs: list[dict[str, str]], folder: str) -> list[dict[str, str]]:
    """Run the source kept under `handle` on tensor files; returns those it wrote to `folder`."""
    return write_tensors(_sources[handle].run(read_tensors(inputs)), Path(folder))


def tap(handle: str, inputs: list[dict[str, str]], folder: str) -> dict[str, Any] | None:
    """Run the source kept under `handle` and record it into `folder`; None where its framework shows nothing."""
    source = _sources[handle]
    tape = source.tap(read_tensors(inputs), Path(folder)) if isinstance(source, TappedSource) else None
    return tape.to_json() if tape is not None else None


def apply(handle: str, target: str, arguments: dict[str, Any]) -> Any:
    """What the function `target` (`module:function`) makes of the source kept under `handle`."""
    module, _, name = target.partition(":")
    return getattr(importlib.import_module(module), name)(_sources[handle], **arguments)


def _open(opener: str, spec: dict[str, str], name: str, request: CaptureRequest) -> RunnableSource:
    module, _, function = opener.partition(":")
    opened: RunnableSource = getattr(importlib.import_module(module), function)(spec, name, request)
    return opened
