"""Which tensors of a node may be float16 or bfloat16, by the operator's own schema; and the types of all values."""

from __future__ import annotations

import functools
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    import onnx_ir as ir

TYPE_STRINGS = {"fp16": "tensor(float16)", "bf16": "tensor(bfloat16)"}
NAMES = {"fp16": "float16", "bf16": "bfloat16"}

_FIXED_INPUTS = {"Resize": (1, 2), "Upsample": (1,), "Dropout": (1,)}
"""Inputs that stay float32 beside low data: regions of interest, scales, ratios. TensorRT reads them as constants."""

_FIXED_OUTPUTS = {"LayerNormalization": (1, 2)}
"""The mean and its like are of the type that `stash_type` names."""

_NEVER = frozenset((
    "RandomNormal", "RandomUniform", "RandomNormalLike", "RandomUniformLike", "Bernoulli", "Multinomial", "EyeLike",
    "HannWindow", "HammingWindow", "BlackmanWindow", "MelWeightMatrix", "SequenceMap", "SequenceConstruct",
    "SequenceInsert", "SequenceAt", "SequenceEmpty", "SequenceErase", "SplitToSequence", "ConcatFromSequence",
    "Optional", "OptionalGetElement", "OptionalHasElement", "Constant",
))  # fmt: skip
"""Operators whose type an attribute gives, or a list of tensors shares."""

JUNCTIONS = ("If", "Loop", "Scan")
"""Operators that hand tensors through to bodies and back: these have no type of their own."""


@dataclass(frozen=True, slots=True)
class Slots:
    """Where a node can take and make the low type.

    Attributes:
        inputs, outputs: Positions of float32 tensors that may be low. All of a node are, or none.
        why_not: Why there are none, where there are float32 tensors.
    """

    inputs: tuple[int, ...] = ()
    outputs: tuple[int, ...] = ()
    why_not: str | None = None

    def __bool__(self) -> bool:
        return bool(self.inputs or self.outputs)


def slots_of(node: ir.Node, opset: int, precision: str) -> Slots:
    """Where a node can take and make the low type, at this opset."""
    reads = [i for i, v in enumerate(node.inputs) if v is not None and is_float(v)]
    makes = [i for i, v in enumerate(node.outputs) if is_float(v)]
    if (not reads and not makes) or (node.op_type in JUNCTIONS and not node.domain):
        return Slots()
    schema = _schema(node.op_type, node.domain, opset)
    if schema is None:
        return Slots(why_not=f"the operator {node.domain or 'ai.onnx'}::{node.op_type} is not ONNX's own")
    if node.op_type in _NEVER or any(a.type.name in ("GRAPH", "GRAPHS") for a in node.attributes.values()):
        return Slots(why_not=f"{node.op_type} takes its type from elsewhere")
    allowed = TYPE_STRINGS[precision]
    inputs = [i for i in reads if i not in _FIXED_INPUTS.get(node.op_type, ()) and allowed in schema.of_input(i)]
    outputs = [i for i in makes if i not in _FIXED_OUTPUTS.get(node.op_type, ()) and allowed in schema.of_output(i)]
    if _mixes(node, schema, inputs):
        return Slots(why_not="the type of one of its inputs is not known")
    if not inputs and not outputs:
        return Slots(why_not=f"ONNX has no {NAMES[precision]} {node.op_type} at opset {opset}")
    return Slots(tuple(inputs), tuple(outputs))


def is_float(value: ir.Value) -> bool:
    """Whether a value is a float32 tensor."""
    import onnx_ir as ir

    return value.dtype == ir.DataType.FLOAT and (value.type is None or isinstance(value.type, ir.TensorType))


def set_dtype(value: ir.Value, dtype: ir.DataType) -> None:
    """Give a value a tensor type of its own: a copy of a graph shares the type objects of the first."""
    import onnx_ir as ir

    value.type = ir.TensorType(dtype)


def settle(model: ir.Model) -> None:
    """Give every value its dtype as far as the schemas tell it: files need not state those between nodes."""
    _settle(model.graph, model.opset_imports.get("", 1))


def bodies(node: ir.Node) -> Iterator[ir.Graph]:
    """The graphs among a node's attributes."""
    import onnx_ir as ir

    for attribute in node.attributes.values():
        if attribute.type == ir.AttributeType.GRAPH:
            yield attribute.as_graph()
        elif attribute.type == ir.AttributeType.GRAPHS:
            yield from attribute.as_graphs()


Place = tuple["ir.Node | ir.Graph", int]
"""Where a tensor is read: an input of a node, or an output of a graph, and its position there."""


def read_at(place: Place) -> ir.Value | None:
    """What is read at a place."""
    import onnx_ir as ir

    owner, position = place
    return owner.inputs[position] if isinstance(owner, ir.Node) else owner.outputs[position]


