"""Capturing and running in this process, with numbers at the end."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import onnxruntime
import pytest

from graphkit.capture.registry import recognise
from graphkit.capture.request import CaptureRequest
from graphkit.model import Model
from graphkit.pipeline import as_ranges, as_specs
from graphkit.shapes import Sample


@pytest.fixture(scope="session")
def captured() -> Callable[..., Model]:
    """`captured(source, shapes, dims, inputs, **options)` as in `gk.convert`, but only captured."""

    def capture(source: Any, shapes: Any = None, dims: Any = None, inputs: Any = None, **options: Any) -> Model:
        request = CaptureRequest(
            shapes=as_specs(shapes or {}),
            dims=as_ranges(dims or {}),
            samples=tuple(Sample(n, Path(v) if isinstance(v, str) else v) for n, v in (inputs or {}).items()),
            **options,
        )
        return recognise(source, request).capture(request)

    return capture


@pytest.fixture(scope="session")
def onnx_run() -> Callable[..., dict[str, np.ndarray]]:
    """`onnx_run(model, x=array)`: ONNX Runtime's outputs by name, of a Model or a file."""
    sessions: dict[Any, onnxruntime.InferenceSession] = {}

    def run(model: Model | Path, **inputs: Any) -> dict[str, np.ndarray]:
        key = id(model) if isinstance(model, Model) else model
        if key not in sessions:
            content = str(model) if isinstance(model, Path) else model.to_proto().SerializeToString()
            sessions[key] = onnxruntime.InferenceSession(content)
            sessions[key].held = model  # so that the id is not used again
        session = sessions[key]
        given = {i.name: np.asarray(inputs[i.name]) for i in session.get_inputs()}
        return dict(zip((o.name for o in session.get_outputs()), session.run(None, given), strict=True))

    return run
