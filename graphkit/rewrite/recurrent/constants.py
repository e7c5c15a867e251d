"""What a graph says about a value without running it: constants, attributes, and values that are zero throughout."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    import onnx_ir as ir

_UNCHANGED = frozenset({"Identity", "Cast", "Unsqueeze", "Squeeze", "Reshape", "Transpose"})


def array(value: ir.Value | None) -> Any:
    """The numpy array that `value` always is, or None. Inline weights are viewed, external ones mapped."""
    if value is None:
        return None
    if value.is_initializer():
        return None if value.is_graph_input() or value.const_value is None else value.const_value.numpy()
    node = value.producer()
    if node is None or node.op_type != "Constant" or node.domain:
        return None
    return _constant(node)


def _constant(node: ir.Node) -> Any:
    import numpy as np

    for name, kind in (("value_float", "float32"), ("value_floats", "float32"), ("value_int", "int64")):
        if name in node.attributes:
            return np.asarray(node.attributes[name].value, dtype=kind)
    if "value_ints" in node.attributes:
        return np.asarray(node.attributes["value_ints"].value, dtype="int64")
    return node.attributes["value"].as_tensor().numpy() if "value" in node.attributes else None


def integers(value: ir.Value | None) -> list[int] | None:
    """The integers that a constant of at most one dimension holds; None for anything else."""
    found = array(value)
    if found is None or found.ndim > 1 or found.dtype.kind not in "iu":
        return None
    return [int(x) for x in found.reshape(-1)]


def attribute(node: ir.Node, name: str, default: Any = None) -> Any:
    """Value of an attribute, or what the operator takes where it is absent."""
    return node.attributes[name].value if name in node.attributes else default


def axes(node: ir.Node) -> list[int] | None:
    """The axes of a Squeeze or Unsqueeze: an input from opset 13 on, an attribute before; None where unknown."""
    if "axes" in node.attributes:
        return [int(a) for a in node.attributes["axes"].as_ints()]
    return integers(node.inputs[1]) if len(node.inputs) > 1 else None


def bounds(node: ir.Node) -> list[tuple[int, int, int, int]] | None:
    """`(axis, start, end, step)` of a Slice, axes as written (maybe negative); None where they are not constant."""
    given = [integers(v) for v in node.inputs[1:]]
    if len(given) < 2 or given[0] is None or given[1] is None:
        return None
    starts, ends = given[0], given[1]
    along = _optional(node, 3, given, range(len(starts)))
    steps = _optional(node, 4, given, [1] * len(starts))
    if along is None or steps is None:
        return None
    return list(zip(along, starts, ends, steps, strict=True))


def _optional(
    node: ir.Node, position: int, given: list[list[int] | None], default: Sequence[int]
) -> Sequence[int] | None:
    present = len(node.inputs) > position and node.inputs[position] is not None
    return given[position - 1] if present else default


def is_zero(value: ir.Value | None) -> bool:
    """Whether `value` is provably zero everywhere, whatever its shape."""
    while value is not None:
        known = array(value)
        if known is not None:
            return not known.any()
        node = value.producer()
        if node is None or node.domain:
            return False
        if node.op_type == "ConstantOfShape":
            fill = node.attributes.get("value")
            return fill is None or not fill.as_tensor().numpy().any()
        if node.op_type not in _UNCHANGED and node.op_type != "Expand":
            return False
        value = node.inputs[0]
    return False


def unwrapped(value: ir.Value) -> ir.Value:
    """`value` without the Identity nodes on top of it."""
    node = value.producer()
    while node is not None and node.op_type == "Identity" and not node.domain and node.inputs[0] is not None:
        value = node.inputs[0]
        node = value.producer()
    return value


def is_read(value: ir.Value) -> bool:
    """Whether a node or the graph's outputs use `value`."""
    return bool(value.uses()) or value.is_graph_output()
