"""Types of a node's outputs from those of its inputs: reductions over axes, and operators that select."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import TypeAlias

from graphkit.analyze.node import Node
from graphkit.analyze.shape_layout import axes_of
from graphkit.analyze.tensors import Tensor

Outputs: TypeAlias = Sequence[Tensor]


def _gather(node: Node) -> Outputs:
    shape, places = node.shape(0), node.shape(1)
    if shape is None or places is None:
        return (Tensor(None, node.dtype(0)),)
    axis = node.attribute("axis", 0) % max(len(shape), 1)
    return (Tensor((*shape[:axis], *places, *shape[axis + 1 :]), node.dtype(0)),)


def _gather_nd(node: Node) -> Outputs:
    shape, places = node.shape(0), node.shape(1)
    depth = places[-1] if places else None
    if shape is None or places is None or not isinstance(depth, int):
        return (Tensor(None, node.dtype(0)),)
    return (Tensor((*places[:-1], *shape[node.attribute("batch_dims", 0) + depth :]), node.dtype(0)),)


def _like_indices(node: Node) -> Outputs:
    return (Tensor(node.shape(1), node.dtype(0)),)


def _reduce(node: Node) -> Outputs:
    shape = node.shape(0)
    dtype = node.dtype(0)
    if shape is None:
        return (Tensor(None, dtype),)
    axes = axes_of(node, 1, len(shape))
    keep = node.attribute("keepdims", 1)
    if axes is None:
        return (Tensor((None,) * len(shape) if keep else None, dtype),)
    if not axes:
        if node.attribute("noop_with_empty_axes", 0):
            return (node.tensor(0),)
        axes = tuple(range(len(shape)))
    kept = tuple(1 if at in axes else size for at, size in enumerate(shape) if keep or at not in axes)
    return (Tensor(kept, dtype),)


def _arg(node: Node) -> Outputs:
    shape = node.shape(0)
    if shape is None:
        return (Tensor(None, "int64"),)
    axis, keep = node.attribute("axis", 0) % max(len(shape), 1), node.attribute("keepdims", 1)
    return (Tensor((*shape[:axis], *((1,) if keep else ()), *shape[axis + 1 :]), "int64"),)


def _top_k(node: Node) -> Outputs:
    shape, count = node.shape(0), node.ints(1) if node.given(1) else (node.attribute("k"),)
    found = None
    if shape is not None:
        axis = node.attribute("axis", -1) % max(len(shape), 1)
        found = (*shape[:axis], count[0] if count else None, *shape[axis + 1 :])
    return (Tensor(found, node.dtype(0)), Tensor(found, "int64"))


def _one_hot(node: Node) -> Outputs:
    places, depth = node.shape(0), node.ints(1)
    if places is None:
        return (Tensor(None, node.dtype(2)),)
    axis = node.attribute("axis", -1) % (len(places) + 1)
    return (Tensor((*places[:axis], depth[0] if depth else None, *places[axis:]), node.dtype(2)),)


def _non_zero(node: Node) -> Outputs:
    shape = node.shape(0)
    return (Tensor((len(shape) if shape is not None else None, None), "int64"),)


def _unknown_size(node: Node) -> Outputs:
    """Compress, NonMaxSuppression, Unique: how much comes out depends on data."""
    if node.op == "NonMaxSuppression":
        return (Tensor((None, 3), "int64"),)
    return (Tensor((None,) if node.attribute("axis") is None else None, node.dtype(0)),)


_REDUCE = [
    f"Reduce{name}" for name in ["Sum", "Mean", "Max", "Min", "Prod", "L1", "L2", "LogSum", "LogSumExp", "SumSquare"]
]

RULES: dict[str, Callable[[Node], Outputs]] = {
    "Gather": _gather,
    "GatherND": _gather_nd,
    "GatherElements": _like_indices,
    **dict.fromkeys(_REDUCE, _reduce),
    "ArgMax": _arg,
    "ArgMin": _arg,
    "TopK": _top_k,
    "OneHot": _one_hot,
    "NonZero": _non_zero,
    **dict.fromkeys(("Compress", "NonMaxSuppression", "Unique"), _unknown_size),
}

BY_VALUE = frozenset((*_REDUCE, "TopK", "OneHot"))
"""Operators whose output's shape depends on elements of inputs."""
