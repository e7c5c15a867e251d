"""A graph as rules see it: defaults filled in, constants by their elements, axes wherever they are written.

Exporters write the same thing in different ways: an attribute that is absent or equal to its default, a constant of
shape [] or [1], axes as an attribute or as an input, the factors of a product in either order. Rules ask here, so that
each is written once.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import lru_cache
from typing import TYPE_CHECKING, Any

from graphkit.analyze.polynomial import Size
from graphkit.analyze.tensors import Shape
from graphkit.rewrite.facts import Facts
from graphkit.traversal import nodes_of as nodes_of
from graphkit.traversal import read_count

if TYPE_CHECKING:
    import numpy as np
    import onnx_ir as ir

SMALL = 4096
"""Elements above which a constant is a weight, which is read only where a rule needs it."""


class Reading:
    """Questions about one model."""

    def __init__(self, model: ir.Model, facts: Facts) -> None:
        self.model = model
        self.facts = facts
        self._arrays: dict[int, _Held] = {}
        self.opset = model.opset_imports.get("", model.graph.opset_imports.get("", 0))

    # --- structure --------------------------------------------------------------------------------------------------

    def producer(self, value: ir.Value | None, *ops: str) -> ir.Node | None:
        """The node that makes a value, if it is one of these standard operators (any, if none is named)."""
        node = value.producer() if value is not None else None
        if node is None or (ops and node.op_type not in ops) or node.domain or node.graph is None:
            return None
        return node

    def sole(self, value: ir.Value | None, *ops: str) -> ir.Node | None:
        """As `producer`, but only where the value is read once and is no output of the graph: it may be absorbed."""
        if value is None or value.is_graph_output() or read_count(value) != 1:
            return None
        return self.producer(value, *ops)

    def users(self, value: ir.Value) -> list[ir.Node]:
        """The nodes that read a value, each once, in the order of their first reading of it."""
        return list(dict.fromkeys(node for node, _ in value.uses()))

    def only_user(self, value: ir.Value, *ops: str) -> ir.Node | None:
        """The one node that reads a value, if it is one of these operators, in the same graph."""
        users = self.users(value)
        if len(users) != 1 or value.is_graph_output() or users[0].domain or (ops and users[0].op_type not in ops):
            return None
        source = value.producer()
        return users[0] if source is None or users[0].graph is source.graph else None

    def input(self, node: ir.Node, index: int) -> ir.Value | None:
        """An input, None where it is absent."""
        return node.inputs[index] if index < len(node.inputs) else None

    def is_input(self, value: ir.Value) -> bool:
        """Whether it comes from outside: an input of a graph (an initializer that can be fed counts)."""
        return value.is_graph_input()

    # --- attributes -------------------------------------------------------------------------------------------------

    def attribute(self, node: ir.Node, name: str) -> Any:
        """Value of an attribute; where it is absent, what the operator takes then; None if it has no default."""
        found = node.attributes.get(name)
        if found is not None:
            return found.value
        return default(node.op_type, self.opset, name)

    def version(self, node: ir.Node) -> int:
        """The opset that a standard node is written in: the model's, but for what came out of a function."""
        return self.opset if node.version is None else node.version

    def axes(self, node: ir.Node, index: int = 1) -> tuple[int, ...] | None:
        """Axes of a reduction, Squeeze or Unsqueeze, not negative: from the attribute or the input; None if unknown.

        A reduction without axes has all of them, unless `noop_with_empty_axes` is set.
        """
        written: Sequence[int] | None
        if "axes" in node.attributes:
            written = [int(a) for a in node.attributes["axes"].as_ints()]
        else:
            given = self.input(node, index)
            if given is None:
                rank = self.rank(node.inputs[0])
                if node.op_type == "Squeeze" or rank is None:
                    return None
                return () if self.attribute(node, "noop_with_empty_axes") else tuple(range(rank))
            written = self.integers(given)
        if written is None:
            return None
        value = node.outputs[0] if node.op_type == "Unsqueeze" else node.inputs[0]
        rank = self.rank(value)
        if rank is None:
            inner = self.rank(node.inputs[0]) if node.op_type == "Unsqueeze" else None
            rank = None if inner is None else inner + len(written)
        if rank is None:
            return tuple(written) if all(a >= 0 for a in written) else None
        return tuple(a % rank for a in written) if rank else ()

    # --- types ------------------------------------------------------------------------------------------------------

    def shape(self, value: ir.Value | None) -> Shape | None:
        """Sizes of a value, each an int, a polynomial in symbols, or None; None where the rank is unknown."""
        return None if value is None else self.facts.tensor(value).shape

    def rank(self, value: ir.Value | None) -> int | None:
        shape = self.shape(value)
        return None if shape is None else len(shape)

    def dtype(self, value: ir.Value | None) -> str | None:
        """Name of a dtype: `float32`."""
        return None if value is None else self.facts.tensor(value).dtype

    def same_shape(self, a: ir.Value, b: ir.Value) -> bool:
        """Whether two values provably have the same shape on every run."""
        left, right = self.shape(a), self.shape(b)
        return left is not None and left == right and None not in left

    # --- constants --------------------------------------------------------------------------------------------------

    def tensor(self, value: ir.Value) -> ir.TensorProtocol | None:
        """The tensor of a constant, unread; None for anything else."""
        return _tensor(value)

    def is_constant(self, value: ir.Value | None) -> bool:
        """Whether it is the same in every run, and its elements can be had."""
        return value is not None and _tensor(value) is not None

    def constant(self, value: ir.Value | None, most: int = SMALL) -> np.ndarray[Any, Any] | None:
        """Elements of a constant of at most this many; bigger ones are not read."""
        held = self._held(value) if value is not None else None
        if held is None or held.size > most:
            return None
        return held.tensor.numpy() if held.array is None else held.array

    def weight(self, value: ir.Value | None) -> np.ndarray[Any, Any] | None:
        """Elements of a constant, however big: for rules that compute with weights."""
        tensor = _tensor(value) if value is not None else None
        return None if tensor is None else self.array(tensor)

    def array(self, tensor: ir.TensorProtocol) -> np.ndarray[Any, Any]:
        """Elements of a tensor, read once where it is small."""
        held = self._kept(tensor)
        return tensor.numpy() if held.array is None else held.array

    def scalar(self, value: ir.Value | None) -> float | None:
        """The number that a constant of one element holds, whatever its rank; None for anything else."""
        held = self._held(value) if value is not None else None
        if held is None or held.size != 1:
            return None
        if held.scalar is _UNASKED:
            held.scalar = _scalar(held.array)
        return held.scalar

    def uniform(self, value: ir.Value | None) -> float | None:
        """The number that every element of a small constant is."""
        held = self._held(value) if value is not None else None
        if held is None or held.array is None:
            return None
        if held.uniform is _UNASKED:
            held.uniform = _uniform(held.array)
        return held.uniform

    def integers(self, value: ir.Value | None) -> list[int] | None:
        """The integers that a small tensor always holds: a constant, or shape arithmetic with a known result."""
        if value is None:
            return None
        found = self.constant(value)
        if found is not None:
            return [int(x) for x in found.reshape(-1)] if found.dtype.kind in "iu" else None
        known = self.facts.ints(value)
        if known is None or not all(isinstance(size, int) for size in known):
            return None
        return [size for size in known if isinstance(size, int)]

    def sizes(self, value: ir.Value | None) -> tuple[Size, ...] | None:
        """The elements of a small integer tensor, each an int or a polynomial in symbols; None where one is unknown."""
        if value is None:
            return None
        found = self.constant(value, 64)
        if found is not None:
            return tuple(int(x) for x in found.reshape(-1)) if found.dtype.kind in "iu" else None
        return self.facts.ints(value)

    def operands(self, node: ir.Node) -> tuple[tuple[ir.Value, ir.Value], ...]:
        """The two inputs of a node in both orders, for operators in which the order does not matter."""
        a, b = node.inputs[0], node.inputs[1]
        assert a is not None
        assert b is not None
        return ((a, b), (b, a))

    def with_scalar(self, node: ir.Node | None) -> tuple[ir.Value, float] | None:
        """The other input, and the number, of an Add, Mul or other commutative node with a one-element constant."""
        if node is None or len(node.inputs) != 2:
            return None
        for value, constant in self.operands(node):
            number = self.scalar(constant)
            if number is not None:
                return value, number
        return None

    def _held(self, value: ir.Value) -> _Held | None:
        tensor = _tensor(value)
        return None if tensor is None else self._arrays.get(id(tensor)) or self._kept(tensor)

    def _kept(self, tensor: ir.TensorProtocol) -> _Held:
        held = self._arrays.get(id(tensor))
        if held is None:
            size = tensor.size
            held = self._arrays[id(tensor)] = _Held(tensor, size, tensor.numpy() if size <= SMALL else None)
        return held


