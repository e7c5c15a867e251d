"""Names for what a TensorFlow function returns."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from graphkit.errors import CaptureFailed


def named_outputs(result: Any, own: Sequence[str] = (), inputs: Sequence[str] = ()) -> list[tuple[str, Any]]:
    """Tensors in what a function returned, each with a name of its own.

    A single tensor is `output`, the items of a tuple `output_0`, `output_1`, those of a dict their keys, those of a
    namedtuple their fields; inside each, the path with dots: `hidden.0`. None is no output.

    Args:
        result: What the function returned.
        own: Names that the source has for its outputs, if they are as many.
        inputs: Names of the inputs: an output of the same name gets `_out` behind it.

    Raises:
        CaptureFailed: something in it is neither tensor nor number.
    """
    leaves = list(_leaves(result, ()))
    names = [_path_name(path) for path, _ in leaves]
    if len(own) == len(leaves):
        names = list(own)
    taken: set[str] = set()
    named = []
    for name, (_, value) in zip(names, leaves, strict=True):
        candidate, number = f"{name}_out" if name in inputs else name, 1
        while candidate in taken:
            candidate, number = f"{name}_{number}", number + 1
        taken.add(candidate)
        named.append((candidate, value))
    return named


def _leaves(value: Any, path: tuple[str, ...]) -> Iterator[tuple[tuple[str, ...], Any]]:
    import numpy as np
    import tensorflow as tf

    if value is None or isinstance(value, tf.Operation):
        return
    if isinstance(value, Mapping):
        for key, item in value.items():
            yield from _leaves(item, (*path, str(key)))
    elif isinstance(value, tuple) and hasattr(value, "_fields"):
        for key, item in zip(value._fields, value, strict=True):
            yield from _leaves(item, (*path, key))
    elif isinstance(value, list | tuple):
        for i, item in enumerate(value):
            yield from _leaves(item, (*path, str(i)) if path else (f"output_{i}",))
    elif isinstance(value, tf.Tensor | tf.Variable | np.ndarray | np.generic | bool | int | float):
        yield path, value
    elif type(value).__module__.startswith("keras.") and hasattr(value, "value"):  # a keras.Variable
        yield path, value.value
    else:
        raise CaptureFailed(
            f"the model returns a {type(value).__name__}, which is not a dense tensor",
            remedy="return dense tensors (`.to_tensor()`, `tf.sparse.to_dense`, `.stack()`), or a tuple, list or dict "
            "of them",
        )


def _path_name(path: tuple[str, ...]) -> str:
    return ".".join(path) if path else "output"
