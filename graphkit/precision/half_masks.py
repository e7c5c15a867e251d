"""Masks that the low type cannot hold: a constant of -3.4e38 that only makes Softmax give zero.

Attention masks are commonly `torch.finfo(float32).min`. In float16 that is -infinity, so that every Add and Softmax it
reaches would have to stay in float32. A smaller constant masks as well: exp(-49152 + x) is zero in any type for every
score x within thousands. Where it is added, scores below 16 vanish beside it, as they did beside -3.4e38, so that a
row that is masked as a whole stays uniform.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import onnx_ir as ir

    from graphkit.precision.ranges import Range

SMALLER = {"fp16": -1.5 * 2.0**15, "bf16": -1.5 * 2.0**126}
"""Three quarters of the largest power of two: its sum with a score stays finite."""

_SCORES = {"fp16": 8192.0, "bf16": 2.0**120}
"""What scores may reach: masked ones are then too far below the others for exp to be more than zero."""

_MOVES = frozenset(("Identity", "Expand", "Reshape", "Unsqueeze", "Squeeze", "Transpose", "Slice"))


@dataclass(frozen=True, slots=True, eq=False)
class Mask:
    """A constant that was made smaller.

    Attributes:
        value: The initializer.
        old: What it was.
        scores: Tensors that are added to it, or stand in its place where nothing is masked.
        factors: Tensors that it is multiplied by: 1 where it masks, 0 elsewhere.
    """

    value: ir.Value
    old: ir.TensorProtocol
    scores: tuple[ir.Value, ...]
    factors: tuple[ir.Value, ...]

    def __str__(self) -> str:
        return f"{float(self.old.numpy().reshape(())):.3g} (`{self.value.name}`)"


def shrink(graph: ir.Graph, precision: str) -> list[Mask]:
    """Change such constants in place; returns them. Only those whose every way ends in a Softmax."""
    import numpy as np
    import onnx_ir as ir

    from graphkit.precision.half_keep import LARGEST

    found = []
    for value in graph.initializers.values():
        tensor = value.const_value
        if tensor is None or tensor.size != 1 or value.dtype != ir.DataType.FLOAT:
            continue
        if not -np.inf < float(tensor.numpy().reshape(())) < -LARGEST[precision]:
            continue
        way = _Way(graph)
        if way.ends_in_softmax(value, added=False):
            smaller = np.full(tensor.shape.numpy(), SMALLER[precision], np.float32)
            value.const_value = ir.tensor(smaller, name=value.name)
            found.append(Mask(value, tensor, tuple(way.scores), tuple(way.factors)))
    return found


def wrong(masks: list[Mask], seen: Mapping[int, Range], precision: str) -> list[Mask]:
    """Those whose scores are too large beside the smaller constant, or whose factors are not 0 or 1."""
    return [
        mask
        for mask in masks
        if any(_largest(v, seen) > _SCORES[precision] for v in mask.scores)
        or any(_largest(v, seen) > 1 for v in mask.factors)
    ]


def restore(masks: list[Mask]) -> None:
    """Give constants back what they were."""
    for mask in masks:
        mask.value.const_value = mask.old


def _largest(value: ir.Value, seen: Mapping[int, Range]) -> float:
    import numpy as np

    if value.const_value is not None:
        return float(np.abs(value.const_value.numpy()).max(initial=0))
    return seen[id(value)].largest if id(value) in seen else np.inf


class _Way:
    """What lies between a constant and the Softmax behind it."""

    def __init__(self, graph: ir.Graph) -> None:
        self._graph = graph
        self.scores: list[ir.Value] = []
        self.factors: list[ir.Value] = []

    def ends_in_softmax(self, value: ir.Value, *, added: bool) -> bool:
        uses = [(use.node, use.idx) for use in value.uses()]
        return bool(uses) and not value.is_graph_output() and all(self._goes_on(n, i, added) for n, i in uses)

    def _goes_on(self, node: ir.Node, position: int, added: bool) -> bool:
        if node.graph is not self._graph or node.domain:
            return False
        if node.op_type == "Softmax":
            return True
        others = list(_others(node, position))
        if node.op_type == "Where" and position > 0:
            self.scores.extend(others)
        elif node.op_type == "Add" and not added:
            self.scores.extend(others)
            added = True
        elif node.op_type == "Mul" and not added:
            self.factors.extend(others)
        elif node.op_type not in _MOVES or position > 0:
            return False
        return self.ends_in_softmax(node.outputs[0], added=added)


def _others(node: ir.Node, position: int) -> Iterator[ir.Value]:
    first = 1 if node.op_type == "Where" else 0
    yield from (v for i, v in enumerate(node.inputs) if i >= first and i != position and v is not None)
