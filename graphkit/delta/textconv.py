"""A model as text that `git diff` can compare: renaming changes nothing, an inserted node changes few lines.

Nodes stand in the order in which the outputs need them, those that no output needs at the end. A value has no name:
`^1` is what the line above makes, `^3.1` the second output of what stands three lines up. (With numbers, one inserted
node would change every line below it.)
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping

from graphkit.delta.canonical import Canon, canonical
from graphkit.delta.changes import attribute_text, constant_text
from graphkit.delta.labels import Labels, is_parameter
from graphkit.delta.pairing import linear
from graphkit.delta.signature import type_text
from graphkit.view import ABSENT, GraphView, ModelView, WeightView
from graphkit.view.reader import collector_paused

_DIGITS = 12
"""Of a weight's digest."""


def textconv(view: ModelView) -> str:
    """The model as text, a line for each node.

    Raises:
        CorruptFile: the graph has a cycle, or a weight cannot be read.
    """
    with collector_paused():
        return "\n".join(_Text(view).lines()) + "\n"


class _Text:
    def __init__(self, view: ModelView) -> None:
        self.view = view
        self.labels = Labels(view, view)

    def lines(self) -> Iterator[str]:
        opsets = ", ".join(f"{domain or 'ai.onnx'} {version}" for domain, version in sorted(self.view.opsets.items()))
        yield f"onnx, IR version {self.view.ir_version}, opset {opsets}"
        yield from self._graph(self.view.graph, self.view.opsets, "", None)
        for function in sorted(self.view.functions, key=lambda function: function.key):
            yield ""
            yield f"function {function.domain}:{function.name} {' '.join(function.attributes)}".rstrip()
            yield from self._graph(function.body, function.opsets, "  ", {})

    def _graph(
        self, graph: GraphView, opsets: Mapping[str, int], indent: str, around: Mapping[str, str] | None
    ) -> Iterator[str]:
        """Lines of a graph; `around` says what the values outside a subgraph are called, None for the main graph."""
        named = around is None
        canon = canonical(self.view, graph, opsets, self.labels)
        words = _Words(self.labels, canon, around)
        for count, value in enumerate(canon.inputs):
            name = graph.values[value] if named else str(count)
            yield f"{indent}input {name}: {type_text(graph.types.get(value))}"
        for rank, node in enumerate(words.line):
            yield f"{indent}{words.node(node, rank)}"
            for name, body in sorted(graph.subgraphs(canon.nodes[node]), key=lambda pair: pair[0]):
                yield f"{indent}  {name}:"
                yield from self._graph(body, opsets, f"{indent}    ", words.outside(body, rank))
        for count, value in enumerate(canon.outputs):
            name = graph.values[value] if named else str(count)
            source = words.value(value, len(words.line))
            yield f"{indent}output {name}: {type_text(graph.types.get(value))} = {source}"


class _Words:
    """What the values of one graph are called."""

    def __init__(self, labels: Labels, canon: Canon, around: Mapping[str, str] | None) -> None:
        self.labels, self.canon, self.named = labels, canon, around is None
        self.around = around or {}
        ops = {op: count for count, op in enumerate(sorted(set(canon.graph.ops)))}
        self.line = linear(canon, [ops[canon.op(node)] for node in range(len(canon))])
        self.ranks = {node: rank for rank, node in enumerate(self.line)}
        self.inputs = {value: count for count, value in enumerate(canon.inputs)}

    def node(self, node: int, rank: int) -> str:
        canon = self.canon
        index = canon.nodes[node]
        domain = canon.graph.domains[index]
        operands = [self.value(value, rank) for value in canon.reads[node][: canon.own[node]]]
        captured = [self.value(value, rank) for value in canon.reads[node][canon.own[node] :]]
        if captured:
            operands.append(f"reads {' '.join(sorted(captured))}")
        stated = self.labels.attributes(canon.view, canon.opsets, canon.graph, index)
        attributes = [f"{name}={attribute_text(canon, node, name)}" for name in stated]
        made = len([value for value in canon.makes[node] if value])
        several = [f"-> {made}"] if made != 1 else []
        op = f"{domain}:{canon.op(node)}" if domain else canon.op(node)
        return " ".join([f"{op}({', '.join(operands)})", *attributes, *several])

    def value(self, value: int, rank: int) -> str:
        canon = self.canon
        if value == ABSENT:
            return "_"
        weight = canon.weights.get(value)
        if weight is not None:
            if is_parameter(weight) or (isinstance(weight, WeightView) and weight.size == 1):
                return constant_text(weight)
            digest = self.labels.content(weight, False)
            return f"{constant_text(weight, values=False)}:{digest[:_DIGITS] if self.labels.known(weight) else '?'}"
        made = canon.producers[value]
        if made >= 0:
            place = canon.places.get(value, 0)
            return f"^{rank - self.ranks[made]}" + (f".{place}" if place else "")
        if value in self.inputs:
            return canon.graph.values[value] if self.named else f"input {self.inputs[value]}"
        return self.around.get(canon.graph.values[value], "?")

    def outside(self, body: GraphView, rank: int) -> dict[str, str]:
        """What the values that a subgraph of the node at `rank` reads are called in it."""
        ids = {name: value for value, name in enumerate(self.canon.graph.values)}
        names = {n: self.value(ids[n], rank) if n in ids else self.around.get(n, "?") for n in body.captured()}
        return {name: f"outer {text}" for name, text in names.items()}
