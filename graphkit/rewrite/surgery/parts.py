"""Parts of a model: between given tensors, up to given tensors, two halves; and tensors that become outputs."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import TYPE_CHECKING

from graphkit.errors import BadOption
from graphkit.model import Model
from graphkit.rewrite.surgery.tensors import Table, names

if TYPE_CHECKING:
    import onnx_ir as ir


def extract(model: Model, inputs: Sequence[str], outputs: Sequence[str]) -> Model:
    """The part of a model between tensors, which become its inputs and outputs under their names.

    Args:
        model: The model.
        inputs: Where the part begins: inputs of the model, or inner tensors; () for the model's own.
        outputs: Where it ends; () for the model's own. A node's name stands for its one output.

    Raises:
        UnknownName: there is no such tensor.
        BadOption: the outputs need something that is not among the inputs, or do not depend on an input.
    """
    table = Table(model)
    ends = list(dict.fromkeys(table.find(name) for name in outputs)) or list(table.graph.outputs)
    starts = list(dict.fromkeys(table.find(name) for name in inputs)) or [
        v for v in table.graph.inputs if v.name not in table.graph.initializers
    ]
    weight = next((v for v in ends if v.is_initializer() and outputs), None)
    if weight is not None:
        raise BadOption(f"`{weight.name}` is a weight: nothing computes it", remedy="name a tensor that a node makes")
    twice = next((v for v in ends if v in starts), None)
    if twice is not None:
        raise BadOption(f"`{twice.name}` is both input and output of the part: there is nothing between")
    needed, read = _needed(ends, starts)
    fed = [v for v in table.graph.inputs if v.name not in table.graph.initializers]
    lacking = [v for v in fed if v in read and v not in starts]
    if lacking and inputs:
        raise BadOption(
            f"{names(ends)} also depend{'s' if len(ends) == 1 else ''} on {names(lacking)}",
            remedy=f"add --inputs {','.join(str(v.name) for v in lacking)}",
        )
    idle = [v for v in starts if v not in read]
    if idle and inputs:
        verb = "does" if len(ends) == 1 else "do"
        raise BadOption(f"{names(ends)} {verb} not depend on {names(idle)}", remedy="leave it out of --inputs")
    _become_inputs(table, [v for v in starts if v in read])
    _become_outputs(table, ends)
    table.graph.remove([n for n in table.graph if n not in needed], safe=True)
    return table.done(f"extract {names(ends)}")


def cut(model: Model, after: Sequence[str]) -> Model:
    """A model that ends at tensors: what follows them is gone, and inputs that only it needed.

    Raises:
        UnknownName: there is no such tensor.
    """
    return extract(model, (), after)


def mark(model: Model, tensors: Sequence[str]) -> Model:
    """A model that gives inner tensors too, after its own outputs.

    Raises:
        UnknownName: there is no such tensor.
        BadOption: it is an output already, an input or a weight, or its dtype is not known.
    """
    table = Table(model)
    for value in [table.find(name) for name in tensors]:
        if value.is_graph_input() or value.is_initializer():
            kind = "a weight" if value.is_initializer() else "an input"
            raise BadOption(f"`{value.name}` is {kind}: nothing computes it", remedy="name a tensor that a node makes")
        if value in table.graph.outputs:
            raise BadOption(f"`{value.name}` is an output already")
        table.state(value)
        table.graph.outputs.append(value)
    return table.done(f"mark {', '.join(tensors)}")


def split(model: Model, at: Sequence[str]) -> tuple[Model, Model]:
    """The two parts of a model before and after tensors; the first gives what the second takes.

    Args:
        model: The model.
        at: The boundary: every path from an input to an output of the second part goes through one of these, or
            starts at an input of the model, which the second part then takes too.

    Raises:
        UnknownName: there is no such tensor.
        BadOption: the second part would need other inner tensors too: they are named.
    """
    table = Table(model)
    boundary = [table.find(name) for name in at]
    if any(v.is_graph_input() or v.is_initializer() for v in boundary):
        raise BadOption("a boundary is made of inner tensors", remedy="graphkit inspect --layers shows their names")
    upper, _ = _needed(boundary, ())
    rest = [v for v in table.graph.outputs if v.producer() not in upper]
    if not rest:
        raise BadOption(f"nothing of the model comes after {names(boundary)}", remedy="graphkit edit cut ends it there")
    lower, read = _needed(rest, boundary)
    both = upper & lower
    if both:
        needed = [v for n in table.graph if n in both for v in n.outputs if any(u not in upper for u, _ in v.uses())]
        raise BadOption(
            f"the part after {names(boundary)} also needs {names(needed[:4])}, which the part before computes",
            remedy=f"--at {','.join(str(v.name) for v in (*boundary, *needed))}",
        )
    finished = [v.name for v in table.graph.outputs if v.producer() in upper and v not in boundary]
    inputs = [v.name for v in table.graph.inputs if v in read and v.name not in table.graph.initializers]
    first = extract(model, (), [*(str(n) for n in finished), *(str(v.name) for v in boundary)])
    second = extract(
        model, [*(str(v.name) for v in boundary if v in read), *map(str, inputs)], [str(v.name) for v in rest]
    )
    return first, second


def _needed(ends: Iterable[ir.Value], starts: Iterable[ir.Value]) -> tuple[set[ir.Node], set[ir.Value]]:
    """Nodes from which the ends are computed, looking no further than the starts; and the values that they read."""
    stop = set(starts)
    pending = [v for v in ends if v not in stop]
    nodes: set[ir.Node] = set()
    values: set[ir.Value] = {v for v in ends if v.producer() is None}
    while pending:
        node = pending.pop().producer()
        if node is None or node in nodes:
            continue
        nodes.add(node)
        for value in _reads(node):
            values.add(value)
            if value not in stop:
                pending.append(value)
    return nodes, values


def _reads(node: ir.Node) -> list[ir.Value]:
    """What a node reads of its own graph, the bodies of a node included."""
    found = [v for v in node.inputs if v is not None]
    for attribute in node.attributes.values():
        if attribute.type.name in ("GRAPH", "GRAPHS"):
            graphs = [attribute.as_graph()] if attribute.type.name == "GRAPH" else attribute.as_graphs()
            for graph in graphs:
                found.extend(v for inner in graph for v in _reads(inner))
                found.extend(graph.outputs)
    return found


def _become_inputs(table: Table, values: Sequence[ir.Value]) -> None:
    import onnx_ir as ir

    kept = []
    for value in values:
        if value.is_graph_input():
            kept.append(value)
            continue
        table.state(value)
        name = value.name
        new = ir.Value(name=name, type=value.type, shape=value.shape)
        value.name = table.free_name(f"{name}_before")
        value.replace_all_uses_with(new, replace_graph_outputs=True)
        kept.append(new)
    overridable = [v for v in table.graph.inputs if v.name in table.graph.initializers]
    table.graph.inputs.clear()
    table.graph.inputs.extend([*kept, *overridable])


def _become_outputs(table: Table, values: Sequence[ir.Value]) -> None:
    for value in values:
        table.state(value)
    table.graph.outputs.clear()
    table.graph.outputs.extend(values)
