"""Constants that come before a layer are folded into its weights: `W (s x + t) + b` is `(W s) x + (W t + b)`.

A convolution that pads adds its zeros after the shift, so that only a scale can be taken through padding. What is said
in `conv_scale` of NaN holds here too.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from graphkit.rewrite.rule import Rule
from graphkit.rewrite.rules.conv_layers import affordable
from graphkit.rewrite.rules.scale_steps import STEPS, Step, cast, is_float, step_of

if TYPE_CHECKING:
    import numpy as np
    import onnx_ir as ir

    from graphkit.rewrite.editor import Editor


def _convolution(editor: Editor, node: ir.Node) -> bool:
    import numpy as np

    before, weight = editor.sole(node.inputs[0], *STEPS), node.inputs[1]
    shape = editor.shape(weight)
    if before is None or before.graph is not node.graph or weight is None or shape is None or len(shape) < 3:
        return False
    if not editor.is_constant(weight) or not all(isinstance(size, int) for size in shape):
        return False
    group, transposed = int(editor.attribute(node, "group")), node.op_type == "ConvTranspose"
    inputs, per_group = shape[0], shape[1]
    assert isinstance(inputs, int)
    assert isinstance(per_group, int)
    channels = inputs if transposed else per_group * group
    step = step_of(editor, before, len(shape), 1, channels)
    if step is None:
        return False
    if step.shifts and (transposed or _pads(editor, node)):
        return editor.miss(node, "the padding's zeros come after the shift of the node before it")
    old = _readable(editor, node, weight)
    if old is None:
        return False
    wide = np.broadcast_to(step.scale, (channels,))
    if transposed:
        factors = wide.reshape(-1, *(1,) * (old.ndim - 1))
    else:
        factors = np.repeat(wide.reshape(group, 1, per_group), old.shape[0] // group, axis=0)
        factors = factors.reshape(old.shape[0], per_group, *(1,) * (old.ndim - 2))
    wider = old.astype(np.float64)
    added = None
    if step.shifts:
        shift = np.broadcast_to(step.shift, (channels,)).reshape(group, -1)
        taps = wider.reshape(group, old.shape[0] // group, per_group, -1).sum(axis=-1)
        added = np.einsum("goi,gi->go", taps, shift).reshape(-1)
    return _put(editor, node, step, wider * factors, added)


def _product(editor: Editor, node: ir.Node) -> bool:
    """Only a normalization over the last of two axes: other scales before a product belong to larger patterns."""
    import numpy as np

    before, weight = editor.sole(node.inputs[0], "BatchNormalization"), node.inputs[1]
    shape = editor.shape(weight)
    if before is None or before.graph is not node.graph or weight is None or shape is None or len(shape) != 2:
        return False
    gemm = node.op_type == "Gemm"
    if not editor.is_constant(weight) or (gemm and editor.attribute(node, "transA")):
        return False
    turned = gemm and bool(editor.attribute(node, "transB"))
    channels = shape[1] if turned else shape[0]
    if not isinstance(channels, int) or editor.rank(before.outputs[0]) != 2:
        return False
    step = step_of(editor, before, 2, 1, channels)
    old = None if step is None else _readable(editor, node, weight)
    if step is None or old is None:
        return False
    rows = (old.T if turned else old).astype(np.float64)
    scaled = rows * np.broadcast_to(step.scale, (channels,)).reshape(-1, 1)
    added = np.broadcast_to(step.shift, (channels,)) @ rows
    return _put(editor, node, step, scaled.T if turned else scaled, added)


def _readable(editor: Editor, node: ir.Node, weight: ir.Value) -> np.ndarray[Any, Any] | None:
    if not affordable(editor, weight):
        editor.miss(node, "the weights are used elsewhere, and a copy would make the model grow")
        return None
    old = editor.weight(weight)
    return old if old is not None and is_float(old) else None


def _put(
    editor: Editor, node: ir.Node, step: Step, weight: np.ndarray[Any, Any], added: np.ndarray[Any, Any] | None
) -> bool:
    """The node again, with other weights, and with a bias that has what the shift adds."""
    import numpy as np

    old = editor.weight(node.inputs[1])
    assert old is not None
    made = cast(weight, old.dtype)
    given = editor.input(node, 2)
    attributes: dict[str, Any] = dict(node.attributes)
    bias, kind = given, node.op_type
    if step.shifts and added is not None:
        before = editor.constant(given, added.size) if given is not None else np.zeros(1)
        if before is None or before.size not in (1, added.size) or before.shape[:-1] not in ((), (1,)):
            return editor.miss(node, "the bias is no constant per channel")
        factor = float(editor.attribute(node, "alpha")) if kind == "Gemm" else 1.0
        old_part = before.reshape(-1).astype(np.float64)
        if kind == "Gemm":
            old_part, attributes = old_part * float(editor.attribute(node, "beta")), {**attributes, "beta": None}
        total = cast(np.broadcast_to(old_part + factor * added, (added.size,)), old.dtype)
        bias = None if total is None else editor.initializer(total, "bias")
        kind = "Gemm" if kind == "MatMul" else kind
        if bias is None:
            return editor.miss(node, "the new bias does not fit its dtype")
    if made is None:
        return editor.miss(node, "a scaled weight does not fit its dtype")
    inputs = [step.data, editor.initializer(made, "weight"), bias]
    editor.replace(node.outputs[0], editor.op(kind, inputs, attributes, like=node.outputs[0]))
    return True


def _pads(editor: Editor, node: ir.Node) -> bool:
    if editor.attribute(node, "auto_pad") not in (None, "NOTSET", "VALID"):
        return True
    pads = node.attributes.get("pads")
    return pads is not None and any(pads.as_ints())


RULES = (
    Rule(
        "prescale-conv",
        "convolution",
        ("Conv", "ConvTranspose"),
        _convolution,
        "BatchNormalization, Mul, Add, Sub and Div with constants are folded into the convolution after them",
        exact=False,
        late=True,
    ),
    Rule(
        "batchnorm-matmul",
        "convolution",
        ("MatMul", "Gemm"),
        _product,
        "BatchNormalization is folded into the MatMul or Gemm after it",
        exact=False,
        since=11,
        late=True,
    ),
)
