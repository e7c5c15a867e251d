"""Names of new nodes: those of the nodes that they replace, so that people and tools find them again."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

from graphkit.traversal import graphs_of, nodes_of

if TYPE_CHECKING:
    import onnx_ir as ir

_MULTIPLIES = frozenset(("Attention", "Conv", "ConvTranspose", "GRU", "Gemm", "LSTM", "MatMul", "RNN"))


def inherit(died: Sequence[ir.Node], born: Sequence[ir.Node]) -> None:
    """Give each new node the name of one that went: of the same operator, else what multiplies that of what multiplied,
    else that of the node whose result it gives (the first that went). Each name once."""
    if not born:
        return
    free = [node for node in died if node.name]
    for new in born:
        heir = (
            next((old for old in free if old.op_type == new.op_type), None)
            or next((old for old in free if {old.op_type, new.op_type} <= _MULTIPLIES), None)
            or next((old for old in free if old.op_type not in _MULTIPLIES or new.op_type in _MULTIPLIES), None)
        )
        if heir is not None:
            free.remove(heir)
            new.name = heir.name


def names_of(model: ir.Model) -> set[str]:
    """The names of all nodes and values."""
    found = {v.name for g in graphs_of(model.graph) for v in (*g.inputs, *g.initializers.values())}
    for node in nodes_of(model.graph):
        found.add(node.name)
        for output in node.outputs:
            found.add(output.name)
    return {n for n in found if n}
