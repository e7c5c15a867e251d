"""Keys and values of earlier steps: Concat(past, now) before an attention becomes the cache of `Attention` itself.

The operator joins `past_key` with its keys along their length, attends to both, and gives what it joined as
`present_key`; values alike (opset 23). `is_causal` counts from the past then: query i attends key j where
j <= i + length of the past (the text of opset 24, which an erratum made that of 23; ONNX Runtime 1.32 does it in both).
All four inputs and outputs go together: ONNX Runtime has no kernel for a past without a present.

Only where it is a cache: the past is fed, or what is joined is handed out. TensorRT takes no cache, so this is not for
it.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from graphkit.analyze.tensors import Tensor
from graphkit.rewrite.rule import Rule
from graphkit.rewrite.rules.attention_masks import terms_of
from graphkit.rewrite.rules.attention_parts import always_true, counted

if TYPE_CHECKING:
    import onnx_ir as ir

    from graphkit.analyze.polynomial import Size
    from graphkit.analyze.tensors import Shape
    from graphkit.rewrite.editor import Editor

_LENGTH = 2


def _cache(editor: Editor, node: ir.Node) -> bool:
    if editor.rank(node.inputs[0]) != 4 or any(editor.input(node, index) is not None for index in (4, 5, 6)):
        return False
    keys, values = node.inputs[1], node.inputs[2]
    joined = [_joined(editor, node, value) for value in (keys, values)]
    if keys is None or values is None or joined[0] is None or joined[1] is None:
        return False
    pasts, news = zip(*joined, strict=True)
    if not (_from_outside(editor, keys, pasts[0]) and _from_outside(editor, values, pasts[1])):
        return False
    if any(o.uses() or o.is_graph_output() for o in node.outputs[1:]):
        return editor.miss(node, "it has other outputs already")
    if any(editor.users(value) != [node] for value in (keys, values)):
        return editor.miss(node, "its keys or values with their past are read by something else too")
    attributes = {name: node.attributes[name].value for name in node.attributes}
    if attributes.get("is_causal") or max(attributes.get(f"{s}_window_size", -1) for s in ("left", "right")) >= 0:
        return editor.miss(node, "its causal mask or its window is not counted from the past")
    shapes = [editor.shape(value) for value in (*pasts, *news)]
    if not _alike(shapes):
        return editor.miss(node, "the past of its keys and that of its values are not known to have the same length")
    mask, past, queries, whole = editor.input(node, 3), *(editor.shape(v) for v in (pasts[0], node.inputs[0], keys))
    assert past is not None
    assert queries is not None
    assert whole is not None
    sizes = (queries[_LENGTH], whole[_LENGTH])
    if mask is not None and _is_causal(editor, mask, past[_LENGTH], sizes):
        mask, attributes["is_causal"] = None, 1
    made = editor.ops("Attention", [node.inputs[0], *news, mask, *pasts], attributes, outputs=3)
    pairs = dict(zip((node.outputs[0], keys, values), made, strict=True))
    for old, new in pairs.items():
        editor.describe(new, Tensor(editor.shape(old), editor.dtype(old)))
    editor.replace_all(pairs)
    return True


def _joined(editor: Editor, node: ir.Node, value: ir.Value | None) -> tuple[ir.Value, ir.Value] | None:
    """The two that a Concat joins along the length."""
    join = editor.producer(value, "Concat")
    if join is None or join.graph is not node.graph or len(join.inputs) != 2:
        return None
    past, now = join.inputs
    if past is None or now is None or editor.rank(past) != 4 or editor.attribute(join, "axis") not in (-2, _LENGTH):
        return None
    return past, now


def _from_outside(editor: Editor, joined: ir.Value, past: ir.Value) -> bool:
    return editor.is_input(past) or joined.is_graph_output()


def _alike(shapes: list[Shape | None]) -> bool:
    """Whether past and new keys are as many as past and new values, of as many heads."""
    if any(shape is None for shape in shapes):
        return False
    (key, value, new_key, new_value) = (shape or () for shape in shapes)
    sizes = (key[1], key[_LENGTH], new_key[1], new_key[_LENGTH])
    return None not in sizes and sizes == (value[1], value[_LENGTH], new_value[1], new_value[_LENGTH])


def _is_causal(editor: Editor, mask: ir.Value, past: Size | None, sizes: tuple[Size | None, Size | None]) -> bool:
    """Whether a mask lets query i see exactly the keys up to i + past, and says nothing else."""
    shape = editor.shape(mask)
    if past is None or None in sizes or shape is None or shape[-2:] != sizes:
        return False
    terms = [term for term in terms_of(editor, mask) if not always_true(editor, term)]
    return bool(terms) and all((editor.shape(t) or ())[-2:] == sizes and _counted_from(editor, t, past) for t in terms)


def _counted_from(editor: Editor, value: ir.Value, past: Size) -> bool:
    """keys <= queries, where the keys count from 0 and the queries from the length of the past."""
    node = editor.producer(value, "LessOrEqual", "GreaterOrEqual", "Not")
    if node is None:
        return False
    if node.op_type == "Not":
        above = editor.producer(node.inputs[0], "Greater", "Less")
        if above is None:
            return False
        keys, queries = above.inputs if above.op_type == "Greater" else reversed(above.inputs)
    else:
        keys, queries = node.inputs if node.op_type == "LessOrEqual" else reversed(node.inputs)
    columns, rows = counted(editor, keys), counted(editor, queries)
    return columns is not None and rows is not None and columns[:2] == (-1, 0) and rows[:2] == (-2, past)


RULES = (
    Rule(
        "attention-cache",
        "transformer",
        ("Attention",),
        _cache,
        "keys and values that are joined with their past go into Attention as its cache, which gives what is present",
        exact=False,
        targets=("onnx", "ort"),
        since=23,
    ),
)
