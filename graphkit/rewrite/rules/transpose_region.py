"""Transposes move through whole regions of nodes that do not mind the order of axes, where that leaves fewer of them.

A region is what can be reached from a Transpose through such nodes, downwards and upwards; see `transpose_flips` for
the nodes and `transpose_cut` for what is moved. Inputs and outputs of the graph keep their layout.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from graphkit.analyze.tensors import Tensor
from graphkit.model import provenance, set_provenance
from graphkit.rewrite.rule import Rule
from graphkit.rewrite.rules.transpose_cut import AFTER, BEFORE, Cut
from graphkit.rewrite.rules.transpose_flips import Flip, flip
from graphkit.rewrite.rules.transpose_perms import (
    Perm,
    composed,
    inverse,
    is_identity,
    perm_of,
    result_shape,
    source_shape,
)

if TYPE_CHECKING:
    import onnx_ir as ir

    from graphkit.rewrite.editor import Editor

_MOST = 128
"""Nodes of a region: what lies further away is left as it is, so that the work stays linear in the graph."""


@dataclass(slots=True)
class _Region:
    """Nodes around a Transpose, and by value the permutation that separates it from its other form."""

    start: ir.Node
    perms: dict[ir.Value, Perm]
    flips: dict[ir.Node, Flip] = field(default_factory=dict)
    vertices: dict[ir.Node, int] = field(default_factory=dict)


def _move(editor: Editor, node: ir.Node) -> bool:
    perm = perm_of(editor, node)
    if perm is None or is_identity(perm) or editor.is_constant(node.inputs[0]) or id(node) in editor.settled:
        return False
    region = _explore(editor, node, perm)
    if not region.flips:
        return False
    cut, met = _network(editor, region)
    fewest, before = cut.best()
    if fewest >= cut.cost:
        for value, own in region.perms.items():  # another Transpose of the region would be answered the same
            if _maker(editor, region, value, own) == BEFORE:
                editor.settled.add(id(value.producer()))
        return met and editor.miss(node, "moving it to the Transpose that undoes it takes as many new ones")
    chosen = [n for n in region.flips if region.vertices[n] in before]
    pairs = _rebuild(editor, region, chosen)
    if not pairs:
        return False
    editor.replace_all(pairs)
    return True


# --- what there is ----------------------------------------------------------------------------------------------------


def _explore(editor: Editor, start: ir.Node, perm: Perm) -> _Region:
    region = _Region(start, {start.outputs[0]: perm})
    refused: set[ir.Node] = set()
    queue = deque(region.perms)
    while queue:
        value = queue.popleft()
        own = region.perms[value]
        if is_identity(own):
            continue
        for near in _near(start, value):
            if near in region.flips or near in refused:
                continue
            found = flip(editor, near, own) if len(region.flips) < _MOST else None
            if found is None or not _agrees(editor, region, near, found, value):
                refused.add(near)
                continue
            region.flips[near] = found
            for other, wanted in _values(editor, near, found):
                if other not in region.perms:
                    region.perms[other] = wanted
                    queue.append(other)
    return region


def _near(start: ir.Node, value: ir.Value) -> Iterator[ir.Node]:
    """Who makes a value, and who reads it, in the graph of the region, apart from Transposes."""
    maker = value.producer()
    nodes = [] if maker is None else [maker]
    nodes.extend(user for user, _ in value.uses())
    return (n for n in nodes if n.graph is start.graph and not (n.op_type == "Transpose" and not n.domain))


def _values(editor: Editor, node: ir.Node, found: Flip) -> Iterator[tuple[ir.Value, Perm]]:
    """What a node reads and makes in another form; constants are put into it as they are needed."""
    for value, wanted in zip(node.inputs, found.inputs, strict=False):
        if wanted is not None and value is not None and not editor.is_constant(value):
            yield value, wanted
    yield from zip(node.outputs, found.outputs, strict=True)


def _agrees(editor: Editor, region: _Region, node: ir.Node, found: Flip, value: ir.Value) -> bool:
    """Whether a node takes and makes every value in the form in which the region has it."""
    for given, wanted in zip(node.inputs, found.inputs, strict=False):
        if given is value and wanted != region.perms[value]:
            return False
        if wanted is not None and (given is None or not _affordable(editor, given)):
            return False
    return all(region.perms.get(v, wanted) == wanted for v, wanted in _values(editor, node, found))


def _affordable(editor: Editor, value: ir.Value) -> bool:
    """Whether a constant may have a transposed copy."""
    tensor = value.const_value if value.is_initializer() else None
    return tensor is None or len(value.uses()) == 1 or tensor.nbytes <= editor.growth


# --- what it costs ----------------------------------------------------------------------------------------------------


def _network(editor: Editor, region: _Region) -> tuple[Cut, bool]:
    """The region as a network, and whether it has a Transpose that undoes another one."""
    cut = Cut()
    region.vertices = {node: cut.vertex() for node in region.flips}
    met = False
    for value, perm in region.perms.items():
        if is_identity(perm):
            continue
        readers = [side for side in _readers(editor, region, value, perm) if side is not None]
        met = met or BEFORE in readers
        cut.value(_maker(editor, region, value, perm), readers)
    return cut, met


def _maker(editor: Editor, region: _Region, value: ir.Value, perm: Perm) -> int | None:
    """On which side a value is made; None where another Transpose makes it in either form."""
    node = value.producer()
    if node in region.vertices:
        return region.vertices[node]
    if node is None or node.graph is not region.start.graph or node.op_type != "Transpose" or node.domain:
        return AFTER
    return BEFORE if perm_of(editor, node) == perm else None


def _readers(editor: Editor, region: _Region, value: ir.Value, perm: Perm) -> Iterator[int | None]:
    """On which side a value is read; None by Transposes that stay one Transpose on either side."""
    if value.is_graph_output():
        yield AFTER
    undoing = _undoing(editor, region, value, perm)
    for user, index in value.uses():
        if user in region.vertices and region.flips[user].inputs[index] == perm:
            yield region.vertices[user]
        elif user in undoing:
            yield BEFORE
        elif user.op_type != "Transpose" or user.domain or user.graph is not region.start.graph:
            yield AFTER
        else:
            yield AFTER if _is_undone_by(editor, user, perm) else None


def _is_undone_by(editor: Editor, node: ir.Node, perm: Perm) -> bool:
    second = perm_of(editor, node)
    return second is not None and len(second) == len(perm) and is_identity(composed(perm, second))


def _undoing(editor: Editor, region: _Region, value: ir.Value, perm: Perm) -> list[ir.Node]:
    """The Transposes that undo one, and can give way to what it transposed. Of several that are outputs of the graph
    only one can: each has a name of its own."""
    found = [
        user
        for user in editor.users(value)
        if user.op_type == "Transpose"
        and not user.domain
        and user.graph is region.start.graph
        and _is_undone_by(editor, user, perm)
        and user.outputs[0] not in region.perms  # else it is where something else of the region comes from
    ]
    named = [user for user in found if user.outputs[0].is_graph_output()]
    return [user for user in found if user not in named[1:]] if len(found) > 1 else found


# --- doing it ---------------------------------------------------------------------------------------------------------


class _Builder:
    """Makes the new nodes of a region."""

    def __init__(self, editor: Editor, region: _Region) -> None:
        self.editor = editor
        self.region = region
        self.made: dict[tuple[ir.Value, Perm], ir.Value] = {}

    def before(self, value: ir.Value, perm: Perm) -> ir.Value:
        """What gives a value when it is transposed by `perm`."""
        key = (value, perm)
        if key not in self.made:
            self.made[key] = self._before(value, perm)
        return self.made[key]

    def _before(self, value: ir.Value, perm: Perm) -> ir.Value:
        editor = self.editor
        if editor.is_constant(value):
            array = editor.weight(value)
            assert array is not None
            array = array.reshape((1,) * (len(perm) - array.ndim) + array.shape)
            return editor.initializer(array.transpose(inverse(perm)), value.name or "constant")
        maker = value.producer()
        if maker is not None and maker.graph is self.region.start.graph:
            turned = editor.producer(value, "Transpose")
            first = perm_of(editor, turned) if turned is not None else None
            if turned is not None and first is not None and turned.inputs[0] is not None:
                return self.transpose(turned.inputs[0], composed(first, inverse(perm)))
        return self.transpose(value, inverse(perm))

    def transpose(self, value: ir.Value, perm: Perm) -> ir.Value:
        if is_identity(perm):
            return value
        shape = result_shape(self.editor.shape(value), perm)
        made = self.editor.op("Transpose", [value], {"perm": list(perm)}, shape=shape, dtype=self.editor.dtype(value))
        _keep_lines(self.region.start, made)
        return made

    def node(self, old: ir.Node) -> None:
        """A node again, on what comes before the Transposes."""
        editor, found = self.editor, self.region.flips[old]
        inputs: list[ir.Value | None] = []
        for index, wanted in enumerate(found.inputs):
            value = editor.input(old, index)
            if index in found.given:
                value = editor.initializer(found.given[index], "axes")
            elif wanted is not None and value is not None:
                value = self.before(value, wanted)
            inputs.append(value)
        made = editor.ops(
            old.op_type, inputs, {**old.attributes, **found.attributes}, outputs=len(old.outputs), domain=old.domain
        )
        for new, value, perm in zip(made, old.outputs, found.outputs, strict=True):
            editor.describe(new, Tensor(source_shape(editor.shape(value), perm), editor.dtype(value)))
            self.made[value, perm] = new
        _keep_lines(old, made[0])


def _keep_lines(old: ir.Node, made: ir.Value) -> None:
    node = made.producer()
    if node is not None:
        set_provenance(node, provenance(old))


def _rebuild(editor: Editor, region: _Region, chosen: list[ir.Node]) -> dict[ir.Value, ir.Value]:
    """Make the nodes anew that are computed before the Transposes; what stands for which old value then."""
    builder = _Builder(editor, region)
    for node in _sorted(chosen):
        builder.node(node)
    inside = set(chosen)
    pairs: dict[ir.Value, ir.Value] = {}
    for node in chosen:
        for value, perm in zip(node.outputs, region.flips[node].outputs, strict=True):
            new = builder.made[value, perm]
            undoing = [] if is_identity(perm) else _undoing(editor, region, value, perm)
            others = False
            for user, index in value.uses():
                if user in undoing:
                    pairs[user.outputs[0]] = new
                elif user not in inside or region.flips[user].inputs[index] != perm:
                    others = True
            if others or value.is_graph_output():
                pairs[value] = builder.transpose(new, perm)
    return pairs


def _sorted(nodes: list[ir.Node]) -> list[ir.Node]:
    """In an order in which each comes after those that it reads."""
    waiting = {node: {p for v in node.inputs if v is not None and (p := v.producer()) is not None} for node in nodes}
    inside = set(nodes)
    left = {node: len(makers & inside) for node, makers in waiting.items()}
    ready = deque(node for node, count in left.items() if not count)
    found: list[ir.Node] = []
    while ready:
        node = ready.popleft()
        found.append(node)
        users = dict.fromkeys(user for output in node.outputs for user, _ in output.uses() if user in inside)
        for user in users:
            left[user] -= 1
            if not left[user]:
                ready.append(user)
    return found


RULES = (
    Rule(
        "transpose-region",
        "transpose",
        ("Transpose",),
        _move,
        "Transposes are moved through nodes that do not mind the order of axes, where fewer are left then",
        exact=False,
    ),
)
