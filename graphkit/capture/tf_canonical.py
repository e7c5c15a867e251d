"""One order and one set of names for a graph, whatever order tf2onnx came to it in.

tf2onnx's names hold counters, uids of traced functions and, in an einsum, the address of a Python object; it sorts
nodes by these names. So the same graph would be written differently each time.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator
from typing import TYPE_CHECKING

from graphkit.capture.tf_paths import Layers, bodies, plain

if TYPE_CHECKING:
    import onnx_ir as ir


_PORT = re.compile(r":\d+$")


def canonical(model: ir.Model, layers: Layers) -> None:
    """Put the nodes in the order in which the outputs need them, and name what tf2onnx named.

    Nodes and values that have the name of a TensorFlow operation keep it; one made from an operation has its name and
    a number, any other its operator's.
    """
    _arrange(model.graph)
    graphs = [model.graph, *(g for g in model.graph.subgraphs() if g is not model.graph)]
    taken: set[str] = set()
    made: list[tuple[ir.Node | ir.Value, str]] = []
    for graph in graphs:
        for item, name, base in _named(graph):
            operation = layers.operation(name)
            if operation is not None and plain(_PORT.sub("", name)) == operation:
                taken.add(name)
            else:
                made.append((item, operation or base))
    numbers: dict[str, int] = {}
    for item, base in made:
        name = _numbered(base, numbers)
        while name in taken:
            name = _numbered(base, numbers)
        item.name = f"graphkit names {name}"  # beside the old names: values of one graph must differ at any time
    for item, _ in made:
        item.name = (item.name or "").removeprefix("graphkit names ")


def _numbered(base: str, numbers: dict[str, int]) -> str:
    numbers[base] = numbers.get(base, 0) + 1
    return f"{base}__{numbers[base]}"


def _named(graph: ir.Graph) -> Iterator[tuple[ir.Node | ir.Value, str, str]]:
    """Everything in a graph that has a name: itself, its name, and what to call it if that name means nothing."""
    for value in graph.inputs:
        yield value, value.name or "", "input"
    initializers = [*graph.initializers.values()]
    for value in initializers:
        yield value, value.name or "", "constant"
    for node in graph:
        yield node, node.name or "", node.op_type
        for output in node.outputs:
            if output.name:
                yield output, output.name, node.op_type


def _arrange(graph: ir.Graph) -> None:
    import onnx_ir as ir

    nodes = list(graph)
    ordered = _in_order(nodes, [value.producer() for value in graph.outputs])
    graph.remove(nodes)
    graph.extend(ordered)
    _arrange_initializers(graph, ordered)
    for node in ordered:
        for attribute in node.attributes.values():
            if attribute.type == ir.AttributeType.GRAPH:
                body = attribute.as_graph()
                body.name = attribute.name  # tf2onnx's holds the uid of the traced function
                _arrange(body)


def _in_order(nodes: list[ir.Node], last: Iterable[ir.Node | None]) -> list[ir.Node]:
    """Nodes in depth-first order from the last ones; what none of these needs, follows."""
    own = set(nodes)
    done: dict[ir.Node, None] = {}
    for start in (*last, *nodes):
        pending = [start] if start in own else []
        while pending:
            node = pending[-1]
            waiting = [] if node in done else [n for n in _needs(node) if n in own and n not in done]
            if waiting:
                pending.extend(reversed(waiting))
            else:
                done.setdefault(pending.pop())
    return list(done)


def _needs(node: ir.Node) -> Iterator[ir.Node]:
    """Nodes whose outputs a node reads, also from inside its bodies."""
    for value in _reads(node):
        producer = value.producer()
        if producer is not None:
            yield producer


def _reads(node: ir.Node) -> Iterator[ir.Value]:
    yield from (value for value in node.inputs if value is not None)
    for body in bodies(node):
        for inner in body:
            yield from _reads(inner)
        yield from body.outputs


def _arrange_initializers(graph: ir.Graph, ordered: list[ir.Node]) -> None:
    """Initialisers in the order in which they are read."""
    values = [value for node in ordered for value in _reads(node)]
    read = dict.fromkeys(v.name for v in values if v.name in graph.initializers)
    read |= dict.fromkeys(graph.initializers)
    entries = [(name, graph.initializers[name]) for name in read if name is not None]
    graph.initializers.clear()
    for _, value in entries:
        graph.register_initializer(value)
