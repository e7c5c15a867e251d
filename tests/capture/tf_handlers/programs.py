"""The TensorFlow programs that the handlers are tested with: each gives a function, its specs and the feeds, and where
TensorFlow cannot run the function on a CPU another one that computes the same.

A program is called in a child only: TensorFlow is imported inside.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np

Program = Callable[[], tuple[Any, ...]]
PROGRAMS: dict[str, Program] = {}


def program(build: Program) -> Program:
    PROGRAMS[build.__name__] = build
    return build


def normal(*shape: int, seed: int = 0) -> np.ndarray:
    return np.random.default_rng(seed).normal(size=shape).astype(np.float32)


def spec(*shape: int | None, dtype: str = "float32") -> Any:
    import tensorflow as tf

    return tf.TensorSpec(shape, dtype)


def gradient_of(function: Callable[..., Any]) -> Callable[..., Any]:
    """d sum(f(x) * w) / dx for every x, with w not constant."""
    import tensorflow as tf

    def run(*inputs: Any) -> Any:
        with tf.GradientTape() as tape:
            tape.watch(inputs)
            y = function(*inputs)
            loss = tf.reduce_sum(y * tf.sin(tf.cast(tf.reshape(tf.range(tf.size(y)), tf.shape(y)), y.dtype)))
        return [
            g if g is not None else tf.zeros_like(x) for g, x in zip(tape.gradient(loss, inputs), inputs, strict=True)
        ]

    return run


def _activation(name: str) -> Program:
    def build() -> Any:
        import keras

        return getattr(keras.activations, name), [spec(None, 8)], [[3 * normal(2, 8)], [3 * normal(5, 8)]]

    return build


def _activation_gradient(name: str) -> Program:
    def build() -> Any:
        import keras

        return gradient_of(getattr(keras.activations, name)), [spec(None, 8)], [[3 * normal(3, 8)]]

    return build


ACTIVATIONS = (
    "celu", "elu", "exponential", "gelu", "glu", "hard_shrink", "hard_sigmoid", "hard_silu", "hard_tanh", "leaky_relu",
    "linear", "log_sigmoid", "log_softmax", "mish", "relu", "relu6", "selu", "sigmoid", "silu", "soft_shrink",
    "softmax", "softplus", "softsign", "sparse_plus", "sparse_sigmoid", "sparsemax", "squareplus", "tanh",
    "tanh_shrink",
)  # fmt: skip
PROGRAMS.update({f"activation {n}": _activation(n) for n in ACTIVATIONS})
PROGRAMS.update({f"gradient of {n}": _activation_gradient(n) for n in ACTIVATIONS})


def _unary_gradient(name: str) -> Program:
    def build() -> Any:
        import tensorflow as tf

        functions = {"sqrt": tf.sqrt, "rsqrt": tf.math.rsqrt, "reciprocal": tf.math.reciprocal, "log1p": tf.math.log1p,
                    "expm1": tf.math.expm1, "xlogy": lambda x: tf.math.xlogy(x, x + 1), "prelu": tf.nn.leaky_relu,
                    "erf": tf.math.erf, "cumsum": tf.math.cumsum, "l2": lambda x: tf.nn.l2_normalize(x, 1)}  # fmt: skip
        return gradient_of(functions[name]), [spec(None, 8)], [[np.abs(normal(3, 8)) + 0.1]]

    return build


UNARY = ("sqrt", "rsqrt", "reciprocal", "log1p", "expm1", "xlogy", "prelu", "erf", "cumsum", "l2")
PROGRAMS.update({f"gradient of tf {n}": _unary_gradient(n) for n in UNARY})


@program
def gelu_tanh() -> Any:
    import keras

    return lambda x: keras.activations.gelu(x, approximate=True), [spec(None, 8)], [[normal(3, 8)]]


@program
def erfc_far_out() -> Any:
    import tensorflow as tf

    return tf.math.erfc, [spec(4)], [[np.asarray([-30, -1, 0, 1], np.float32)]]


@program
def select_keeps_infinity_out() -> Any:
    import tensorflow as tf

    def run(x: Any) -> Any:
        return tf.where(x > 0, tf.math.log(x), tf.zeros_like(x))

    return run, [spec(None)], [[np.asarray([1, 0, -1, 2], np.float32)]]


@program
def broadcast_of_unknown_shapes() -> Any:
    return (
        gradient_of(lambda x, y: x * y),
        [spec(None, None, 4), spec(None, 1)],
        [[normal(2, 3, 4), normal(3, 1)], [normal(2, 3, 4), normal(1, 1)], [normal(1, 1, 4), normal(1, 1)]],
    )


@program
def bias_add_of_unknown_batch() -> Any:
    import tensorflow as tf

    return gradient_of(tf.nn.bias_add), [spec(None, 5, 4), spec(4)], [[normal(2, 5, 4), normal(4)]]


@program
def sliced_with_strides() -> Any:
    return gradient_of(lambda x: x[:, 1:-1:2, ::-1, None, 2]), [spec(None, 7, 4, 5)], [[normal(2, 7, 4, 5)]]


@program
def gathered_rows() -> Any:
    import tensorflow as tf

    def run(table: Any, ids: Any) -> Any:
        with tf.GradientTape() as tape:
            tape.watch(table)
            loss = tf.reduce_sum(tf.square(tf.gather(table, ids)))
        return tf.convert_to_tensor(tape.gradient(loss, table))

    return run, [spec(6, 3), spec(None, 2, dtype="int32")], [[normal(6, 3), np.asarray([[1, 1], [5, 0]], np.int32)]]


@program
def segment_sum_drops_negative() -> Any:
    import tensorflow as tf

    return (
        lambda x, s: tf.math.unsorted_segment_sum(x, s, 4),
        [spec(None, 3), spec(None, dtype="int32")],
        [[normal(5, 3), np.asarray([3, -1, 0, 3, 1], np.int32)]],
    )


@program
def concat_and_stack() -> Any:
    import tensorflow as tf

    def run(x: Any, y: Any) -> Any:
        return tf.concat([tf.transpose(x, [1, 0]), tf.transpose(y, [1, 0])], 1)

    return gradient_of(run), [spec(None, 3), spec(None, 3)], [[normal(2, 3), normal(4, 3)]]


@program
def permuted_by_value() -> Any:
    import tensorflow as tf

    return tf.math.invert_permutation, [spec(None, dtype="int32")], [[np.asarray([2, 0, 3, 1], np.int32)]]


@program
def sparse_cross_entropy() -> Any:
    import tensorflow as tf

    def run(logits: Any, labels: Any) -> Any:
        loss = tf.nn.sparse_softmax_cross_entropy_with_logits
        return [loss(labels, logits), *gradient_of(lambda x: loss(labels, x))(logits)]

    return (
        run,
        [spec(None, None, 5), spec(None, None, dtype="int32")],
        [[20 * normal(2, 3, 5), np.ones((2, 3), np.int32)]],
    )


@program
def cross_entropy() -> Any:
    import tensorflow as tf

    def run(logits: Any, labels: Any) -> Any:
        loss = tf.nn.softmax_cross_entropy_with_logits
        return [loss(labels, logits), *gradient_of(lambda x: loss(labels, x))(logits)]

    hot = np.eye(5, dtype=np.float32)[[1, 0]]
    return run, [spec(None, 5), spec(None, 5)], [[200 * normal(2, 5), hot]]


@program
def bucketized() -> Any:
    import tensorflow as tf

    def run(x: Any) -> Any:
        return tf.raw_ops.Bucketize(input=x, boundaries=[-1.0, 0.0, 2.5])

    return run, [spec(None, 3)], [[np.asarray([[-1, 0, 2.5], [-5, 9, 1]], np.float32)]]


@program
def bucketized_integers() -> Any:
    import tensorflow as tf

    def run(x: Any) -> Any:
        return tf.raw_ops.Bucketize(input=x, boundaries=[-1.0, 0.0, 2.5])

    return run, [spec(None, dtype="int64")], [[np.asarray([-1, 0, 2, 3, 2**40], np.int64)]]
