"""A node as the rules for shapes and costs see it: types of its inputs, and its attributes."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from graphkit.analyze.polynomial import Size
from graphkit.analyze.tensors import UNKNOWN, Shape, Tensor

if TYPE_CHECKING:
    from graphkit.analyze.inference import Table


class Node:
    """One node of a table.

    Attributes:
        op, domain: Its operator.
        opset: Version of the operator set; 0 if the model states none.
    """

    __slots__ = ("_attributes", "domain", "index", "makes", "op", "opset", "reads", "table")

    def __init__(self, table: Table, index: int) -> None:
        graph = table.graph
        self.table = table
        self.index = index
        self.op = graph.ops[index]
        self.domain = graph.domains[index]
        self.reads = graph.reads[index]
        self.makes = graph.makes[index]
        self.opset = table.opsets.get(self.domain, 0)
        self._attributes: dict[str, Any] | None = None

    def given(self, slot: int) -> bool:
        """Whether an input is there."""
        return slot < len(self.reads) and self.reads[slot] != 0

    def tensor(self, slot: int) -> Tensor:
        return self.table.tensors[self.reads[slot]] if self.given(slot) else UNKNOWN

    def shape(self, slot: int) -> Shape | None:
        return self.tensor(slot).shape

    def dtype(self, slot: int) -> str | None:
        return self.tensor(slot).dtype

    def ints(self, slot: int) -> tuple[Size, ...] | None:
        """Elements of an integer input, where they are known."""
        return self.table.ints(self.reads[slot]) if self.given(slot) else None

    def numbers(self, slot: int) -> tuple[int, ...] | None:
        """The same, where all of them are numbers."""
        found = self.ints(slot)
        if found is None:
            return None
        known = tuple(each for each in found if isinstance(each, int))
        return known if len(known) == len(found) else None

    def attribute(self, name: str, default: Any = None) -> Any:
        """An attribute's value; inside a function, what the call gives for it."""
        if self._attributes is None:
            found = {}
            for each in self.table.graph.attributes[self.index]:
                if each.reference is None:
                    found[each.name] = each.value
                elif each.reference in self.table.attributes:
                    found[each.name] = self.table.attributes[each.reference].value
            self._attributes = found
        value = self._attributes.get(name)
        return default if value is None else value

    def text(self, name: str, default: str = "") -> str:
        value = self.attribute(name)
        return value.decode("utf-8", "replace") if isinstance(value, bytes) else default
