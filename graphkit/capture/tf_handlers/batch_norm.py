"""Fused batch normalisation in training, and its gradient."""

from __future__ import annotations

from collections.abc import Mapping

from graphkit.capture.tf_handlers.emitter import Emit, Emitter, run_builtin


def handlers() -> Mapping[str, Emit]:
    forward = dict.fromkeys(("FusedBatchNorm", "FusedBatchNormV2", "FusedBatchNormV3"), _forward)
    gradient = dict.fromkeys(("FusedBatchNormGrad", "FusedBatchNormGradV2", "FusedBatchNormGradV3"), _gradient)
    return {**forward, **gradient}


def _forward(e: Emitter) -> list[str | None] | None:
    """In training, statistics of the batch: tf2onnx takes the moving ones instead where the averaging factor is not 1,
    and gives its callers no statistics back. In inference, tf2onnx's own form."""
    if not e.node.get_attr_value("is_training", True):
        passed_on = {3: 3, 1: 3, 4: 4, 2: 4}
        return None if _only_output(e) else _inference_with_statistics(e, passed_on)
    x, scale, offset, moving_mean, moving_variance = e.node.input
    mean, variance, centred = _moments(e, x)
    inverse = _inverse_deviation(e, variance)
    y = e.op("Add", e.op("Mul", centred, e.op("Mul", inverse, _along(e, scale, x))), _along(e, offset, x))
    flat_mean, flat_variance = e.op("Reshape", mean, e.ints(-1)), e.op("Reshape", variance, e.ints(-1))
    count = e.cast(_count(e, x), x)
    corrected = e.op("Mul", flat_variance, e.op("Div", count, e.op("Sub", count, e.const(1.0, like=x))))
    factor = float(e.node.get_attr_value("exponential_avg_factor", 1.0))
    return [
        e.cast(y, e.node.output[0]),
        _blend(e, moving_mean, flat_mean, factor),
        _blend(e, moving_variance, corrected, factor),
        flat_mean,
        flat_variance,
        None,
    ]


def _only_output(e: Emitter) -> bool:
    if any(e.used(i) for i in range(1, len(e.node.output))):
        return False
    run_builtin(e)
    return True


def _inference_with_statistics(e: Emitter, passed_on: Mapping[int, int]) -> list[str | None]:
    x, scale, offset, mean, variance = e.node.input
    inverse = _inverse_deviation(e, _along(e, variance, x))
    centred = e.op("Sub", x, _along(e, mean, x))
    y = e.op("Add", e.op("Mul", centred, e.op("Mul", inverse, _along(e, scale, x))), _along(e, offset, x))
    return [y, *(e.node.input[passed_on[i]] for i in (1, 2, 3, 4)), None]


def _blend(e: Emitter, moving: str, batch: str, factor: float) -> str:
    if factor == 1.0:
        return batch
    kept = e.op("Mul", moving, e.const(1.0 - factor, like=moving))
    return e.op("Add", kept, e.op("Mul", batch, e.const(factor, like=moving)))


def _gradient(e: Emitter) -> list[str | None]:
    """Ioffe and Szegedy, Batch normalization (2015), section 3. In training the statistics are computed anew from x:
    what the forward op reserves is not specified."""
    gradient, x, scale, mean, variance = e.node.input[:5]
    training = bool(e.node.get_attr_value("is_training", True))
    axes = _batch_axes(e, x)
    if training:
        _, variance, centred = _moments(e, x)
    else:
        centred, variance = e.op("Sub", x, _along(e, mean, x)), _along(e, variance, x)
    inverse = _inverse_deviation(e, variance)
    normalised = e.op("Mul", centred, inverse)
    along = e.op("Mul", gradient, normalised)
    towards = gradient
    if training:
        projected = e.op("Mul", normalised, e.reduce("ReduceMean", along, axes, keepdims=True))
        towards = e.op("Sub", e.op("Sub", gradient, e.reduce("ReduceMean", gradient, axes, keepdims=True)), projected)
    dx = e.op("Mul", towards, e.op("Mul", inverse, _along(e, scale, x)))
    return [dx, e.reduce("ReduceSum", along, axes), e.reduce("ReduceSum", gradient, axes), None, None]


def _batch_axes(e: Emitter, x: str) -> list[int]:
    rank = e.rank(x)
    channel = _channel(e, rank)
    return [a for a in range(rank) if a != channel]


def _channel(e: Emitter, rank: int) -> int:
    layout = e.node.get_attr_value("data_format", "NHWC")
    layout = layout.decode() if isinstance(layout, bytes) else str(layout)
    return 1 if layout.startswith("NC") else rank - 1


def _moments(e: Emitter, x: str) -> tuple[str, str, str]:
    """Mean, biased variance (both broadcastable against x) and the centred x."""
    axes = _batch_axes(e, x)
    mean = e.reduce("ReduceMean", x, axes, keepdims=True)
    centred = e.op("Sub", x, mean)
    return mean, e.reduce("ReduceMean", e.op("Mul", centred, centred), axes, keepdims=True), centred


def _inverse_deviation(e: Emitter, variance: str) -> str:
    epsilon = e.const(e.node.get_attr_value("epsilon", 1e-4), like=variance)
    return e.op("Reciprocal", e.op("Sqrt", e.op("Add", variance, epsilon)))


def _along(e: Emitter, vector: str, x: str) -> str:
    """A per-channel vector that broadcasts against x."""
    rank = e.rank(x)
    channel = _channel(e, rank)
    if channel == rank - 1:
        return vector
    return e.op("Reshape", vector, e.ints(*(-1 if a == channel else 1 for a in range(rank))))


def _count(e: Emitter, x: str) -> str:
    """How many elements a channel has."""
    sizes = e.op("Gather", e.op("Shape", x), e.ints(*_batch_axes(e, x)), axis=0)
    return e.op("ReduceProd", sizes, keepdims=0)
