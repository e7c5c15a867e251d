"""Puts the recurrent operator in the place of a Loop."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import TYPE_CHECKING, Any

from graphkit.model import SourceLine, provenance, set_provenance
from graphkit.rewrite.recurrent import constants, masking
from graphkit.rewrite.recurrent.cell import Cell, Gate
from graphkit.rewrite.recurrent.emitter import Emitter
from graphkit.rewrite.recurrent.masking import Compact
from graphkit.rewrite.recurrent.plan import OnMasked, Plan

if TYPE_CHECKING:
    import onnx_ir as ir

_TO_THE_END = 2**31 - 1
_DEFAULTS = {"RNN": ("Tanh",), "GRU": ("Sigmoid", "Tanh"), "LSTM": ("Sigmoid", "Tanh", "Tanh")}


def emit(found: Plan, taken: set[str]) -> None:
    """Replace the Loop by the operator of `found.cell`.

    Everything that only the Loop needed goes with it. The new nodes have the source lines of all that went.

    Args:
        found: What to put in its place.
        taken: Every name in the model; added to.
    """
    loop = found.recurrence.loop
    graph = loop.graph
    assert graph is not None
    emitter = Emitter(graph, loop.name or str(loop.outputs[0].name), taken)
    replaced = _replacements(emitter, found)
    graph.insert_before(loop, emitter.nodes)
    for old, new in replaced:
        _take_over(old, new)
    operator = next(n for n in emitter.nodes if n.op_type == found.cell.op)
    _drop_outputs(operator)
    users = [old.producer() for old, _ in replaced]
    lines = list(_remove_unused([loop, *(u for u in users if u is not None and u is not loop)]))
    for node in emitter.nodes:
        set_provenance(node, lines)


def _replacements(emitter: Emitter, found: Plan) -> list[tuple[ir.Value, ir.Value]]:
    """Old value, new value: for each Loop output that is read, or for its last entry where only that is."""
    cell, loop = found.cell, found.recurrence.loop
    compact = None if found.mask is None else masking.compact(emitter, found, found.mask)
    every, *last = _operator(emitter, found, compact)
    pairs = []
    for state, final, initial in zip((cell.hidden, cell.memory), last, (found.hidden, found.memory), strict=False):
        if state is not None and constants.is_read(loop.outputs[state.output]):
            pairs.append((loop.outputs[state.output], _final(emitter, compact, final, initial)))
    for position, kind in found.outputs.items():
        old = loop.outputs[position]
        ends = _last_entries(old) if found.mask is None or kind is OnMasked.REPEAT else []
        pairs.extend((end, _final(emitter, compact, last[0], None)) for end in ends)
        if len(ends) < len(old.uses()) or old.is_graph_output():
            flat = emitter.add("Squeeze", every, emitter.integers(1))
            pairs.append((old, flat if compact is None else masking.spread(emitter, found, compact, flat, kind)))
    for position, value in found.recurrence.kept.items():
        old = loop.outputs[position]
        if constants.is_read(old):
            pairs.append((old, emitter.add("Identity", value) if old.is_graph_output() else value))
    return pairs


def _final(emitter: Emitter, compact: Compact | None, final: ir.Value, initial: ir.Value | None) -> ir.Value:
    kept = final if compact is None else masking.final_state(emitter, compact, final, initial)
    return emitter.add("Squeeze", kept, emitter.integers(0))


def _last_entries(value: ir.Value) -> list[ir.Value]:
    """The outputs of `Squeeze(value[-1:])` along the first axis: what a layer that returns no sequences reads."""
    found = []
    for user, _ in value.uses():
        if user.op_type != "Slice" or user.domain or constants.bounds(user) != [(0, -1, _TO_THE_END, 1)]:
            continue
        after = [u for u, _ in user.outputs[0].uses()]
        alone = len(after) == 1 and not user.outputs[0].is_graph_output() and user.inputs[0] is value
        if alone and after[0].op_type == "Squeeze" and not after[0].domain and constants.axes(after[0]) == [0]:
            found.append(after[0].outputs[0])
    return found


# --- the operator ------------------------------------------------------------------------------------------------


def _operator(emitter: Emitter, found: Plan, compact: Compact | None) -> Sequence[ir.Value]:
    """Y [time, 1, batch, hidden], Y_h [1, batch, hidden], and Y_c for LSTM."""
    cell = found.cell
    initial = [
        None if v is None else emitter.add("Unsqueeze", v, emitter.integers(0)) for v in (found.hidden, found.memory)
    ]
    inputs = [
        found.inputs if compact is None else compact.inputs,
        emitter.constant("W", _stack(g.w for g in cell.gates)),
        emitter.constant("R", _stack(g.r for g in cell.gates)),
        _bias(emitter, cell.gates),
        None if compact is None else compact.lengths,
        *initial,
    ]
    while inputs[-1] is None:
        inputs.pop()
    attributes = {"hidden_size": cell.gates[0].r.shape[0], **_activations(cell)}
    if cell.linear_before_reset:
        attributes["linear_before_reset"] = 1
    return emitter.several(cell.op, inputs, 3 if cell.op == "LSTM" else 2, attributes)


def _stack(matrices: Iterable[Any]) -> Any:
    import numpy as np

    return np.concatenate([m.T for m in matrices])[None].astype(np.float32)


def _bias(emitter: Emitter, gates: Sequence[Gate]) -> ir.Value | None:
    """`[Wb, Rb]` of all gates; None where all are zero."""
    import numpy as np

    hidden = gates[0].r.shape[0]
    parts = [g.b for g in gates] + [0.0 if g.rb is None else g.rb for g in gates]
    bias = np.concatenate([np.broadcast_to(p, (hidden,)) for p in parts])[None].astype(np.float32)
    return emitter.constant("B", bias) if bias.any() else None


def _activations(cell: Cell) -> dict[str, Any]:
    """Attributes for what differs from the operator's defaults; alpha and beta list only those that a function has."""
    names = tuple(a.op for a in cell.activations)
    if names == _DEFAULTS[cell.op]:
        return {}
    alpha = [a.parameters[0] for a in cell.activations if a.parameters]
    beta = [a.parameters[1] for a in cell.activations if len(a.parameters) > 1]
    attributes: dict[str, Any] = {"activations": list(names)}
    attributes.update({"activation_alpha": alpha} if alpha else {})
    attributes.update({"activation_beta": beta} if beta else {})
    return attributes


