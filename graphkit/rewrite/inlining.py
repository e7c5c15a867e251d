"""Functions of a model, put where they are called."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from typing import TYPE_CHECKING, TypeAlias

from graphkit.errors import CorruptFile
from graphkit.model import SourceLine, provenance, set_provenance

if TYPE_CHECKING:
    import onnx_ir as ir

    Key: TypeAlias = tuple[str, str, str]

MOST_NODES = 1_000_000
"""Nodes that inlining may make: thirty functions that call the next one twice would make a thousand million."""


def inline(model: ir.Model) -> bool:
    """Put the body of every function where it is called, in place; whether there was any.

    Every node has the source lines of the call besides its own, and as `version` the opset that its function was
    written for. A function that is handed a graph as an attribute stays what it is.

    Raises:
        CorruptFile: functions call one another without end, or would make more than `MOST_NODES` nodes.
    """
    if not model.functions:
        return False
    functions = {key: function for key, function in model.functions.items() if not _takes_graphs(function)}
    _refuse_too_many(model, functions)
    pending = list(_calls(model.graph.all_nodes(), functions))
    found = bool(pending)
    while pending:
        node = pending.pop()
        function = functions[node.op_identifier()]
        for domain, version in function.opset_imports.items():
            model.opset_imports.setdefault(domain, version)
        pending.extend(_calls(_nested(_expand(node, function)), functions))
    for key in functions:
        del model.functions[key]
    return found


def _calls(nodes: Iterable[ir.Node], functions: dict[Key, ir.Function]) -> Iterator[ir.Node]:
    return (node for node in nodes if node.op_identifier() in functions)


def _refuse_too_many(model: ir.Model, functions: dict[Key, ir.Function]) -> None:
    counts: dict[Key, int] = {}
    open_: set[Key] = set()

    def count(key: Key) -> int:
        if key not in counts:
            if key in open_:
                raise CorruptFile(f"function `{key[1]}` calls itself", remedy="export the model again")
            open_.add(key)
            counts[key] = sum(
                count(node.op_identifier()) if node.op_identifier() in functions else 1
                for node in functions[key].all_nodes()
            )
            open_.discard(key)
        return counts[key]

    total = sum(count(node.op_identifier()) for node in _calls(model.graph.all_nodes(), functions))
    if total > MOST_NODES:
        raise CorruptFile(
            f"inlining the model's functions would make {total:,} nodes; the limit is {MOST_NODES:,}",
            remedy="export the model without functions",
        )


def _takes_graphs(function: ir.Function) -> bool:
    return any(
        attribute.is_ref() and attribute.type.name in ("GRAPH", "GRAPHS")
        for node in function.all_nodes()
        for attribute in node.attributes.values()
    )


def _expand(node: ir.Node, function: ir.Function) -> list[ir.Node]:
    """Put a copy of the function where its call stands; returns the nodes that came."""
    import onnx_ir as ir

    copy = function.clone()
    given = {**{a.name: a for a in function.attributes.values() if a.value is not None}, **node.attributes}
    lines = provenance(node)
    opset = function.opset_imports.get("")
    for inner in copy.all_nodes():
        _resolve(inner, given)
        set_provenance(inner, _joined(provenance(inner), lines))
        if inner.version is None and not inner.domain:
            inner.version = opset
    formal_to_given = dict(zip(copy.inputs, [*node.inputs, *[None] * len(copy.inputs)], strict=False))
    results = [formal_to_given.get(value, value) for value in copy.outputs]
    for formal, value in formal_to_given.items():
        for user, index in formal.uses():
            user.replace_input_with(index, value)
    graph = node.graph
    assert graph is not None
    body = list(copy)
    copy.outputs.clear()  # else what made them would still count as made for the outputs of a graph
    copy.remove(body)
    graph.insert_before(node, body)
    for old, new in zip(node.outputs, results, strict=False):
        made_here = new is not None and new.producer() is not None and new not in formal_to_given.values()
        if new is None:
            continue
        if not made_here or new.is_graph_output():
            through = ir.Node("", "Identity", [new], num_outputs=1)
            set_provenance(through, lines)
            graph.insert_before(node, through)
            body.append(through)
            new = through.outputs[0]
        if new.type is None:
            new.type = old.type
        if new.shape is None:
            new.shape = old.shape
        name, old.name = old.name, None
        old.replace_all_uses_with(new, replace_graph_outputs=True)
        new.name = name
    graph.remove(node, safe=True)
    return body


def _resolve(node: ir.Node, given: dict[str, ir.Attr]) -> None:
    """Give a node the values of the attributes that refer to those of the function."""
    import onnx_ir as ir

    for name, attribute in list(node.attributes.items()):
        if not attribute.is_ref():
            continue
        found = given.get(attribute.ref_attr_name or "")
        if found is None:
            del node.attributes[name]
        else:
            node.attributes[name] = ir.Attr(name, found.type, found.value)


def _joined(first: Iterable[SourceLine], second: Iterable[SourceLine]) -> Iterable[SourceLine]:
    return dict.fromkeys([*first, *second])


def _nested(nodes: Iterable[ir.Node]) -> Iterator[ir.Node]:
    for node in nodes:
        yield node
        for attribute in node.attributes.values():
            if attribute.type.name == "GRAPH":
                yield from attribute.as_graph().all_nodes()
            elif attribute.type.name == "GRAPHS":
                for graph in attribute.as_graphs():
                    yield from graph.all_nodes()
