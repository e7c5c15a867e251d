"""SavedModels of compiled Keras 2 models, which hold the slots (moments, momenta) of their optimizer.

TensorFlow 2.21 recreates an optimizer of Keras 2.11 to 2.15 as an object without `add_slot`, and then calls it:
`'_UserObject' object has no attribute 'add_slot'`. A graph for inference never reads a slot.
"""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from typing import Any


@contextlib.contextmanager
def optimizer_slots() -> Iterator[None]:
    """While it lasts, `tf.saved_model.load` gives such an optimizer slots of zeros."""
    from tensorflow.python.saved_model.load import Loader

    original = Loader._recreate_base_user_object

    def recreate(self: Any, *args: Any, **kwargs: Any) -> Any:
        made, setter = original(self, *args, **kwargs)
        type(made).add_slot = _slot  # the class is made anew for each object
        return made, setter

    Loader._recreate_base_user_object = recreate
    try:
        yield
    finally:
        Loader._recreate_base_user_object = original


def _slot(self: Any, var: Any, slot_name: str) -> Any:
    import tensorflow as tf

    return tf.Variable(tf.zeros(var.shape, var.dtype), trainable=False, name=slot_name)
