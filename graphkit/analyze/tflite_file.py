"""A TFLite file, without TensorFlow."""

from __future__ import annotations

from collections import Counter
from pathlib import Path

from graphkit.analyze.inspection import Inspection, Stored, totals
from graphkit.analyze.tflite_names import NAMES
from graphkit.capture import tflite_schema
from graphkit.capture.tflite_schema import CUSTOM, Operator, Subgraph
from graphkit.shapes import Dim, TensorSpec


def look_at(path: Path) -> Inspection:
    """What a TFLite file holds. Raises: `CorruptFile`."""
    file = tflite_schema.read(path)
    signature = next((s for s in file.signatures if s.subgraph == 0), None)
    main = file.subgraphs[0]
    names = list(tflite_schema.public_names(file, signature))
    inputs, outputs = names[: len(main.inputs)], names[len(main.inputs) :]
    operators = Counter(_name(operator) for graph in file.subgraphs for operator in graph.operators)
    ranked = tuple(sorted(operators.items(), key=lambda row: (-row[1], row[0])))
    stored = tuple(
        Stored(tensor.name, tensor.dtype, tensor.shape)
        for g in file.subgraphs
        for tensor in g.tensors
        if tensor.constant
    )
    scaled = [tensor for graph in file.subgraphs for tensor in graph.tensors if tensor.scales]
    facts = [("subgraphs", str(len(file.subgraphs)))]
    facts += [("signature", s.key) for s in file.signatures]
    if scaled:
        channels = sum(len(tensor.scales) > 1 for tensor in scaled)
        facts.append(("quantised", f"{len(scaled)} tensors, {channels} of them per channel"))
    return Inspection(
        path.name, "TFLite", path.stat().st_size, tuple(facts), _specs(main, inputs, main.inputs),
        _specs(main, outputs, main.outputs), ranked, totals(stored), stored,
        ("cost and memory are those of its ONNX (graphkit convert)",),
    )  # fmt: skip


def _name(operator: Operator) -> str:
    if operator.code == CUSTOM:
        return operator.custom
    return NAMES[operator.code] if operator.code < len(NAMES) else f"operator {operator.code}"


def _specs(graph: Subgraph, names: list[str], indices: tuple[int, ...]) -> tuple[TensorSpec, ...]:
    found = []
    for name, index in zip(names, indices, strict=True):
        tensor = graph.tensors[index]
        shape: tuple[Dim, ...] = tuple(None if size < 0 else size for size in tensor.shape)
        found.append(TensorSpec(name, tensor.dtype, shape))
    return tuple(found)
