"""Where each node of a rewritten graph comes from, when the rewriter does not say.

A value that has the same name in both graphs is the same value. So a new node replaces the old nodes that lie
between the values of its inputs and those of its outputs: their union is its origin.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from collections.abc import Set as AbstractSet
from typing import TYPE_CHECKING

from graphkit.model import SourceLine, provenance, set_provenance

if TYPE_CHECKING:
    import onnx_ir as ir


def carry_over(before: ir.Model, after: ir.Model) -> None:
    """Give every node of `after` the source lines of the nodes of `before` that it replaces; linear in both graphs."""
    producers = {o.name: n for n in before.graph.all_nodes() for o in n.outputs if o.name}
    kept = {o.name for n in after.graph.all_nodes() for o in n.outputs if o.name}
    kept |= {v.name for v in after.graph.inputs if v.name}
    absorbed = {read: n for n in producers.values() if (read := _absorbed_into(n, producers, kept))}
    border = kept | {o.name for n in absorbed.values() for o in n.outputs if o.name}
    for node in after.graph.all_nodes():
        replaced = _between(node, producers, border)
        replaced.extend(absorbed[o.name] for o in node.outputs if o.name in absorbed)
        if replaced:
            set_provenance(node, (line for old in replaced for line in provenance(old)))
    _inherit(after)


def _absorbed_into(old: ir.Node, producers: Mapping[str, ir.Node], kept: AbstractSet[str]) -> str | None:
    """The output of the convolution that an old normalization is now part of. onnxsim 0.8 keeps the convolution's name
    for it: the one case where a value of the same name is not the same value."""
    read = old.inputs[0] if old.op_type == "BatchNormalization" else None
    if read is None or not read.name or read.name not in kept or any(o.name in kept for o in old.outputs):
        return None
    maker = producers.get(read.name)
    return read.name if maker is not None and maker.op_type in ("Conv", "ConvTranspose", "Gemm") else None


def _between(node: ir.Node, producers: Mapping[str, ir.Node], kept: AbstractSet[str]) -> list[ir.Node]:
    """Old nodes that reach the outputs of `node` without passing a value that both graphs have, first one last."""
    found: dict[int, ir.Node] = {}
    pending = [producers[o.name] for o in node.outputs if o.name and o.name in producers]
    while pending:
        old = pending.pop()
        if id(old) in found:
            continue
        found[id(old)] = old
        for value in _reads(old):
            if value.name and value.name in producers and value.name not in kept:
                pending.append(producers[value.name])
    return list(found.values())


def _reads(node: ir.Node) -> Iterable[ir.Value]:
    return (v for v in node.inputs if v is not None and v.producer() is not None)


def _inherit(graph: ir.Model) -> None:
    """A new node whose outputs have new names belongs to whatever uses it, since it was made for that."""
    for node in reversed(list(graph.graph.all_nodes())):
        if provenance(node):
            continue
        lines: list[SourceLine] = []
        for output in node.outputs:
            for user, _ in output.uses():
                lines.extend(provenance(user))
        set_provenance(node, lines)
