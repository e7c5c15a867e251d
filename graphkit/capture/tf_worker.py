"""The child process in which TensorFlow's files are loaded, captured and run."""

from __future__ import annotations

import importlib.util

from graphkit import isolate
from graphkit.errors import ExtraMissing

ENVIRONMENT = {
    "TF_CPP_MIN_LOG_LEVEL": "3",
    "TF_ENABLE_ONEDNN_OPTS": "0",  # reordered sums would be compared with ONNX Runtime's
    "CUDA_VISIBLE_DEVICES": "-1",
    "KERAS_BACKEND": "tensorflow",
}


def tensorflow_worker() -> isolate.Worker:
    """The shared child, its imports under way.

    Raises:
        ExtraMissing: TensorFlow, Keras or tf2onnx is not installed.
    """
    missing = [name for name in ("tensorflow", "keras", "tf2onnx") if importlib.util.find_spec(name) is None]
    if missing:
        raise ExtraMissing(f"TensorFlow models need {', '.join(missing)}", remedy="pip install 'graphkit-onnx[tf]'")
    worker = isolate.worker("TensorFlow", preload=("tensorflow", "tf2onnx"), env=ENVIRONMENT)
    worker.start()
    return worker
