"""Cross-entropy with logits: the loss and the gradient that TensorFlow computes beside it."""

from __future__ import annotations

from collections.abc import Mapping

from graphkit.capture.tf_handlers.emitter import Emit, Emitter


def handlers() -> Mapping[str, Emit]:
    return {
        "SparseSoftmaxCrossEntropyWithLogits": _sparse,
        "SoftmaxCrossEntropyWithLogits": _dense,
    }


def _sparse(e: Emitter) -> list[str | None]:
    logits, labels = e.node.input
    labels = e.int64(labels)
    log_probability = e.op("LogSoftmax", logits, axis=-1)
    gradient = None
    if e.used(1):
        classes = e.op("Gather", e.op("Shape", logits), e.ints(-1), axis=0)
        hot = e.op("OneHot", labels, classes, e.const([0.0, 1.0], like=logits), axis=-1)
        gradient = e.op("Sub", e.op("Exp", log_probability), hot)
    chosen = e.op("GatherElements", log_probability, e.op("Unsqueeze", labels, e.ints(-1)), axis=-1)
    return [e.op("Neg", e.op("Squeeze", chosen, e.ints(-1))), gradient]


def _dense(e: Emitter) -> list[str | None]:
    logits, labels = e.node.input
    log_probability = e.op("LogSoftmax", logits, axis=-1)
    gradient = e.op("Sub", e.op("Exp", log_probability), labels) if e.used(1) else None
    weighted = e.op("Mul", labels, log_probability)
    zero = e.const(0.0, like=labels)
    kept = e.op("Where", e.op("Equal", labels, zero), zero, weighted)  # 0 * log 0 is 0
    return [e.op("Neg", e.reduce("ReduceSum", kept, [-1])), gradient]
