"""Reads BatchNormalization, Mul, Add, Sub and Div with constants as `scale * x + shift`."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, TypeAlias

if TYPE_CHECKING:
    import numpy as np
    import onnx_ir as ir

    from graphkit.rewrite.editor import Editor

FLOATS = ("float32", "float64", "float16", "bfloat16")
STEPS = ("BatchNormalization", "Mul", "Add", "Sub", "Div")

Array: TypeAlias = "np.ndarray[Any, Any]"


@dataclass(frozen=True, slots=True)
class Step:
    """A node that gives `scale * data + shift`.

    Attributes:
        data: What it reads.
        scale, shift: float64 vectors, one element per channel, or one for all.
    """

    data: ir.Value
    scale: Array
    shift: Array

    @property
    def scales(self) -> bool:
        """Whether it does more than add."""
        return bool((self.scale != 1).any())

    @property
    def shifts(self) -> bool:
        return bool((self.shift != 0).any())


def data_of(editor: Editor, node: ir.Node) -> ir.Value | None:
    """What a step reads besides constants; None where it is no step."""
    if node.domain or node.op_type not in STEPS:
        return None
    if node.op_type == "BatchNormalization":
        return node.inputs[0]
    a, b = node.inputs
    if is_known(editor, b):
        return None if is_known(editor, a) else a
    return b if is_known(editor, a) and node.op_type != "Div" else None


def is_known(editor: Editor, value: ir.Value | None) -> bool:
    """Whether a value is a constant, or one number in a shape, which folding leaves alone where it is large."""
    node = None if editor.is_constant(value) else editor.producer(value, "ConstantOfShape", "Unsqueeze")
    if node is None:
        return editor.is_constant(value)
    return editor.is_constant(node.inputs[0]) if node.op_type == "ConstantOfShape" else is_known(editor, node.inputs[0])


def known(editor: Editor, value: ir.Value | None, most: int) -> Array | None:
    """Elements of a value of which `is_known` holds, if there are no more than this many."""
    import numpy as np

    if value is None or editor.is_constant(value):
        return editor.constant(value, most)
    shape, node = editor.shape(value), editor.producer(value, "ConstantOfShape", "Unsqueeze")
    if node is None or shape is None or any(not isinstance(size, int) for size in shape):
        return None
    sizes = [size for size in shape if isinstance(size, int)]
    if math.prod(sizes) > most:
        return None
    if node.op_type == "Unsqueeze":
        inner = known(editor, node.inputs[0], most)
        return None if inner is None else inner.reshape(sizes)
    written = node.attributes.get("value")
    number = np.zeros(1, np.float32) if written is None else written.as_tensor().numpy()
    return np.full(sizes, number.reshape(-1)[0], number.dtype) if editor.is_constant(node.inputs[0]) else None


def step_of(editor: Editor, node: ir.Node, rank: int | None, axis: int, channels: int) -> Step | None:
    """A node as a step along one axis of what it reads; None where it is none.

    Args:
        node: The node.
        rank: Rank of what it reads; None where it is not known, then `axis` is the last one.
        axis: Where the channels are, not negative unless it is -1.
        channels: How many there are.
    """
    import numpy as np

    data = data_of(editor, node)
    if data is None or editor.dtype(data) not in (None, *FLOATS):
        return None
    if node.op_type == "BatchNormalization":
        return _batchnorm(editor, node, data, rank, axis, channels)
    first = node.inputs[0]
    constant = node.inputs[1] if data is first else first
    shape = editor.shape(constant)
    if shape is None or not _lies_along(shape, rank, axis, channels):
        return None
    array = known(editor, constant, channels)
    if array is None or not is_float(array):
        return None
    numbers = array.reshape(-1).astype(np.float64)
    one, zero = np.ones(1), np.zeros(1)
    with np.errstate(all="ignore"):
        if node.op_type == "Add":
            step = Step(data, one, numbers)
        elif node.op_type == "Sub":
            step = Step(data, one, -numbers) if data is first else Step(data, -one, numbers)
        else:
            step = Step(data, numbers if node.op_type == "Mul" else 1 / numbers, zero)
    return step if np.isfinite(step.scale).all() and np.isfinite(step.shift).all() else None


def is_float(array: Array) -> bool:
    return array.dtype.name in FLOATS


def _lies_along(shape: tuple[Any, ...], rank: int | None, axis: int, channels: int) -> bool:
    """Whether a constant of this shape broadcasts to its operand without changing the operand's shape, and differs
    along one axis at most."""
    if len(shape) > (1 if rank is None else rank):
        return False  # the result would have more axes than the operand
    place = axis if axis < 0 or rank is None else axis - rank
    return all(
        size == 1 or (index == place and size == channels)
        for index, size in zip(range(-len(shape), 0), shape, strict=True)
    )


def is_inference(editor: Editor, node: ir.Node) -> bool:
    """Whether a BatchNormalization uses stored statistics, per channel, and makes nothing but its result."""
    if any(o.uses() or o.is_graph_output() for o in node.outputs[1:]) or editor.attribute(node, "spatial") == 0:
        return False
    return editor.opset >= 7 and not editor.attribute(node, "training_mode")


def _batchnorm(
    editor: Editor, node: ir.Node, data: ir.Value, rank: int | None, axis: int, channels: int
) -> Step | None:
    import numpy as np

    if rank is None or axis % rank != 1 or not is_inference(editor, node):
        return None
    found = [known(editor, value, channels) for value in node.inputs[1:5]]
    if len(found) != 4 or any(array is None or array.size != channels for array in found):
        return None
    scale, bias, mean, variance = (array.astype(np.float64) for array in found if array is not None)
    with np.errstate(all="ignore"):
        factor = scale / np.sqrt(variance + editor.attribute(node, "epsilon"))
        shift = bias - mean * factor
    if not (np.isfinite(factor).all() and np.isfinite(shift).all()):
        return None
    return Step(data, factor, shift)


def cast(array: Array, dtype: Any) -> Array | None:
    """float64 numbers in the dtype of the weights they came from; None where one would become infinite."""
    import numpy as np

    with np.errstate(over="ignore"):
        made: Array = np.asarray(array).astype(dtype)
    return made if np.isfinite(made.astype(np.float64)).all() else None
