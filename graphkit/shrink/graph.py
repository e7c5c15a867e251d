"""A graph as numbered nodes and named tensors, and parts of it.

Any set of nodes is a part: what it reads from nodes outside becomes an input, fed with the value that the tensor had
in the whole model. The bodies of If, Loop and Scan belong to their node.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable, Iterator
from dataclasses import dataclass
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import onnx_ir as ir

    from graphkit.model import Model


@dataclass(frozen=True, slots=True)
class Region:
    """A part of a graph.

    Attributes:
        nodes: Positions of its nodes.
        outputs: Tensors that it gives, in the graph's order.
    """

    nodes: frozenset[int]
    outputs: tuple[str, ...]


class Graph:
    """The top graph of a model, whose nodes must be in topological order.

    Attributes:
        nodes: Its nodes.
        makers: Position of the node that makes a tensor.
        reads: For each node the tensors that it, or a body inside it, reads.
        inputs: Its inputs that are no initializers.
        weights: Its initializers.
        outputs: Its outputs that nodes make.
    """

    def __init__(self, model: Model) -> None:
        graph = model.ir.graph
        self.nodes = tuple(graph)
        self.weights = frozenset(graph.initializers)
        self.inputs = tuple(v.name for v in graph.inputs if v.name and v.name not in self.weights)
        self.makers = {v.name: i for i, n in enumerate(self.nodes) for v in n.outputs if v.name}
        self._rank = {name: i for i, name in enumerate(self.makers)}
        tops = {*map(id, graph.inputs), *map(id, graph.initializers.values())}
        tops.update(id(v) for n in self.nodes for v in n.outputs)
        self.reads = tuple(
            tuple(dict.fromkeys(v.name for v in _reads(n) if v.name and id(v) in tops)) for n in self.nodes
        )
        self.outputs = tuple(v.name for v in graph.outputs if v.name in self.makers)
        self._readers: dict[str, list[int]] = {}
        for i, names in enumerate(self.reads):
            for name in names:
                self._readers.setdefault(name, []).append(i)

    @property
    def whole(self) -> Region:
        """All of it."""
        return Region(frozenset(range(len(self.nodes))), self.ordered(self.outputs))

    def ordered(self, names: Iterable[str]) -> tuple[str, ...]:
        """Tensors in the order in which they are made."""
        return tuple(sorted(set(names), key=self._rank.__getitem__))

    def part(self, region: Region, nodes: Collection[int]) -> Region:
        """Some nodes of a region; they give what the region gives and what its other nodes read from them."""
        kept = frozenset(nodes)
        gone, wanted = region.nodes - kept, set(region.outputs)
        made = [v.name for i in kept for v in self.nodes[i].outputs if v.name]
        given = [n for n in made if n in wanted or any(r in gone for r in self._readers.get(n, ()))]
        ends = [n for n in made if not any(r in kept for r in self._readers.get(n, ()))]
        return Region(kept, self.ordered(given or ends))

    def leading_to(self, region: Region, outputs: Iterable[str]) -> Region:
        """The nodes of a region that some of its tensors depend on."""
        wanted = self.ordered(outputs)
        return Region(self.before(wanted, within=region.nodes), wanted)

    def before(self, names: Iterable[str], *, within: Collection[int], stop: Collection[str] = ()) -> frozenset[int]:
        """Nodes that some tensors depend on; what lies behind the tensors of `stop` is left out."""
        kept: set[int] = set()
        pending = list(names)
        while pending:
            name = pending.pop()
            maker = self.makers.get(name)
            if maker is None or maker in kept or maker not in within or name in stop:
                continue
            kept.add(maker)
            pending.extend(self.reads[maker])
        return frozenset(kept)

    def after(self, position: int) -> frozenset[int]:
        """A node and all that depend on it."""
        found: set[int] = set()
        pending = [position]
        while pending:
            node = pending.pop()
            if node not in found:
                found.add(node)
                pending.extend(r for v in self.nodes[node].outputs for r in self._readers.get(v.name or "", ()))
        return frozenset(found)

    def needed(self, region: Region) -> tuple[str, ...]:
        """Tensors that a region reads and does not make, weights left out: graph inputs first, in order."""
        read = dict.fromkeys(name for i in sorted(region.nodes) for name in self.reads[i])
        inner = [n for n in read if n in self.makers and self.makers[n] not in region.nodes]
        return (*(n for n in self.inputs if n in read), *self.ordered(inner))

    def units(self, nodes: Collection[int], uncut: Collection[str]) -> list[tuple[int, ...]]:
        """Nodes that stay together because a tensor between them can be neither input nor output; in order.

        Args:
            uncut: Such tensors.
        """
        leader = {i: i for i in nodes}

        def find(i: int) -> int:
            while leader[i] != i:
                leader[i] = leader[leader[i]]
                i = leader[i]
            return i

        for name in uncut:
            group = [i for i in (self.makers.get(name), *self._readers.get(name, ())) if i in leader]
            for other in group[1:]:
                leader[find(other)] = find(group[0])
        members: dict[int, list[int]] = {}
        for i in sorted(nodes):
            members.setdefault(find(i), []).append(i)
        return sorted((tuple(each) for each in members.values()), key=lambda unit: unit[-1])


def names_in(model: Model) -> frozenset[str]:
    """Names of all nodes and tensors, bodies included."""
    nodes = list(model.ir.graph.all_nodes())
    tensors = [*model.ir.graph.inputs, *model.ir.graph.initializers.values(), *(v for n in nodes for v in n.outputs)]
    return frozenset(n for n in (*(node.name for node in nodes), *(v.name for v in tensors)) if n)


def _reads(node: ir.Node) -> Iterator[ir.Value]:
    import onnx_ir as ir

    yield from (v for v in node.inputs if v is not None)
    for attribute in node.attributes.values():
        bodies = {ir.AttributeType.GRAPH: lambda a: [a.value], ir.AttributeType.GRAPHS: lambda a: list(a.value)}
        for body in bodies.get(attribute.type, lambda _: [])(attribute):
            yield from body.outputs
            for inner in body:
                yield from _reads(inner)
