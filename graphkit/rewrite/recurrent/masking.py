"""Masked steps without a loop, for every mask: holes, padding on either side, rows that are masked throughout.

`sequence_lens` says only how many steps at the start of a row count. So the steps that count are brought to the
start, in their order; the operator runs over that many; and each step takes the output of the last step that counted
up to it, or zero where there was none. With `order[t]`, the number of steps that counted up to and including t, step t
goes to place `order[t] - 1` if it counts, behind all those that do if not, and takes output number `order[t]`, where
number 0 is zero. A mask that is right padding moves nothing, and the result is the same.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from graphkit.rewrite.recurrent.emitter import Emitter
from graphkit.rewrite.recurrent.plan import OnMasked, Plan

if TYPE_CHECKING:
    import onnx_ir as ir

_INT32 = 6  # TensorProto.INT32: the type of sequence_lens


@dataclass(frozen=True, slots=True)
class Compact:
    """A sequence with the steps that count in front.

    Attributes:
        inputs: The sequence, [time, batch, inputs].
        lengths: How many count, at least 1, [batch] int32.
        counts: 1 where a step counts, [time, batch, 1] int32.
        order: Steps that counted up to and including this one, [time, batch, 1] int32.
        total: How many count, [1, batch, 1] int32.
    """

    inputs: ir.Value
    lengths: ir.Value
    counts: ir.Value
    order: ir.Value
    total: ir.Value


def compact(emitter: Emitter, found: Plan, mask: ir.Value) -> Compact:
    """Bring the steps that count to the front."""
    if not found.mask_fits:
        mask = _fitted(emitter, found, mask)
    one, first = emitter.scalar(1, "int32"), emitter.scalar(0, "int64")
    counts = emitter.add("Cast", mask, to=_INT32)
    order = emitter.add("CumSum", counts, first)
    total = emitter.add("ReduceSum", counts, emitter.integers(0), keepdims=1)
    behind = emitter.add("Add", total, emitter.add("CumSum", emitter.add("Sub", one, counts), first))
    place = emitter.add("Sub", emitter.add("Where", mask, order, behind), one)
    everywhere = emitter.add("Expand", place, emitter.integers(1, 1, found.cell.gates[0].w.shape[0]))
    inputs = emitter.add("ScatterElements", found.inputs, everywhere, found.inputs, axis=0)
    # What a length of 0 gives is not in the specification: ONNX Runtime 1.32 gives zero and not the initial state.
    lengths = emitter.add("Squeeze", emitter.add("Max", total, one), emitter.integers(0, 2))
    return Compact(inputs, lengths, counts, order, total)


def spread(emitter: Emitter, found: Plan, compacted: Compact, outputs: ir.Value, kind: OnMasked) -> ir.Value:
    """The output of every step, [time, batch, hidden], from those of the steps that count."""
    index = compacted.order
    if kind is OnMasked.ZERO:
        index = emitter.add("Mul", index, compacted.counts)
    with_zero = emitter.add("Pad", outputs, emitter.integers(1, 0, 0, 0, 0, 0))
    everywhere = emitter.add("Expand", index, emitter.integers(1, 1, found.cell.gates[0].r.shape[0]))
    return emitter.add("GatherElements", with_zero, everywhere, axis=0)


def final_state(emitter: Emitter, compacted: Compact, final: ir.Value, initial: ir.Value | None) -> ir.Value:
    """The state after the last step that counts, [1, batch, hidden]; the initial one (None: zero) where none does."""
    before = emitter.scalar(0, "float32") if initial is None else emitter.add("Unsqueeze", initial, emitter.integers(0))
    some = emitter.add("Greater", compacted.total, emitter.scalar(0, "int32"))
    return emitter.add("Where", some, final, before)


def _fitted(emitter: Emitter, found: Plan, mask: ir.Value) -> ir.Value:
    """The mask as the loop read it: its first steps, one by one (too few are an error), the same for every row if it
    has one row."""
    steps = emitter.add("Range", emitter.scalar(0, "int64"), found.recurrence.trips, emitter.scalar(1, "int64"))
    read = emitter.add("Gather", mask, steps, axis=0)
    rows = emitter.add("Shape", found.inputs, start=0, end=2)
    return emitter.add("Expand", read, emitter.add("Concat", rows, emitter.integers(1), axis=0))
