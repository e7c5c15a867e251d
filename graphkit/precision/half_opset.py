"""A graph at operator set 22, where most operators take bfloat16: by changing the number, where that is enough."""

from __future__ import annotations

import functools
from typing import TYPE_CHECKING, Any

from graphkit.model import Model

if TYPE_CHECKING:
    import onnx_ir as ir

BF16_OPSET = 22

_CHANGED = frozenset(("GroupNormalization",))  # 21: a scale for each channel, no longer for each group; same schema


def raised(model: Model) -> Model:
    """The model at operator set 22, or as it is where an operator of it has changed its meaning since, or is newer.

    The given one is left as it is.
    """
    opset = model.opset
    if opset >= BF16_OPSET or any(_differs(node, opset) for node in model.ir.graph.all_nodes()):
        return model
    copy = model.ir.clone()
    for graph in (copy.graph, *copy.graph.subgraphs()):
        if "" in graph.opset_imports:
            graph.opset_imports[""] = BF16_OPSET
    copy.opset_imports[""] = BF16_OPSET
    copy.ir_version = max(copy.ir_version, 10)
    return model.with_step(f"operator set {opset} to {BF16_OPSET}", copy)


def _differs(node: ir.Node, opset: int) -> bool:
    return not node.domain and _operator_differs(node.op_type, opset)


@functools.cache
def _operator_differs(op: str, opset: int) -> bool:
    """Whether an operator's schema has changed otherwise than by taking more types or more optional attributes."""
    import onnx.defs

    try:
        old, new = onnx.defs.get_schema(op, opset, ""), onnx.defs.get_schema(op, BF16_OPSET, "")
    except onnx.defs.SchemaError:
        return True
    if old.since_version == new.since_version:
        return False
    kept = all(name in new.attributes and _same(a, new.attributes[name]) for name, a in old.attributes.items())
    added = [a for name, a in new.attributes.items() if name not in old.attributes]
    inputs = [i.name for i in old.inputs] == [i.name for i in new.inputs]
    outputs = [o.name for o in old.outputs] == [o.name for o in new.outputs]
    wider = all(_types(old.inputs, i) <= _types(new.inputs, i) for i in range(len(old.inputs))) if inputs else False
    return op in _CHANGED or not (kept and inputs and outputs and wider) or any(a.required for a in added)


def _same(old: Any, new: Any) -> bool:
    defaults = [a.default_value.SerializeToString() for a in (old, new)]
    return bool(old.type == new.type and defaults[0] == defaults[1] and old.required >= new.required)


def _types(formals: Any, position: int) -> frozenset[str]:
    return frozenset(formals[position].types)
