"""Shapes inside loops: what holds in every round, and not only in the first.

tf2onnx 1.17 gives the body of a loop the shapes of what goes into the loop. Where a tensor grows there, `tf.shape` of
it then is a constant, and nothing says so.
"""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from typing import Any

_LOOPS = ("While", "StatelessWhile")


@contextlib.contextmanager
def invariant(graph_def: Any) -> Iterator[None]:
    """Let tf2onnx read the loops of a GraphDef with shapes that their bodies keep."""
    from tf2onnx import tf_loader

    read = tf_loader.function_def_to_graph
    library = {function.signature.name: function for function in graph_def.library.function}
    bodies = {
        node.attr[name].func.name: library[node.attr["body"].func.name]
        for nodes in (graph_def.node, *(function.node_def for function in library.values()))
        for node in nodes
        if node.op in _LOOPS
        for name in ("cond", "body")
    }

    def with_invariants(function: Any, input_shapes: Any = None) -> Any:
        body = bodies.get(function.signature.name)
        if body is not None and input_shapes is not None:
            input_shapes = _kept(read, body, list(input_shapes))
        return read(function, input_shapes=input_shapes)

    tf_loader.function_def_to_graph = with_invariants
    try:
        yield
    finally:
        tf_loader.function_def_to_graph = read


def _kept(read: Any, body: Any, shapes: list[Any]) -> list[Any]:
    """The most that is true of a loop's variables before and after each round."""
    before: list[str] = []
    while before != [str(shape) for shape in shapes]:
        before = [str(shape) for shape in shapes]
        after = [tensor.shape for tensor in read(body, input_shapes=shapes).outputs]
        shapes = [old.most_specific_compatible_shape(new) for old, new in zip(shapes, after, strict=True)]
    return shapes
