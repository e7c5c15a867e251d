"""Pools, convolutions and batch normalisation with their gradients; see `programs`."""

from __future__ import annotations

from typing import Any

import numpy as np

from tests.capture.tf_handlers.programs import Program, gradient_of, normal, spec

PROGRAMS: dict[str, Program] = {}


def _pool(kind: str, size: int, stride: int, padding: str, known: bool, rank: int = 2) -> Program:
    def build() -> Any:
        import tensorflow as tf

        extent = 9 if known else None
        x = np.round(normal(2, *[9] * rank, 3))  # with ties
        return (
            gradient_of(lambda x: tf.nn.pool(x, [size] * rank, kind, strides=[stride] * rank, padding=padding)),
            [spec(None, *[extent] * rank, 3)],
            [[x], [x[:1]]],
        )

    return build


POOLS = {
    f"gradient of {kind.lower()} pool {size}/{stride} {padding} {'static' if known else 'dynamic'}": _pool(
        kind, size, stride, padding, known
    )
    for kind in ("MAX", "AVG")
    for size, stride in ((2, 2), (3, 2), (3, 3))
    for padding in ("SAME", "VALID")
    for known in (True, False)
}
POOLS["gradient of max pool 3d"] = _pool("MAX", 2, 2, "SAME", True, 3)
POOLS["gradient of avg pool 3d"] = _pool("AVG", 3, 2, "SAME", False, 3)
PROGRAMS.update(POOLS)


def _conv(groups: int, stride: int, dilation: int, padding: str, known: bool, depthwise: bool = False) -> Program:
    def build() -> Any:
        import tensorflow as tf

        extent = (10, 9) if known else (None, None)
        kernel = normal(3, 3, 4, 2, seed=1) if depthwise else normal(3, 2, 4 // groups, 6, seed=1)
        step, spread = (stride, stride), (dilation, dilation)

        def run(x: Any, w: Any) -> Any:
            if depthwise:
                return tf.nn.depthwise_conv2d(x, w, (1, *step, 1), padding, dilations=spread)
            return tf.nn.conv2d(x, w, step, padding, dilations=spread)

        def plain(x: Any, w: Any) -> Any:
            """The same in convolutions of which TensorFlow has the gradients on a CPU."""
            wide = tf.reshape(tf.pad(w[:, None, :, None], [[0, 0], [0, dilation - 1]] * 2 + [[0, 0]] * 2),
                              [3 * dilation, 2 * dilation, *w.shape[2:]])  # fmt: skip
            wide = wide[: 2 * dilation + 1, : dilation + 1]
            parts = zip(tf.split(x, groups, -1), tf.split(wide, groups, -1), strict=True)
            return tf.concat([tf.nn.conv2d(a, b, step, padding) for a, b in parts], -1)

        def both(forward: Any) -> Any:
            return lambda x, w: [forward(x, w), *gradient_of(forward)(x, w)]

        return (
            both(run),
            [spec(None, *extent, 4), spec(*kernel.shape)],
            [[normal(2, 10, 9, 4), kernel], [normal(1, 10, 9, 4), kernel]],
            both(run if depthwise or (groups == 1 and dilation == 1) else plain),
        )

    return build


CONVS = {
    f"conv groups {g} stride {s} dilation {d} {p} {'static' if k else 'dynamic'}": _conv(g, s, d, p, k)
    for g, s, d in ((1, 1, 1), (1, 2, 1), (1, 1, 2), (1, 3, 1), (2, 2, 1))
    for p in ("SAME", "VALID")
    for k in (True, False)
    if not (g == 2 and d == 2)
}
CONVS |= {
    f"depthwise stride {s} {p} {'static' if k else 'dynamic'}": _conv(1, s, 1, p, k, depthwise=True)
    for s in (1, 2)
    for p in ("SAME", "VALID")
    for k in (True, False)
}
PROGRAMS.update(CONVS)


def _transposed(stride: int, known: bool, size: int) -> Program:
    def build() -> Any:
        import tensorflow as tf

        extent = (5, 4) if known else (None, None)
        kernel = normal(3, 3, 2, 4, seed=1)

        def run(x: Any) -> Any:
            shape = tf.shape(x)
            extra = size
            out = tf.stack([shape[0], (shape[1] - 1) * stride + 3 - extra, (shape[2] - 1) * stride + 3 - extra, 2])
            return tf.nn.conv2d_transpose(x, kernel, out, stride, padding=[[0, 0], [extra, 0], [extra, 0], [0, 0]])

        return run, [spec(None, *extent, 4)], [[normal(2, 5, 4, 4)]]

    return build


def kernel_of_free_size() -> Any:
    """Not even its channels are known."""
    import tensorflow as tf

    def run(x: Any, kernel: Any, around: Any) -> Any:
        return tf.nn.conv2d(x, tf.pad(kernel, around), 1, "VALID")

    specs = [spec(None, 8, 8, 3), spec(3, 3, 3, 5), spec(4, 2, dtype="int32")]
    return run, specs, [[normal(2, 8, 8, 3), normal(3, 3, 3, 5, seed=1), np.zeros((4, 2), np.int32)]]


def quantised_transposed() -> Any:
    import tensorflow as tf

    kernel = normal(3, 3, 2, 4, seed=1)

    def run(x: Any) -> Any:
        weights = tf.quantization.quantize_and_dequantize_v2(tf.constant(kernel), -3.0, 3.0, range_given=True)
        return tf.nn.conv2d_transpose(x, weights, [2, 11, 9, 2], 2, "VALID")

    return run, [spec(2, 5, 4, 4)], [[normal(2, 5, 4, 4)]]


PROGRAMS |= {"kernel_of_free_size": kernel_of_free_size, "quantised_transposed": quantised_transposed}

TRANSPOSED = {
    "transposed conv of unknown size": _transposed(2, False, 0),
    "transposed conv of known size": _transposed(2, True, 0),
    "transposed conv with explicit padding": _transposed(2, False, 1),
}
PROGRAMS.update(TRANSPOSED)


def _batch_norm(training: bool, layout: str, factor: float = 1.0) -> Program:
    def build() -> Any:
        import tensorflow as tf

        mean, variance = normal(3, seed=3), np.abs(normal(3, seed=4)) + 0.5

        def run(x: Any, scale: Any, offset: Any) -> Any:
            def forward(x: Any, scale: Any, offset: Any) -> Any:
                return tf.raw_ops.FusedBatchNormV3(
                    x=x, scale=scale, offset=offset, mean=mean, variance=variance, is_training=training, epsilon=1e-3,
                    data_format=layout, exponential_avg_factor=factor,
                )  # fmt: skip

            made = forward(x, scale, offset)
            grads = gradient_of(lambda *a: forward(*a).y)(x, scale, offset)
            return [made.y, made.batch_mean, made.batch_variance, *grads]

        return (
            run,
            [spec(None, 4, 5, 3), spec(3), spec(3)],
            [[normal(2, 4, 5, 3), normal(3, seed=1), normal(3, seed=2)]],
        )

    return build


NORMS = {
    "batch norm training": _batch_norm(True, "NHWC"),
    "batch norm training with moving statistics": _batch_norm(True, "NHWC", 0.1),
    "batch norm inference": _batch_norm(False, "NHWC"),
}
PROGRAMS.update(NORMS)
