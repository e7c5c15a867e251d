"""What the tests of quantisation share: models, samples, and counts of a lowered graph."""

from __future__ import annotations

from collections import Counter

import numpy as np
import onnx
import onnx.parser
import onnx_ir as ir

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
