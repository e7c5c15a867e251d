"""Where Q/DQ pairs go, and which of them share a scale: the rules by which TensorRT fuses.

From NVIDIA's "Working with Quantized Types" (TensorRT 11 documentation, "Q/DQ placement recommendations"):
- the inputs of layers that multiply are quantised, their outputs are not, nor is a bias;
- where a convolution is added to a shortcut, the shortcut is quantised and the convolution's own side is not: an extra
  pair there would keep the addition from being fused into the convolution. It is done where the sum is quantised, too,
  since only then the fused layer can write int8;
- Q and DQ move through pooling, transposition, reshaping and concatenation where the scales on both sides are equal:
  so the pairs on both sides of such nodes share one scale.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

from graphkit.precision.quant_select import Candidate, constant

if TYPE_CHECKING:
    import onnx_ir as ir

MOVES = ("MaxPool", "Transpose", "Reshape", "Flatten", "Squeeze", "Unsqueeze", "Identity", "DepthToSpace", "Concat")
"""Operators that Q and DQ move through: they choose among values or move them."""

_AFTER_SUM = ("Relu", "Clip", "LeakyRelu", "HardSwish")
"""What is fused behind a sum."""


@dataclass(frozen=True, slots=True)
class Spots:
    """What is to be quantised.

    Attributes:
        readers: By name of a float tensor, the node (by its place in the main graph) and slot that read it quantised.
        groups: Names of tensors that share one scale; those of one tensor alone are left out.
    """

    readers: Mapping[str, tuple[tuple[int, int], ...]]
    groups: tuple[tuple[str, ...], ...]


def find_spots(graph: ir.Graph, chosen: Sequence[Candidate]) -> Spots:
    """The pairs that the chosen nodes need, and those that follow from the rules above; linear in the graph."""
    places = {id(node): index for index, node in enumerate(graph)}
    readers: dict[str, list[tuple[int, int]]] = {}
    for each in chosen:
        readers.setdefault(_name(each.activation), []).append((places[id(each.node)], 0))
    for node, slot in _shortcuts(graph, chosen, set(readers)):
        value = node.inputs[slot]
        assert value is not None
        readers.setdefault(_name(value), []).append((places[id(node)], slot))
    return Spots({name: tuple(rows) for name, rows in readers.items()}, _groups(graph, set(readers)))


def watched(graph: ir.Graph, found: Sequence[Candidate]) -> tuple[str, ...]:
    """Every tensor that some choice among the found nodes quantises: of a sum, either side may be the shortcut."""
    spots = find_spots(graph, found)
    nodes = list(graph)
    sums = {i for rows in spots.readers.values() for i, _ in rows if nodes[i].op_type == "Add"}
    sides = (_name(value) for i in sums for value in nodes[i].inputs if value is not None)
    return tuple(dict.fromkeys((*spots.readers, *sorted(sides))))


def _name(value: ir.Value) -> str:
    assert value.name is not None
    return value.name


def _shortcuts(graph: ir.Graph, chosen: Sequence[Candidate], quantised: set[str]) -> list[tuple[ir.Node, int]]:
    convolutions = {id(c.node): c for c in chosen if c.node.op_type in ("Conv", "ConvTranspose")}
    found = []
    for node in graph:
        if node.op_type != "Add" or node.domain or not _sum_is_quantised(node, quantised):
            continue
        sides = [convolutions.get(id(_sole_producer(value))) for value in node.inputs]
        if any(value is None or constant(value) is not None for value in node.inputs) or not any(sides):
            continue
        left, right = sides
        # Of two convolutions the one with the smaller kernel is the shortcut.
        slot = (0 if _size(left) < _size(right) else 1) if left and right else (1 if left else 0)
        found.append((node, slot))
    return found


def _sole_producer(value: ir.Value | None) -> ir.Node | None:
    if value is None or len(value.uses()) != 1 or value.is_graph_output():
        return None
    producer: ir.Node | None = value.producer()
    return producer


def _size(candidate: Candidate) -> int:
    tensor = constant(candidate.weight)
    return tensor.size if tensor is not None else 0


def _sum_is_quantised(node: ir.Node, quantised: set[str]) -> bool:
    value = node.outputs[0]
    for _ in range(2):
        if value.name in quantised:
            return True
        users = value.consumers()
        after = next((u for u in users if u.op_type in _AFTER_SUM), None)
        if after is None:
            return any(u.op_type in MOVES and u.outputs[0].name in quantised for u in users)
        value = after.outputs[0]
    return value.name in quantised


def _groups(graph: ir.Graph, quantised: set[str]) -> tuple[tuple[str, ...], ...]:
    """From the outputs back, so that a node joins its inputs to a group only where its output is quantised further
    down."""
    parent: dict[str, str] = {name: name for name in quantised}

    def find(name: str) -> str:
        while parent[name] != name:
            parent[name] = parent[parent[name]]
            name = parent[name]
        return name

    for node in reversed(list(graph)):
        if node.op_type not in MOVES or node.domain or node.outputs[0].name not in parent:
            continue
        moved = node.inputs if node.op_type == "Concat" else node.inputs[:1]
        for value in moved:
            if value is None or not value.name or constant(value) is not None:
                continue
            parent.setdefault(value.name, value.name)
            parent[find(value.name)] = find(_name(node.outputs[0]))
    together: dict[str, list[str]] = {}
    for name in sorted(quantised):
        together.setdefault(find(name), []).append(name)
    return tuple(tuple(names) for names in together.values() if len(names) > 1)
