"""`Attention` in the forms that TensorRT's parser takes: one output, no cache, no mask beside causal, a mask of four
axes, no cap, one head size; what has none becomes matrix products and a softmax.

Some of what it does not take it would not even refuse: `nonpad_kv_seqlen` is ignored by TensorRT-RTX 1.7.1.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from graphkit.rewrite.legalize import TARGETS
from graphkit.rewrite.rule import Rule
from graphkit.rewrite.rules.attention_parts import expanded, shared, size_vector

if TYPE_CHECKING:
    import onnx_ir as ir

    from graphkit.analyze.polynomial import Size
    from graphkit.analyze.tensors import Shape
    from graphkit.rewrite.editor import Editor

_MASK, _PAST_KEY, _PAST_VALUE, _VALID = 3, 4, 5, 6


def _again(editor: Editor, node: ir.Node, inputs: list[ir.Value | None], **changed: Any) -> ir.Value:
    """The same attention with other inputs; an attribute that is None goes."""
    attributes = dict(node.attributes) | changed
    return editor.op("Attention", inputs, attributes, like=node.outputs[0])


def _inputs(node: ir.Node) -> list[ir.Value | None]:
    return [*node.inputs, *[None] * (7 - len(node.inputs))]


def _read(node: ir.Node, index: int) -> bool:
    """Whether one of its outputs is read."""
    if index >= len(node.outputs):
        return False
    return bool(node.outputs[index].uses()) or node.outputs[index].is_graph_output()


def _causal(node: ir.Node) -> bool:
    found = node.attributes.get("is_causal")
    return found is not None and found.as_int() != 0


def _windowed(node: ir.Node) -> bool:
    sides = (node.attributes.get(name) for name in ("left_window_size", "right_window_size"))
    return any(side is not None and side.as_int() >= 0 for side in sides)


def _outputs(editor: Editor, node: ir.Node) -> bool:
    """Outputs that nobody reads go."""
    if len(node.outputs) < 2 or any(_read(node, index) for index in range(1, len(node.outputs))):
        return False
    editor.replace(node.outputs[0], _again(editor, node, _inputs(node), qk_matmul_output_mode=None))
    return True


def _cache(editor: Editor, node: ir.Node) -> bool:
    """Past keys and values are joined before, and what is present comes from there."""
    inputs = _inputs(node)
    past = (inputs[_PAST_KEY], inputs[_PAST_VALUE])
    if None in past or _read(node, 3):
        return False
    if _windowed(node):
        return editor.miss(node, "its window is counted from the past")
    present: list[ir.Value] = []
    for index, before in zip((1, 2), past, strict=True):
        now = _heads(editor, node, index)
        if now is None or before is None:
            return editor.miss(node, "the sizes of its heads are not known")
        old, new = editor.shape(before), editor.shape(now)
        shape: Shape | None = None
        if old is not None and new is not None and old[2] is not None and new[2] is not None:
            shape = (*new[:2], old[2] + new[2], *new[3:])
        present.append(editor.op("Concat", [before, now], {"axis": 2}, shape=shape, dtype=editor.dtype(now)))
    query = _heads(editor, node, 0)
    if query is None:
        return editor.miss(node, "the sizes of its heads are not known")
    four = editor.rank(node.inputs[0]) == 4
    attributes = dict(node.attributes) | {"q_num_heads": None, "kv_num_heads": None, "qk_matmul_output_mode": None}
    mask = inputs[_MASK]
    if _causal(node) and past[0] is not None:
        mask, attributes["is_causal"] = _up_to(editor, node, query, past[0], present[0], mask), None
    made = editor.op("Attention", [query, *present, mask], attributes, like=None if not four else node.outputs[0])
    if not four:
        made = _flat(editor, made, node.outputs[0])
    pairs = {node.outputs[0]: made}
    pairs |= {node.outputs[i]: present[i - 1] for i in (1, 2) if _read(node, i)}
    editor.replace_all(pairs)
    return True


def _up_to(
    editor: Editor, node: ir.Node, query: ir.Value, past: ir.Value, keys: ir.Value, mask: ir.Value | None
) -> ir.Value:
    """A mask under which query i sees the keys up to i + length of the past."""
    import numpy as np

    zero, one = (editor.initializer(np.asarray(n, dtype=np.int64), "number") for n in (0, 1))

    def numbers(value: ir.Value) -> tuple[ir.Value, Size | None]:
        shape = editor.shape(value)
        many = None if shape is None else shape[2]
        length = size_vector(editor, node, value, 2)
        end = editor.op("Squeeze", [length, editor.ints_value([0])], shape=(), dtype="int64")
        return editor.op("Range", [zero, end, one], shape=(many,), dtype="int64"), many

    (rows, queries), (columns, total) = numbers(query), numbers(keys)
    shifted = editor.op("Add", [rows, size_vector(editor, node, past, 2)], like=rows)
    upright = editor.op("Unsqueeze", [shifted, editor.ints_value([1])], shape=(queries, 1), dtype="int64")
    seen = editor.op("LessOrEqual", [columns, upright], shape=(queries, total), dtype="bool")
    if mask is None:
        return seen
    if editor.dtype(mask) == "bool":
        return editor.op("And", [seen, mask], like=mask)
    return _closed(editor, seen, mask)


def _heads(editor: Editor, node: ir.Node, index: int) -> ir.Value | None:
    """Queries, keys or values with four axes."""
    value = node.inputs[index]
    shape = editor.shape(value)
    if value is None or shape is None or len(shape) == 4:
        return value if shape is not None else None
    heads = node.attributes["q_num_heads" if index == 0 else "kv_num_heads"].as_int()
    if not isinstance(shape[2], int) or heads < 1:
        return None
    depth = shape[2] // heads
    dtype = editor.dtype(value)
    split = editor.op(
        "Reshape",
        [value, editor.ints_value([0, 0, heads, depth])],
        shape=(shape[0], shape[1], heads, depth),
        dtype=dtype,
    )
    turned = (shape[0], heads, shape[1], depth)
    return editor.op("Transpose", [split], {"perm": [0, 2, 1, 3]}, shape=turned, dtype=dtype)


def _flat(editor: Editor, value: ir.Value, like: ir.Value) -> ir.Value:
    """Heads joined again."""
    turned = editor.op("Transpose", [value], {"perm": [0, 2, 1, 3]}, dtype=editor.dtype(like))
    return editor.op("Reshape", [turned, editor.ints_value([0, 0, -1])], like=like)


def _valid(editor: Editor, node: ir.Node) -> bool:
    """How many keys count, as a mask: Range(keys) < nonpad_kv_seqlen."""
    inputs = _inputs(node)
    count, keys, query = inputs[_VALID], inputs[1], inputs[0]
    if count is None or keys is None or query is None:
        return False
    if _causal(node) or _windowed(node):
        return editor.miss(node, "its causal mask is counted from the end of the keys")
    if editor.rank(keys) is None:
        return editor.miss(node, "the rank of its keys is not known")
    import numpy as np

    axis = 2 if editor.rank(keys) == 4 else 1
    shape, asked = editor.shape(keys), editor.shape(query)
    assert shape is not None
    batch, many = shape[0], shape[axis]
    length = size_vector(editor, node, keys, axis)
    end = editor.op("Squeeze", [length, editor.ints_value([0])], shape=(), dtype="int64")
    zero, one = (editor.initializer(np.asarray(n, dtype=np.int64), "number") for n in (0, 1))
    positions = editor.op("Range", [zero, end, one], shape=(many,), dtype="int64")
    limits = editor.op("Unsqueeze", [count, editor.ints_value([1, 2, 3])], shape=(batch, 1, 1, 1), dtype="int64")
    valid = editor.op("Less", [positions, limits], shape=(batch, 1, 1, many), dtype="bool")
    rows = asked[axis] if asked is not None else None
    sizes: list[ir.Value | int] = [1, 1, size_vector(editor, node, query, axis), 1]
    whole = expanded(editor, node, valid, sizes, (batch, 1, rows, many))
    mask = inputs[_MASK]
    if mask is not None and editor.dtype(mask) == "bool":
        whole = editor.op("And", [whole, mask], like=whole)
    elif mask is not None:
        whole = _closed(editor, whole, mask)
    inputs[_MASK], inputs[_VALID] = whole, None
    editor.replace(node.outputs[0], _again(editor, node, inputs))
    return True


def _closed(editor: Editor, condition: ir.Value, mask: ir.Value) -> ir.Value:
    """A float mask that is -inf where a condition is false."""
    import numpy as np

    from graphkit.rewrite.onnx_forms import dtype_of

    low = editor.initializer(np.asarray(-np.inf, dtype=dtype_of(editor.dtype(mask) or "float32").numpy()), "closed")
    return editor.op("Where", [condition, mask, low], dtype=editor.dtype(mask))


def _not_both(editor: Editor, node: ir.Node) -> bool:
    """A mask beside `is_causal` takes the triangle in."""
    inputs = _inputs(node)
    mask, query, keys = inputs[_MASK], inputs[0], inputs[1]
    if not _causal(node) or mask is None or inputs[_PAST_KEY] is not None or inputs[_VALID] is not None:
        return False
    shape, q, k = editor.shape(mask), editor.shape(query), editor.shape(keys)
    if shape is None or q is None or k is None or len(shape) < 2 or shape[-2:] != (q[-2], k[-2]) or None in shape[-2:]:
        return editor.miss(node, "its mask is not known to have all queries and keys")
    if editor.dtype(mask) == "bool":
        made = shared(editor, node, "Trilu", [mask], {"upper": 0}, shape=shape, dtype="bool")
    else:
        import numpy as np
        import onnx_ir as ir

        sizes = shared(editor, node, "Shape", [mask], shape=(len(shape),), dtype="int64")
        true = ir.tensor(np.asarray([True]))
        full = editor.op("ConstantOfShape", [sizes], {"value": true}, shape=shape, dtype="bool")
        made = _closed(editor, editor.op("Trilu", [full], {"upper": 0}, shape=shape, dtype="bool"), mask)
    inputs[_MASK] = made
    editor.replace(node.outputs[0], _again(editor, node, inputs, is_causal=0))
    return True


def _four(editor: Editor, node: ir.Node) -> bool:
    """A mask of fewer than four axes gets the missing ones."""
    inputs = _inputs(node)
    mask = inputs[_MASK]
    shape = editor.shape(mask)
    if mask is None or shape is None or not 2 <= len(shape) < 4:
        return False
    missing = 4 - len(shape)
    known = (*(1,) * missing, *shape)
    axes = editor.ints_value(list(range(missing)))
    inputs[_MASK] = shared(editor, node, "Unsqueeze", [mask, axes], shape=known, dtype=editor.dtype(mask))
    editor.replace(node.outputs[0], _again(editor, node, inputs))
    return True


def _precision(editor: Editor, node: ir.Node) -> bool:
    """TensorRT takes no `softmax_precision`."""
    if "softmax_precision" not in node.attributes:
        return False
    editor.set_attribute(node, "softmax_precision", None)
    return True


def _apart(editor: Editor, node: ir.Node) -> bool:
    """Products and a softmax, where TensorRT has no Attention like it."""
    inputs = _inputs(node)
    cap = node.attributes.get("softcap")
    capped = cap is not None and cap.as_float() != 0.0
    if _read(node, 1) or _read(node, 2) or _read(node, 3) or _windowed(node):
        return False
    if inputs[_PAST_KEY] is not None or inputs[_VALID] is not None or (_causal(node) and inputs[_MASK] is not None):
        return False
    parts = [editor.shape(value) for value in inputs[:3]]
    q, k, v = parts
    if q is None or k is None or v is None or not isinstance(q[-1], int) or not isinstance(v[-1], int):
        return False
    heads = (1, 1) if len(q) == 4 else tuple(node.attributes[n].as_int() for n in ("q_num_heads", "kv_num_heads"))
    if not capped and q[-1] * heads[1] == v[-1] * heads[0]:
        return False
    query, keys, values = (_heads(editor, node, index) for index in range(3))
    if query is None or keys is None or values is None:
        return editor.miss(node, "the sizes of its heads are not known")
    result = _product(editor, node, query, keys, values, cap.as_float() if cap is not None and capped else 0.0)
    if result is None:
        return editor.miss(node, "its mask or its heads cannot be said as products")
    if len(q) == 3:
        result = _flat(editor, result, node.outputs[0])
    editor.replace(node.outputs[0], result)
    return True


def _product(
    editor: Editor, node: ir.Node, query: ir.Value, keys: ir.Value, values: ir.Value, cap: float
) -> ir.Value | None:
    import numpy as np

    from graphkit.rewrite.onnx_forms import dtype_of

    q, k, v = editor.shape(query), editor.shape(keys), editor.shape(values)
    assert q is not None
    assert k is not None
    assert v is not None
    if q[1] != k[1] or not isinstance(q[3], int) or _causal(node):
        return None
    dtype = editor.dtype(query) or "float32"

    def number(of: float) -> ir.Value:
        return editor.initializer(np.asarray(of, dtype=dtype_of(dtype).numpy()), "number")

    given = node.attributes.get("scale")
    scale = given.as_float() if given is not None and given.as_float() else q[3] ** -0.5
    turned = editor.op("Transpose", [keys], {"perm": [0, 1, 3, 2]}, shape=(*k[:2], k[3], k[2]), dtype=dtype)
    shape = (*q[:3], k[2])
    scores = editor.op(
        "MatMul", [editor.op("Mul", [query, number(scale)], like=query), turned], shape=shape, dtype=dtype
    )
    if cap:
        inner = editor.op("Tanh", [editor.op("Div", [scores, number(cap)], like=scores)], like=scores)
        scores = editor.op("Mul", [inner, number(cap)], like=scores)
    mask = editor.input(node, _MASK)
    if mask is not None and editor.dtype(mask) == "bool":
        mask = editor.op("Where", [mask, number(0.0), number(-np.inf)], like=mask, dtype=dtype)
    if mask is not None:
        scores = editor.op("Add", [scores, mask], like=scores)
    weights = editor.op("Softmax", [scores], {"axis": -1}, like=scores)
    if mask is not None:  # a row whose keys are all masked out gives 0
        void = editor.op("IsNaN", [weights], like=weights, dtype="bool")
        weights = editor.op("Where", [void, number(0.0), weights], like=weights)
    return editor.op("MatMul", [weights, values], shape=(*q[:3], v[3]), dtype=dtype)


def _rule(name: str, apply: Any, says: str, *, exact: bool = True) -> Rule:
    return Rule(name, "target", ("Attention",), apply, says, exact=exact, targets=TARGETS, since=23)


RULES = (
    _rule("legal-attention-outputs", _outputs, "outputs of Attention that nobody reads go"),
    _rule("legal-attention-cache", _cache, "past keys and values are joined before Attention, not in it"),
    _rule("legal-attention-length", _valid, "the number of keys that count becomes a mask, which TensorRT reads"),
    _rule("legal-attention-causal", _not_both, "a mask beside is_causal takes the triangle in"),
    _rule("legal-attention-mask", _four, "masks of Attention get four axes"),
    _rule("legal-attention-precision", _precision, "softmax_precision goes: TensorRT chooses it", exact=False),
    _rule("legal-attention-apart", _apart, "Attention with a cap or two head sizes becomes products", exact=False),
)
