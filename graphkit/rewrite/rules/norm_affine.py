"""Scale, bias and casts around a normalisation go into it."""

from __future__ import annotations

from typing import TYPE_CHECKING

from graphkit.rewrite.rule import Rule
from graphkit.rewrite.rules.norm import filled, ones

if TYPE_CHECKING:
    import numpy as np
    import onnx_ir as ir

    from graphkit.rewrite.editor import Editor

    _Wide = np.ndarray[tuple[int, ...], np.dtype[np.float64]]

_LAST = ("LayerNormalization", "RMSNormalization")
_CHANNEL = ("InstanceNormalization", "GroupNormalization")


def _affine(editor: Editor, node: ir.Node) -> bool:
    """Mul or Add of a parameter behind a normalisation."""
    for value, parameter in editor.operands(node):
        norm = editor.sole(value, *_LAST, *_CHANNEL)
        if (
            norm is None
            or norm.graph is not node.graph
            or any(o.uses() or o.is_graph_output() for o in norm.outputs[1:])
        ):
            continue
        return _take_in(editor, node, norm, parameter)
    return False


def _take_in(editor: Editor, node: ir.Node, norm: ir.Node, parameter: ir.Value) -> bool:
    result, scale = node.outputs[0], norm.inputs[1]
    sizes = editor.shape(scale)
    if scale is None or sizes is None or not all(isinstance(size, int) for size in sizes):
        return False
    if editor.dtype(parameter) != editor.dtype(scale) or editor.dtype(scale) != editor.dtype(norm.inputs[0]):
        return False
    if node.op_type == "Add" and norm.op_type == "RMSNormalization":
        return False
    expected = tuple(size for size in sizes if isinstance(size, int))
    given = editor.shape(parameter)
    rank = editor.rank(norm.inputs[0])
    if given is None or rank is None or len(given) > rank:
        return False
    behind = rank - 2 if norm.op_type in _CHANNEL else 0
    if not _along(given, expected, behind):
        if editor.is_constant(parameter) and editor.scalar(parameter) is None:
            editor.miss(node, "the scale or bias is not along the normalised axes")
        return False
    bias = editor.input(norm, 2)
    if node.op_type == "Mul":
        new_scale = _combine(editor, scale, parameter, expected, product=True)
        new_bias = _combine(editor, bias, parameter, expected, product=True) if bias is not None else None
        if new_scale is None or (bias is not None and new_bias is None):
            return editor.miss(node, "its scale or bias is no constant")
    else:
        new_scale, new_bias = scale, _combine(editor, bias, parameter, expected, product=False)
        if new_bias is None:
            return editor.miss(node, "its bias is no constant")
    attributes = {name: norm.attributes[name] for name in norm.attributes}
    made = editor.op(norm.op_type, [norm.inputs[0], new_scale, new_bias], attributes, like=result)
    editor.replace(result, made)
    return True


def _along(given: tuple[object, ...], expected: tuple[int, ...], behind: int) -> bool:
    """Whether a parameter has the sizes of the normalised axes, or 1, and 1 before and after them."""
    after = given[len(given) - behind :] if behind else ()
    core = given[: len(given) - behind] if behind else given
    if len(given) < behind:
        return all(size == 1 for size in given)
    before, at = core[: max(len(core) - len(expected), 0)], core[max(len(core) - len(expected), 0) :]
    fits = all(size in (1, want) for size, want in zip(at, expected[len(expected) - len(at) :], strict=True))
    return fits and all(size == 1 for size in (*before, *after))


def _combine(
    editor: Editor, old: ir.Value | None, parameter: ir.Value, shape: tuple[int, ...], *, product: bool
) -> ir.Value | None:
    """The product or the sum of two parameters; a neutral old one is replaced, even by what is no constant."""
    import numpy as np

    neutral = old is None or filled(editor, old, 1.0 if product else 0.0)
    if product and old is not None and filled(editor, old, 0.0):
        return old
    if neutral and editor.shape(parameter) == shape:
        return parameter
    given = editor.weight(parameter)
    before = None if old is None else editor.weight(old)
    if given is None or (old is not None and before is None):
        return None
    wide: _Wide = _shaped(given.astype(np.float64), shape)
    if before is not None:
        wide = before.astype(np.float64) * wide if product else before.astype(np.float64) + wide
    return editor.initializer(wide.astype(given.dtype), "scale" if product else "bias")