_UNASKED: Any = object()


@dataclass(slots=True)
class _Held:
    """A constant, which rules ask for again and again; what nobody asked yet is `_UNASKED`.

    Attributes:
        tensor: Held, so that its id stays its own.
        size: How many elements it has.
        array: Its elements; None where they are many.
        scalar, uniform: See `Reading.scalar`, `Reading.uniform`.
    """

    tensor: ir.TensorProtocol
    size: int
    array: np.ndarray[Any, Any] | None
    scalar: float | None = _UNASKED
    uniform: float | None = _UNASKED


def _scalar(found: np.ndarray[Any, Any] | None) -> float | None:
    if found is None or (found.dtype.kind not in "fiub" and found.dtype.name != "bfloat16"):
        return None
    return float(found.reshape(-1)[0])


def _uniform(found: np.ndarray[Any, Any]) -> float | None:
    if not found.size or found.dtype.kind not in "fiub":
        return None
    first, last = found.item(0), found.item(found.size - 1)
    return float(first) if first == last and (found.size <= 2 or (found == first).all()) else None


def _tensor(value: ir.Value) -> ir.TensorProtocol | None:
    if value.is_initializer():
        return None if value.is_graph_input() else value.const_value
    node = value.producer()
    if node is None or node.op_type != "Constant" or node.domain or "value" not in node.attributes:
        return None  # the other spellings were made initializers before any rule looks
    return node.attributes["value"].as_tensor()


@lru_cache(maxsize=4096)
def default(op_type: str, opset: int, name: str) -> Any:
    """Default of an attribute in the standard; None where it has none."""
    import onnx
    import onnx.defs

    try:
        schema = onnx.defs.get_schema(op_type, opset, "")
    except onnx.defs.SchemaError:
        return None
    attribute = schema.attributes.get(name)
    if attribute is None or not attribute.default_value.name:
        return None
    found = onnx.helper.get_attribute_value(attribute.default_value)
    return found.decode() if isinstance(found, bytes) else found
