"""What is known of values before anything runs: types with symbolic sizes, and elements of small integer tensors.

The rules of `analyze` are asked once, about the graph as it was before it is changed. What a rewriting makes takes the
facts of what it replaces; a value that nobody knows has what the graph itself states.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from graphkit.analyze.polynomial import Size, parse
from graphkit.analyze.tensors import UNKNOWN, Shape, Tensor

if TYPE_CHECKING:
    import onnx_ir as ir

    from graphkit.analyze.inference import Table
    from graphkit.view import ModelView

_DTYPE_NAMES = {"FLOAT": "float32", "DOUBLE": "float64"}
_NAMELESS = frozenset(("?", "-1", "None"))


class Facts:
    """Types and elements by value.

    Attributes:
        below: Sizes with the one that they are at most, and are wherever both are broadcast together.
    """

    def __init__(self) -> None:
        self._tensors: dict[int, Tensor] = {}
        self._ints: dict[int, tuple[Size, ...]] = {}
        self.below: dict[Size | None, Size] = {}
        self._held: list[ir.Value] = []  # ids are those of living objects as long as we hold them

    @classmethod
    def of(cls, model: ir.Model, view: ModelView | None) -> Facts:
        """Facts about `model`, of which `view` is the view; without one, what the graph states.

        Raises:
            CorruptFile: the graph has a cycle, or functions call one another without end.
        """
        facts = cls()
        if view is not None:
            from graphkit.analyze.inference import infer

            table = infer(view, naming=True)
            facts._take(model.graph, table)
            if table.shared.naming is not None:
                facts.below.update((small, large) for small, large in table.shared.naming.below.items())
        return facts

    def tensor(self, value: ir.Value) -> Tensor:
        """Type of a value; `UNKNOWN` where nothing is known."""
        found = self._tensors.get(id(value))
        if found is None:
            found = stated(value)
            self.set(value, found)
        return found

    def ints(self, value: ir.Value) -> tuple[Size, ...] | None:
        """Elements of a small integer tensor, flattened; None where they are not known."""
        return self._ints.get(id(value))

    def set(self, value: ir.Value, tensor: Tensor, ints: tuple[Size, ...] | None = None) -> None:
        """Say what a value is."""
        if id(value) not in self._tensors:
            self._held.append(value)
        self._tensors[id(value)] = tensor
        if ints is not None:
            self._ints[id(value)] = ints

    def same(self, new: ir.Value, old: ir.Value) -> None:
        """`new` stands where `old` stood: what was known of either is known of it."""
        a, b = self.tensor(new), self.tensor(old)
        self.set(new, Tensor(_both(a.shape, b.shape), a.dtype or b.dtype), self.ints(old))

    def _take(self, graph: ir.Graph, table: Table) -> None:
        values: dict[str, ir.Value] = {v.name: v for v in (*graph.inputs, *graph.initializers.values()) if v.name}
        nodes = list(graph)
        values.update((o.name, o) for node in nodes for o in node.outputs if o.name)
        for index, name in enumerate(table.graph.values):
            value = values.get(name)
            if value is None:
                continue
            known = table.tensors[index]
            ints = table.ints(index) if known.dtype in ("int64", "int32", "bool") else None
            if known is not UNKNOWN or ints is not None:
                self.set(value, known, ints)
        for index, bodies in table.bodies.items():
            for name, body in bodies:
                attribute = nodes[index].attributes.get(name) if index < len(nodes) else None
                if attribute is not None and attribute.type.name == "GRAPH":
                    self._take(attribute.as_graph(), body)


def stated(value: ir.Value) -> Tensor:
    """What the graph itself says of a value."""
    tensor = value.const_value if value.is_initializer() else None
    dtype = tensor.dtype if tensor is not None else value.dtype
    said = tensor.shape if tensor is not None else value.shape
    name = None if dtype is None else _DTYPE_NAMES.get(dtype.name, dtype.name.lower())
    if said is None:
        return Tensor(None, name)
    return Tensor(tuple(_size(d if isinstance(d, int) else d.value) for d in said), name)


def _size(dim: int | str | None) -> Size | None:
    if isinstance(dim, str):
        return None if dim in _NAMELESS else parse(dim)
    return dim if dim is None or dim >= 0 else None


def _both(a: Shape | None, b: Shape | None) -> Shape | None:
    if a is None or b is None or len(a) != len(b):
        return a if a is not None else b
    return tuple(y if x is None else x for x, y in zip(a, b, strict=True))
