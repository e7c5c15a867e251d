"""How two nodes that make the same tensor differ: their operator, inputs, attributes and weights. Nothing is run."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from graphkit.parity.divergence import NodeDifference, WeightDifference

if TYPE_CHECKING:
    import onnx_ir as ir

    from graphkit.model import Model

_LONG = 200


def node_differences(reference: ir.Node, candidate: ir.Node) -> tuple[NodeDifference, ...]:
    """Operator, order of inputs and attributes; of nodes of different operators only that."""
    kinds = [_kind(n) for n in (reference, candidate)]
    if kinds[0] != kinds[1]:
        return (NodeDifference("op", kinds[0], kinds[1]),)
    found = []
    reads = [", ".join(v.name or "" if v is not None else "" for v in n.inputs) for n in (reference, candidate)]
    if reads[0] != reads[1]:
        found.append(NodeDifference("inputs", *reads))
    names = dict.fromkeys([*reference.attributes, *candidate.attributes])
    for name in names:
        values = [_value(n.attributes.get(name)) for n in (reference, candidate)]
        if values[0] != values[1]:
            found.append(NodeDifference(name, *(v[:_LONG] for v in values)))
    return tuple(found)


def weight_differences(
    reference: Model, readers: Sequence[ir.Node], producer: ir.Node | None
) -> tuple[WeightDifference, ...]:
    """Constants that nodes of the candidate read and that differ from the reference's.

    Args:
        readers: The candidate's nodes, the one that corresponds to `producer` first.
        producer: The reference's node; its constant at the same position stands in for one that has no namesake.
    """
    known = reference.ir.graph.initializers
    found: dict[str, WeightDifference] = {}
    for node in readers:
        for position, value in enumerate(node.inputs):
            if value is None or value.const_value is None or not value.name or value.name in found:
                continue
            theirs = known.get(value.name)
            if theirs is None and producer is not None and node is readers[0] and _kind(node) == _kind(producer):
                theirs = producer.inputs[position] if position < len(producer.inputs) else None
            difference = _weight(value, theirs)
            if difference is not None:
                found[value.name] = difference
    return tuple(found.values())


def _weight(value: ir.Value, reference: ir.Value | None) -> WeightDifference | None:
    import numpy as np

    name = value.name or ""
    if reference is None or reference.const_value is None:
        return WeightDifference(name, None, "the reference has no constant of this name")
    note = f"`{reference.name}` in the reference" if reference.name != name else ""
    old, new = (_array(v.const_value) for v in (reference, value))
    if old.shape != new.shape:
        return WeightDifference(name, None, f"shape {list(new.shape)} instead of {list(old.shape)}")
    if old.dtype.kind in "OUS":
        return None if np.array_equal(old, new) else WeightDifference(name, None, "the strings differ")
    wide = np.complex128 if "c" in (old.dtype.kind, new.dtype.kind) else np.float64
    with np.errstate(invalid="ignore"):
        gap = np.abs(new.astype(wide) - old.astype(wide))
    if np.array_equal(old, new, equal_nan=old.dtype.kind in "fc" and new.dtype.kind in "fc"):
        return None
    return WeightDifference(name, float(np.nanmax(gap, initial=0.0)), note)


def _array(tensor: Any) -> Any:
    import numpy as np

    return np.asarray(tensor.numpy())


def _kind(node: ir.Node) -> str:
    return f"{node.domain}.{node.op_type}" if node.domain not in ("", "ai.onnx") else node.op_type


def _value(attribute: ir.Attr | None) -> str:
    import onnx_ir as ir

    if attribute is None:
        return "not given"
    match attribute.type:
        case ir.AttributeType.GRAPH:
            return f"a graph of {', '.join(n.op_type for n in attribute.value) or 'no nodes'}"
        case ir.AttributeType.TENSOR:
            tensor = attribute.value
            few = _array(tensor).reshape(-1)[:16].tolist()
            return f"{tensor.dtype.name.lower()}{list(tensor.shape)} {few}"
        case ir.AttributeType.FLOAT:
            return f"{attribute.value:.6g}"
        case _:
            return str(attribute.value)
