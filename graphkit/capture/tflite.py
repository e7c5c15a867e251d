"""TFLite files: checked here, captured and run in the TensorFlow child."""

from __future__ import annotations

from pathlib import Path

from graphkit.capture import tflite_schema
from graphkit.capture.isolated import IsolatedSource
from graphkit.capture.options import TFLITE
from graphkit.capture.request import CaptureRequest, Source
from graphkit.capture.tf_worker import tensorflow_worker


def recognise(path: Path, head: bytes, request: CaptureRequest) -> Source | None:
    """The source for a `.tflite` file, or None.

    Raises:
        CorruptFile: it is truncated or damaged.
        ExtraMissing: TensorFlow or tf2onnx is not installed.
    """
    if head[4:8] != tflite_schema.IDENTIFIER:
        return None
    tflite_schema.read(path)
    spec = {"file": str(path.resolve())}
    opener = "graphkit.capture.tflite_source:open_file"
    return IsolatedSource(path.name, spec, opener=opener, worker=tensorflow_worker(), options=TFLITE)
