"""What a network of TensorRT holds, before its optimiser sees it; runs in the child of `trt_child`."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping
from typing import Any

_COMPUTE = ("CONVOLUTION", "DECONVOLUTION", "MATRIX_MULTIPLY", "EINSUM")
_DTYPES = {
    "FLOAT": "float32",
    "HALF": "float16",
    "BF16": "bfloat16",
    "FP8": "float8e4m3fn",
    "FP4": "float4e2m1",
    "E8M0": "float8e8m0",
}


def describe(network: Any) -> dict[str, Any]:
    """Its number of `layers`; dtypes of `inputs` and `outputs` by name; how many layers `compute` in which dtype."""
    layers = [network.get_layer(index) for index in range(network.num_layers)]
    makers = {layer.get_output(i).name: layer for layer in layers for i in range(layer.num_outputs)}
    compute = Counter(_computes(layer, makers) for layer in layers if layer.type.name in _COMPUTE)
    inputs = (network.get_input(i) for i in range(network.num_inputs))
    outputs = (network.get_output(i) for i in range(network.num_outputs))
    return {
        "layers": len(layers),
        "inputs": {t.name: _dtype(t) for t in inputs},
        "outputs": {t.name: _dtype(t) for t in outputs},
        "compute": dict(sorted(compute.items())),
    }


def _computes(layer: Any, makers: Mapping[str, Any]) -> str:
    """The dtype that both operands are dequantised from (TensorRT multiplies these), else that of the result;
    `int4 weights` where only the second one is: they are restored before they are multiplied."""
    operands = [_quantised(layer.get_input(i), makers) for i in range(min(2, layer.num_inputs))]
    if len(operands) == 2 and operands[1] is not None:
        return operands[1] if operands[0] == operands[1] else f"{operands[1]} weights"
    return _dtype(layer.get_output(0))


def _quantised(tensor: Any, makers: Mapping[str, Any]) -> str | None:
    """The dtype that a tensor is dequantised from, None if it is not; reshapes and transposes commute with that."""
    maker = makers.get(tensor.name) if tensor is not None else None
    while maker is not None and maker.type.name == "SHUFFLE":
        maker = makers.get(maker.get_input(0).name)
    return _dtype(maker.get_input(0)) if maker is not None and maker.type.name == "DEQUANTIZE" else None


def _dtype(tensor: Any) -> str:
    name: str = tensor.dtype.name
    return _DTYPES.get(name, name.lower())
