"""Evaluates the body of a Loop symbolically: each value becomes a constant, a polynomial, or nothing that is known."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, TypeAlias

from graphkit.rewrite.recurrent import constants
from graphkit.rewrite.recurrent.polynomial import Algebra, Atom, Polynomial

if TYPE_CHECKING:
    import onnx_ir as ir

COUNTER = Atom("counter")
"""The number of the step, from 0."""

_BOOL = 9  # TensorProto.BOOL
_TO_THE_END = 2**31 - 1
_PLAIN = frozenset({"Sigmoid", "Tanh", "Relu", "Softsign", "Softplus"})
_WITH_ALPHA = {"LeakyRelu": 0.01, "Elu": 1.0}


@dataclass(frozen=True, slots=True)
class Known:
    """A constant. Two with the same name are the same constant."""

    array: Any
    name: int


Held: TypeAlias = Known | Polynomial | None


@dataclass(slots=True)
class Step:
    """The values of one step.

    Attributes:
        algebra: Where the polynomials live.
        read: Says what reading an outer sequence at the counter gives: an atom, or None.
        held: What is known, by `id` of the value.
    """

    algebra: Algebra
    read: Callable[[ir.Value], Atom | None]
    held: dict[int, Held] = field(default_factory=dict)

    def of(self, value: ir.Value | None) -> Held:
        """What is known of a value of the body, or of the graph around it."""
        if value is None:
            return None
        if id(value) not in self.held:
            array = constants.array(value)
            self.held[id(value)] = None if array is None else Known(array, id(value))
        return self.held[id(value)]

    def polynomial(self, value: ir.Value | None) -> Polynomial | None:
        """A value as a polynomial; None where it is none."""
        found = self.of(value)
        return self.algebra.constant(found.array) if isinstance(found, Known) else found

    def run(self, body: ir.Graph) -> None:
        """Evaluate every node, in order."""
        for node in body:
            made: Sequence[Held] = () if node.domain else self._evaluate(node)
            for i, output in enumerate(node.outputs):
                self.held[id(output)] = made[i] if i < len(made) else None

    def _evaluate(self, node: ir.Node) -> Sequence[Held]:
        op = node.op_type
        if op == "Identity":
            return (self.of(node.inputs[0]),)
        if op in _PLAIN or op in _WITH_ALPHA or op in ("HardSigmoid", "Clip"):
            return (self._activation(node),)
        handler = _HANDLERS.get(op)
        if handler is not None:
            return (handler(self, node),)
        if op == "Split":
            return self._split(node)
        return ()

    # --- arithmetic ------------------------------------------------------------------------------------------------

    def _binary(self, node: ir.Node) -> Held:
        a, b = self.polynomial(node.inputs[0]), self.polynomial(node.inputs[1])
        if a is None or b is None:
            return None
        if node.op_type == "Mul":
            return self.algebra.multiply(a, b)
        return self.algebra.add(a, b, -1.0 if node.op_type == "Sub" else 1.0)

    def _divide(self, node: ir.Node) -> Held:
        a, by = self.polynomial(node.inputs[0]), self.of(node.inputs[1])
        if a is None or not isinstance(by, Known) or by.array.dtype.kind != "f" or not by.array.all():
            return None
        inverse = self.algebra.constant(1.0 / by.array.astype("float64"))
        return None if inverse is None else self.algebra.multiply(a, inverse)

    def _negate(self, node: ir.Node) -> Held:
        a = self.polynomial(node.inputs[0])
        return None if a is None else self.algebra.add(Polynomial({}), a, -1.0)

    def _not(self, node: ir.Node) -> Held:
        a = self._condition(node.inputs[0])
        return None if a is None else self._complement(a)

    def _where(self, node: ir.Node) -> Held:
        condition = self._condition(node.inputs[0])
        a, b = self.polynomial(node.inputs[1]), self.polynomial(node.inputs[2])
        if condition is None or a is None or b is None:
            return None
        other = self._complement(condition)
        chosen = self.algebra.multiply(condition, a)
        rest = None if other is None else self.algebra.multiply(other, b)
        return None if chosen is None or rest is None else self.algebra.add(chosen, rest)

    def _condition(self, value: ir.Value | None) -> Polynomial | None:
        """A Boolean value: a mask or its complement."""
        found = self.of(value)
        if not isinstance(found, Polynomial) or not all(a.is_mask for a in self.algebra.atoms(found)):
            return None
        return found

    def _complement(self, a: Polynomial) -> Polynomial | None:
        one = self.algebra.constant(1.0)
        return None if one is None else self.algebra.add(one, a, -1.0)

    def _cast(self, node: ir.Node) -> Held:
        """Of a mask or the counter only: a cast of the data itself would change its precision."""
        found, to = self.of(node.inputs[0]), constants.attribute(node, "to")
        if not isinstance(found, Polynomial) or to == _BOOL:
            return None
        return found if all(a.is_mask or a == COUNTER for a in self.algebra.atoms(found)) else None

    def _activation(self, node: ir.Node) -> Held:
        a, op = self.polynomial(node.inputs[0]), node.op_type
        if a is None:
            return None
        if op in _WITH_ALPHA:
            return self.algebra.activate(op, a, (float(constants.attribute(node, "alpha", _WITH_ALPHA[op])),))
        if op == "HardSigmoid":
            alpha, beta = constants.attribute(node, "alpha", 0.2), constants.attribute(node, "beta", 0.5)
            return self._hard_sigmoid(a, float(alpha), float(beta))
        return self._clip(node, a) if op == "Clip" else self.algebra.activate(op, a)

    def _hard_sigmoid(self, a: Polynomial, alpha: float, beta: float) -> Polynomial | None:
        """`max(0, min(1, alpha * a + beta))`: alpha and beta go into the argument, so that all spellings are equal."""
        scale, shift = self.algebra.constant(alpha), self.algebra.constant(beta)
        scaled = None if scale is None else self.algebra.multiply(scale, a)
        moved = None if scaled is None or shift is None else self.algebra.add(scaled, shift)
        return None if moved is None else self.algebra.activate("HardSigmoid", moved, (1.0, 0.0))

    def _clip(self, node: ir.Node, a: Polynomial) -> Polynomial | None:
        """`Clip(a, 0, c)` is `c` times the hard sigmoid of `a / c`: Keras writes its own as `Clip(a + 3, 0, 6) / 6`."""
        limits = [self.of(v) for v in node.inputs[1:3]]
        values = [float(k.array.item()) for k in limits if isinstance(k, Known) and k.array.size == 1]
        if len(values) != 2 or values[0] != 0.0 or not values[1] > 0.0:
            return None
        top, clipped = self.algebra.constant(values[1]), self._hard_sigmoid(a, 1.0 / values[1], 0.0)
        return None if top is None or clipped is None else self.algebra.multiply(top, clipped)

    # --- products, and parts of them -------------------------------------------------------------------------------

    def _matmul(self, node: ir.Node) -> Held:
        a, matrix = self.polynomial(node.inputs[0]), self._matrix(node.inputs[1])
        if a is None or matrix is None:
            return None
        return self.algebra.matmul(a, matrix.array, (matrix.name, 0, matrix.array.shape[1]))

    def _gemm(self, node: ir.Node) -> Held:
        a, matrix = self.polynomial(node.inputs[0]), self._matrix(node.inputs[1])
        if a is None or matrix is None or constants.attribute(node, "transA", 0):
            return None
        turned = bool(constants.attribute(node, "transB", 0))
        array = matrix.array.T if turned else matrix.array
        product = self.algebra.matmul(a, array, ((matrix.name, turned), 0, array.shape[1]))
        product = self._scaled(product, constants.attribute(node, "alpha", 1.0))
        if len(node.inputs) < 3 or node.inputs[2] is None:
            return product
        bias = self._scaled(self.polynomial(node.inputs[2]), constants.attribute(node, "beta", 1.0))
        return None if product is None or bias is None else self.algebra.add(product, bias)

    def _scaled(self, a: Polynomial | None, by: float) -> Polynomial | None:
        factor = self.algebra.constant(by)
        return None if a is None or factor is None else self.algebra.multiply(a, factor)

    def _matrix(self, value: ir.Value | None) -> Known | None:
        # ONNX Runtime's CPU kernels of GRU and RNN take float32 only.
        found = self.of(value)
        fits = isinstance(found, Known) and found.array.ndim == 2 and found.array.dtype.name == "float32"
        return found if isinstance(found, Known) and fits else None

    def _split(self, node: ir.Node) -> Sequence[Held]:
        found, count = self.of(node.inputs[0]), len(node.outputs)
        sizes = constants.integers(node.inputs[1]) if len(node.inputs) > 1 else constants.attribute(node, "split")
        axis = constants.attribute(node, "axis", 0)
        if isinstance(found, Known):
            width = found.array.shape[axis] if -found.array.ndim <= axis < found.array.ndim else None
        else:
            width = self.algebra.width(found) if found is not None and axis in (1, -1) else None
        if sizes is None and width is not None and width % count == 0:
            sizes = [width // count] * count
        if sizes is None or found is None or width is None or sum(sizes) != width:
            return ()
        ends = [sum(sizes[: i + 1]) for i in range(count)]
        return [
            self._part(found, axis, e - s, e, output) for e, s, output in zip(ends, sizes, node.outputs, strict=True)
        ]

    def _part(self, found: Known | Polynomial, axis: int, start: int, stop: int, output: ir.Value) -> Held:
        if isinstance(found, Known):
            index = (slice(None),) * (axis % found.array.ndim) + (slice(start, stop),)
            return Known(found.array[index], id(output))
        return self.algebra.columns(found, start, stop)

    def _slice(self, node: ir.Node) -> Held:
        found, cut = self.of(node.inputs[0]), constants.bounds(node)
        for axis, start, stop, by in cut or ():
            if found is None or by != 1:
                return None
            if isinstance(found, Known):
                if not -found.array.ndim <= axis < found.array.ndim:
                    return None
                start, stop, _ = slice(start, stop).indices(found.array.shape[axis])
                found = self._part(found, axis, start, stop, node.outputs[0])
            elif axis in (1, -1):
                width = self.algebra.width(found)
                if width is None:
                    return None
                start, stop, _ = slice(start, stop).indices(width)
                found = self.algebra.columns(found, start, stop)
            elif axis != 0 or start != 0 or stop < _TO_THE_END:
                return None
        return found if cut is not None else None

    def _gather(self, node: ir.Node) -> Held:
        data, index = node.inputs[0], self.polynomial(node.inputs[1])
        if data is None or index is None or constants.attribute(node, "axis", 0) != 0:
            return None
        atom = self.read(data) if index.key == self.algebra.of(COUNTER).key else None
        return None if atom is None else self.algebra.of(atom)

    def _reshaped(self, node: ir.Node) -> Held:
        """Of a constant only."""
        import numpy as np

        found = self.of(node.inputs[0])
        if not isinstance(found, Known):
            return None
        array, op, given = found.array, node.op_type, constants.axes(node)
        if given is None and (op == "Unsqueeze" or (op == "Squeeze" and len(node.inputs) > 1)):
            return None
        try:
            if op == "Transpose":
                array = np.transpose(array, constants.attribute(node, "perm"))
            elif op == "Squeeze":
                array = np.squeeze(array, None if given is None else tuple(given))
            else:
                array = np.expand_dims(array, tuple(given or ()))
        except (ValueError, IndexError):  # an invalid graph: numpy refuses what the operator would
            return None
        return Known(array, id(node.outputs[0]))


_HANDLERS: dict[str, Callable[[Step, Any], Held]] = {
    "Add": Step._binary,
    "Sub": Step._binary,
    "Mul": Step._binary,
    "Div": Step._divide,
    "Neg": Step._negate,
    "Not": Step._not,
    "Where": Step._where,
    "Cast": Step._cast,
    "MatMul": Step._matmul,
    "Gemm": Step._gemm,
    "Slice": Step._slice,
    "Gather": Step._gather,
    "Transpose": Step._reshaped,
    "Squeeze": Step._reshaped,
    "Unsqueeze": Step._reshaped,
}