def junctions(node: ir.Node) -> Iterator[tuple[list[Place], list[ir.Value]]]:
    """(where it goes in, values that come out) of each tensor that an If, Loop or Scan hands through."""
    outputs, graphs = list(node.outputs), list(bodies(node))
    if node.op_type == "If":
        for position, output in enumerate(outputs):
            yield [(g, position) for g in graphs], [output]
        return
    (body,) = graphs
    # A Loop's body is given its count and condition first, and gives back whether to go on.
    given, first = (2, 1) if node.op_type == "Loop" else (0, 0)
    scanned = 0 if node.op_type == "Loop" else node.attributes["num_scan_inputs"].as_int()
    carried = len(node.inputs) - given - scanned
    for k in range(carried):
        yield [(node, given + k), (body, first + k)], [body.inputs[given + k], outputs[k]]
    for k in range(carried, carried + scanned):
        yield [(node, given + k)], [body.inputs[given + k]]
    for k in range(carried, len(outputs)):
        yield [(body, first + k)], [outputs[k]]


# --- schemas -----------------------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class _Schema:
    """Of each input and output: the name of its type, and the types it may have. The last one of a variadic repeats."""

    inputs: tuple[str, ...]
    outputs: tuple[str, ...]
    types: Mapping[str, frozenset[str]]

    def of_input(self, position: int) -> frozenset[str]:
        return self.types.get(_at(self.inputs, position), frozenset())

    def of_output(self, position: int) -> frozenset[str]:
        return self.types.get(_at(self.outputs, position), frozenset())


def _at(names: tuple[str, ...], position: int) -> str:
    return names[min(position, len(names) - 1)] if names else ""


@functools.cache
def _schema(op: str, domain: str, opset: int) -> _Schema | None:
    import onnx.defs

    if domain not in ("", "ai.onnx"):
        return None
    try:
        found: Any = onnx.defs.get_schema(op, opset, "")
    except onnx.defs.SchemaError:
        return None
    types = {c.type_param_str: frozenset(c.allowed_type_strs) for c in found.type_constraints}
    return _Schema(tuple(i.type_str for i in found.inputs), tuple(o.type_str for o in found.outputs), types)


def _mixes(node: ir.Node, schema: _Schema, inputs: Iterable[int]) -> bool:
    """Whether an input of unknown dtype shares its type with one that would be lowered."""
    shared = {_at(schema.inputs, i) for i in inputs}
    unknown = (i for i, v in enumerate(node.inputs) if v is not None and v.dtype is None)
    return any(_at(schema.inputs, i) in shared for i in unknown)


# --- types -------------------------------------------------------------------------------------------------------


def _settle(graph: ir.Graph, opset: int) -> None:
    import onnx_ir as ir

    for value in graph.initializers.values():
        if value.dtype is None and value.const_value is not None:
            set_dtype(value, value.const_value.dtype)
    for node in graph:
        if node.op_type in ("Loop", "Scan") and not node.domain:
            for into, out in junctions(node):
                _share([p for p in into if p[0] is node], out)
            if node.op_type == "Loop":
                (body,) = bodies(node)
                for value, dtype in zip(body.inputs[:2], (ir.DataType.INT64, ir.DataType.BOOL), strict=True):
                    set_dtype(value, value.dtype or dtype)
        for body in bodies(node):
            _settle(body, opset)
        if node.op_type in JUNCTIONS and not node.domain:
            for into, out in junctions(node):
                _share(into, out)
        elif any(v.dtype is None for v in node.outputs):
            _settle_node(node, opset)


def _share(into: Iterable[Place], out: Iterable[ir.Value]) -> None:
    """Give values without a type that of what goes in. A scanned tensor has one dimension more outside: only the
    dtype is the same, as it is everywhere here."""
    known = next((v for p in into if (v := read_at(p)) is not None and v.type is not None), None)
    for value in out:
        if value.type is None and known is not None:
            value.type = known.type


def _settle_node(node: ir.Node, opset: int) -> None:
    import onnx_ir as ir

    named = node.attributes.get("to") or node.attributes.get("dtype")
    if named is not None and named.type == ir.AttributeType.INT:
        set_dtype(node.outputs[0], ir.DataType(named.as_int()))
        return
    if node.op_type in ("Constant", "ConstantOfShape"):
        value = node.attributes.get("value")
        whole = any(name in node.attributes for name in ("value_int", "value_ints"))
        plain = ir.DataType.INT64 if whole else ir.DataType.FLOAT
        set_dtype(node.outputs[0], value.as_tensor().dtype if value is not None else plain)
        return
    schema = _schema(node.op_type, node.domain, opset)
    if schema is None:
        return
    bound = {_at(schema.inputs, i): v.dtype for i, v in enumerate(node.inputs) if v is not None and v.dtype is not None}
    for i, output in enumerate(node.outputs):
        name = _at(schema.outputs, i)
        types = schema.types.get(name, {name})
        only = next(iter(types)).removeprefix("tensor(").removesuffix(")").upper() if len(types) == 1 else ""
        kind = bound.get(name) or ir.DataType.__members__.get(only)
        if output.dtype is None and kind is not None:
            set_dtype(output, kind)
