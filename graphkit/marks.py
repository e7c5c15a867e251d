"""What TensorRT alone reads in a graph: set last, on the way to it, and taken off for everything else."""

from __future__ import annotations

from typing import TYPE_CHECKING

from graphkit.model import Model
from graphkit.traversal import nodes_of

if TYPE_CHECKING:
    import onnx_ir as ir

DECOMPOSABLE = "TRT_decomposable"


def needs_mark(graph: ir.Model) -> bool:
    """Whether `mark` would change anything."""
    return any(_to_mark(node) for node in nodes_of(graph.graph))


def mark(model: Model) -> Model:
    """The model for TensorRT's builder: `Attention` that has no kernel of its own may be taken apart.

    Kernels are there for some sizes of heads in float16 and bfloat16 (32 to 256 were built, 8 and 512 refused) and
    for hardly any float32; without one the builder stops, unless the node has `TRT_decomposable=1`, which is a leave
    and no order (`IAttention::setDecomposable`). onnx.checker and ONNX Runtime refuse that attribute, so the marked
    model is for TensorRT alone. Weights are shared with the given model.
    """
    import onnx_ir as ir

    if not needs_mark(model.ir):
        return model
    graph = model.ir.clone()
    for node in nodes_of(graph.graph):
        if _to_mark(node):
            node.attributes[DECOMPOSABLE] = ir.AttrInt64(DECOMPOSABLE, 1)
    return model.with_step("marked for TensorRT", graph)


def take_off(graph: ir.Model) -> int:
    """Remove the marks of a graph, in place: they change nothing that is computed. Returns how many there were."""
    marked = [node for node in nodes_of(graph.graph) if node.op_type == "Attention" and DECOMPOSABLE in node.attributes]
    for node in marked:
        del node.attributes[DECOMPOSABLE]
    return len(marked)


def _to_mark(node: ir.Node) -> bool:
    return node.op_type == "Attention" and not node.domain and DECOMPOSABLE not in node.attributes
