"""Small quantised models with one fault each, for the Q/DQ lint."""

from __future__ import annotations

import numpy as np
import onnx

from tests.support.models import F, model, node

WIDTH = 4
_SCALES = {"s": F(0.1), "z": np.int8(0)}


def int8(*, axis: int = 1, scales: int = WIDTH, island: bool = False) -> onnx.ModelProto:
    """x -> y float32[2, 4]: three MatMul, weights with a scale for each channel; with `island` the middle one is float.

    Args:
        axis: Of the weights' scales.
        scales: How many a weight has.
    """
    nodes, weights, h = [], dict(_SCALES), "x"
    for number in range(3):
        last = "y" if number == 2 else f"h{number}"
        if island and number == 1:
            weights["w1"] = np.eye(WIDTH, dtype=F)
            nodes.append(node("MatMul", f"{h} w1", last))
        else:
            weights[f"w{number}"] = np.eye(WIDTH, dtype=np.int8)
            weights[f"ws{number}"] = np.full(scales, 0.5, F)
            nodes += [
                node("QuantizeLinear", f"{h} s z", f"q{number}"),
                node("DequantizeLinear", f"q{number} s z", f"d{number}"),
                node("DequantizeLinear", f"w{number} ws{number}", f"dw{number}", axis=axis),
                node("MatMul", f"d{number} dw{number}", last),
            ]
        h = last
    return model(nodes, ["x f32 2,4"], ["y f32 2,4"], weights=weights)


def beside() -> onnx.ModelProto:
    """A pair behind a MatMul that reads none."""
    nodes = [
        node("MatMul", "x w", "h"),
        node("QuantizeLinear", "h s z", "q"),
        node("DequantizeLinear", "q s z", "d"),
        node("Relu", "d", "y"),
    ]
    return model(nodes, ["x f32 2,4"], ["y f32 2,4"], weights={**_SCALES, "w": np.eye(WIDTH, dtype=F)})


def before_softmax() -> onnx.ModelProto:
    """A pair that only Softmax reads."""
    nodes = [
        node("QuantizeLinear", "x s z", "q"),
        node("DequantizeLinear", "q s z", "d"),
        node("Softmax", "d", "y"),
    ]
    return model(nodes, ["x f32 2,4"], ["y f32 2,4"], weights=dict(_SCALES))
