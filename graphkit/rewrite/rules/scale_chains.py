"""Two multiplications with constants in a row are one, and so are two additions."""

from __future__ import annotations

from typing import TYPE_CHECKING

from graphkit.rewrite.rule import Rule
from graphkit.rewrite.rules.scale_steps import FLOATS, Array, cast, data_of

if TYPE_CHECKING:
    import onnx_ir as ir

    from graphkit.rewrite.editor import Editor


def _chain(editor: Editor, node: ir.Node) -> bool:
    import numpy as np

    product = node.op_type in ("Mul", "Div")
    outer = _operand(editor, node)
    before = None if outer is None else editor.sole(outer[0], *(("Mul", "Div") if product else ("Add", "Sub")))
    inner = None if before is None or before.graph is not node.graph else _operand(editor, before)
    if outer is None or before is None or inner is None or editor.dtype(inner[0]) not in FLOATS:
        return False
    constants = editor.constant(inner[1]), editor.constant(outer[1])
    if constants[0] is None or constants[1] is None or not _broadcasts(constants[0], constants[1]):
        return False
    with np.errstate(all="ignore"):
        first, second = _number(before, constants[0]), _number(node, constants[1])
        both = first * second if product else first + second
    made = cast(both, constants[0].dtype) if np.isfinite(both).all() else None
    if made is None or (product and not _normal(made, first, second)):
        return editor.miss(node, "the two constants together do not fit their dtype")
    kind = "Mul" if product else "Add"
    editor.replace(node.outputs[0], editor.op(kind, [inner[0], editor.initializer(made)], like=node.outputs[0]))
    return True


def _operand(editor: Editor, node: ir.Node) -> tuple[ir.Value, ir.Value] | None:
    """What a node reads, and its constant; None where the constant comes first and the order matters."""
    data = data_of(editor, node)
    first, second = node.inputs
    if data is None or (data is not first and node.op_type in ("Sub", "Div")):
        return None
    constant = second if data is first else first
    assert constant is not None
    return data, constant


def _broadcasts(first: Array, second: Array) -> bool:
    """Whether the two together are no larger than the larger one."""
    import numpy as np

    try:
        shape = np.broadcast_shapes(first.shape, second.shape)
    except ValueError:
        return False
    return int(np.prod(shape)) <= max(first.size, second.size)


def _number(node: ir.Node, constant: Array) -> Array:
    """What a node multiplies with, or adds, in float64."""
    import numpy as np

    wide = constant.astype(np.float64)
    if node.op_type == "Div":
        inverted: Array = 1 / wide
        return inverted
    return -wide if node.op_type == "Sub" else wide


def _normal(made: Array, first: Array, second: Array) -> bool:
    """Whether no product is lost to underflow."""
    import ml_dtypes
    import numpy as np

    smallest = float(ml_dtypes.finfo(made.dtype).smallest_normal)  # type: ignore[no-untyped-call]
    return bool(((np.abs(made.astype(np.float64)) >= smallest) | (first * second == 0)).all())


RULES = (
    Rule(
        "scale-chain",
        "convolution",
        ("Mul", "Div", "Add", "Sub"),
        _chain,
        "two multiplications with constants in a row are one, and so are two additions",
        exact=False,
        since=7,
        late=True,
    ),
)
