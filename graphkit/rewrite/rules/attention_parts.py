"""What the rules for attention share: nodes that all layers use, transposed keys, masks that are always the same."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    import onnx_ir as ir

    from graphkit.analyze.polynomial import Size
    from graphkit.analyze.tensors import Shape
    from graphkit.rewrite.editor import Editor


def shared(
    editor: Editor,
    at: ir.Node,
    op_type: str,
    inputs: Sequence[ir.Value],
    attributes: Mapping[str, Any] | None = None,
    *,
    shape: Shape | None = None,
    dtype: str | None = None,
) -> ir.Value:
    """Output of a node like this one, which an earlier application may have made already: what every layer needs (a
    mask, the tables of RoPE) is computed once. The graph is sorted afterwards."""
    anchor = next((v for v in inputs if v.producer() is not None or v.is_graph_input()), None)
    wanted = dict(attributes or {})
    for user in editor.users(anchor) if anchor is not None else ():
        if (
            user.op_type == op_type
            and not user.domain
            and (user.graph is at.graph or user.graph is None)
            and len(user.outputs) == 1
            and len(user.inputs) == len(inputs)
            and all(a is b for a, b in zip(user.inputs, inputs, strict=True))
            and {name: attribute.value for name, attribute in user.attributes.items()} == wanted
        ):
            editor.disordered = True
            return user.outputs[0]
    return editor.op(op_type, inputs, attributes, shape=shape, dtype=dtype)


def size_vector(editor: Editor, at: ir.Node, value: ir.Value, axis: int) -> ir.Value:
    """One size of a value as an int64 vector of one element, read from an input of the graph where that has it."""
    size = _size(editor, value, axis)
    if isinstance(size, int):
        return editor.ints_value([size])
    source, index = value, axis
    for given in editor.model.graph.inputs if size is not None else ():
        for user in editor.users(given):
            if user.op_type == "Shape" and user.graph is at.graph and editor.sizes(user.outputs[0]) == (size,):
                editor.disordered = True
                return user.outputs[0]
    for given in editor.model.graph.inputs if size is not None else ():
        found = editor.shape(given)
        if found is not None and size in found:
            source, index = given, found.index(size)
            break
    return shared(editor, at, "Shape", [source], {"start": index, "end": index + 1}, shape=(1,), dtype="int64")


def expanded(editor: Editor, at: ir.Node, value: ir.Value, sizes: Sequence[ir.Value | int], shape: Shape) -> ir.Value:
    """A value broadcast to sizes that are numbers or vectors of one element."""
    parts: list[ir.Value] = []
    numbers: list[int] = []
    for size in (*sizes, None):
        known = size if isinstance(size, int) else editor.integers(size) if size is not None else None
        if known is not None:
            numbers.extend([known] if isinstance(known, int) else known)
            continue
        if numbers:
            parts.append(editor.ints_value(numbers))
            numbers = []
        if size is not None and not isinstance(size, int):
            parts.append(size)
    wanted = parts[0]
    if len(parts) > 1:
        wanted = shared(editor, at, "Concat", parts, {"axis": 0}, shape=(len(sizes),), dtype="int64")
    return shared(editor, at, "Expand", [value, wanted], shape=shape, dtype=editor.dtype(value))


def permutation(editor: Editor, node: ir.Node) -> tuple[int, ...]:
    """The `perm` of a Transpose; () where it is left out."""
    found = editor.attribute(node, "perm")
    return tuple(int(axis) for axis in found) if found is not None else ()


def untransposed(editor: Editor, value: ir.Value) -> ir.Value | None:
    """The value of which this one has the last two axes exchanged; None if that is not how it is made.

    It may be written as one Transpose, or, as torch does it for any rank, between two Reshapes.
    """
    shape = editor.shape(value)
    if shape is None or len(shape) < 3:
        return None
    last = len(shape) - 1
    node = editor.producer(value, "Transpose", "Reshape")
    if node is None or node.inputs[0] is None:
        return None
    if node.op_type == "Transpose":
        perm = permutation(editor, node)
        if perm == (*range(last - 1), last, last - 1):
            return node.inputs[0]
        if len(perm) != last + 1:
            return None
        swapped = (*perm[:-2], perm[-1], perm[-2])
        known = (*shape[:-2], shape[-1], shape[-2])
        return editor.op("Transpose", [node.inputs[0]], {"perm": swapped}, shape=known, dtype=editor.dtype(value))
    middle = editor.producer(node.inputs[0], "Transpose")
    first = editor.producer(middle.inputs[0], "Reshape") if middle is not None else None
    if middle is None or first is None or permutation(editor, middle) != (0, 2, 1):
        return None
    source = first.inputs[0]
    before, flat = editor.shape(source), editor.shape(first.outputs[0])
    if source is None or before is None or flat is None or None in before or len(before) != len(shape):
        return None
    swapped_shape = (*before[:-2], before[-1], before[-2])
    return source if flat[-2:] == before[-2:] and swapped_shape == shape else None


def always_true(editor: Editor, value: ir.Value | None, depth: int = 8) -> bool:
    """Whether every element of a boolean value is true in every run."""
    if value is None or depth == 0:
        return False
    if editor.uniform(value) not in (None, 0.0):
        return True
    node = editor.producer(value)
    if node is None:
        return False
    if node.op_type in ("Expand", "Unsqueeze", "Squeeze", "Reshape", "Identity", "Cast", "Transpose"):
        return always_true(editor, node.inputs[0], depth - 1)
    if node.op_type == "And":
        return all(always_true(editor, v, depth - 1) for v in node.inputs)
    if node.op_type == "Or":
        return any(always_true(editor, v, depth - 1) for v in node.inputs)
    if node.op_type == "ConstantOfShape":
        found = editor.attribute(node, "value")
        return found is not None and bool(found.numpy().all())
    if node.op_type == "GreaterOrEqual":
        least = editor.scalar(node.inputs[1])
        return least is not None and least <= 0.0 and iota(editor, node.inputs[0]) is not None
    return False


def iota(editor: Editor, value: ir.Value | None) -> tuple[int, Size] | None:
    """The axis, counted from the end, along which a value is 0, 1, 2 ..., and how many; all its other sizes are 1."""
    found = counted(editor, value)
    return None if found is None or found[1] != 0 else (found[0], found[2])


def counted(editor: Editor, value: ir.Value | None, depth: int = 8) -> tuple[int, Size, Size] | None:
    """The axis, counted from the end, along which a value is n, n + 1, n + 2 ..., n itself, and how many; all its other
    sizes are 1."""
    shape = editor.shape(value)
    if value is None or shape is None or depth == 0:
        return None
    long = [i for i, size in enumerate(shape) if size != 1]
    if len(long) > 1 or (long and shape[long[0]] is None):
        return None
    node = editor.producer(value)
    if node is None:
        array = editor.constant(value)
        if array is None or not long or array.reshape(-1).tolist() != list(range(array.size)):
            return None
        return long[0] - len(shape), 0, array.size
    if node.op_type == "Range":
        first, by = editor.sizes(node.inputs[0]), editor.scalar(node.inputs[2])
        if first is None or len(first) != 1 or by != 1.0 or shape[0] is None:
            return None
        return -1, first[0], shape[0]
    if node.op_type == "Add":
        for numbers, more in editor.operands(node):
            shift = editor.sizes(more)
            if shift is not None and len(shift) == 1 and long:
                inner = counted(editor, numbers, depth - 1)
                return inner and (inner[0], inner[1] + shift[0], inner[2])
        return None
    if node.op_type in ("Unsqueeze", "Squeeze", "Reshape", "Cast", "Identity"):
        inner = counted(editor, node.inputs[0], depth - 1)
        if inner is None or (node.op_type == "Cast" and editor.dtype(value) not in ("int64", "int32")):
            return None
        if not long:  # a range of one element, or one of which that is known
            return None
        return long[0] - len(shape), inner[1], inner[2]
    return None


def causal(editor: Editor, value: ir.Value | None, depth: int = 6) -> bool:
    """Whether a boolean mask is true exactly at and below the diagonal of its last two axes."""
    if value is None or depth == 0:
        return False
    array = editor.constant(value, 1 << 22)
    if array is not None:
        return _lower_triangle(array)
    node = editor.producer(value)
    if node is None:
        return False
    if node.op_type in ("Cast", "Expand", "Unsqueeze", "Reshape", "Identity"):
        inner = editor.shape(node.inputs[0])
        outer = editor.shape(value)
        if inner is None or outer is None or inner[-2:] != outer[-2:] or None in inner[-2:]:
            return False
        return causal(editor, node.inputs[0], depth - 1)
    if node.op_type == "Slice":
        return _corner(editor, node) and causal(editor, node.inputs[0], depth - 1)
    if node.op_type == "Not":
        inner_node = editor.producer(node.inputs[0], "Greater", "Less")
        if inner_node is None:
            return False
        order = inner_node.inputs if inner_node.op_type == "Greater" else (inner_node.inputs[1], inner_node.inputs[0])
        return _along(editor, order[0], order[1])
    if node.op_type == "LessOrEqual":
        return _along(editor, node.inputs[0], node.inputs[1])
    if node.op_type == "GreaterOrEqual":
        return _along(editor, node.inputs[1], node.inputs[0])
    if node.op_type == "Trilu":
        shift = editor.input(node, 1)
        low = not editor.attribute(node, "upper") and (shift is None or editor.scalar(shift) == 0.0)
        return low and always_true(editor, node.inputs[0])
    return False


def _along(editor: Editor, keys: ir.Value | None, queries: ir.Value | None) -> bool:
    """Whether one operand counts the keys and the other the queries."""
    a, b = iota(editor, keys), iota(editor, queries)
    return a is not None and b is not None and a[0] == -1 and b[0] == -2


def _corner(editor: Editor, node: ir.Node) -> bool:
    """Whether a Slice takes the first rows and columns."""
    starts, axes = editor.integers(editor.input(node, 1)), editor.integers(editor.input(node, 3))
    steps = editor.input(node, 4)
    if starts is None or axes is None or any(starts):
        return False
    return steps is None or all(step == 1 for step in editor.integers(steps) or [0])


def _lower_triangle(array: Any) -> bool:
    import numpy as np

    if (
        array.ndim < 2
        or array.dtype.kind not in "biuf"
        or array[..., 0, 0].size != array.size // max(array.shape[-1] * array.shape[-2], 1)
    ):
        return False
    wanted = np.tril(np.ones(array.shape[-2:], dtype=bool))
    return bool((array.astype(bool) == wanted).all())


def _size(editor: Editor, value: ir.Value, axis: int) -> Size | None:
    shape = editor.shape(value)
    return None if shape is None else shape[axis]
