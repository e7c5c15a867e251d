"""How two weights are related: cast, transposed, scaled, quantised, or changed, and by how much."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Sequence
from typing import Any

from graphkit.delta.canonical import Canon
from graphkit.delta.labels import Labels, Weight, is_evidence
from graphkit.delta.result import WeightChange, WeightKind
from graphkit.view import SparseView, WeightView

_HALF_STEP = 0.51
"""Quantisation may move a value by half a step; the rest is for rounding on the way."""


def compare(labels: Labels, weight: Weight, other: Weight, node: int, slot: int, *, measured: bool) -> WeightChange:
    """What became of a weight that is not the same.

    Raises:
        CorruptFile, UnsafePath: values cannot be read.
    """
    kind: WeightKind = "not measured"
    figures: dict[str, float | None] = {}
    if not (labels.known(weight) and labels.known(other)):
        kind = "unknown"
    elif measured:
        kind, figures = _related(weight, other)
    return WeightChange(kind, weight.name, other.name, type_of(weight), type_of(other), node=node, slot=slot, **figures)


def compare_quantised(
    labels: Labels, plain: Weight, graph: Canon, dequantize: int, turned: bool, node: int, slot: int
) -> WeightChange | None:
    """What became of a weight in whose place, in `graph`, stands a DequantizeLinear; None if that reads no weight.

    Args:
        turned: Whether the plain weight is the second model's.
    """
    sources = [graph.weights.get(value) for value in graph.reads[dequantize]]
    if len(sources) < 2 or not all(isinstance(source, WeightView) for source in sources):
        return None
    quantised, scale = sources[0], sources[1]
    assert isinstance(quantised, WeightView)
    assert isinstance(scale, WeightView)
    kind: WeightKind = "unknown"
    figures: dict[str, float | None] = {}
    if all(source is not None and labels.known(source) for source in (plain, *sources)):
        axis = graph.graph.node(graph.nodes[dequantize]).attributes.get("axis")
        zero = sources[2] if len(sources) > 2 else None
        kind, figures = _dequantised(plain, quantised, scale, zero, 1 if axis is None else axis.value)
    left, right = (quantised, plain) if turned else (plain, quantised)
    return WeightChange(kind, left.name, right.name, type_of(left), type_of(right), node=node, slot=slot, **figures)


def relate(labels: Labels, removed: Iterable[Weight], added: Iterable[Weight], *, measured: bool) -> Counter[str]:
    """How the weights that went and those that came are related: by content, whatever their names are."""
    found: Counter[str] = Counter()
    gone = {labels.content(w, False): w for w in removed if is_evidence(w)}
    new = {labels.content(w, False): w for w in added if is_evidence(w)}
    for content in [content for content in gone if content in new]:
        found["identical"] += 1
        del gone[content], new[content]
    for weight in new.values() if measured else ():
        if not labels.known(weight):
            continue
        for content, other in gone.items():
            if sorted(other.dims) == sorted(weight.dims) and labels.known(other):
                kind, _ = _related(other, weight)
                if kind in ("cast", "transposed", "scaled"):
                    found[kind] += 1
                    del gone[content]
                    break
    return found


def type_of(weight: Weight) -> str:
    sparse = "sparse " if isinstance(weight, SparseView) else ""
    return f"{sparse}{weight.dtype}[{','.join(map(str, weight.dims))}]"


def _related(weight: Weight, other: Weight) -> tuple[WeightKind, dict[str, float | None]]:
    import numpy as np

    if not isinstance(weight, WeightView) or not isinstance(other, WeightView):
        return "changed", {}
    if "string" in (weight.dtype, other.dtype) or "complex" in weight.dtype + other.dtype:
        return "changed", {}
    before, after = weight.read(), other.read()
    if before.shape != after.shape:
        if before.ndim == after.ndim == 2 and np.array_equal(before.T, after):
            return "transposed", {}
        if before.size == after.size and np.array_equal(before.reshape(-1), after.reshape(-1)):
            return "reshaped", {}
        return "changed", {}
    figures = _figures(before, after)
    if weight.dtype != other.dtype and _is_cast(before, after):
        return "cast", figures
    if before.ndim == 2 and before.shape[0] == before.shape[1] and np.array_equal(before.T, after):
        return "transposed", figures
    return ("scaled" if _is_scaled(before, after) else "changed"), figures


def _is_cast(before: Any, after: Any) -> bool:
    """Whether one is the other, rounded to its dtype."""
    import numpy as np

    with np.errstate(all="ignore"):
        return _same(before.astype(after.dtype), after) or _same(after.astype(before.dtype), before)


def _same(left: Any, right: Any) -> bool:
    import numpy as np

    return bool(np.all((left == right) | ((left != left) & (right != right))))


def _is_scaled(before: Any, after: Any) -> bool:
    """Whether one factor for each index of some axis, or one for all, turns one into the other."""
    import numpy as np

    if before.size < 2 or not np.issubdtype(before.dtype, np.floating) or not np.issubdtype(after.dtype, np.floating):
        return False
    left, right = before.astype(np.float64), after.astype(np.float64)
    for axis in range(before.ndim) if before.ndim > 1 else ():
        others = tuple(k for k in range(before.ndim) if k != axis)
        if before.size // before.shape[axis] > 1 and _is_proportional(left, right, others):
            return True
    return _is_proportional(left, right, tuple(range(before.ndim)))


def _is_proportional(left: Any, right: Any, axes: tuple[int, ...]) -> bool:
    """Whether least squares leaves nothing but rounding, with one factor for what `axes` reduces."""
    import numpy as np

    with np.errstate(all="ignore"):
        power = (left * left).sum(axis=axes, keepdims=True)
        factor = np.divide(
            (left * right).sum(axis=axes, keepdims=True), power, out=np.zeros_like(power), where=power > 0
        )
        rest = np.abs(right - factor * left).max(initial=0.0)
        return bool(rest <= 4e-6 * np.abs(right).max(initial=0.0))


def _dequantised(
    plain: Weight, quantised: WeightView, scale: WeightView, zero: Weight | None, axis: int
) -> tuple[WeightKind, dict[str, float | None]]:
    import numpy as np

    if not isinstance(plain, WeightView) or plain.dims != quantised.dims:
        return "changed", {}
    before, factors = plain.read().astype(np.float64), scale.read().astype(np.float64)
    shift = zero.read().astype(np.float64) if isinstance(zero, WeightView) else np.zeros_like(factors)
    if factors.ndim == 1 and factors.size > 1 and before.ndim and factors.size == before.shape[axis % before.ndim]:
        shape = [1] * before.ndim
        shape[axis % before.ndim] = -1
        factors, shift = factors.reshape(shape), shift.reshape(shape)
    elif factors.size > 1:  # blocks, which are not looked into
        return "changed", {}
    after = (quantised.read().astype(np.float64) - shift) * factors
    near = bool(np.all(np.abs(after - before) <= _HALF_STEP * np.abs(factors)))
    return ("quantised" if near else "changed"), _figures(before, after)


def _figures(before: Any, after: Any) -> dict[str, float | None]:
    import numpy as np

    if not before.size:
        return {}
    left, right = (_as_float(array).reshape(-1) for array in (before, after))
    with np.errstate(all="ignore"):
        apart = np.abs(right - left)
        largest, scale = float(apart.max()), float(np.abs(left).max())
        norms = float(np.linalg.norm(left) * np.linalg.norm(right))
        found = {
            "max_abs": largest,
            "max_rel": largest / scale if scale else None,
            "cosine": float(left @ right) / norms if norms else None,
            "share": float(np.count_nonzero(before.reshape(-1) != after.reshape(-1)) / before.size),
        }
    return {name: value if value is not None and np.isfinite(value) else None for name, value in found.items()}


def _as_float(array: Any) -> Any:
    import numpy as np

    return array if array.dtype == np.float64 else array.astype(np.float64)


def weights_of(graph: Canon, nodes: Sequence[int]) -> list[Weight]:
    """The weights that nodes read."""
    found = (graph.weights.get(value) for node in nodes for value in graph.reads[node])
    return list({id(weight): weight for weight in found if weight is not None}.values())
