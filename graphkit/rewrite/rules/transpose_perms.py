"""Permutations of axes: axis `i` of `Transpose(x, perm)` is axis `perm[i]` of `x`."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, TypeAlias

from graphkit.analyze.tensors import Shape

if TYPE_CHECKING:
    import onnx_ir as ir

    from graphkit.rewrite.editor import Editor

Perm: TypeAlias = tuple[int, ...]


def perm_of(editor: Editor, node: ir.Node) -> Perm | None:
    """The permutation of a Transpose; without one it turns all axes round. None where that needs the rank, which is
    not known."""
    written = editor.attribute(node, "perm")
    if written is not None:
        return tuple(int(a) for a in written)
    rank = editor.rank(node.inputs[0])
    return None if rank is None else tuple(reversed(range(rank)))


def inverse(perm: Perm) -> Perm:
    found = [0] * len(perm)
    for index, axis in enumerate(perm):
        found[axis] = index
    return tuple(found)


def composed(first: Perm, second: Perm) -> Perm:
    """`Transpose(Transpose(x, first), second)` as one."""
    return tuple(first[axis] for axis in second)


def is_identity(perm: Perm) -> bool:
    return perm == tuple(range(len(perm)))


def source_shape(shape: Shape | None, perm: Perm) -> Shape | None:
    """Shape of `x` where `shape` is that of `Transpose(x, perm)`."""
    return None if shape is None or len(shape) != len(perm) else tuple(shape[i] for i in inverse(perm))


def result_shape(shape: Shape | None, perm: Perm) -> Shape | None:
    """Shape of `Transpose(x, perm)` where `shape` is that of `x`."""
    return None if shape is None or len(shape) != len(perm) else tuple(shape[axis] for axis in perm)


def moves_nothing(shape: Shape | None, perm: Perm) -> bool:
    """Whether the elements of `Transpose(x, perm)` stay in their order, since only axes of size 1 move.

    Args:
        shape: That of `x`.
        perm: The permutation.
    """
    if shape is None or len(shape) != len(perm):
        return False
    rest = [axis for axis in perm if shape[axis] != 1]
    return rest == sorted(rest)


def dropped(perm: Perm, axes: Sequence[int]) -> Perm:
    """What is left of a permutation when these axes of its result, which all have one element or are reduced, go."""
    gone = {perm[axis] for axis in axes}
    kept = [axis for axis in range(len(perm)) if axis not in gone]
    place = {axis: index for index, axis in enumerate(kept)}
    return tuple(place[axis] for axis in perm if axis not in gone)


def with_new(perm: Perm, axes: Sequence[int]) -> Perm:
    """A permutation with new axes in its result, at these places of it: in what it permutes they stand at the same
    places, so that they stay where they are."""
    rank = len(perm) + len(axes)
    old = [axis for axis in range(rank) if axis not in set(axes)]
    found = list(range(rank))
    for place, axis in zip(old, perm, strict=True):
        found[place] = old[axis]
    return tuple(found)
