"""A training step of a residual CNN, as a user writes it; see `programs`."""

from __future__ import annotations

from typing import Any

import numpy as np

from tests.capture.tf_handlers.programs import Program, normal, spec


def train_step() -> Any:
    """Loss and all gradients of a Keras model: Conv, BatchNormalization, ReLU, overlapping MaxPool, a residual sum,
    pooling, Dense and cross-entropy; the batch is free."""
    import keras
    import tensorflow as tf

    keras.utils.set_random_seed(0)
    model = _residual_cnn(keras)
    random = np.random.default_rng(1)
    for weight in model.weights:
        if "variance" not in weight.path and "gamma" not in weight.path:
            weight.assign(random.normal(size=weight.shape) * 0.3)
    loss_of = keras.losses.SparseCategoricalCrossentropy(from_logits=True)

    def step(images: Any, labels: Any) -> Any:
        with tf.GradientTape() as tape:
            loss = loss_of(labels, model(images, training=False))
        return [loss, *tape.gradient(loss, model.trainable_variables)]

    return step, [spec(None, 12, 12, 3), spec(None, dtype="int32")], _batches()


def _batches() -> list[list[np.ndarray]]:
    return [[normal(n, 12, 12, 3, seed=n), np.arange(n, dtype=np.int32) % 5] for n in (4, 3, 1)]


def train_step_with_batch_statistics() -> Any:
    """The same in TensorFlow's own ops, where batch normalisation takes its statistics from the batch."""
    import tensorflow as tf

    shapes = [(3, 3, 3, 6), (6,), (6,), (3, 3, 6, 8), (8,), (8,), (1, 1, 6, 8), (8, 5), (5,)]
    weights = [tf.Variable(0.4 * normal(*s, seed=i) + (1.0 if len(s) == 1 else 0.0)) for i, s in enumerate(shapes)]

    def model(x: Any) -> Any:
        stem, scale, offset, conv, scale2, offset2, skip, dense, bias = weights
        norm = tf.compat.v1.nn.fused_batch_norm
        x = tf.nn.relu(norm(tf.nn.conv2d(x, stem, 1, "SAME"), scale, offset, epsilon=1e-3)[0])
        x = tf.nn.max_pool2d(x, 2, 2, "SAME")
        y = tf.nn.relu(norm(tf.nn.conv2d(x, conv, 2, "SAME"), scale2, offset2, epsilon=1e-3)[0])
        x = tf.reduce_mean(y + tf.nn.conv2d(x, skip, 2, "SAME"), [1, 2])
        return tf.nn.bias_add(x @ dense, bias)

    def step(images: Any, labels: Any) -> Any:
        with tf.GradientTape() as tape:
            losses = tf.nn.sparse_softmax_cross_entropy_with_logits(labels, model(images))
            loss = tf.reduce_mean(losses)
        return [loss, *tape.gradient(loss, weights)]

    return step, [spec(None, 12, 12, 3), spec(None, dtype="int32")], _batches()


def _residual_cnn(keras: Any) -> Any:
    layers = keras.layers
    inputs = keras.Input((12, 12, 3))
    x = layers.ReLU()(layers.BatchNormalization()(layers.Conv2D(6, 3, padding="same")(inputs)))
    x = layers.MaxPooling2D(3, 2, padding="same")(x)
    y = layers.ReLU()(layers.BatchNormalization()(layers.Conv2D(8, 3, strides=2, padding="same")(x)))
    y = layers.BatchNormalization()(layers.Conv2D(8, 3, padding="same")(y))
    x = layers.ReLU()(layers.Add()([y, layers.Conv2D(8, 1, strides=2, padding="same")(x)]))
    return keras.Model(inputs, layers.Dense(5)(layers.GlobalAveragePooling2D()(x)))


PROGRAMS: dict[str, Program] = {
    "train step": train_step,
    "train step with batch statistics": train_step_with_batch_statistics,
}
