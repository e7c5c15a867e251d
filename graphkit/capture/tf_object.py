"""TensorFlow and Keras objects of the Python API, captured in the caller's own process."""

from __future__ import annotations

from typing import Any

from graphkit.capture.request import RunnableSource
from graphkit.capture.tf_callee import callee_of
from graphkit.capture.tf_source import TfSource


def recognise(target: Any, name: str = "") -> RunnableSource | None:
    """The source for a Keras model or layer, a `tf.function`, concrete function or `tf.Module`; None for another.

    Raises:
        NotAModel: a Keras model of another backend; a module that cannot be called.
    """
    callee = callee_of(target)
    if callee is None:
        return None
    return TfSource(callee, name=name or getattr(target, "__name__", type(target).__name__))
