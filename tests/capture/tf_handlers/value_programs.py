"""Ops that tf2onnx 1.17 converts without a word to something that differs for some values; see `programs`."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np

from tests.capture.tf_handlers.programs import Program, normal, spec

_NEGATIVE = [np.asarray([-7, -3, 0, 3, 7], np.int32), np.asarray([2, -2, 3, -3, 5], np.int32)]
_TWICE = np.asarray([[0], [2], [0]], np.int32)
_WITH_GAPS = np.asarray([0, 2, 2, -1, 0], np.int32)
_SORTED = np.asarray([0, 0, 1, 3, 3], np.int32)


def _program(make: Callable[[Any], Any], specs: list[tuple[Any, ...]], *feeds: list[Any]) -> Program:
    """`make(tf)` gives the function; a spec is (dtype, sizes...)."""

    def build() -> Any:
        import tensorflow as tf

        return make(tf), [spec(*sizes, dtype=dtype) for dtype, *sizes in specs], list(feeds)

    return build


_WORDS = [
    np.asarray(["1", "a", "", "♠ b", "a"], object),
    np.asarray(["01", "a", "b", "♠ b", "A"], object),
]
_STRINGS: list[tuple[Any, ...]] = [("string", None), ("string", None)]
_INTEGERS: list[tuple[Any, ...]] = [("int32", None), ("int32", None)]
_ROWS: list[tuple[Any, ...]] = [("float32", None, 2), ("int32", None)]

PROGRAMS: dict[str, Program] = {
    "floordiv of negative integers": _program(lambda tf: tf.math.floordiv, _INTEGERS, _NEGATIVE),
    "floormod of negative integers": _program(lambda tf: tf.math.floormod, _INTEGERS, _NEGATIVE),
    "truncatemod of negative integers": _program(lambda tf: tf.truncatemod, _INTEGERS, _NEGATIVE),
    "equal strings": _program(lambda tf: tf.equal, _STRINGS, _WORDS),
    "not equal strings": _program(lambda tf: tf.not_equal, _STRINGS, _WORDS),
    "equal strings, broadcast": _program(
        lambda tf: tf.equal, [("string", None, 1), ("string", None)], [_WORDS[0][:, None], _WORDS[1]]
    ),
    "where of truth values": _program(
        lambda tf: lambda x, y: tf.where(x > 0, y > 0, x > y),
        [("float32", None, 3), ("float32", 3)],
        [normal(4, 3), normal(3)],
    ),
    "one_hot out of range": _program(
        lambda tf: lambda i: tf.one_hot(i, 4), [("int32", None)], [np.asarray([-1, 0, 3, 4, 9], np.int32)]
    ),
    "one_hot of free depth": _program(
        lambda tf: lambda i, n: tf.one_hot(i, n, axis=0),
        [("int64", None), ("int32",)],
        [np.asarray([-1, 0, 2], np.int64), np.asarray(3, np.int32)],
    ),
    "atan2 on the axes": _program(
        lambda tf: tf.math.atan2,
        [("float32", None), ("float32", None)],
        [np.asarray([1, -1, 0, 0, -0.0, 1, 0, -2], np.float32), np.asarray([-1, -1, -1, 1, -1, 0, 0, 0], np.float32)],
    ),
    "scatter_nd adds up": _program(
        lambda tf: lambda i, u: tf.scatter_nd(i, u, [4, 2]),
        [("int32", None, 1), ("float32", None, 2)],
        [_TWICE, normal(3, 2)],
    ),
    "saturation": _program(
        lambda tf: lambda x: tf.image.adjust_saturation(x, 1.7),
        [("float32", None, 3, 4, 3)],
        [np.random.default_rng(0).uniform(size=(2, 3, 4, 3)).astype(np.float32)],
        [np.full((1, 3, 4, 3), 0.5, np.float32)],
    ),
}
UNSORTED = {
    f"unsorted_segment_{k}": _program(
        lambda tf, k=k: lambda x, s: getattr(tf.math, f"unsorted_segment_{k}")(x, s, 4),
        _ROWS,
        [normal(5, 2), _WITH_GAPS],
    )
    for k in ("max", "min", "prod", "sum", "mean")
}
SORTED = {
    f"segment_{k}": _program(
        lambda tf, k=k: lambda x, s: getattr(tf.math, f"segment_{k}")(x, s), _ROWS, [normal(5, 2), _SORTED]
    )
    for k in ("sum", "max", "min", "prod", "mean")
}
PROGRAMS |= UNSORTED | SORTED
