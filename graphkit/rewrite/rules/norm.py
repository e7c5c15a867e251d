"""Layer, RMS and instance normalisation from arithmetic.

Ba et al., "Layer Normalization", 2016; Zhang and Sennrich, "Root Mean Square Layer Normalization", 2019; Ulyanov et
al., "Instance Normalization", 2016. What is recognised is the core, (x - E x) / sqrt(Var x + eps) or
x / sqrt(E x^2 + eps), which becomes an operator with a scale of ones; `norm_affine` then takes in the scale, the bias
and the casts around it, in whatever order they are written.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from graphkit.rewrite.rule import Rule
from graphkit.rewrite.rules.activation_product import plus
from graphkit.rewrite.rules.gelu import degree

if TYPE_CHECKING:
    import onnx_ir as ir

    from graphkit.rewrite.editor import Editor

_DTYPES = ("float32", "float16", "bfloat16")
"""float64 is left: `stash_type` would have it computed in float32."""


def _norm(editor: Editor, node: ir.Node) -> bool:
    found = _quotient(editor, node)
    if found is None:
        return False
    over, root = found
    sum_ = _under_root(editor, root)
    mean = editor.producer(sum_[0], "ReduceMean") if sum_ is not None else None
    if sum_ is None or mean is None or mean.inputs[0] is None or not editor.attribute(mean, "keepdims"):
        return False
    axes = editor.axes(mean)
    square = _square_of(editor, mean.inputs[0])
    if axes is None or square is None or not _same(editor, square, over):
        return False
    centred = editor.producer(over, "Sub")
    if centred is not None:
        x, middle = centred.inputs[0], editor.producer(centred.inputs[1], "ReduceMean")
        if (
            x is not None
            and middle is not None
            and middle.inputs[0] is x
            and editor.axes(middle) == axes
            and editor.attribute(middle, "keepdims")
        ):
            return _centred(editor, node, x, axes, sum_[1])
    return _root_mean_square(editor, node, over, axes, sum_[1])


def _quotient(editor: Editor, node: ir.Node) -> tuple[ir.Value, ir.Value] | None:
    """What is divided, and the square root by which."""
    if node.op_type == "Div":
        over, root = node.inputs[0], node.inputs[1]
        if over is None or root is None or editor.producer(root, "Sqrt", "Pow") is None:
            return None
        return over, root
    for over, other in editor.operands(node):
        inverse = editor.producer(other, "Reciprocal", "Div", "Pow")
        if inverse is None:
            continue
        if inverse.op_type == "Reciprocal" and inverse.inputs[0] is not None:
            return over, inverse.inputs[0]
        if inverse.op_type == "Div" and editor.scalar(inverse.inputs[0]) == 1.0 and inverse.inputs[1] is not None:
            return over, inverse.inputs[1]
        if inverse.op_type == "Pow" and editor.scalar(inverse.inputs[1]) == -0.5:
            return over, inverse.outputs[0]
    return None


def _under_root(editor: Editor, root: ir.Value) -> tuple[ir.Value, float] | None:
    """The value and the epsilon of sqrt(value + epsilon)."""
    node = editor.producer(root, "Sqrt", "Pow")
    if node is None or node.inputs[0] is None:
        return None
    if node.op_type == "Pow" and editor.scalar(node.inputs[1]) not in (0.5, -0.5):
        return None
    found = plus(editor, node.inputs[0])
    return found if found is not None and found[1] >= 0.0 else None


def _square_of(editor: Editor, value: ir.Value) -> ir.Value | None:
    node = editor.producer(value, "Pow", "Mul")
    base = node.inputs[0] if node is not None else None
    return base if base is not None and degree(editor, value, base) == 2 else None


def _same(editor: Editor, a: ir.Value, b: ir.Value) -> bool:
    """Whether two values are one, or the same difference computed twice."""
    if a is b:
        return True
    left, right = editor.producer(a, "Sub"), editor.producer(b, "Sub")
    if left is None or right is None or left.inputs[0] is not right.inputs[0]:
        return False
    one, other = editor.producer(left.inputs[1], "ReduceMean"), editor.producer(right.inputs[1], "ReduceMean")
    if one is None or other is None:
        return left.inputs[1] is right.inputs[1]
    kept = editor.attribute(one, "keepdims") and editor.attribute(other, "keepdims")
    return bool(one.inputs[0] is other.inputs[0] and kept and editor.axes(one) == editor.axes(other))


def _centred(editor: Editor, node: ir.Node, x: ir.Value, axes: tuple[int, ...], epsilon: float) -> bool:
    shape, result = editor.shape(x), node.outputs[0]
    if shape is None or editor.dtype(x) not in _DTYPES:
        return editor.miss(node, "the shape is not known, or the dtype is not float32, float16 or bfloat16")
    if editor.rank(result) != len(shape):
        return editor.miss(node, "its constants give the result another rank than x has")
    rank = len(shape)
    channel = shape[1] if rank > 2 else None
    axes = tuple(sorted(axes))
    spatial = rank > 2 and axes == tuple(range(2, rank))
    if spatial and isinstance(channel, int) and (rank > 3 or not isinstance(shape[-1], int)):
        if editor.dtype(x) == "bfloat16" and editor.opset < 22:
            return editor.miss(node, "InstanceNormalization takes no bfloat16 before opset 22")
        scale, bias = ones(editor, (channel,), x), ones(editor, (channel,), x, 0.0)
        made = editor.op("InstanceNormalization", [x, scale, bias], {"epsilon": epsilon}, like=result)
        editor.replace(result, made)
        return True
    normalised = _normalised(shape, axes)
    if normalised is None:
        return editor.miss(node, "normalised axes are not the last ones, or their sizes are not known")
    if editor.opset < 17:
        return editor.miss(node, "LayerNormalization exists since opset 17")
    attributes = {"axis": axes[0] - rank, "epsilon": epsilon, "stash_type": 1}
    made = editor.op("LayerNormalization", [x, ones(editor, normalised, x)], attributes, like=result)
    editor.replace(result, made)
    return True


def _root_mean_square(editor: Editor, node: ir.Node, x: ir.Value, axes: tuple[int, ...], epsilon: float) -> bool:
    shape, result = editor.shape(x), node.outputs[0]
    if editor.opset < 23 or editor.dtype(x) not in _DTYPES or shape is None:
        return editor.miss(node, "RMSNormalization needs opset 23, a known shape, and float32, float16 or bfloat16")
    if editor.rank(result) != len(shape):
        return editor.miss(node, "its constants give the result another rank than x has")
    axes = tuple(sorted(axes))
    normalised = _normalised(shape, axes)
    if normalised is None:
        return editor.miss(node, "normalised axes are not the last ones, or their sizes are not known")
    attributes = {"axis": axes[0] - len(shape), "epsilon": epsilon, "stash_type": 1}
    editor.replace(result, editor.op("RMSNormalization", [x, ones(editor, normalised, x)], attributes, like=result))
    return True


def _normalised(shape: tuple[object, ...], axes: tuple[int, ...]) -> tuple[int, ...] | None:
    """Sizes of the normalised axes, where these are the last ones and their sizes are numbers."""
    if not axes or axes != tuple(range(len(shape) - len(axes), len(shape))):
        return None
    sizes = tuple(size for size in shape[axes[0] :] if isinstance(size, int))
    return sizes if len(sizes) == len(axes) else None


def filled(editor: Editor, value: ir.Value | None, number: float) -> bool:
    """Whether every element of a parameter is this number, however long it is."""
    array = editor.weight(value)
    return array is not None and bool((array == array.dtype.type(number)).all())


def ones(editor: Editor, shape: tuple[int, ...], like: ir.Value, number: float = 1.0) -> ir.Value:
    """A constant of one number, with the dtype of a value."""
    import numpy as np

    from graphkit.rewrite.onnx_forms import dtype_of

    dtype = dtype_of(editor.dtype(like) or "float32").numpy()
    return editor.initializer(np.full(shape, number, dtype=dtype), "ones" if number else "zeros")


RULES = (
    Rule(
        "norm",
        "transformer",
        ("Mul", "Div"),
        _norm,
        "(x - E x) / sqrt(Var x + eps) becomes LayerNormalization or InstanceNormalization, and x / sqrt(E x^2 + eps) "
        "becomes RMSNormalization",
        exact=False,
        since=11,
    ),
)
