"""Which ONNX operator one step is: its formula compared with the equations of GRU, LSTM and RNN.

The equations and the order of the gates are those of the operator specification, opset 14 on
(https://onnx.ai/onnx/operators/onnx__GRU.html, onnx__LSTM.html, onnx__RNN.html):

    RNN   Ht = f(Xt W^T + Ht-1 R^T + Wb + Rb)
    GRU   zt = f(Xt Wz^T + Ht-1 Rz^T + Wbz + Rbz)          rt likewise           gates z, r, h
          ht = g(Xt Wh^T + (rt . Ht-1) Rh^T + Rbh + Wbh)       linear_before_reset = 0
          ht = g(Xt Wh^T + rt . (Ht-1 Rh^T + Rbh) + Wbh)       linear_before_reset = 1
          Ht = (1 - zt) . ht + zt . Ht-1
    LSTM  it, ft, ot = f(Xt W^T + Ht-1 R^T + Wb + Rb)      ct = g(likewise)      gates i, o, f, c
          Ct = ft . Ct-1 + it . ct                         Ht = ot . h(Ct)       no peepholes, no input_forget
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

from graphkit.rewrite.recurrent.loop import Recurrence, State
from graphkit.rewrite.recurrent.polynomial import Activation, Algebra, Atom, Monomial, Polynomial, Product

_ROUNDING = 1e-7  # half a unit in the last place of float32: 6 * float32(1 / 6) is not quite 1


@dataclass(frozen=True, slots=True)
class Gate:
    """`activation(x @ w + h @ r + b + rb)`, matrices as in the source: w [inputs, hidden], r [hidden, hidden].

    Attributes:
        rb: The bias that a reset gate multiplies too; None where the two biases are one.
    """

    activation: Activation
    w: Any
    r: Any
    b: Any
    rb: Any = None


@dataclass(frozen=True, slots=True)
class Cell:
    """One step of an ONNX recurrent operator.

    Attributes:
        op: `GRU`, `LSTM` or `RNN`.
        gates: In the operator's order.
        activations: In the operator's order: one for RNN, two for GRU, three for LSTM.
        linear_before_reset: Of GRU.
        sequence: What it reads.
        hidden: Its state, and its output at each step.
        memory: The cell state of LSTM.
        output: The new hidden state on a step that is not masked.
    """

    op: str
    gates: tuple[Gate, ...]
    activations: tuple[Activation, ...]
    linear_before_reset: bool
    sequence: Atom
    hidden: State
    memory: State | None
    output: Polynomial


def match(recurrence: Recurrence, mask: Atom | None) -> Cell | None:
    """The cell that `recurrence` steps through where the mask is 1, or there is none; None where it is no cell."""
    sequences = [a for a in recurrence.sequences if not a.is_mask]
    if len(sequences) != 1:
        return None
    found = _Matcher(recurrence.algebra, sequences[0])
    updates = [(s, _unmasked(recurrence.algebra, s, mask)) for s in recurrence.states]
    for hidden, update in updates:
        if update is None:
            continue
        cell = found.rnn(hidden, update) or found.gru(hidden, update)
        if cell is not None:
            return cell
        for memory, change in updates:
            cell = None if memory is hidden or change is None else found.lstm(hidden, update, memory, change)
            if cell is not None:
                return cell
    return None


def _unmasked(algebra: Algebra, state: State, mask: Atom | None) -> Polynomial | None:
    """The update on a step that is not masked; None where a masked step does not carry the state over."""
    if mask is None:
        return state.update
    number = algebra.of(mask)
    (factor,) = next(iter(number.terms))
    carried = algebra.with_mask(state.update, factor, 0)
    if carried is None or carried.key != algebra.of(state.atom).key:
        return None
    return algebra.with_mask(state.update, factor, 1)


class _Matcher:
    def __init__(self, algebra: Algebra, sequence: Atom) -> None:
        self.algebra, self.sequence = algebra, sequence
        (self.x,) = next(iter(algebra.of(sequence).terms))

    def rnn(self, hidden: State, update: Polynomial) -> Cell | None:
        h, terms = self._state(hidden), list(update.terms.items())
        if len(terms) != 1 or len(terms[0][0]) != 1 or not _is(terms[0][1], 1):
            return None
        gate = self._gate(terms[0][0][0], (h,))
        if gate is None or not _fit((gate,)):
            return None
        return Cell("RNN", (gate,), (gate.activation,), False, self.sequence, hidden, None, update)

    def gru(self, hidden: State, update: Polynomial) -> Cell | None:
        h, terms = self._state(hidden), update.terms
        pairs = [m for m in terms if len(m) == 2 and h in m and _is(terms[m], 1)]
        news = [m for m in terms if len(m) == 1 and m != (h,) and _is(terms[m], 1)]
        if len(terms) != 3 or len(pairs) != 1 or len(news) != 1:
            return None
        z, n = _other(pairs[0], h), news[0][0]
        both = tuple(sorted((z, n)))
        if both not in terms or not _is(terms[both], -1):
            return None
        update_gate = self._gate(z, (h,))
        for reset, new, after in self._new_gates(n, h):
            reset_gate = self._gate(reset, (h,))
            if update_gate is None or reset_gate is None or _kind(update_gate) != _kind(reset_gate):
                continue
            gates = (update_gate, reset_gate, new)
            if _fit(gates):
                kinds = (update_gate.activation, new.activation)
                return Cell("GRU", gates, kinds, after, self.sequence, hidden, None, update)
        return None

    def lstm(self, hidden: State, update: Polynomial, memory: State, change: Polynomial) -> Cell | None:
        h, c = self._state(hidden), self._state(memory)
        out, kept = list(update.terms.items()), [m for m in change.terms if len(m) == 2 and c in m]
        if len(out) != 1 or len(out[0][0]) != 2 or not _is(out[0][1], 1) or len(change.terms) != 2 or len(kept) != 1:
            return None
        (added,) = [m for m in change.terms if m != kept[0]]
        if len(added) != 2 or not all(_is(change.terms[m], 1) for m in change.terms):
            return None
        f = self._gate(_other(kept[0], c), (h,))
        for (o, squash), (i, g) in ((a, b) for a in _orders(out[0][0]) for b in _orders(added)):
            of_memory = self.algebra.factors[squash]
            if not isinstance(of_memory, Activation) or of_memory.argument_key != change.key or f is None:
                continue
            gates = [self._gate(n, (h,)) for n in (i, o, g)]
            if gates[0] is None or gates[1] is None or gates[2] is None:
                continue
            ordered = (gates[0], gates[1], f, gates[2])
            if _fit(ordered) and _kind(gates[0]) == _kind(gates[1]) == _kind(f):
                kinds = (f.activation, gates[2].activation, of_memory)
                return Cell("LSTM", ordered, kinds, False, self.sequence, hidden, memory, update)
        return None

    def _state(self, state: State) -> int:
        (number,) = next(iter(self.algebra.of(state.atom).terms))
        return number

    def _gate(self, number: int, state: Monomial) -> Gate | None:
        """A gate that reads the input and `state` (the state, or the state times the reset gate)."""
        factor = self.algebra.factors[number]
        if not isinstance(factor, Activation):
            return None
        return self._affine(factor, dict(factor.argument.terms), state)

    def _affine(self, activation: Activation, terms: dict[Monomial, Any], state: Monomial) -> Gate | None:
        w: Any = None
        r: Any = None
        bias: Any = terms.pop((), 0.0)
        for monomial, coefficient in terms.items():
            factor = self.algebra.factors[monomial[0]] if len(monomial) == 1 else None
            if not isinstance(factor, Product):
                return None
            if coefficient.size not in (1, factor.matrix.shape[1]):
                return None
            scaled = factor.matrix * coefficient
            if factor.monomial == (self.x,) and (w is None or w.shape == scaled.shape):
                w = scaled if w is None else w + scaled
            elif factor.monomial == state and (r is None or r.shape == scaled.shape):
                r = scaled if r is None else r + scaled
            else:
                return None
        return None if w is None or r is None else Gate(activation, w, r, bias)

    def _new_gates(self, number: int, h: int) -> Iterator[tuple[int, Gate, bool]]:
        """`(reset gate, new gate, whether the reset comes after the product)` in every way that the factor allows."""
        factor = self.algebra.factors[number]
        if not isinstance(factor, Activation):
            return
        terms = factor.argument.terms
        for monomial in terms:
            inner = self.algebra.factors[monomial[0]] if len(monomial) == 1 else None
            if isinstance(inner, Product) and len(inner.monomial) == 2 and h in inner.monomial:
                gate = self._gate(number, inner.monomial)
                if gate is not None:
                    yield _other(inner.monomial, h), gate, False
            for reset in monomial if len(monomial) == 2 else ():
                if isinstance(self.algebra.factors[reset], Activation):
                    gate = self._reset_after(factor, reset, h)
                    if gate is not None:
                        yield reset, gate, True

    def _reset_after(self, activation: Activation, reset: int, h: int) -> Gate | None:
        terms = dict(activation.argument.terms)
        under = {tuple(f for f in m if f != reset): terms.pop(m) for m in list(terms) if reset in m}
        bias = under.pop((), 0.0)
        if any(m in terms for m in under):
            return None
        gate = self._affine(activation, {**terms, **under}, (h,))
        if gate is None or not all(self._reads(m, h) for m in under) or any(self._reads(m, h) for m in terms):
            return None
        return Gate(activation, gate.w, gate.r, gate.b, bias)

    def _reads(self, monomial: Monomial, h: int) -> bool:
        factor = self.algebra.factors[monomial[0]] if len(monomial) == 1 else None
        return isinstance(factor, Product) and factor.monomial == (h,)


def _other(pair: Monomial, number: int) -> int:
    return pair[1] if pair[0] == number else pair[0]


def _orders(pair: Monomial) -> tuple[tuple[int, int], tuple[int, int]]:
    return (pair[0], pair[1]), (pair[1], pair[0])


def _is(coefficient: Any, wanted: float) -> bool:
    return bool(coefficient.ndim == 0 and abs(coefficient - wanted) <= _ROUNDING)


def _kind(gate: Gate) -> tuple[str, tuple[float, ...]]:
    return gate.activation.op, gate.activation.parameters


def _fit(gates: tuple[Gate, ...]) -> bool:
    """Whether all gates have matrices and biases of one size: a narrower gate would have been broadcast."""
    import numpy as np

    hidden, inputs = gates[0].r.shape[0], gates[0].w.shape[0]
    biases = [b for g in gates for b in (g.b, g.rb) if b is not None]
    matrices = all(g.w.shape == (inputs, hidden) and g.r.shape == (hidden, hidden) for g in gates)
    return matrices and all(np.size(b) in (1, hidden) for b in biases)
