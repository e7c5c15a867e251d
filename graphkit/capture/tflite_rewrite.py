"""A copy of a TFLite file for tf2onnx, which tells tensors apart by name and converts the first graph alone."""

from __future__ import annotations

from typing import Any

from graphkit.capture.tflite_entry import Entry
from graphkit.capture.tflite_schema import TFLiteFile

_FIELDS = ("thenSubgraphIndex", "elseSubgraphIndex", "condSubgraphIndex", "bodySubgraphIndex", "initSubgraphIndex")


def needs_rewriting(file: TFLiteFile, entry: Entry) -> bool:
    """Whether tensors of one graph share a name or have none, or the graph to convert is not the first one."""
    if entry.subgraph != 0:
        return True
    names = [[t.name for t in graph.tensors] for graph in file.subgraphs]
    return any(len(set(own)) != len(own) or "" in own for own in names)


def rewritten(content: bytes, entry: Entry) -> bytes:
    """The file with unique names in each graph, and with the entry's graph and the bodies that it runs alone.

    Args:
        content: A file that `tflite_schema.read` has accepted.
    """
    import flatbuffers
    from tensorflow.lite.python import schema_py_generated as schema

    model = schema.ModelT.InitFromPackedBuf(content, 0)
    _keep(model, entry.subgraph)
    for graph in model.subgraphs:
        _name_tensors(graph)
    model.signatureDefs = None
    builder = flatbuffers.Builder(len(content))
    builder.Finish(model.Pack(builder), b"TFL3")
    return bytes(builder.Output())


def _keep(model: Any, main: int) -> None:
    """Leave the graph `main`, as the first one, and what it runs."""
    order = [main]
    for index in order:  # it grows meanwhile
        for options in _bodies(model.subgraphs[index]):
            for field in (f for f in _FIELDS if hasattr(options, f)):
                if getattr(options, field) not in order:
                    order.append(getattr(options, field))
    model.subgraphs = [model.subgraphs[index] for index in order]
    for graph in model.subgraphs:
        for options in _bodies(graph):
            for field in (f for f in _FIELDS if hasattr(options, f)):
                setattr(options, field, order.index(getattr(options, field)))


def _bodies(graph: Any) -> list[Any]:
    options = [operator.builtinOptions for operator in graph.operators or []]
    return [o for o in options if any(hasattr(o, field) for field in _FIELDS)]


def _name_tensors(graph: Any) -> None:
    used: set[bytes] = set()
    for position, tensor in enumerate(graph.tensors):
        name = tensor.name or b"tensor"
        if name in used:
            name = b"%s__%d" % (name, position)
        while name in used:
            name += b"_"
        tensor.name = name
        used.add(name)
