"""Types at the doors of If, Loop and Scan: what their bodies are given, and what comes out."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

from graphkit.analyze.node import Node
from graphkit.analyze.tensors import Tensor

if TYPE_CHECKING:
    from graphkit.analyze.inference import Known, Table


def body_inputs(table: Table, index: int) -> list[Known]:
    """Types of a body's inputs, as far as they hold in every run of it."""
    from graphkit.analyze.inference import Known

    node = Node(table, index)
    if node.op != "Scan" or node.domain or node.opset < 9:
        return []
    scanned = node.attribute("num_scan_inputs", 0)
    axes = node.attribute("scan_input_axes", (0,) * scanned)
    states = len(node.reads) - scanned
    found: list[Known] = [Known()] * states
    for slot in range(scanned):
        shape = node.shape(states + slot)
        part = None
        if shape is not None:
            axis = axes[slot] % max(len(shape), 1)
            part = shape[:axis] + shape[axis + 1 :]
        found.append(Known(Tensor(part, node.dtype(states + slot))))
    return found


def body_outputs(table: Table, index: int, bodies: Sequence[tuple[str, Table]]) -> tuple[Tensor, ...]:
    """Types of the outputs of If: what both branches agree on. Loop and Scan: dtypes only, since sizes may change."""
    node = Node(table, index)
    rows = [[body.tensors[v] for v in body.graph.outputs] for _, body in bodies]
    if node.domain or not rows:
        return ()
    if node.op == "If" and len(rows) == 2 and len(rows[0]) == len(rows[1]):
        return tuple(map(_agreed, rows[0], rows[1]))
    if node.op in ("Loop", "Scan"):
        return tuple(Tensor(None, each.dtype) for each in rows[0][1 if node.op == "Loop" else 0 :])
    return ()


def _agreed(a: Tensor, b: Tensor) -> Tensor:
    dtype = a.dtype if a.dtype == b.dtype else None
    if a.shape is None or b.shape is None or len(a.shape) != len(b.shape):
        return Tensor(None, dtype)
    return Tensor(tuple(x if x == y else None for x, y in zip(a.shape, b.shape, strict=True)), dtype)
