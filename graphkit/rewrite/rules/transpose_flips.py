"""How each operator is computed on its operands before they are transposed.

`op(Transpose(x, perm))` is `Transpose(op'(x), perm')`: the same operator with other axes.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, TypeAlias

from graphkit.rewrite.rules.transpose_perms import (
    Perm,
    dropped,
    inverse,
    moves_nothing,
    source_shape,
    with_new,
)

if TYPE_CHECKING:
    import numpy as np
    import onnx_ir as ir

    from graphkit.rewrite.editor import Editor


@dataclass(frozen=True, slots=True)
class Flip:
    """A node in terms of its operands before they are transposed.

    Attributes:
        inputs: By input the permutation of which the operand before it is taken; None: as it is.
        outputs: By output the permutation that gives the old result.
        attributes: Attributes that change.
        given: By index, inputs that become these constants.
    """

    inputs: tuple[Perm | None, ...]
    outputs: tuple[Perm, ...]
    attributes: Mapping[str, Any] = field(default_factory=dict)
    given: Mapping[int, np.ndarray[Any, Any]] = field(default_factory=dict)


Flipper: TypeAlias = "Callable[[Editor, ir.Node, Perm], Flip | None]"


def flip(editor: Editor, node: ir.Node, perm: Perm) -> Flip | None:
    """A node whose data is transposed; None where it depends on the order of its axes.

    Args:
        editor: Reads the graph.
        node: The node.
        perm: What its data, all of it, is transposed by.
    """
    flipper = None if node.domain else _FLIPPERS.get(node.op_type)
    return None if flipper is None else flipper(editor, node, perm)


def _unary(editor: Editor, node: ir.Node, perm: Perm) -> Flip | None:
    """The first input is data, the others are numbers."""
    if editor.rank(node.inputs[0]) != len(perm) or len(node.outputs) != 1:
        return None
    return Flip((perm, *(None for _ in node.inputs[1:])), (perm,))


def _elementwise(editor: Editor, node: ir.Node, perm: Perm) -> Flip | None:
    wanted: list[Perm | None] = []
    for value in node.inputs:
        shape = editor.shape(value)
        if value is None or shape is None or len(shape) > len(perm):
            return None
        if len(shape) == len(perm) or (editor.is_constant(value) and any(size != 1 for size in shape)):
            wanted.append(perm)
        elif all(size == 1 for size in shape):
            wanted.append(None)
        else:
            return None  # it would need axes of its own first
    return Flip(tuple(wanted), (perm,)) if len(node.outputs) == 1 and any(wanted) else None


def _on_axis(editor: Editor, node: ir.Node, perm: Perm) -> Flip | None:
    """Concat, Split, Gather of rows, Softmax: one attribute names an axis."""
    axis = editor.attribute(node, "axis")
    if editor.rank(node.inputs[0]) != len(perm) or axis is None:
        return None
    if node.op_type in ("Softmax", "LogSoftmax", "Hardmax") and editor.opset < 13:
        return None  # it flattens all axes from this one on
    if node.op_type == "Gather" and editor.rank(node.inputs[1]) != 1:
        return None
    every = node.op_type == "Concat"
    inputs = tuple(perm if every or index == 0 else None for index in range(len(node.inputs)))
    return Flip(inputs, (perm,) * len(node.outputs), {"axis": perm[int(axis) % len(perm)]})


def _reduction(editor: Editor, node: ir.Node, perm: Perm) -> Flip | None:
    import numpy as np

    axes = editor.axes(node)
    if axes is None or editor.rank(node.inputs[0]) != len(perm):
        return None
    keeps = node.op_type != "Squeeze" and bool(editor.attribute(node, "keepdims"))
    result = perm if keeps else dropped(perm, axes)
    moved = sorted(perm[axis] for axis in axes)
    if "axes" in node.attributes:
        return Flip((perm,), (result,), {"axes": moved})
    if editor.input(node, 1) is None:
        return Flip((perm,), (result,))
    return Flip((perm, None), (result,), given={1: np.asarray(moved, np.int64)})


def _arg(editor: Editor, node: ir.Node, perm: Perm) -> Flip | None:
    if editor.rank(node.inputs[0]) != len(perm):
        return None
    axis = int(editor.attribute(node, "axis")) % len(perm)
    result = perm if editor.attribute(node, "keepdims") else dropped(perm, [axis])
    return Flip((perm,), (result,), {"axis": perm[axis]})


def _unsqueeze(editor: Editor, node: ir.Node, perm: Perm) -> Flip | None:
    axes = editor.axes(node)
    if axes is None or editor.rank(node.inputs[0]) != len(perm):
        return None
    return Flip((perm, *(None for _ in node.inputs[1:])), (with_new(perm, axes),))


def _slice(editor: Editor, node: ir.Node, perm: Perm) -> Flip | None:
    import numpy as np

    if editor.rank(node.inputs[0]) != len(perm):
        return None
    if editor.opset < 10:
        starts = node.attributes["starts"].as_ints()
        axes: Sequence[int] = editor.attribute(node, "axes") or range(len(starts))
        return Flip((perm,), (perm,), {"axes": [perm[a] for a in axes]})
    given = editor.input(node, 3)
    count = editor.shape(node.inputs[1])
    known = editor.integers(given) if given is not None else None
    if given is None and count is not None and isinstance(count[0], int):
        known = list(range(count[0]))
    if known is None:
        return None
    kind = np.int32 if editor.dtype(node.inputs[1]) == "int32" else np.int64
    inputs = (perm, *(None for _ in range(max(len(node.inputs), 4) - 1)))
    return Flip(inputs, (perm,), given={3: np.asarray([perm[a] for a in known], kind)})


def _pad(editor: Editor, node: ir.Node, perm: Perm) -> Flip | None:
    import numpy as np

    rank = len(perm)
    if editor.rank(node.inputs[0]) != rank:
        return None
    inputs = (perm, *(None for _ in node.inputs[1:]))
    if editor.input(node, 3) is not None:
        axes = editor.integers(editor.input(node, 3))
        kind = np.int32 if editor.dtype(node.inputs[3]) == "int32" else np.int64
        if axes is None:
            return None
        return Flip(inputs, (perm,), given={3: np.asarray([perm[a] for a in axes], kind)})
    written = node.attributes.get("pads")
    pads = [int(p) for p in written.as_ints()] if written is not None else editor.integers(editor.input(node, 1))
    if pads is None or len(pads) != 2 * rank:
        return None
    back = inverse(perm)
    moved = [pads[back[axis] + end] for end in (0, rank) for axis in range(rank)]
    if written is not None:
        return Flip(inputs, (perm,), {"pads": moved})
    return Flip(inputs, (perm,), given={1: np.asarray(moved, np.int64)})


def _cumsum(editor: Editor, node: ir.Node, perm: Perm) -> Flip | None:
    import numpy as np

    axis = editor.constant(node.inputs[1], 1)
    if axis is None or axis.size != 1 or editor.rank(node.inputs[0]) != len(perm):
        return None
    moved = np.full(axis.shape, perm[int(axis.reshape(-1)[0]) % len(perm)], axis.dtype)
    return Flip((perm, None), (perm,), given={1: moved})


def _quantised(editor: Editor, node: ir.Node, perm: Perm) -> Flip | None:
    """What is quantised, and with which scales, stays the same."""
    scale = editor.shape(node.inputs[1])
    if editor.rank(node.inputs[0]) != len(perm) or scale is None or editor.attribute(node, "block_size"):
        return None
    inputs = (perm, *(None for _ in node.inputs[1:]))
    if all(size == 1 for size in scale):
        return Flip(inputs, (perm,))
    axis = editor.attribute(node, "axis")
    if len(scale) != 1 or axis is None:
        return None
    return Flip(inputs, (perm,), {"axis": perm[int(axis) % len(perm)]})


def _resize(editor: Editor, node: ir.Node, perm: Perm) -> Flip | None:
    """Runtimes resize the last axes only, so that the first two must keep their sizes."""
    import numpy as np

    before = source_shape(editor.shape(node.inputs[0]), perm)
    if before is None or editor.opset < 11 or "axes" in node.attributes or len(perm) < 3:
        return None
    if editor.attribute(node, "coordinate_transformation_mode") == "tf_crop_and_resize":
        return None
    if editor.attribute(node, "keep_aspect_ratio_policy") not in (None, "stretch"):
        return None
    back = inverse(perm)
    inputs = (perm, *(None for _ in node.inputs[1:]))
    scales = editor.constant(editor.input(node, 2), len(perm))
    if scales is not None and scales.size == len(perm):
        moved = scales[list(back)]
        return Flip(inputs, (perm,), given={2: moved}) if (moved[:2] == 1).all() else None
    sizes = editor.integers(editor.input(node, 3))
    if sizes is None or len(sizes) != len(perm):
        return None
    wanted = [sizes[axis] for axis in back]
    return Flip(inputs, (perm,), given={3: np.asarray(wanted, np.int64)}) if tuple(wanted[:2]) == before[:2] else None


def _tile(editor: Editor, node: ir.Node, perm: Perm) -> Flip | None:
    import numpy as np

    repeats = editor.integers(editor.input(node, 1))
    if repeats is None or len(repeats) != len(perm) or editor.rank(node.inputs[0]) != len(perm):
        return None
    moved = np.asarray([repeats[axis] for axis in inverse(perm)], np.int64)
    return Flip((perm, None), (perm,), given={1: moved})


def _normalization(editor: Editor, node: ir.Node, perm: Perm) -> Flip | None:
    """Over the last axes, which must stay where they are."""
    first = int(editor.attribute(node, "axis")) % len(perm)
    if editor.rank(node.inputs[0]) != len(perm) or len(node.outputs) != 1:
        return None
    if any(perm[axis] != axis for axis in range(first, len(perm))):
        return None
    return Flip((perm, *(None for _ in node.inputs[1:])), (perm,))


def _reshape(editor: Editor, node: ir.Node, perm: Perm) -> Flip | None:
    """Where only axes of size 1 move, it reads the same elements in the same order."""
    shape = editor.shape(node.inputs[0])
    before = source_shape(shape, perm)
    rank = editor.rank(node.outputs[0])
    if shape is None or before is None or rank is None or not moves_nothing(before, perm):
        return None
    if node.op_type == "Flatten":
        axis = int(editor.attribute(node, "axis")) % (len(perm) + 1)
        if sorted(perm[:axis]) != list(range(axis)):
            return None
        return Flip((perm,), (tuple(range(rank)),))
    wanted = editor.integers(node.inputs[1])
    if wanted is None:
        return None
    copies = [index for index, size in enumerate(wanted) if size == 0]
    if editor.attribute(node, "allowzero"):
        copies = []
    if any(index >= len(shape) or shape[index] is None or shape[index] != before[index] for index in copies):
        return None
    return Flip((perm, None), (tuple(range(rank)),))


def _table(*rows: tuple[Flipper, str]) -> dict[str, Flipper]:
    return {op: flipper for flipper, ops in rows for op in ops.split()}


_FLIPPERS = _table(
    (
        _unary,
        "Abs Acos Acosh Asin Asinh Atan Atanh BitwiseNot Cast CastLike Ceil Celu Clip Cos Cosh Elu Erf Exp Floor Gelu "
        "HardSigmoid HardSwish Identity IsInf IsNaN LeakyRelu Log Mish Neg Not Reciprocal Relu Round Selu Shrink "
        "Sigmoid Sign Sin Sinh Softplus Softsign Sqrt Swish Tan Tanh ThresholdedRelu",
    ),
    (
        _elementwise,
        "Add And BitShift BitwiseAnd BitwiseOr BitwiseXor Div Equal Greater GreaterOrEqual Less LessOrEqual Max Mean "
        "Min Mod Mul Or PRelu Pow Sub Sum Where Xor",
    ),
    (_on_axis, "Concat Gather Hardmax LogSoftmax Softmax Split"),
    (
        _reduction,
        "ReduceL1 ReduceL2 ReduceLogSum ReduceLogSumExp ReduceMax ReduceMean ReduceMin ReduceProd ReduceSum "
        "ReduceSumSquare Squeeze",
    ),
    (_arg, "ArgMax ArgMin"),
    (_unsqueeze, "Unsqueeze"),
    (_slice, "Slice"),
    (_pad, "Pad"),
    (_cumsum, "CumSum"),
    (_quantised, "QuantizeLinear DequantizeLinear"),
    (_resize, "Resize"),
    (_tile, "Tile"),
    (_normalization, "LayerNormalization RMSNormalization"),
    (_reshape, "Reshape Flatten"),
)
