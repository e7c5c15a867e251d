"""What the tests of quantisation share: models, samples, and counts of a lowered graph."""

from __future__ import annotations

from collections import Counter

import numpy as np
import onnx
import onnx.parser
import onnx_ir as ir
from onnx import TensorProto

from graphkit.model import Model, Origin, SourceLine, set_provenance
from graphkit.parity.runners import OrtRunner
from graphkit.precision.data import made_up


def model(proto: onnx.ModelProto) -> Model:
    """A Model whose nodes each come from a line of their own."""
    graph = ir.from_proto(proto)
    for line, node in enumerate(graph.graph.all_nodes(), 1):
        set_provenance(node, [SourceLine(f"net.{node.name}", "net.py", line)])
    return Model(graph, Origin("onnx", "net"))


def text(graph: str, opset: int = 20, **weights: np.ndarray) -> Model:
    """A Model of the text of an ONNX graph, with initializers."""
    proto = onnx.parser.parse_model(f'<ir_version: 10, opset_import: ["" : {opset}]>\n{graph}')
    proto.graph.initializer.extend(onnx.numpy_helper.from_array(value, name) for name, value in weights.items())
    return Model(ir.from_proto(proto), Origin("onnx text"))


def samples(of: Model, count: int = 4) -> list[dict[str, np.ndarray]]:
    return list(made_up(of, count))


def operators(of: Model) -> Counter[str]:
    return Counter(node.op_type for node in of.ir.graph)


def producer(of: Model, name: str, slot: int) -> ir.Node | None:
    """What makes an input of the node `node.NAME`."""
    node = next(n for n in of.ir.graph if n.name == f"node.{name}")
    return node.inputs[slot].producer()


def outputs(of: Model, sample: dict[str, np.ndarray]) -> dict[str, np.ndarray]:
    with OrtRunner(of, optimize=False) as runner:
        return runner.run(sample)


def cosine(a: np.ndarray, b: np.ndarray) -> np.ndarray:
    """Of each row."""
    return (a * b).sum(-1) / (np.linalg.norm(a, axis=-1) * np.linalg.norm(b, axis=-1))


PRODUCTS = ("Conv", "ConvTranspose", "Gemm", "MatMul")
_ELEMENT = {
    "fp16": TensorProto.FLOAT16,
    "bf16": TensorProto.BFLOAT16,
    "int8": TensorProto.INT8,
    "fp8": TensorProto.FLOAT8E4M3FN,
    "int4": TensorProto.INT4,
}


def held(proto: onnx.ModelProto, precision: str) -> tuple[int, int]:
    """How many products of a graph, its bodies included, really read operands of that precision, and how many there
    are: counted with onnx alone, and not as graphkit counts."""
    return _held(onnx.shape_inference.infer_shapes(proto, strict_mode=True).graph, _ELEMENT[precision], {}, {})


def _held(graph: onnx.GraphProto, wanted: int, types: dict[str, int], makers: dict) -> tuple[int, int]:
    types = types | {v.name: v.type.tensor_type.elem_type for v in (*graph.input, *graph.value_info, *graph.output)}
    types |= {t.name: t.data_type for t in graph.initializer}
    makers = makers | {name: node for node in graph.node for name in node.output}
    low = total = 0
    for node in graph.node:
        for attribute in node.attribute:
            if attribute.type == onnx.AttributeProto.GRAPH:
                inner = _held(attribute.g, wanted, types, makers)
                low, total = low + inner[0], total + inner[1]
        if node.op_type in PRODUCTS:
            sides = [_reads(name, types, makers) for name in node.input[:2]]
            low += sides[1] == wanted if wanted == TensorProto.INT4 else sides == [wanted, wanted]
            total += 1
    return low, total


def _reads(name: str, types: dict[str, int], makers: dict) -> int:
    maker = makers.get(name)
    return types[maker.input[0] if maker is not None and maker.op_type == "DequantizeLinear" else name]
