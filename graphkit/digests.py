"""Digests of a model that renaming and reordering do not change."""

from __future__ import annotations

import json
from collections.abc import Iterator
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from graphkit.numbering import digest_of, held_by_constant, number
from graphkit.view import GraphView, ModelView, SparseView, TypeView, WeightView, of, read

if TYPE_CHECKING:
    from graphkit.model import Model

_PARAMETER_BYTES = 512
"""An int64 tensor of at most this many bytes is a parameter of the graph, not a weight: ONNX keeps shapes, axes and
bounds of slices in inputs."""


@dataclass(frozen=True, slots=True)
class Digest:
    """Digests of one model, 32 hexadecimal digits each.

    Attributes:
        model: All of it: the other three, and which weight stands where. Equal models are equal here.
        structure: Operators, attributes, wiring, opsets, dtypes and fixed sizes of inputs and weights, and the content
            of small int64 tensors, which are shapes and axes. No names, no order of independent nodes, no weights.
        weights: Content of all weights, in no order; a weight that is stored twice counts once.
        signature: Names, dtypes and shapes of inputs and outputs, in order.
    """

    model: str
    structure: str
    weights: str
    signature: str

    def to_json(self) -> dict[str, str]:
        return asdict(self)


def digest(model: Model | ModelView | Path | str) -> Digest:
    """The digests of an ONNX file, or of a model in memory.

    A constant counts as the weight that it holds, in a node or as an initializer. Attributes count as they are
    written: one that is left out differs from the same one written with its default.

    Raises:
        FileMissing: there is no such file, or its external weights are missing.
        CorruptFile: it is not valid ONNX, or has a cycle, a value that is made twice or not at all, or a function that
            calls itself.
        UnsafePath: external weights lie outside the model's folder.
    """
    view = _view(model)
    contents = _Contents()
    structure = number(view, contents.without_weights)
    placed = number(view, contents.with_weights)
    weights = digest_of("weights", *sorted({contents.of(weight) for weight in _trained(view)}))
    signature = digest_of("signature", *_signature(view.graph))
    return Digest(digest_of("model", placed, signature), structure, weights, signature)


def assert_equivalent(actual: Any, expected: Any) -> None:
    """Raise `AssertionError` unless two models (paths or models in memory) have equal digests.

    Names of nodes and inner values, and the order of nodes and initializers, are allowed to differ.
    """
    ours, theirs = digest(actual), digest(expected)
    if ours == theirs:
        return
    parts = [name for name in ("structure", "weights", "signature") if getattr(ours, name) != getattr(theirs, name)]
    what = f"they differ in {' and '.join(parts)}" if parts else "the same weights stand in other places"
    lines = [f"  {name}: {getattr(ours, name)} != {getattr(theirs, name)}" for name in parts]
    raise AssertionError("\n".join([f"the models are not equivalent: {what}", *lines]))


def _view(model: Model | ModelView | Path | str) -> ModelView:
    if isinstance(model, ModelView):
        return model
    return read(model) if isinstance(model, str | Path) else of(model)


class _Contents:
    """Digests of weights, each read once."""

    def __init__(self) -> None:
        self._known: dict[int, str] = {}  # by identity: the view keeps its weights alive

    def of(self, weight: WeightView | SparseView) -> str:
        known = self._known.get(id(weight))
        if known is None:
            known = self._known[id(weight)] = weight.digest()
        return known

    def with_weights(self, weight: WeightView | SparseView, of_attribute: bool) -> str:
        del of_attribute
        return self.of(weight)

    def without_weights(self, weight: WeightView | SparseView, of_attribute: bool) -> str:
        if of_attribute or _is_parameter(weight):
            return self.of(weight)
        return f"{type(weight).__name__} {weight.dtype} {weight.dims}"


def _is_parameter(weight: WeightView | SparseView) -> bool:
    return isinstance(weight, WeightView) and weight.dtype == "int64" and weight.nbytes <= _PARAMETER_BYTES


def _trained(view: ModelView) -> Iterator[WeightView | SparseView]:
    for graph in view.graphs():
        yield from (weight for weight in graph.initializers.values() if not _is_parameter(weight))
        for index in range(len(graph)):
            weight = held_by_constant(graph, index)
            if weight is not None and not _is_parameter(weight):
                yield weight


def _signature(graph: GraphView) -> Iterator[str]:
    """Inputs and outputs as text."""
    inputs = (value for value in graph.inputs if value not in graph.initializers)
    for side, values in (("input", inputs), ("output", graph.outputs)):
        for value in values:
            type_ = graph.types.get(value)
            yield json.dumps([side, graph.values[value], _facts(type_)])


def _facts(type_: TypeView | None) -> list[Any] | None:
    return None if type_ is None else [type_.kind, type_.dtype, type_.shape, _facts(type_.element)]
