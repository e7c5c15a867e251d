"""Small graphs in ONNX's text form, written to a folder."""

from __future__ import annotations

import onnx
import onnx.parser

from graphkit import view
from graphkit.analyze.cost import cost_of
from graphkit.analyze.inference import infer


def model(text, opset=21, functions=""):
    """A ModelProto: `text` is a graph, `name (inputs) => (outputs) <weights> { nodes }`."""
    opsets = f'"" : {opset}, "com.microsoft" : 1, "mine" : 1'
    return onnx.parser.parse_model(f"<ir_version: 10, opset_import: [{opsets}]>\n{text}\n{functions}")


def seen(made, folder, name="model.onnx"):
    """The view of a model that is written to a folder."""
    path = folder / name
    path.write_bytes(made.SerializeToString())
    return view.read(path)


def cost(text, folder, dims=None, **options):
    """The cost of a graph in text form."""
    return cost_of(infer(seen(model(text, **options), folder), dims))
