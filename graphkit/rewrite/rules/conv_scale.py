"""Constants that follow a layer are folded into its weights and bias: BatchNormalization, Mul, Add, Sub, Div.

`y = s * (W x + b) + t` is `y = (s W) x + (s b + t)` per output channel. Where an activation is infinite, or its
product with a weight overflows, and the scale of its channel is 0, the old graph gives NaN and the new one what the
finite weights give.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from graphkit.rewrite.rule import Rule
from graphkit.rewrite.rules.conv_layers import Layer, layer_of, rescaled
from graphkit.rewrite.rules.scale_steps import STEPS, Step, data_of, step_of

if TYPE_CHECKING:
    import onnx_ir as ir

    from graphkit.rewrite.editor import Editor


def _after(editor: Editor, node: ir.Node) -> bool:
    data = data_of(editor, node)
    if data is None:
        return False
    turned = editor.sole(data, "Transpose")
    if turned is not None and turned.graph is node.graph:
        layer = layer_of(editor, turned.inputs[0], node.graph)
    else:
        turned, layer = None, layer_of(editor, data, node.graph)
    if layer is None:
        return False
    axis, perm = layer.axis, None
    if turned is not None:
        perm = [int(a) for a in editor.attribute(turned, "perm") or ()]
        if layer.rank is None or len(perm) != layer.rank:
            return False
        axis = perm.index(layer.axis)
    step = step_of(editor, node, layer.rank, axis, layer.channels)
    if step is None:
        return editor.miss(node, f"its constants are not one per channel of the {layer.node.op_type} before it")
    if not _worth_it(node, layer, step):
        return False
    made = rescaled(editor, layer, step.scale, step.shift)
    if isinstance(made, str):
        return editor.miss(node, made)
    if perm is not None:
        made = editor.op("Transpose", [made], {"perm": perm}, like=node.outputs[0])
    editor.replace(node.outputs[0], made)
    return True


def _worth_it(node: ir.Node, layer: Layer, step: Step) -> bool:
    """A MatMul has no bias to take up a shift, so that an Add behind it stays."""
    if layer.node.op_type != "MatMul" or layer.added is not None or node.op_type == "BatchNormalization":
        return True
    return not step.shifts


RULES = (
    Rule(
        "conv-scale",
        "convolution",
        STEPS,
        _after,
        "BatchNormalization, Mul, Add, Sub and Div with constants are folded into the Conv, ConvTranspose, Gemm, "
        "MatMul or BatchNormalization before them",
        exact=False,
    ),
)