def _shaped(array: _Wide, shape: tuple[int, ...]) -> _Wide:
    """A parameter with sizes of 1 around it, in the shape of the normalised axes."""
    import numpy as np

    if array.size == 1:
        return np.full(shape, array.reshape(-1)[0])
    sizes = [size for size in array.shape if size != 1]
    if sizes == [size for size in shape if size != 1]:
        return array.reshape(shape)
    return np.broadcast_to(array.reshape(array.shape[-len(shape) :]), shape)


def _precision(editor: Editor, node: ir.Node) -> bool:
    """Cast(norm(Cast(x))) around the plain float32 normalisation of a 16 bit value: what `stash_type` is for."""
    norm = editor.sole(node.inputs[0], *_LAST)
    widened = editor.producer(norm.inputs[0], "Cast") if norm is not None else None
    if norm is None or widened is None or norm.graph is not node.graph:
        return False
    x, result, scale = widened.inputs[0], node.outputs[0], norm.inputs[1]
    if x is None or editor.dtype(x) not in ("float16", "bfloat16") or editor.dtype(result) != editor.dtype(x):
        return False
    if editor.dtype(widened.outputs[0]) != "float32" or editor.attribute(norm, "stash_type") != 1:
        return False
    sizes = editor.shape(scale)
    if not filled(editor, scale, 1.0) or editor.input(norm, 2) is not None or sizes is None:
        return editor.miss(node, "its scale is applied in float32, before the cast")
    known = tuple(size for size in sizes if isinstance(size, int))
    attributes = {name: norm.attributes[name] for name in norm.attributes}
    editor.replace(result, editor.op(norm.op_type, [x, ones(editor, known, x)], attributes, like=result))
    return True


def _groups(editor: Editor, node: ir.Node) -> bool:
    """Reshape to [N, G, ...], InstanceNormalization with one number for all, Reshape back: GroupNormalization."""
    norm = editor.sole(node.inputs[0], "InstanceNormalization", "LayerNormalization")
    split = editor.producer(norm.inputs[0], "Reshape") if norm is not None else None
    if norm is None or split is None or norm.graph is not node.graph:
        return False
    x, result = split.inputs[0], node.outputs[0]
    before, inside = editor.shape(x), editor.shape(norm.inputs[0])
    if x is None or before is None or inside is None or len(before) < 3 or len(inside) < 3:
        return False
    channels, groups = before[1], inside[1]
    if not editor.same_shape(x, result) or before[0] is None or before[0] != inside[0]:
        return False
    if not isinstance(channels, int) or not isinstance(groups, int) or not groups or channels % groups:
        return False
    if norm.op_type == "LayerNormalization":
        axis = editor.attribute(norm, "axis")
        if axis % len(inside) != 2 or not filled(editor, norm.inputs[1], 1.0) or editor.input(norm, 2) is not None:
            return editor.miss(node, "its scale and bias are not along the channels")
    elif not filled(editor, norm.inputs[1], 1.0) or not filled(editor, norm.inputs[2], 0.0):
        return editor.miss(node, "its scale and bias are along the groups, not the channels")
    attributes = {"num_groups": groups, "epsilon": editor.attribute(norm, "epsilon"), "stash_type": 1}
    scale, bias = ones(editor, (channels,), x), ones(editor, (channels,), x, 0.0)
    editor.replace(result, editor.op("GroupNormalization", [x, scale, bias], attributes, like=result))
    return True


RULES = (
    Rule(
        "norm-affine",
        "transformer",
        ("Mul", "Add"),
        _affine,
        "a scale or a bias behind a normalisation becomes its own",
        exact=False,
    ),
    Rule(
        "norm-precision",
        "transformer",
        ("Cast",),
        _precision,
        "casts to float32 and back around a normalisation of 16 bit values become its stash_type",
        exact=False,
        since=17,
    ),
    Rule(
        "group-norm",
        "transformer",
        ("Reshape",),
        _groups,
        "InstanceNormalization of groups of channels, between two Reshapes, becomes GroupNormalization",
        exact=False,
        since=21,
    ),
)
