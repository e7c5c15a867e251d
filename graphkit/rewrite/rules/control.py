"""Bodies whose course is known: an If with a constant condition, a Loop with few rounds that are known."""

from __future__ import annotations

from typing import TYPE_CHECKING

from graphkit.model import provenance, set_provenance
from graphkit.rewrite.rule import Rule

if TYPE_CHECKING:
    import onnx_ir as ir

    from graphkit.rewrite.editor import Editor

MOST_ROUNDS = 32
MOST_UNROLLED = 1024
"""Nodes that unrolling one Loop may make."""


def _if(editor: Editor, node: ir.Node) -> bool:
    """The branch that is always taken stands in the place of the If; it may read values around it as before."""
    value = node.inputs[0]
    condition = editor.constant(value, 1) if editor.is_constant(value) else None
    if condition is None:
        return False
    chosen = node.attributes["then_branch" if bool(condition.reshape(-1)[0]) else "else_branch"]
    if chosen.is_ref():
        return False
    results = _adopt(editor, chosen.as_graph(), node, [])
    editor.replace_all(dict(zip(node.outputs, results, strict=True)))
    return True


def _loop(editor: Editor, node: ir.Node) -> bool:
    rounds = editor.integers(editor.input(node, 0)) if editor.input(node, 0) else None
    start = editor.input(node, 1)
    if rounds is None:
        return False
    if start is not None and not (editor.is_constant(start) and editor.scalar(start)):
        return editor.miss(node, "whether it goes on is not known before it runs")
    attribute = node.attributes["body"]
    if attribute.is_ref():
        return False
    body = attribute.as_graph()
    carried = len(node.inputs) - 2
    if not _goes_on(editor, body):
        return editor.miss(node, "whether it goes on is decided in its body")
    count, size = rounds[0], sum(1 for _ in body.all_nodes())
    scans = len(body.outputs) - 1 - carried
    if count > MOST_ROUNDS or count * size > MOST_UNROLLED:
        return editor.miss(node, f"it has {count} rounds of {size} nodes")
    if count < 1:
        return editor.miss(node, "it has no round")
    if any(attribute.type.name in ("GRAPH", "GRAPHS") for inner in body for attribute in inner.attributes.values()):
        return editor.miss(node, "its body has bodies")
    _unroll(editor, node, body, count, carried, scans)
    return True


def _goes_on(editor: Editor, body: ir.Graph) -> bool:
    """Whether the condition that the body returns is always true."""
    value: ir.Value | None = body.outputs[0]
    while value is not None:
        if value is body.inputs[1]:
            return True
        if editor.is_constant(value):
            return bool(editor.scalar(value))
        made = editor.producer(value, "Identity")
        value = made.inputs[0] if made is not None else None
    return False


def _unroll(editor: Editor, node: ir.Node, body: ir.Graph, count: int, carried: int, scans: int) -> None:
    import numpy as np

    from graphkit.rewrite.rules.shapes import unsqueeze

    state: list[ir.Value | None] = list(node.inputs[2:])
    going = editor.input(node, 1) or editor.initializer(np.asarray(True), "going")
    pieces: list[list[ir.Value | None]] = [[] for _ in range(scans)]
    for round_ in range(count):
        copy = body.clone(allow_outer_scope_values=True)
        given: list[ir.Value | None] = [editor.initializer(np.asarray(round_, dtype=np.int64), "round"), going, *state]
        for old, value in zip(body.inputs, copy.inputs, strict=True):
            editor.facts.same(value, old)
        for old_node, new_node in zip(body, copy, strict=True):
            for old, value in zip(old_node.outputs, new_node.outputs, strict=True):
                editor.facts.set(value, editor.facts.tensor(old))
            set_provenance(new_node, [*provenance(old_node), *provenance(node)])
        results = _adopt(editor, copy, node, given)
        state = list(results[1 : 1 + carried])
        for piece, value in zip(pieces, results[1 + carried :], strict=True):
            piece.append(unsqueeze(editor, value, [0]))
    stacked = [
        editor.op("Concat", piece, {"axis": 0}, like=output)
        for piece, output in zip(pieces, node.outputs[carried:], strict=True)
    ]
    results = [value for value in (*state, *stacked) if value is not None]
    editor.replace_all(dict(zip(node.outputs, results, strict=True)))


def _adopt(editor: Editor, body: ir.Graph, at: ir.Node, given: list[ir.Value | None]) -> list[ir.Value]:
    """Take the nodes of a body, which is left empty, to where `at` stands; its results, no two of which are the same.

    Names of a body are the model's own by now; those of a copy are not, and it has inputs.
    """
    graph = at.graph
    assert graph is not None
    results = list(body.outputs)
    body.outputs.clear()
    place = dict(zip(body.inputs, given, strict=bool(given)))
    for formal, value in place.items():
        for user, index in formal.uses():
            user.replace_input_with(index, value)
    nodes = list(body)
    body.remove(nodes)
    if given:
        _rename(editor, nodes)
    for name in list(body.initializers):
        value = body.initializers.pop(name)
        if given:
            value.name = editor.name(name)
        graph.register_initializer(value)
    for node in nodes:
        editor.enter(node)
    own = {id(output) for node in nodes for output in node.outputs}
    found: list[ir.Value] = []
    for result in results:
        value = place.get(result) or result
        if any(value is other for other in found) or (id(value) not in own and given):
            value = editor.op("Identity", [value], like=value)
        found.append(value)
    return found


def _rename(editor: Editor, nodes: list[ir.Node]) -> None:
    for node in nodes:
        node.name = editor.name(node.name or "node")
        for output in node.outputs:
            if output.name:
                output.name = editor.name(output.name)


RULES = (
    Rule("if-constant", "structure", ("If",), _if, "the branch that is always taken stands in the place of its If"),
    Rule("loop-unroll", "structure", ("Loop",), _loop, "a Loop with few rounds, all of them known, is written out"),
)
