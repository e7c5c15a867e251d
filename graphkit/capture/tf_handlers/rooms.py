"""One graph of a GraphDef, its main one or a function, with the two ways in which TensorFlow names tensors."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any


class Room:
    """The nodes of a GraphDef or of a FunctionDef.

    A tensor is `node` or `node:1` in the main graph, and `argument` or `node:output:0` in a function.

    Args:
        owner: The GraphDef or FunctionDef.
    """

    def __init__(self, owner: Any) -> None:
        self.owner = owner
        self.function = hasattr(owner, "signature")
        self.nodes = owner.node_def if self.function else owner.node
        self.by_name = {node.name: node for node in self.nodes}

    @property
    def arguments(self) -> list[str]:
        return [a.name for a in self.owner.signature.input_arg] if self.function else []

    def producer(self, tensor: str) -> Any | None:
        """The node that makes it; None for an argument of the function."""
        return self.by_name.get(tensor.partition(":")[0])

    def behind(self, tensor: str) -> str:
        """The tensor before any Identity."""
        node = self.producer(tensor)
        while node is not None and node.op == "Identity":
            tensor = node.input[0]
            node = self.producer(tensor)
        return tensor

    def output(self, node: Any, name: str, position: int = 0) -> str:
        """An output of a node; in a function by the name of the op's output."""
        if self.function:
            return f"{node.name}:{name}:{position}"
        return f"{node.name}:{position}" if position else str(node.name)

    def result(self, position: int) -> str:
        """What the function returns there."""
        return str(self.owner.ret[self.owner.signature.output_arg[position].name])

    def readers(self, tensor: str) -> Iterator[tuple[Any, int]]:
        """(node, input) for everything that reads a tensor."""
        for node in list(self.nodes):
            for position, name in enumerate(node.input):
                if name == tensor or (not self.function and name == f"{tensor}:0"):
                    yield node, position

    def rename(self, old: str, new: str) -> None:
        """Let every reader of a tensor read another."""
        for node, position in list(self.readers(old)):
            node.input[position] = new
        if self.function:
            for key, value in list(self.owner.ret.items()):
                if value == old:
                    self.owner.ret[key] = new

    def add(self, op: str, name: str, inputs: list[str], output: str, **types: int) -> str:
        """A new node; its output, named as the op names it."""
        free, number = name, 0
        while free in self.by_name:
            number += 1
            free = f"{name}_{number}"
        node = self.nodes.add(name=free, op=op)
        node.input.extend(inputs)
        for key, value in types.items():
            node.attr[key].type = value
        self.by_name[free] = node
        return self.output(node, output)

    def const(self, name: str, value: Any) -> str:
        """A new constant."""
        import numpy as np
        import tensorflow as tf

        proto = tf.make_tensor_proto(np.asarray(value))
        made = self.add("Const", name, [], "output", dtype=proto.dtype)
        self.by_name[made.partition(":")[0]].attr["value"].tensor.CopyFrom(proto)
        return made

    def value(self, tensor: str) -> Any | None:
        """The value of a constant, also behind an Identity and a reduction of a scalar."""
        import tensorflow as tf

        node = self.producer(tensor)
        if node is None:
            return None
        if node.op == "Const":
            return tf.make_ndarray(node.attr["value"].tensor)
        if node.op in ("Identity", "Max", "Min"):
            value = self.value(node.input[0])
            return value if node.op == "Identity" or (value is not None and value.ndim == 0) else None
        return None
