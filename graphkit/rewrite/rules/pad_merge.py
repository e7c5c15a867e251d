"""A Pad before a convolution or a pooling becomes padding of its own."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING

from graphkit.rewrite.rule import Rule

if TYPE_CHECKING:
    import onnx_ir as ir

    from graphkit.rewrite.editor import Editor


def _conv(editor: Editor, node: ir.Node) -> bool:
    found = _padding(editor, node)
    return found is not None and found[1] == 0 and _merge(editor, node, found[0], {})


def _average(editor: Editor, node: ir.Node) -> bool:
    found = _padding(editor, node)
    if found is None or found[1] != 0:
        return False
    if editor.attribute(node, "ceil_mode"):
        return editor.miss(node, "the last window of a pooling that rounds up would change")
    if not editor.attribute(node, "count_include_pad") and any(_own_pads(node, len(found[0]))):
        return editor.miss(node, "the pooling counts the zeros of the Pad, but not those of its own padding")
    return _fits(editor, node, found[0]) and _merge(editor, node, found[0], {"count_include_pad": 1})


def _maximum(editor: Editor, node: ir.Node) -> bool:
    """A zero is no neutral element of the maximum, minus infinity is. (Runtimes pad with the lowest finite number:
    they differ where everything in a window is minus infinity.)"""
    found = _padding(editor, node)
    if found is None or len(node.outputs) > 1:
        return False
    if found[1] != -math.inf:
        return editor.miss(node, f"the Pad adds {found[1]:g}, which can be the maximum; -inf cannot")
    if editor.attribute(node, "ceil_mode"):
        return editor.miss(node, "the last window of a pooling that rounds up would change")
    return _fits(editor, node, found[0]) and _merge(editor, node, found[0], {})


def _padding(editor: Editor, node: ir.Node) -> tuple[list[int], float] | None:
    """Spatial padding, begins before ends, and its value, of the Pad before a node; None where there is none that the
    node can take over."""
    pad = editor.sole(node.inputs[0], "Pad")
    if pad is None or pad.graph is not node.graph or editor.attribute(pad, "mode") != "constant":
        return None
    rank = editor.rank(pad.inputs[0])
    written = pad.attributes.get("pads")
    pads = [int(p) for p in written.as_ints()] if written is not None else editor.integers(editor.input(pad, 1))
    if pads is None or rank is None or rank < 3:
        return None
    fill = editor.input(pad, 2)
    value = float(editor.attribute(pad, "value") or 0.0) if fill is None else editor.scalar(fill)
    if editor.input(pad, 3) is not None:
        axes = editor.integers(editor.input(pad, 3))
        if axes is None or len(pads) != 2 * len(axes):
            return None
        by_axis = {a % rank: (pads[i], pads[i + len(axes)]) for i, a in enumerate(axes)}
        pads = [by_axis.get(a, (0, 0))[end] for end in (0, 1) for a in range(rank)]
    if len(pads) != 2 * rank or value is None:
        return None
    if min(pads) < 0 or any(pads[:2]) or any(pads[rank : rank + 2]):
        editor.miss(node, "the Pad before it crops, or pads the batch or the channels")
        return None
    if editor.attribute(node, "auto_pad") not in (None, "NOTSET", "VALID"):
        editor.miss(node, "its own padding depends on the size of what it reads")
        return None
    return pads[2:rank] + pads[rank + 2 :], value


def _own_pads(node: ir.Node, count: int) -> list[int]:
    given = node.attributes.get("pads")
    valid = node.attributes.get("auto_pad")
    if given is None or (valid is not None and valid.as_string() == "VALID"):
        return [0] * count
    return [int(p) for p in given.as_ints()]


def _fits(editor: Editor, node: ir.Node, pads: list[int]) -> bool:
    """Whether every window of a pooling still sees an element: runtimes refuse padding as large as the window."""
    kernel = [int(k) for k in editor.attribute(node, "kernel_shape")]
    dilated = any(int(d) != 1 for d in editor.attribute(node, "dilations") or ())
    total = [a + b for a, b in zip(pads, _own_pads(node, len(pads)), strict=True)]
    if dilated or any(p >= k for p, k in zip(total, kernel + kernel, strict=True)):
        return editor.miss(node, "the padding would be as large as the window")
    return True


def _merge(editor: Editor, node: ir.Node, pads: list[int], more: dict[str, int]) -> bool:
    pad = node.inputs[0].producer() if node.inputs[0] is not None else None
    assert pad is not None
    total = [a + b for a, b in zip(pads, _own_pads(node, len(pads)), strict=True)]
    attributes = {**node.attributes, "pads": total, "auto_pad": None, **more}
    made = editor.op(node.op_type, [pad.inputs[0], *node.inputs[1:]], attributes, like=node.outputs[0])
    editor.replace(node.outputs[0], made)
    return True


RULES = (
    Rule(
        "pad-conv",
        "convolution",
        ("Conv",),
        _conv,
        "a Pad with zeros becomes padding of the Conv after it",
        exact=False,
    ),
    Rule(
        "pad-averagepool",
        "convolution",
        ("AveragePool",),
        _average,
        "a Pad with zeros becomes counted padding of the AveragePool after it",
        exact=False,
        since=7,
    ),
    Rule("pad-maxpool", "convolution", ("MaxPool",), _maximum, "a Pad with -inf becomes padding of the MaxPool after"),
)
