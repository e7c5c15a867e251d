"""Activations that tf2onnx lacks, and the gradients of activations.

The gradients follow TensorFlow's kernels: each takes the arguments that its op documents (the output of the forward op
for tanh, sigmoid, sqrt, rsqrt, reciprocal, ELU and SELU; its input for the others).
"""

from __future__ import annotations

from collections.abc import Mapping

from graphkit.capture.tf_handlers.emitter import Emit, Emitter

_SELU_SCALE = 1.0507009873554804934193349852946
_SELU_SCALE_ALPHA = 1.7580993408473768599402175208123


def handlers() -> Mapping[str, Emit]:
    return {
        "Erfc": _erfc,
        "ReluGrad": _relu_grad,
        "Relu6Grad": _relu6_grad,
        "LeakyReluGrad": _leaky_relu_grad,
        "EluGrad": _elu_grad,
        "SeluGrad": _selu_grad,
        "SoftplusGrad": _softplus_grad,
        "SoftsignGrad": _softsign_grad,
        "TanhGrad": _tanh_grad,
        "SigmoidGrad": _sigmoid_grad,
        "SqrtGrad": _sqrt_grad,
        "RsqrtGrad": _rsqrt_grad,
        "InvGrad": _reciprocal_grad,
        "ReciprocalGrad": _reciprocal_grad,
        "Xlogy": _xlogy,
        "Xdivy": _xdivy,
        "Log1p": _log1p,
        "Expm1": _expm1,
    }


def _erfc(e: Emitter) -> list[str]:
    """1 - erf(x): exact to the rounding of 1, which is what the GELU of Keras needs."""
    x = e.node.input[0]
    return [e.op("Sub", e.const(1.0, like=x), e.op("Erf", x))]


def _where(e: Emitter, condition: str, gradient: str, otherwise: str | None = None) -> list[str]:
    return [e.op("Where", condition, gradient, otherwise or e.const(0.0, like=gradient))]


def _relu_grad(e: Emitter) -> list[str]:
    gradient, features = e.node.input
    return _where(e, e.op("Greater", features, e.const(0.0, like=features)), gradient)


def _relu6_grad(e: Emitter) -> list[str]:
    gradient, features = e.node.input
    above = e.op("Greater", features, e.const(0.0, like=features))
    below = e.op("Less", features, e.const(6.0, like=features))
    return _where(e, e.op("And", above, below), gradient)


def _leaky_relu_grad(e: Emitter) -> list[str]:
    gradient, features = e.node.input
    slope = e.const(e.node.get_attr_value("alpha", 0.2), like=gradient)
    positive = e.op("Greater", features, e.const(0.0, like=features))
    return _where(e, positive, gradient, e.op("Mul", gradient, slope))


def _elu_grad(e: Emitter) -> list[str]:
    gradient, outputs = e.node.input
    negative = e.op("Less", outputs, e.const(0.0, like=outputs))
    scaled = e.op("Mul", gradient, e.op("Add", outputs, e.const(1.0, like=outputs)))
    return _where(e, negative, scaled, gradient)


def _selu_grad(e: Emitter) -> list[str]:
    gradient, outputs = e.node.input
    negative = e.op("Less", outputs, e.const(0.0, like=outputs))
    below = e.op("Mul", gradient, e.op("Add", outputs, e.const(_SELU_SCALE_ALPHA, like=outputs)))
    return _where(e, negative, below, e.op("Mul", gradient, e.const(_SELU_SCALE, like=gradient)))


def _softplus_grad(e: Emitter) -> list[str]:
    gradient, features = e.node.input
    return [e.op("Mul", gradient, e.op("Sigmoid", features))]


def _softsign_grad(e: Emitter) -> list[str]:
    gradient, features = e.node.input
    root = e.op("Add", e.const(1.0, like=features), e.op("Abs", features))
    return [e.op("Div", gradient, e.op("Mul", root, root))]


def _tanh_grad(e: Emitter) -> list[str]:
    y, gradient = e.node.input
    return [e.op("Mul", gradient, e.op("Sub", e.const(1.0, like=y), e.op("Mul", y, y)))]


def _sigmoid_grad(e: Emitter) -> list[str]:
    y, gradient = e.node.input
    return [e.op("Mul", gradient, e.op("Mul", y, e.op("Sub", e.const(1.0, like=y), y)))]


def _sqrt_grad(e: Emitter) -> list[str]:
    y, gradient = e.node.input
    return [e.op("Div", e.op("Mul", gradient, e.const(0.5, like=y)), y)]


def _rsqrt_grad(e: Emitter) -> list[str]:
    y, gradient = e.node.input
    cube = e.op("Mul", y, e.op("Mul", y, y))
    return [e.op("Mul", e.op("Mul", gradient, e.const(-0.5, like=y)), cube)]


def _reciprocal_grad(e: Emitter) -> list[str]:
    y, gradient = e.node.input
    return [e.op("Neg", e.op("Mul", gradient, e.op("Mul", y, y)))]


def _xlogy(e: Emitter) -> list[str]:
    x, y = e.node.input
    return _zero_where_x_is_zero(e, e.op("Mul", x, e.op("Log", y)))


def _xdivy(e: Emitter) -> list[str]:
    x, y = e.node.input
    return _zero_where_x_is_zero(e, e.op("Div", x, y))


def _zero_where_x_is_zero(e: Emitter, value: str) -> list[str]:
    x = e.node.input[0]
    zero = e.const(0.0, like=x)
    return _where(e, e.op("Equal", x, zero), zero, value)


def _log1p(e: Emitter) -> list[str]:
    """Kahan's form: for u = 1 + x, log(u) * x / (u - 1), which keeps the digits that log(1 + x) loses near zero."""
    x = e.node.input[0]
    one = e.const(1.0, like=x)
    u = e.op("Add", one, x)
    rounded = e.op("Sub", u, one)
    plain = e.op("Or", e.op("Equal", rounded, e.const(0.0, like=x)), e.op("IsInf", u))
    safe = e.op("Where", plain, one, rounded)
    kept = e.op("Mul", e.op("Log", u), e.op("Div", x, safe))
    return _where(e, e.op("Equal", rounded, e.const(0.0, like=x)), x, e.op("Where", e.op("IsInf", u), u, kept))


def _expm1(e: Emitter) -> list[str]:
    """2 * sinh(x/2) * exp(x/2), without the cancellation of exp(x) - 1 near zero."""
    x = e.node.input[0]
    half = e.op("Mul", x, e.const(0.5, like=x))
    return [e.op("Mul", e.op("Mul", e.const(2.0, like=x), e.op("Sinh", half)), e.op("Exp", half))]
