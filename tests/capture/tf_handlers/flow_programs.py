"""Control flow, compiled functions and Fourier transforms; see `programs`."""

from __future__ import annotations

from typing import Any

import numpy as np

from tests.capture.tf_handlers.programs import Program, normal, spec

PROGRAMS: dict[str, Program] = {}


def program(build: Program) -> Program:
    PROGRAMS[build.__name__] = build
    return build


@program
def case_of_three() -> Any:
    import tensorflow as tf

    def run(i: Any, x: Any) -> Any:
        return tf.switch_case(
            i, [lambda: (x + 1, tf.reduce_sum(x)), lambda: (x * 2, x[0, 0]), lambda: (tf.tanh(x), 3.0)]
        )

    feeds = [[np.asarray(i, np.int32), normal(2, 3)] for i in (0, 1, 2, 7, -1)]
    return run, [spec(dtype="int32"), spec(None, 3)], feeds


@program
def case_inside_a_case() -> Any:
    import tensorflow as tf

    def run(i: Any, x: Any) -> Any:
        inner = lambda: tf.switch_case(i - 1, [lambda: x * 2, lambda: x * 3])  # noqa: E731
        return tf.switch_case(tf.minimum(i, 1), [lambda: x, inner])

    return run, [spec(dtype="int32"), spec(None)], [[np.asarray(i, np.int32), normal(3)] for i in (0, 1, 2)]


@program
def scan() -> Any:
    import tensorflow as tf

    return lambda x: tf.scan(lambda a, b: a * 0.5 + b, x), [spec(None, 3)], [[normal(5, 3)], [normal(2, 3)]]


@program
def scan_from_a_start_backwards() -> Any:
    import tensorflow as tf

    def run(x: Any, start: Any) -> Any:
        return tf.scan(lambda a, b: (a[0] + b, a[1] * 0.9), x, (start, start), reverse=True)

    return run, [spec(None, 3), spec(3)], [[normal(5, 3), normal(3)]]


@program
def mapped() -> Any:
    import tensorflow as tf

    return lambda x: tf.map_fn(lambda r: tf.cumsum(r) * 2, x), [spec(None, 3)], [[normal(5, 3)]]


@program
def compiled_functions() -> Any:
    import tensorflow as tf

    @tf.function(jit_compile=True)
    def inner(x: Any) -> Any:
        return tf.tanh(x) + 1

    @tf.function(jit_compile=True)
    def outer(x: Any) -> Any:
        return inner(x) * tf.where(tf.reduce_sum(x) > 0, 2.0, 3.0)

    return (
        lambda x: tf.cond(x[0, 0] > 0, lambda: outer(x), lambda: inner(x)),
        [spec(None, 3)],
        [[normal(2, 3)], [-normal(2, 3)]],
    )


@program
def grouped_conv_layer_left_compiled() -> Any:
    import keras

    layer = keras.layers.Conv2D(4, 3, groups=2, padding="same")
    layer.build((None, 8, 8, 4))
    return layer, [spec(None, 8, 8, 4)], [[normal(2, 8, 8, 4)]]


def _fourier(name: str, known: bool, length: int | None) -> Program:
    def build() -> Any:
        import tensorflow as tf

        def run(x: Any) -> Any:
            if name == "irfft":
                return tf.signal.irfft(tf.signal.rfft(x) * 2, None if length is None else [length])
            if name == "rfft":
                z = tf.signal.rfft(x, None if length is None else [length])
            elif name == "fft":
                z = tf.signal.fft(tf.complex(x, 2 * x))
            elif name == "ifft":
                z = tf.signal.ifft(tf.complex(x, -x))
            else:
                z = tf.signal.stft(x, 4, 2, 8)
            return [tf.abs(z), tf.math.real(z), tf.math.imag(z)]

        return run, [spec(*((None, 10) if known else (None, None)))], [[normal(3, 10)], [normal(1, 10)]]

    return build


FOURIER = {
    f"{n} {'static' if k else 'dynamic'} {size or 'whole'}": _fourier(n, k, size)
    for n in ("rfft", "irfft", "fft", "ifft", "stft")
    for k in (True, False)
    for size in ((None, 8, 16) if "rfft" in n else (None,))
}
PROGRAMS.update(FOURIER)


def _fourier_2d(name: str, known: bool, length: list[int] | None) -> Program:
    def build() -> Any:
        import tensorflow as tf

        def run(x: Any) -> Any:
            if name == "irfft2d":
                return tf.signal.irfft2d(tf.signal.rfft2d(x) * 2, length)
            z = tf.signal.rfft2d(x, length) if name == "rfft2d" else getattr(tf.signal, name)(tf.complex(x, 2 * x))
            return [tf.abs(z), tf.math.real(z), tf.math.imag(z)]

        return run, [spec(*((None, 6, 10) if known else (None, None, None)))], [[normal(3, 6, 10)], [normal(1, 6, 10)]]

    return build


