"""Makes nodes and constants under names that nothing else in the model has."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    import onnx_ir as ir


class Emitter:
    """Nodes on their way into a graph.

    Args:
        graph: Where the constants go.
        prefix: What the names start with.
        taken: Every name in use; added to.
    """

    def __init__(self, graph: ir.Graph, prefix: str, taken: set[str]) -> None:
        self.graph, self.prefix, self.taken = graph, prefix, taken
        self.nodes: list[ir.Node] = []
        self._constants: dict[tuple[Any, ...], ir.Value] = {}

    def add(self, op: str, *inputs: ir.Value | None, **attributes: Any) -> ir.Value:
        """The only output of a new node."""
        return self.several(op, inputs, 1, attributes)[0]

    def several(
        self, op: str, inputs: Sequence[ir.Value | None], outputs: int, attributes: dict[str, Any]
    ) -> Sequence[ir.Value]:
        """The outputs of a new node."""
        import onnx_ir as ir

        name = self._unique(op)
        node = ir.node(op, inputs, attributes, num_outputs=outputs, name=name)
        for i, value in enumerate(node.outputs):
            value.name = self._unique(f"{op}:{i}")
        self.nodes.append(node)
        return node.outputs

    def constant(self, name: str, array: Any) -> ir.Value:
        """An initializer; the same name and content is made once."""
        import onnx_ir as ir

        at = (name, array.dtype.name, array.shape, array.tobytes())
        if at not in self._constants:
            unique = self._unique(name)
            value = ir.Value(name=unique, const_value=ir.tensor(array, name=unique))
            value.shape, value.type = ir.Shape(array.shape), ir.TensorType(value.const_value.dtype)  # type: ignore[union-attr]
            self.graph.register_initializer(value)
            self._constants[at] = value
        return self._constants[at]

    def integers(self, *values: int) -> ir.Value:
        """A vector of int64."""
        import numpy as np

        return self.constant("integers", np.array(values, "int64"))

    def scalar(self, value: float, dtype: str) -> ir.Value:
        """A constant without dimensions."""
        import numpy as np

        return self.constant(dtype, np.array(value, dtype))

    def _unique(self, name: str) -> str:
        full, n = f"{self.prefix}/{name}", 1
        while full in self.taken:
            n += 1
            full = f"{self.prefix}/{name}_{n}"
        self.taken.add(full)
        return full
