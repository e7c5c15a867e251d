from __future__ import annotations

import onnx
import onnx_ir as ir
import pytest
from onnx import parser

from graphkit.model import Model, Origin


@pytest.fixture(scope="session")
def graph():
    """Makes a Model of the text of an ONNX graph."""

    def make(text: str, **weights) -> Model:
        proto = parser.parse_model(f'<ir_version: 10, opset_import: ["" : 20, "local" : 1]>\n{text}')
        for name, value in weights.items():
            proto.graph.initializer.append(onnx.numpy_helper.from_array(value, name))
        return Model(ir.from_proto(proto), Origin("onnx text"))

    return make
