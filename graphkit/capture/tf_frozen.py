"""A TensorFlow graph whose variables are constants: what every TensorFlow source becomes on its way to ONNX."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from graphkit.model import SourceLine
from graphkit.shapes import TensorSpec


@dataclass(frozen=True, slots=True)
class FrozenTensor:
    """An input or output of a frozen graph.

    Attributes:
        spec: Its public name (the argument, the key of a dict output), dtype and shape, with symbols where the user
            or the source names dimensions; None where a dimension is unknown.
        tensor: Its tensor in the graph: `x:0`.
    """

    spec: TensorSpec
    tensor: str


@dataclass(frozen=True, slots=True)
class Frozen:
    """A frozen graph.

    Attributes:
        graph: The `GraphDef`, functions included; it holds no variable.
        inputs: In the order of the source's own arguments.
        outputs: In the order that the source returns them.
        layers: Paths of the source's layers by their own names, the model's first: `unet/encoder/conv_1`; empty where
            the source does not know them.
        lines: The user's line for operations of the graph, by name.
        tables: Keys and values, as arrays, of the lookup tables in the graph, by the `shared_name` of their
            `HashTableV2`.
    """

    graph: Any
    inputs: tuple[FrozenTensor, ...]
    outputs: tuple[FrozenTensor, ...]
    layers: tuple[str, ...] = ()
    lines: Mapping[str, SourceLine] = field(default_factory=dict)
    tables: Mapping[bytes, tuple[Any, Any]] = field(default_factory=dict)
