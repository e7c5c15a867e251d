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
    for node in after.graph.all_nodes():
        replaced = _between(node, producers, kept)
        if replaced:
            set_provenance(node, (line for old in replaced for line in provenance(old)))
    _inherit(after)


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
