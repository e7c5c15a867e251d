"""What a lowered model computes, in float32: every low tensor is rounded to the low type and back.

ONNX Runtime's CPU provider has no bfloat16 MatMul, Add or Conv at all, and runs chains of float16 nodes in float32,
so that an overflow between them does not show. This twin runs everywhere, and overflows where the model does. Sums
inside a node are float32's, as on tensor cores.
"""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING, Literal

from graphkit.precision.casts import lowered
from graphkit.precision.half_types import JUNCTIONS, set_dtype

if TYPE_CHECKING:
    from collections.abc import Sequence

    import onnx_ir as ir

    from graphkit.lowering import Lowering
    from graphkit.model import Model
    from graphkit.parity.check import Case
    from graphkit.parity.verdict import Comparison

_KINDS = ("FLOAT16", "BFLOAT16")


def rounded(model: Model, reference: Model) -> Model:
    """The float32 twin of a model with float16 or bfloat16 tensors; names of tensors are kept.

    Args:
        reference: What the model was made from: inputs and outputs are of its types.
    """
    import onnx_ir as ir

    copy = model.ir.clone()
    signature = reference.signature
    low = [t.name for t in (*signature.inputs, *signature.outputs) if t.dtype in ("float16", "bfloat16")]
    graphs = [copy.graph, *copy.graph.subgraphs()]
    nodes = list(copy.graph.all_nodes())
    inputs = [(v, v.dtype) for v in copy.graph.inputs if _is_low(v) and not v.is_initializer()]
    made = [(v, v.dtype) for n in nodes if n.op_type not in JUNCTIONS or n.domain for v in n.outputs if _is_low(v)]
    for graph in graphs:
        for value in graph.initializers.values():
            if _is_low(value) and value.const_value is not None:
                value.const_value = lowered(value.const_value, ir.DataType.FLOAT)
                set_dtype(value, ir.DataType.FLOAT)
        for value in graph.inputs:
            if graph is not copy.graph or value.name not in low:
                _widen(value)
    for node in nodes:
        for value in node.outputs:
            _widen(value)
        constant = node.attributes.get("value")
        if constant is not None and node.op_type in ("Constant", "ConstantOfShape"):
            tensor = constant.as_tensor()
            if tensor.dtype.name in _KINDS:
                node.attributes["value"] = ir.AttrTensor("value", lowered(tensor, ir.DataType.FLOAT))
    outputs = [(i, v.name, v.dtype) for i, v in enumerate(model.ir.graph.outputs) if v.name in low]
    for value, dtype in (*inputs, *made):
        assert dtype is not None
        _round(value, dtype)
    for position, name, dtype in outputs:
        _narrow_output(copy.graph, position, name, dtype)
    return replace(model, ir=copy)


def check(model: Model, lowering: Lowering, cases: Sequence[Case]) -> tuple[Comparison, ...]:
    """Hold the twin of a lowered model against the model that it was made from, under ONNX Runtime.

    Args:
        cases: See `graphkit.parity.check.cases_of`.

    Raises:
        InvalidExport, NativeCrash, OutOfMemory: one of them cannot be loaded.
    """
    from graphkit.parity.check import check_cases
    from graphkit.parity.judge import ByName
    from graphkit.parity.runners import OrtRunner
    from graphkit.precision.half import tolerance

    precision: Literal["fp16", "bf16"] = "bf16" if lowering.precision == "bf16" else "fp16"
    twin = rounded(lowering.model, model)
    with (
        OrtRunner(model, optimize=False) as reference,
        OrtRunner(twin, optimize=False, name=f"{precision}, every tensor rounded") as candidate,
    ):
        return check_cases(reference, [candidate], cases, ByName(tolerance(precision)))


def _is_low(value: ir.Value) -> bool:
    return value.dtype is not None and value.dtype.name in _KINDS


def _widen(value: ir.Value) -> None:
    import onnx_ir as ir

    if _is_low(value):
        set_dtype(value, ir.DataType.FLOAT)


def _round(value: ir.Value, dtype: ir.DataType) -> None:
    """Put two casts behind a value; what they make has its name, unless it is an input's."""
    import onnx_ir as ir

    name, producer, graph = value.name, value.producer(), value.graph
    assert graph is not None
    down = ir.node("Cast", [value], {"to": dtype.value}, name=f"{name}.down")
    up = ir.node("Cast", [down.outputs[0]], {"to": ir.DataType.FLOAT.value}, name=f"{name}.up")
    final = up.outputs[0]
    final.type, final.shape = ir.TensorType(ir.DataType.FLOAT), value.shape
    set_dtype(down.outputs[0], dtype)
    down.outputs[0].name = f"{name}.low"
    final.name = f"{name}.rounded"
    value.replace_all_uses_with(final, replace_graph_outputs=True)
    down.replace_input_with(0, value)
    if producer is not None:
        if producer.op_type == "Cast" and not producer.domain:
            # Its own result is the low one: rounding twice is rounding once.
            producer.attributes["to"] = ir.AttrInt64("to", ir.DataType.FLOAT.value)
        graph.insert_after(producer, [down, up])
        value.name, final.name = f"{name}.raw", name
    else:
        graph.insert_before(graph[0], [down, up])


def _narrow_output(graph: ir.Graph, position: int, name: str | None, dtype: ir.DataType | None) -> None:
    import onnx_ir as ir

    given = graph.outputs[position]
    assert dtype is not None
    node = ir.node("Cast", [given], {"to": dtype.value}, name=f"{name}.output")
    made = node.outputs[0]
    made.type, made.shape = ir.TensorType(dtype), given.shape
    given.name, made.name = f"{name}.wide", name
    graph.append(node)
    graph.outputs[position] = made
