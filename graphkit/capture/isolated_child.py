"""What runs in a framework's child: open the source, capture it, run it."""

from __future__ import annotations

import importlib
from pathlib import Path
from typing import Any

from graphkit.capture.request import CaptureRequest, RunnableSource
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
    source = _open(opener, spec, name, asked)
    inputs = source.prepare(asked)
    _sources[handle] = source
    return {"label": source.label, "inputs": [[t.name, t.dtype, t.shape] for t in inputs]}


def run(handle: str, inputs: list[dict[str, str]], folder: str) -> list[dict[str, str]]:
    """Run the source kept under `handle` on tensor files; returns those it wrote to `folder`."""
    return write_tensors(_sources[handle].run(read_tensors(inputs)), Path(folder))


def _open(opener: str, spec: dict[str, str], name: str, request: CaptureRequest) -> RunnableSource:
    module, _, function = opener.partition(":")
    opened: RunnableSource = getattr(importlib.import_module(module), function)(spec, name, request)
    return opened
