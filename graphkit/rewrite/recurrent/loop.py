"""Reads a Loop as a recurrence over sequences: what it reads, what it carries, and that it runs once per time step."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from graphkit.rewrite.recurrent import constants
from graphkit.rewrite.recurrent.polynomial import Algebra, Atom, Polynomial
from graphkit.rewrite.recurrent.sizes import Key, Sizes
from graphkit.rewrite.recurrent.step import COUNTER, Known, Step

if TYPE_CHECKING:
    import onnx_ir as ir

_BOOL = 9  # TensorProto.BOOL
# fmt: off
_BOOLEAN = frozenset({
    "Not", "And", "Or", "Xor", "Equal", "Less", "LessOrEqual", "Greater", "GreaterOrEqual", "IsNaN", "IsInf",
})
_MOVING = frozenset({
    "Identity", "Transpose", "Unsqueeze", "Squeeze", "Reshape", "ReverseSequence", "Expand", "Tile", "Gather", "Slice",
})
# fmt: on


@dataclass(frozen=True, slots=True)
class State:
    """Something that the loop carries from step to step.

    Attributes:
        output: Position among the Loop's outputs.
        atom: What a step reads it as.
        initial: Its value before the first step.
        update: Its value after a step.
    """

    output: int
    atom: Atom
    initial: ir.Value
    update: Polynomial


@dataclass(frozen=True, slots=True)
class Recurrence:
    """A Loop that makes one step for each entry of its sequences.

    Attributes:
        loop: The node.
        trips: The number of steps, a scalar of the graph around it.
        algebra: Where its polynomials live.
        sequences: What it reads at the counter, by atom: values of shape [time, batch, features].
        states: What it carries.
        scans: What it collects at every step, by position among the Loop's outputs.
        kept: Loop outputs that are an input passed through unchanged.
        sizes: Sizes in the graph around it.
    """

    loop: ir.Node
    trips: ir.Value
    algebra: Algebra
    sequences: dict[Atom, ir.Value]
    states: tuple[State, ...]
    scans: dict[int, Polynomial | None]
    kept: dict[int, ir.Value]
    sizes: Sizes


def read(loop: ir.Node) -> Recurrence | None:
    """The recurrence that `loop` is; None where that is not certain."""
    body = loop.attributes["body"].as_graph()
    carried = len(loop.inputs) - 2
    if loop.inputs[0] is None or carried < 1 or len(body.inputs) != carried + 2 or None in loop.inputs[2:]:
        return None
    return _Reader(loop, body, loop.inputs[0], carried).read()


class _Reader:
    def __init__(self, loop: ir.Node, body: ir.Graph, trips: ir.Value, carried: int) -> None:
        self.loop, self.body, self.trips, self.carried = loop, body, trips, carried
        self.sizes = Sizes()
        self.length: Key = self.sizes.scalar(trips)
        self.sequences: dict[Atom, ir.Value] = {}
        self.kept: dict[int, ir.Value] = {}
        self.step = Step(Algebra(), self._sequence)
        self.own = {id(v) for v in body.inputs} | {id(o) for n in body for o in n.outputs}

    def read(self) -> Recurrence | None:
        states = self._assign()
        self.step.run(self.body)
        if not self._runs_to_the_end():
            return None
        found = []
        for k in states:
            update, initial = self.step.polynomial(self.body.outputs[1 + k]), self.loop.inputs[2 + k]
            if update is None or initial is None:
                return None
            found.append(State(k, Atom("state", k), initial, update))
        scans = {
            k: self.step.polynomial(self.body.outputs[1 + k]) for k in range(self.carried, len(self.body.outputs) - 1)
        }
        return Recurrence(
            self.loop,
            self.trips,
            self.step.algebra,
            self.sequences,
            tuple(found),
            scans,
            self.kept,
            self.sizes,
        )

    def _assign(self) -> list[int]:
        """Give the body's inputs their values; returns the positions of the states."""
        algebra, held, states = self.step.algebra, self.step.held, []
        counter = algebra.of(COUNTER)
        held[id(self.body.inputs[0])] = counter
        for k in range(self.carried):
            inner, outer = self.body.inputs[2 + k], self.loop.inputs[2 + k]
            assert outer is not None
            if constants.unwrapped(self.body.outputs[1 + k]) is inner:
                self.kept[k] = outer
                array = constants.array(outer)
                known = Polynomial({}) if constants.is_zero(outer) else None
                held[id(inner)] = known if array is None else Known(array, id(outer))
            elif self._counts(k):
                held[id(inner)] = counter
            else:
                held[id(inner)] = algebra.of(Atom("state", k))
                states.append(k)
        return states

    def _counts(self, k: int) -> bool:
        """Whether the carried value `k` is the number of the step."""
        node = constants.unwrapped(self.body.outputs[1 + k]).producer()
        if node is None or node.op_type != "Add" or constants.integers(self.loop.inputs[2 + k]) != [0]:
            return False
        first, second = node.inputs
        inner = self.body.inputs[2 + k]
        return (first is inner and constants.integers(second) == [1]) or (
            second is inner and constants.integers(first) == [1]
        )

    def _sequence(self, value: ir.Value) -> Atom | None:
        """The atom for one entry of a sequence around the loop: [batch, features], or [batch, 1] for a mask."""
        outer = self._outer(value)
        if outer is None or self.sizes.rank(outer) != 3:
            return None
        is_mask = _is_boolean(outer)
        if is_mask and self.sizes.dim(outer, 2) != 1:
            return None
        atom = Atom("mask" if is_mask else "sequence", id(outer), is_mask)
        self.sequences[atom] = outer
        return atom

    def _outer(self, value: ir.Value) -> ir.Value | None:
        """A value of the body as the value around the loop that it always is."""
        if id(value) not in self.own:
            return value
        for k, kept in self.kept.items():
            if value is self.body.inputs[2 + k]:
                return kept
        return None

    def _runs_to_the_end(self) -> bool:
        """Whether the condition never ends the loop before its trip count."""
        before = self.loop.inputs[1]
        starts = before is None or all(self._starts(v) for v in _conjuncts(before))
        return starts and all(self._goes_on(v) for v in _conjuncts(self.body.outputs[0]))

    def _starts(self, value: ir.Value) -> bool:
        if _is_true(value):
            return True
        sides = _less(value)
        return sides is not None and self.sizes.scalar(sides[0]) == 0 and self.sizes.scalar(sides[1]) == self.length

    def _goes_on(self, value: ir.Value) -> bool:
        """`step < trips` or `step + 1 < trips`: true after every step but the last."""
        if _is_true(value) or value is self.body.inputs[1]:
            return True
        sides = _less(value)
        limit = None if sides is None else self._outer(self._uncast(sides[1]))
        if sides is None or limit is None or self.sizes.scalar(limit) != self.length:
            return False
        algebra, reached = self.step.algebra, self.step.polynomial(sides[0])
        counter, one = algebra.of(COUNTER), algebra.constant(1)
        after = None if one is None else algebra.add(counter, one)
        return reached is not None and after is not None and reached.key in (counter.key, after.key)

    def _uncast(self, value: ir.Value) -> ir.Value:
        node = value.producer()
        while node is not None and node.op_type in ("Cast", "Identity") and id(value) in self.own:
            if node.inputs[0] is None:
                break
            value = node.inputs[0]
            node = value.producer()
        return value


def _conjuncts(value: ir.Value) -> list[ir.Value]:
    value = constants.unwrapped(value)
    node = value.producer()
    if node is None or node.op_type != "And":
        return [value]
    return [part for side in node.inputs if side is not None for part in _conjuncts(side)]


def _less(value: ir.Value) -> tuple[ir.Value, ir.Value] | None:
    """`(a, b)` where `value` is `a < b`."""
    node = value.producer()
    if node is None or node.op_type not in ("Less", "Greater") or None in node.inputs:
        return None
    first, second = node.inputs
    assert first is not None
    assert second is not None
    return (first, second) if node.op_type == "Less" else (second, first)


def _is_true(value: ir.Value) -> bool:
    known = constants.array(value)
    return known is not None and known.dtype.kind == "b" and bool(known.all())


def _is_boolean(value: ir.Value) -> bool:
    while value.dtype is None:
        node = value.producer()
        if node is None or node.domain:
            return False
        if node.op_type in _BOOLEAN:
            return True
        if node.op_type == "Cast":
            return bool(constants.attribute(node, "to") == _BOOL)
        if node.op_type not in _MOVING or node.inputs[0] is None:
            return False
        value = node.inputs[0]
    return int(value.dtype) == _BOOL
