"""Two models as one: outputs of the first feed inputs of the second."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from typing import TYPE_CHECKING

from graphkit.errors import BadOption, ShapeMismatch
from graphkit.model import Model
from graphkit.rewrite.facts import stated
from graphkit.rewrite.surgery.tensors import Table

if TYPE_CHECKING:
    import onnx_ir as ir


def merge(first: Model, second: Model, connect: Mapping[str, str]) -> Model:
    """One model of two: it takes what the first takes and what is left of the second's inputs, and gives what the
    second gives and what is left of the first's outputs.

    Args:
        first: The model that runs first.
        second: The model that runs on what the first gives; names of it that the first has too are changed.
        connect: Input of the second by output of the first.

    Raises:
        UnknownName: there is no such output or input.
        ShapeMismatch: dtype or shape do not fit.
        BadOption: nothing is connected, opsets differ, or the two have different functions of one name.
    """
    if not connect:
        raise BadOption("nothing connects the two models", remedy="--map OUTPUT=INPUT")
    if not _agree(first, second):
        raise BadOption(
            f"the opsets differ: {_opsets(first)} and {_opsets(second)}",
            remedy="graphkit optimize --opset N --level 1 brings both to one",
        )
    a, b = Table(first), Table(second)
    pairs = [(a.output(ours), b.input(theirs)) for ours, theirs in connect.items()]
    for given, taken in pairs:
        _check(given, taken)
        if taken.is_graph_output():
            raise BadOption(f"`{taken.name}` of the second model is both input and output: nothing happens to it there")
    _separate(a, b)
    for given, taken in pairs:
        taken.replace_all_uses_with(given, replace_graph_outputs=True)
        b.graph.inputs.remove(taken)
    given_on = {id(given) for given, _ in pairs}
    outputs = [*b.graph.outputs, *(v for v in a.graph.outputs if id(v) not in given_on)]
    _move(a.graph, b.graph)
    a.graph.outputs.clear()
    a.graph.outputs.extend(outputs)
    _join_functions(a.ir, b.ir)
    a.ir.opset_imports.update(b.ir.opset_imports)
    merged = a.done(f"merge with {second.origin.name or 'a model'}")
    symbols = {d.symbol for d in merged.dims}
    more = tuple(d for d in second.dims if d.symbol not in symbols and d.symbol in merged.signature.symbols)
    return replace(merged, dims=(*merged.dims, *more))


def _agree(first: Model, second: Model) -> bool:
    ours, theirs = first.ir.opset_imports, second.ir.opset_imports
    return all(theirs.get(domain, version) == version for domain, version in ours.items())


def _opsets(model: Model) -> str:
    return ", ".join(f"{domain or 'ai.onnx'} {version}" for domain, version in sorted(model.ir.opset_imports.items()))


def _check(given: ir.Value, taken: ir.Value) -> None:
    if given.dtype != taken.dtype:
        ours, theirs = stated(given).dtype, stated(taken).dtype
        raise ShapeMismatch(f"`{given.name}` is {ours}, but `{taken.name}` takes {theirs}")
    if given.shape is None or taken.shape is None:
        return
    fits = len(given.shape) == len(taken.shape) and not any(
        isinstance(x, int) and isinstance(y, int) and x != y for x, y in zip(given.shape, taken.shape, strict=True)
    )
    if not fits:
        raise ShapeMismatch(f"`{given.name}` is {given.shape}, but `{taken.name}` takes {taken.shape}")


def _separate(a: Table, b: Table) -> None:
    """Give names of the second that the first has too other ones, in its bodies too."""
    taken = {v.name for graph in (a.graph, *a.graph.subgraphs()) for v in _values(graph)}
    nodes = {n.name for n in a.graph.all_nodes()}
    for graph in (b.graph, *b.graph.subgraphs()):
        for value in list(_values(graph)):
            if value.name in taken:
                _rename(graph, value, _free(str(value.name), taken))
            taken.add(value.name)
        for node in graph:
            if node.name in nodes:
                node.name = _free(node.name or node.op_type, nodes)
            nodes.add(node.name)


def _values(graph: ir.Graph | ir.Function) -> list[ir.Value]:
    weights = [] if not hasattr(graph, "initializers") else [*graph.initializers.values()]
    found = [*graph.inputs, *weights, *(o for node in graph for o in node.outputs)]
    return list({id(v): v for v in found if v.name}.values())


def _rename(graph: ir.Graph | ir.Function, value: ir.Value, name: str) -> None:
    weights = getattr(graph, "initializers", {})
    if value.name in weights:
        del weights[value.name]
        value.name = name
        weights[name] = value
    else:
        value.name = name


def _free(name: str, taken: set[str | None]) -> str:
    number = 2
    while f"{name}_{number}" in taken:
        number += 1
    return f"{name}_{number}"


def _move(into: ir.Graph, source: ir.Graph) -> None:
    nodes, inputs, weights = list(source), list(source.inputs), list(source.initializers.values())
    source.remove(nodes)
    source.inputs.clear()
    source.outputs.clear()
    source.initializers.clear()
    into.inputs.extend(inputs)
    for value in weights:
        into.register_initializer(value)
    into.extend(nodes)


def _join_functions(into: ir.Model, source: ir.Model) -> None:
    for key, function in source.functions.items():
        if key in into.functions:
            raise BadOption(
                f"both models have a function {key[0]}::{key[1]}",
                remedy="graphkit optimize --level 1 inlines functions",
            )
        into.functions[key] = function
