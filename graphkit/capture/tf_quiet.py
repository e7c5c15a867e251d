"""Silence for TensorFlow and Keras while they work: what they log and print, they also raise."""

from __future__ import annotations

import contextlib
import logging
import warnings
from collections.abc import Iterator


@contextlib.contextmanager
def quiet() -> Iterator[None]:
    """TensorFlow logs its own deprecations and retracings; Keras warns about structures and untrained state."""
    loggers = [logging.getLogger(name) for name in ("tensorflow", "absl", "tf2onnx", "h5py")]
    levels = [logger.level for logger in loggers]
    for logger in loggers:
        logger.setLevel(logging.CRITICAL)
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            yield
    finally:
        for logger, level in zip(loggers, levels, strict=True):
            logger.setLevel(level)
