"""What a Loop's outputs become once its step is known to be a cell: the whole decision, before anything is changed."""

from __future__ import annotations

from dataclasses import dataclass
from enum import Enum
from typing import TYPE_CHECKING

from graphkit.rewrite.recurrent import cell as cells
from graphkit.rewrite.recurrent import constants, loop
from graphkit.rewrite.recurrent.loop import Recurrence, State
from graphkit.rewrite.recurrent.polynomial import Atom, Polynomial
from graphkit.rewrite.recurrent.sizes import alternatives

if TYPE_CHECKING:
    import onnx_ir as ir


class OnMasked(Enum):
    """What a masked step puts out: the output of the last step that was not masked (zero before it), or zero."""

    REPEAT = "repeat"
    ZERO = "zero"


@dataclass(frozen=True, slots=True)
class Plan:
    """A Loop as one recurrent operator.

    Attributes:
        recurrence: The Loop.
        cell: Its step.
        inputs: Its sequence, [time, batch, inputs].
        mask: Boolean, [time, batch, 1]: False where a step leaves the state alone; None where every step counts.
        mask_fits: Whether time and batch of the mask are provably those of the sequence.
        hidden, memory: Initial states [batch, hidden]; None for zero.
        outputs: Positions of Loop outputs that are the output at each step, and what they hold on masked steps.
    """

    recurrence: Recurrence
    cell: cells.Cell
    inputs: ir.Value
    mask: ir.Value | None
    mask_fits: bool
    hidden: ir.Value | None
    memory: ir.Value | None
    outputs: dict[int, OnMasked]


def plan(node: ir.Node) -> Plan | None:
    """How to replace a Loop; None where it is no recurrent cell, or something else in it is needed."""
    recurrence = loop.read(node)
    if recurrence is None:
        return None
    masks = [a for a in recurrence.sequences if a.is_mask]
    if len(masks) > 1:
        return None
    mask = masks[0] if masks else None
    cell = cells.match(recurrence, mask)
    if cell is None:
        return None
    inputs, sizes = recurrence.sequences[cell.sequence], recurrence.sizes
    if sizes.dim(inputs, 0) != sizes.scalar(recurrence.trips):
        return None
    outputs = _scans(recurrence, cell, mask)
    if outputs is None or not _covered(recurrence, cell, outputs) or not _states_fit(recurrence, cell):
        return None
    masking = recurrence.sequences[mask] if mask is not None else None
    return Plan(
        recurrence=recurrence,
        cell=cell,
        inputs=inputs,
        mask=masking,
        mask_fits=masking is None or all(sizes.dim(masking, a) == sizes.dim(inputs, a) for a in (0, 1)),
        hidden=None if constants.is_zero(cell.hidden.initial) else cell.hidden.initial,
        memory=None if cell.memory is None or constants.is_zero(cell.memory.initial) else cell.memory.initial,
        outputs=outputs,
    )


def _scans(recurrence: Recurrence, cell: cells.Cell, mask: Atom | None) -> dict[int, OnMasked] | None:
    """Every collected value that somebody reads, as the output of the cell; None where one is something else."""
    found = {}
    for position, collected in recurrence.scans.items():
        if not constants.is_read(recurrence.loop.outputs[position]):
            continue
        kind = None if collected is None else _as_output(recurrence, cell, mask, collected)
        if kind is None:
            return None
        found[position] = kind
    return found


def _as_output(recurrence: Recurrence, cell: cells.Cell, mask: Atom | None, collected: Polynomial) -> OnMasked | None:
    algebra = recurrence.algebra
    if mask is None:
        return OnMasked.REPEAT if collected.key == cell.output.key else None
    (factor,) = next(iter(algebra.of(mask).terms))
    counted, masked = (algebra.with_mask(collected, factor, value) for value in (1, 0))
    if counted is None or masked is None or counted.key != cell.output.key:
        return None
    if not masked.terms:
        return OnMasked.ZERO
    for state in recurrence.states:
        if masked.key == algebra.of(state.atom).key and _repeats(recurrence, cell, factor, state):
            return OnMasked.REPEAT
    return None


def _repeats(recurrence: Recurrence, cell: cells.Cell, mask: int, state: State) -> bool:
    """Whether `state` carries the last output, zero at first."""
    algebra = recurrence.algebra
    counted, masked = (algebra.with_mask(state.update, mask, value) for value in (1, 0))
    return (
        counted is not None
        and masked is not None
        and counted.key == cell.output.key
        and masked.key == algebra.of(state.atom).key
        and constants.is_zero(state.initial)
        and _batch_fits(recurrence, cell, state.initial)
    )


def _covered(recurrence: Recurrence, cell: cells.Cell, outputs: dict[int, OnMasked]) -> bool:
    """Whether every Loop output that somebody reads has a replacement."""
    replaced = {*outputs, *recurrence.kept, cell.hidden.output}
    if cell.memory is not None:
        replaced.add(cell.memory.output)
    return all(i in replaced or not constants.is_read(o) for i, o in enumerate(recurrence.loop.outputs))


def _states_fit(recurrence: Recurrence, cell: cells.Cell) -> bool:
    """Whether the initial states are [batch, hidden] as the operator wants them.

    One that is given and has another batch than the sequence is for the runtime to refuse: the operator's own shapes
    forbid it. One that is zero leaves the graph, so its size must be proved.
    """
    for state in (cell.hidden, cell.memory):
        if state is None:
            continue
        if recurrence.sizes.rank(state.initial) != 2:
            return False
        if constants.is_zero(state.initial) and not _batch_fits(recurrence, cell, state.initial):
            return False
    return True


def _batch_fits(recurrence: Recurrence, cell: cells.Cell, value: ir.Value) -> bool:
    """Whether `value` has the batch of the sequence (or of a given state, or one), and the width of the state."""
    if recurrence.sizes.rank(value) != 2:
        return False
    sizes, states = recurrence.sizes, [s for s in (cell.hidden, cell.memory) if s is not None]
    allowed = {1} | alternatives(sizes.dim(recurrence.sequences[cell.sequence], 1))
    for state in states:
        if not constants.is_zero(state.initial):
            allowed |= alternatives(sizes.dim(state.initial, 0))
    return sizes.dim(value, 1) in (1, cell.gates[0].r.shape[0]) and alternatives(sizes.dim(value, 0)) <= allowed