FOURIER_2D = {
    f"{n} {'static' if k else 'dynamic'} {size or 'whole'}": _fourier_2d(n, k, size)
    for n in ("rfft2d", "irfft2d", "fft2d", "ifft2d")
    for k in (True, False)
    for size in ((None, [4, 9], [8, 6]) if "rfft" in n else (None,))
}
PROGRAMS.update(FOURIER_2D)


@program
def rfft2d_into_a_cosine() -> Any:
    import tensorflow as tf

    return lambda x: tf.math.real(tf.cos(tf.signal.rfft2d(x))), [spec(None, 4, 8)], []


@program
def rfft_of_one_signal() -> Any:
    import tensorflow as tf

    return lambda x: tf.abs(tf.signal.rfft(x)), [spec(8)], [[normal(8)]]


@program
def complex_input() -> Any:
    import tensorflow as tf

    return lambda x: tf.abs(x), [spec(None, 2, dtype="complex64")], []


@program
def complex_tensor_transposed() -> Any:
    import tensorflow as tf

    return lambda x: tf.abs(tf.transpose(tf.signal.rfft(x))), [spec(None, 8)], []


@program
def tensor_that_grows() -> Any:
    """What the body asks of a shape differs from round to round."""
    import tensorflow as tf

    def run(x: Any) -> Any:
        grow = lambda i, a: (i + 1, tf.concat([a, tf.fill([1, 3], tf.cast(tf.shape(a)[0], a.dtype))], 0))  # noqa: E731
        shapes = [tf.TensorShape([]), tf.TensorShape([None, 3])]
        return tf.while_loop(lambda i, _: i < 4, grow, [0, x], shape_invariants=shapes)[1]

    return run, [spec(1, 3)], [[normal(1, 3)]]


@program
def list_that_grows() -> Any:
    """From the element that an input says, in steps of two: what is left out is zero."""
    import tensorflow as tf

    def run(start: Any, x: Any) -> Any:
        items = tf.TensorArray(tf.float32, size=0, dynamic_size=True, element_shape=[3])
        step = lambda i, a: (i + 2, a.write(i, x * tf.cast(i, tf.float32)))  # noqa: E731
        return tf.while_loop(lambda i, _: i < 6, step, [start, items])[1].stack()

    return run, [spec(dtype="int32"), spec(3)], [[np.asarray(i, np.int32), normal(3)] for i in (0, 3)]


def _loop(write: Any, rounds: Any, size: Any) -> Program:
    """A while_loop over a TensorArray: round i writes x * i to element `write(i, n)`."""

    def build() -> Any:
        import tensorflow as tf

        def run(x: Any) -> Any:
            n = tf.shape(x)[0]
            array = tf.TensorArray(tf.float32, size(n), element_shape=(3,))
            step = lambda i, a: (i + 1, a.write(write(i, n), x[i] * tf.cast(i, tf.float32)))  # noqa: E731
            return tf.while_loop(lambda i, a: i < rounds(n), step, (0, array))[1].stack()

        return run, [spec(None, 3)], [[normal(4, 3)], [normal(6, 3)]]

    return build


LOOPS = {
    "list written front to back": _loop(lambda i, n: i, lambda n: n, lambda n: n),
    "list written back to front": _loop(lambda i, n: n - 1 - i, lambda n: n, lambda n: n),
    "list written in part": _loop(lambda i, n: i, lambda n: n - 2, lambda n: n),
    "list written in every second place": _loop(lambda i, n: 2 * i, lambda n: n, lambda n: 2 * n),
}
PROGRAMS.update(LOOPS)


@program
def list_read_while_it_is_written() -> Any:
    import tensorflow as tf

    def run(x: Any) -> Any:
        array = tf.TensorArray(tf.float32, 6, clear_after_read=False, element_shape=(3,)).write(0, x)
        step = lambda i, a: (i + 1, a.write(i, a.read(i - 1) * 0.5 + 1.0))  # noqa: E731
        return tf.while_loop(lambda i, a: i < 6, step, (1, array))[1].stack()

    return run, [spec(3)], [[normal(3)]]


@program
def list_of_unknown_elements() -> Any:
    import tensorflow as tf

    def run(x: Any) -> Any:
        n = tf.shape(x)[0]
        array = tf.TensorArray(tf.float32, n)
        return tf.while_loop(lambda i, a: i < n, lambda i, a: (i + 1, a.write(n - 1 - i, x[i])), (0, array))[1].stack()

    return run, [spec(None, None)], []
