"""Writes ONNX nodes into tf2onnx's graph in place of one TensorFlow node."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any


class Refusal(ValueError):
    """What the TensorFlow node asks for has no right ONNX form at this opset; the message is for the user.

    tf2onnx logs what a handler raises, and whoever drives it reads that log.
    """


class Emitter:
    """The place where a handler writes.

    Tensors are names, as in tf2onnx. Nodes are named after the TensorFlow node, which carries the layer path.

    Args:
        graph: tf2onnx's `Graph`.
        node: The TensorFlow node (tf2onnx's `Node`) to be replaced.
    """

    def __init__(self, graph: Any, node: Any) -> None:
        self.graph = graph
        self.node = node

    @property
    def opset(self) -> int:
        return int(self.graph.opset)

    def op(self, kind: str, *inputs: str, **attributes: Any) -> str:
        """Add a node with one output; the output's name."""
        return str(self.ops(kind, inputs, 1, **attributes)[0])

    def ops(self, kind: str, inputs: Sequence[str], outputs: int, **attributes: Any) -> list[str]:
        """Add a node with several outputs; their names."""
        node = self.graph.make_node(
            kind, list(inputs), attr=attributes, output_count=outputs, op_name_scope=self.node.name
        )
        return list(node.output)

    def const(self, value: Any, like: str | None = None) -> str:
        """A constant; with `like`, in the dtype of that tensor."""
        import numpy as np
        from tf2onnx import utils

        array = np.asarray(value) if like is None else np.asarray(value).astype(self.numpy_dtype(like))
        return str(self.graph.make_const(utils.make_name(f"{self.node.name}_const"), array).output[0])

    def ints(self, *values: int) -> str:
        """A constant int64 vector."""
        import numpy as np

        return self.const(np.asarray(values, np.int64))

    def numpy_dtype(self, tensor: str) -> Any:
        from tf2onnx import utils

        return utils.map_onnx_to_numpy_type(self.graph.get_dtype(tensor))

    def cast(self, tensor: str, like: str) -> str:
        """`tensor` in the dtype of `like`."""
        wanted = self.graph.get_dtype(like)
        return tensor if self.graph.get_dtype(tensor) == wanted else self.op("Cast", tensor, to=wanted)

    def int64(self, tensor: str) -> str:
        import onnx

        wanted = onnx.TensorProto.INT64
        return tensor if self.graph.get_dtype(tensor) == wanted else self.op("Cast", tensor, to=wanted)

    def shape(self, tensor: str) -> list[int] | None:
        """The known shape, -1 where a dimension is not known; None where the rank is not."""
        known = self.graph.get_shape(tensor)
        return None if known is None else [int(d) for d in known]

    def rank(self, tensor: str) -> int:
        """Raises: Refusal where the rank is unknown."""
        known = self.shape(tensor)
        if known is None:
            raise Refusal(f"the rank of {tensor} is not known")
        return len(known)

    def value(self, tensor: str) -> Any | None:
        """The NumPy value of a constant, else None."""
        node = self.graph.get_node_by_output(tensor)
        return node.get_tensor_value(as_list=False) if node is not None and node.is_const() else None

    def reduce(self, kind: str, tensor: str, axes: Sequence[int], keepdims: bool = False) -> str:
        """ReduceSum, ReduceMean or ReduceMax over static axes; no axes change nothing."""
        if not axes:
            return tensor
        if kind == "ReduceSum" or self.opset >= 18:
            return self.op(kind, tensor, self.ints(*axes), keepdims=int(keepdims))
        return self.op(kind, tensor, axes=list(axes), keepdims=int(keepdims))

    def used(self, output: int) -> bool:
        """Whether anything reads this output of the TensorFlow node."""
        outputs = self.node.output
        if output >= len(outputs):
            return False
        return outputs[output] in self.graph.outputs or bool(self.graph.find_output_consumers(outputs[output]))

    def replace(self, values: Sequence[str | None]) -> None:
        """Put tensors in place of the outputs of the TensorFlow node; None for one that nothing reads."""
        node = self.node
        outputs = list(zip(node.output, values, node.output_shapes, node.output_dtypes, strict=False))
        self.graph.remove_node(node.name)
        for output, value, shape, dtype in outputs:
            if value is not None:
                self.graph.make_node(
                    "Identity", [value], outputs=[output], op_name_scope=node.name, shapes=[shape], dtypes=[dtype]
                )


Emit = Callable[[Emitter], Sequence[str | None] | None]
"""A handler: the tensors that replace the outputs, or None where it has changed the node in place."""


def as_tf2onnx_handler(emit: Emit) -> tuple[Callable[..., Any], list[Any]]:
    """The handler in the form that tf2onnx's `custom_op_handlers` takes."""

    def handle(graph: Any, node: Any, _name: str, _args: list[Any]) -> None:
        emitter = Emitter(graph, node)
        values = emit(emitter)
        if values is not None:
            emitter.replace(values)

    return handle, []


def run_builtin(emitter: Emitter) -> None:
    """Convert the node as tf2onnx does by itself."""
    from tf2onnx import handler

    kind = emitter.node.type
    levels = handler.tf_op.get_opsets()[""][: emitter.opset + 1]
    function, options = next(level[kind] for level in reversed(levels) if kind in level)
    if "onnx_op" in options:
        options = {**options, "tf_op": kind}
        emitter.node.type = options["onnx_op"]
    function(emitter.graph, emitter.node, **options, initialized_tables={}, dequantize=False)
