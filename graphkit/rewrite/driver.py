"""Applies rules until none finds anything more; linear in the graph.

Every node is looked at once by the rules of its operator, and again only when something near it changed.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Iterable, Sequence
from typing import TYPE_CHECKING

from graphkit.rewrite.editor import Editor
from graphkit.rewrite.reading import nodes_of
from graphkit.rewrite.rule import Rule
from graphkit.traversal import graphs_of

if TYPE_CHECKING:
    import onnx_ir as ir

_NEAR = 8
"""Nodes downstream of a change that are looked at again: the longest chain that a rule follows upwards."""
_MOST_NEAR = 48
_PER_NODE = 20
"""Applications per node of the graph, after which two rules that undo one another are told to stop."""


def run(editor: Editor, rules: Sequence[Rule]) -> None:
    """Apply the early rules to exhaustion, then all of them."""
    early = [rule for rule in rules if not rule.late]
    _exhaust(editor, early, early)
    if len(early) != len(rules):
        _exhaust(editor, rules, [rule for rule in rules if rule.late])
    if editor.disordered:
        for graph in graphs_of(editor.model.graph):
            graph.sort()
        editor.disordered = False


def _exhaust(editor: Editor, rules: Sequence[Rule], first: Sequence[Rule]) -> None:
    """Apply rules until none finds anything more; until one has found something, only `first` can."""
    index, begun = _by_operator(rules), _by_operator(first)
    nodes = [node for node in nodes_of(editor.model.graph) if node.op_type in begun and not node.domain]
    budget = _PER_NODE * (editor.model.graph.num_nodes() + 50)
    queue: deque[ir.Node] = deque(nodes)
    queued = {id(node) for node in nodes}
    editor.kept.clear()
    while queue:
        node = queue.popleft()
        queued.discard(id(node))
        if node.graph is None or not editor.apply_first(begun[node.op_type], node):
            continue
        begun = index
        for near in _neighbourhood(editor):
            if id(near) not in queued and near.op_type in index and not near.domain:
                queued.add(id(near))
                queue.append(near)
        if node.graph is not None and id(node) not in queued:
            queued.add(id(node))
            queue.append(node)
        budget -= 1
        if budget <= 0:
            break


def _by_operator(rules: Iterable[Rule]) -> dict[str, list[Rule]]:
    index: dict[str, list[Rule]] = {}
    for rule in rules:
        for op in rule.ops:
            index.setdefault(op, []).append(rule)
    return index


def _neighbourhood(editor: Editor) -> list[ir.Node]:
    """The nodes that were touched, and those that follow them closely."""
    found = {id(node): node for node in editor.touched.values() if node.graph is not None}
    editor.touched.clear()
    layer = list(found.values())
    for _ in range(_NEAR):
        following: list[ir.Node] = []
        for node in layer:
            for output in node.outputs:
                for user, _ in output.uses():  # whoever reads a value is in a graph: what goes lets go of its inputs
                    if id(user) not in found:
                        found[id(user)] = user
                        following.append(user)
        layer = following
        if not layer or len(found) > _MOST_NEAR:
            break
    return list(found.values())
