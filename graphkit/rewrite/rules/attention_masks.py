"""The mask of an attention: what is added to the scores, or put in their place, as one tensor that `Attention` takes.

Parts that are always true go; a mask that is only causal becomes `is_causal`; the rest keeps its form, float or
boolean.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from graphkit.rewrite.rules.attention_parts import always_true, causal, expanded, shared, size_vector

if TYPE_CHECKING:
    import onnx_ir as ir

    from graphkit.analyze.polynomial import Size
    from graphkit.analyze.tensors import Shape
    from graphkit.rewrite.editor import Editor

CLOSED = -1e4
"""A number from which on, added to a score, a key is left out: exp of it is 0 in every dtype."""


@dataclass(frozen=True, slots=True)
class Sizes:
    """Of the scores: batch, heads of the queries, queries, keys; and values that have them."""

    shape: tuple[Size, Size, Size, Size]
    query: ir.Value


@dataclass(frozen=True, slots=True)
class Mask:
    """What Attention gets.

    Attributes:
        value: The mask; None for none.
        causal: Whether `is_causal` says it all.
    """

    value: ir.Value | None = None
    causal: bool = False


def mask_of(editor: Editor, at: ir.Node, added: list[ir.Value], allowed: list[ir.Value], sizes: Sizes) -> Mask | str:
    """One mask from what is added to the scores and from booleans that say which scores count.

    Returns:
        The mask, or why it cannot be said as one.
    """
    floats: list[ir.Value] = []
    terms: list[ir.Value] = list(allowed)
    closed: ir.Value | None = None
    for more in added:
        choice = _choice(editor, more)
        if choice is None:
            floats.append(more)
        else:
            terms.append(choice[0])
            closed = choice[1]
    kept: list[ir.Value] = []
    for term in terms:
        kept.extend(t for t in _terms(editor, term) if not any(t is k for k in kept))
    kept = [term for term in kept if not always_true(editor, term)]
    square = sizes.shape[2] == sizes.shape[3]
    if not floats and kept and square and all(causal(editor, t) and _whole(editor, t, sizes) for t in kept):
        return Mask(causal=True)
    value = _joined(editor, at, kept, terms)
    if value is not None and (closed is not None or floats):
        value = _as_float(editor, at, value, added, closed, sizes)
    for more in floats:
        value = more if value is None else _sum(editor, at, value, more)
    return Mask() if value is None else _complete(editor, at, value, sizes)


def _choice(editor: Editor, value: ir.Value) -> tuple[ir.Value, ir.Value] | None:
    """The condition and the closing number of Where(condition, 0, -inf)."""
    node = editor.producer(value, "Where")
    if node is None or editor.scalar(node.inputs[1]) != 0.0:
        return None
    closing = editor.scalar(node.inputs[2])
    if closing is None or closing > CLOSED or node.inputs[0] is None or node.inputs[2] is None:
        return None
    return node.inputs[0], node.inputs[2]


def _terms(editor: Editor, value: ir.Value) -> list[ir.Value]:
    """What a boolean mask is the And of; broadcasting apart."""
    node = editor.producer(value, "And", "Expand", "Identity")
    if node is None or editor.rank(value) is None:
        return [value]
    inner = [v for v in (node.inputs if node.op_type == "And" else node.inputs[:1]) if v is not None]
    return [term for v in inner for term in _terms(editor, v)]


def terms_of(editor: Editor, mask: ir.Value) -> list[ir.Value]:
    """What a mask of either form is the And of: a boolean one, or Where(condition, 0, -inf)."""
    choice = _choice(editor, mask)
    return _terms(editor, mask if choice is None else choice[0])


def _whole(editor: Editor, value: ir.Value, sizes: Sizes) -> bool:
    shape = _shape(editor, value, sizes)
    return shape is not None and shape[-2:] == sizes.shape[2:]


def _shape(editor: Editor, value: ir.Value, sizes: Sizes) -> Shape | None:
    """The shape of a mask, as it is where it meets the scores: the corner of a buffer has their sizes there."""
    shape = editor.shape(value)
    if shape is None or len(shape) > 4:
        return None
    wanted = sizes.shape[4 - len(shape) :]
    below = editor.facts.below
    pairs = zip(shape, wanted, strict=True)
    return tuple(want if size is not None and below.get(size) == want else size for size, want in pairs)


def _joined(editor: Editor, at: ir.Node, kept: list[ir.Value], terms: list[ir.Value]) -> ir.Value | None:
    """The And of what is left: the value that was there, if nothing fell away."""
    if len(terms) == 1 and kept:
        before = terms[0]
        node = editor.producer(before, "And")
        if kept == [before] or (node is not None and kept == list(node.inputs)):
            return before
    joined: ir.Value | None = None
    for term in kept:
        if joined is None:
            joined = term
            continue
        a, b = editor.shape(joined), editor.shape(term)
        joined = shared(editor, at, "And", [joined, term], shape=_broadcast(a, b), dtype="bool")
    return joined


def _as_float(
    editor: Editor, at: ir.Node, value: ir.Value, added: list[ir.Value], closed: ir.Value | None, sizes: Sizes
) -> ir.Value:
    """A boolean mask as numbers to add."""
    import numpy as np

    for old in added:
        node = editor.producer(old, "Where")
        if node is not None and node.inputs[0] is value and len(added) == 1:
            return old
    from graphkit.rewrite.onnx_forms import dtype_of

    dtype = editor.dtype(closed) or editor.dtype(sizes.query) or "float32"
    array = dtype_of(dtype).numpy()
    zero = editor.initializer(np.asarray(0, dtype=array), "zero")
    low = closed if closed is not None else editor.initializer(np.asarray(-np.inf, dtype=array), "closed")
    return shared(editor, at, "Where", [value, zero, low], shape=editor.shape(value), dtype=dtype)


def _sum(editor: Editor, at: ir.Node, a: ir.Value, b: ir.Value) -> ir.Value:
    shape = _broadcast(editor.shape(a), editor.shape(b))
    return shared(editor, at, "Add", [a, b], shape=shape, dtype=editor.dtype(a))


def _complete(editor: Editor, at: ir.Node, value: ir.Value, sizes: Sizes) -> Mask | str:
    """The mask with all queries and all keys: runtimes broadcast it over batch and heads only."""
    shape = _shape(editor, value, sizes)
    if shape is None or None in shape[-2:]:
        return "the shape of its mask is not known"
    if not shape:
        return "its mask is one number"
    wanted = sizes.shape[-max(len(shape), 2) :]
    if any(size != 1 and size != want for size, want in zip(shape[-len(wanted) :], wanted[-len(shape) :], strict=True)):
        return "its mask is not known to have the sizes of the scores"
    if len(shape) < 2 or shape[-2:] != sizes.shape[2:]:
        if shape[-1] != sizes.shape[3]:
            return "its mask is the same for all keys"
        tail: list[ir.Value | int] = [
            size_vector(editor, at, sizes.query, -2 % 4 if (editor.rank(sizes.query) == 4) else 1),
            1,
        ]
        ones = [1] * (max(len(shape), 2) - 2)
        known = (*((1,) * (max(len(shape), 2) - len(shape))), *shape)
        value = expanded(editor, at, value, [*ones, *tail], (*known[:-2], sizes.shape[2], sizes.shape[3]))
    return Mask(value)


def _broadcast(a: tuple[Size | None, ...] | None, b: tuple[Size | None, ...] | None) -> tuple[Size | None, ...] | None:
    if a is None or b is None:
        return None
    rank = max(len(a), len(b))
    left, right = (1,) * (rank - len(a)) + a, (1,) * (rank - len(b)) + b
    return tuple(y if x == 1 else x if y == 1 or x == y else None for x, y in zip(left, right, strict=True))