# --- the graph around it -----------------------------------------------------------------------------------------


def _take_over(old: ir.Value, new: ir.Value) -> None:
    """Let `new` be read instead of `old`; a value made for this has the old one's name, type and shape."""
    import onnx_ir as ir

    maker = new.producer()
    if maker is not None and not new.uses():
        old.name, new.name = new.name, old.name
        new.type, new.shape = old.type, old.shape
    ir.convenience.replace_all_uses_with(old, new, replace_graph_outputs=True)


def _drop_outputs(operator: ir.Node) -> None:
    """Outputs that nobody reads: left out at the end, nameless before it."""
    kept = max((i + 1 for i, o in enumerate(operator.outputs) if constants.is_read(o)), default=1)
    operator.resize_outputs(kept)
    for output in operator.outputs:
        if not constants.is_read(output):
            output.name = ""


def _remove_unused(nodes: list[ir.Node]) -> Iterable[SourceLine]:
    """Remove nodes that nobody reads, and what only they read; gives the source lines of all that went."""
    pending = list(nodes)
    while pending:
        node = pending.pop()
        if node.graph is None or any(constants.is_read(o) for o in node.outputs):
            continue
        inner = [n for g in _subgraphs(node) for n in g.all_nodes()]
        read = [v for n in (node, *inner) for v in n.inputs if v is not None]
        for gone in (node, *inner):
            yield from provenance(gone)
            for i in range(len(gone.inputs)):
                gone.replace_input_with(i, None)
        node.graph.remove(node)
        pending.extend(p for v in read if (p := v.producer()) is not None and p is not node)
        for value in read:
            _remove_initializer(value)


def _remove_initializer(value: ir.Value) -> None:
    graph = value.graph
    if value.is_initializer() and graph is not None and not constants.is_read(value) and not value.is_graph_input():
        graph.initializers.pop(str(value.name), None)


def _subgraphs(node: ir.Node) -> list[ir.Graph]:
    import onnx_ir as ir

    graphs = [a for a in node.attributes.values() if a.type in (ir.AttributeType.GRAPH, ir.AttributeType.GRAPHS)]
    return [g for a in graphs for g in (a.as_graphs() if a.type == ir.AttributeType.GRAPHS else [a.as_graph()])]
