"""Models of a wanted size for the benchmarks, with random weights: they are looked at, not run."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np


class _Builder:
    """A chain of nodes in the making."""

    def __init__(self) -> None:
        self.nodes: list[Any] = []
        self.weights: list[Any] = []
        self.types: list[Any] = []
        self.random = np.random.default_rng(0)

    def weight(self, *shape: int) -> str:
        from onnx import numpy_helper

        name = f"model.layers.{len(self.weights)}.weight"
        values = self.random.random(shape, dtype=np.float32)
        self.weights.append(numpy_helper.from_array(values, name))
        return name

    def node(self, op: str, *inputs: str, shape: tuple[Any, ...], **attributes: Any) -> str:
        from onnx import TensorProto, helper

        name = f"/model/layers.{len(self.nodes) // 14}/{op}_{len(self.nodes)}"
        output = f"{name}_output_0"
        self.nodes.append(helper.make_node(op, list(inputs), [output], name=name, **attributes))
        self.types.append(helper.make_tensor_value_info(output, TensorProto.FLOAT, shape))
        return output

    def save(self, path: Path, input_shape: tuple[Any, ...], output: str) -> None:
        import onnx
        from onnx import TensorProto, helper

        inputs = [helper.make_tensor_value_info("x", TensorProto.FLOAT, input_shape)]
        outputs = [helper.make_tensor_value_info(output, TensorProto.FLOAT, None)]
        types = [t for t in self.types if t.name != output]
        graph = helper.make_graph(self.nodes, "made", inputs, outputs, self.weights, value_info=types)
        model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=9)
        onnx.save(model, path)


def resnet(path: Path) -> None:
    """ResNet-18 with its batch normalizations: 69 nodes, 47 MB."""
    made = _Builder()

    def conv(x: str, inside: int, outside: int, size: int, side: int, stride: int = 1) -> str:
        shape = ("batch", outside, side, side)
        pads, strides = [size // 2] * 4, [stride] * 2
        x = made.node("Conv", x, made.weight(outside, inside, size, size), shape=shape, pads=pads, strides=strides)
        return made.node("BatchNormalization", x, *(made.weight(outside) for _ in range(4)), shape=shape)

    x = made.node("Relu", conv("x", 3, 64, 7, 112, 2), shape=("batch", 64, 112, 112))
    x = made.node("MaxPool", x, shape=("batch", 64, 56, 56), kernel_shape=[3, 3], strides=[2, 2], pads=[1] * 4)
    inside = 64
    for channels, side in ((64, 56), (128, 28), (256, 14), (512, 7)):
        for _ in range(2):
            shape, stride = ("batch", channels, side, side), 1 if inside == channels else 2
            y = made.node("Relu", conv(x, inside, channels, 3, side, stride), shape=shape)
            y = conv(y, channels, channels, 3, side)
            shortcut = x if stride == 1 else conv(x, inside, channels, 1, side, stride)
            x = made.node("Relu", made.node("Add", y, shortcut, shape=shape), shape=shape)
            inside = channels
    x = made.node("Flatten", made.node("GlobalAveragePool", x, shape=("batch", 512, 1, 1)), shape=("batch", 512))
    x = made.node("Gemm", x, made.weight(512, 1000), made.weight(1000), shape=("batch", 1000))
    made.save(path, ("batch", 3, 224, 224), x)


def transformer(path: Path, nodes: int = 20_000) -> None:
    """Decomposed attention blocks, every node with a name and a type: 28 MB at 20,000 nodes."""
    made = _Builder()
    x, shape, width = "x", ("batch", 16, 32), 32
    while len(made.nodes) < nodes:
        q, k, v = (made.node("MatMul", x, made.weight(width, width), shape=shape) for _ in range(3))
        k = made.node("Transpose", k, shape=("batch", width, 16), perm=[0, 2, 1])
        scores = made.node("MatMul", q, k, shape=("batch", 16, 16))
        scores = made.node("Softmax", scores, shape=("batch", 16, 16), axis=-1)
        x = made.node("Add", x, made.node("MatMul", scores, v, shape=shape), shape=shape)
        mean = made.node("ReduceMean", x, shape=("batch", 16, 1), axes=[-1], keepdims=1)
        y = made.node("MatMul", made.node("Sub", x, mean, shape=shape), made.weight(width, width), shape=shape)
        y = made.node("Relu", made.node("Add", y, made.weight(width), shape=shape), shape=shape)
        x = made.node("Add", x, y, shape=shape)
    made.save(path, shape, x)


def big(path: Path, layers: int = 31) -> None:
    """Layers of 64 MB each: 2.0 GB at 31, just below protobuf's limit for one file."""
    made = _Builder()
    x = "x"
    for _ in range(layers):
        x = made.node("Relu", made.node("MatMul", x, made.weight(4096, 4096), shape=("n", 4096)), shape=("n", 4096))
    made.save(path, ("n", 4096), x)
