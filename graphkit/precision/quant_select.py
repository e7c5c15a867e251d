"""Which nodes of a graph can be quantised: those that multiply an activation by a constant weight."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from collections.abc import Set as AbstractSet
from dataclasses import dataclass
from typing import TYPE_CHECKING

from graphkit.analyze.mac_rules import has_macs
from graphkit.errors import PrecisionRefused, UnknownName
from graphkit.lowering import Kept
from graphkit.model import Model, provenance

if TYPE_CHECKING:
    import onnx_ir as ir

PRODUCTS = ("Conv", "ConvTranspose", "Gemm", "MatMul")
"""The operators that are quantised. A MatMul of two activations, as in attention, stays in float32: both of its sides
need calibration of their own, and its accuracy suffers first (Dettmers et al., LLM.int8(), NeurIPS 2022)."""

QUANTISED = frozenset(
    (
        "QuantizeLinear", "DequantizeLinear", "DynamicQuantizeLinear", "QLinearConv", "QLinearMatMul", "QGemm",
        "ConvInteger", "MatMulInteger", "MatMulNBits", "MatMulBnb4", "DynamicQuantizeMatMul", "MatMulIntegerToFloat",
    )
)  # fmt: skip
"""Operators that a quantised model is known by, those of com.microsoft included."""


@dataclass(frozen=True, slots=True)
class Candidate:
    """A node that can be quantised.

    Attributes:
        node: The node.
        weight: Its weight, an initializer or the value of a Constant.
        axis: The axis of the weight that counts output channels, which gets one scale each; None for one scale.
        k_axis: The axis of the weight that is summed over; blocks of int4 lie along it. None where there are several.
    """

    node: ir.Node
    weight: ir.Value
    axis: int | None
    k_axis: int | None

    @property
    def name(self) -> str:
        return name_of(self.node)

    @property
    def activation(self) -> ir.Value:
        """What is multiplied by the weight."""
        value = self.node.inputs[0]
        assert value is not None
        return value


def name_of(node: ir.Node) -> str:
    """How a node is called: its name, else that of its first output."""
    return node.name or next((o.name for o in node.outputs if o.name), "") or ""


def candidates(model: Model, operators: tuple[str, ...] = PRODUCTS) -> tuple[list[Candidate], list[Kept]]:
    """The nodes of the main graph that can be quantised, and those that multiply but cannot, with the reason.

    Bodies of If, Loop and Scan and functions are left in float32: what they read is not seen in calibration.
    """
    found, kept = [], []
    for node, inside in _products(model):
        why = f"it is inside {inside}" if inside else _why_not(node, operators)
        if why is None:
            weight = node.inputs[1]
            assert weight is not None
            found.append(Candidate(node, weight, *_axes(node, constant(weight))))
        else:
            kept.append(kept_for(node, why))
    return found, kept


def kept_for(node: ir.Node, why: str) -> Kept:
    """A node that stays as it is."""
    return Kept(name_of(node), node.op_type, why, provenance(node))


def choose(
    model: Model, found: Iterable[Candidate], left: Iterable[Kept], names: AbstractSet[str]
) -> tuple[list[Candidate], tuple[Kept, ...]]:
    """The found nodes without those of some names, and all that are kept, in the graph's order.

    Raises:
        UnknownName: a name is none of theirs.
    """
    found = list(found)
    known = {c.name for c in found}
    unknown = sorted(set(names) - known)
    if unknown:
        raise UnknownName(
            f"no layer that can be quantised is called `{unknown[0]}`",
            remedy=f"the layers: {', '.join(sorted(known)[:20])}",
        )
    asked = [kept_for(c.node, "it was asked to stay in float32") for c in found if c.name in names]
    order = {name_of(node): place for place, node in enumerate(model.ir.graph.all_nodes())}
    kept = sorted((*left, *asked), key=lambda k: order.get(k.node, len(order)))
    return [c for c in found if c.name not in names], tuple(kept)


def nothing_left(precision: str, kept: Sequence[Kept]) -> PrecisionRefused:
    """The refusal where no node is lowered."""
    reasons = [f"{k.op} `{k.node}`: {k.why}" for k in kept]
    half = any("float16, not float32" in k.why for k in kept)
    remedy = "quantise the float32 model" if half else "optimise the model first, so that weights are constants"
    return PrecisionRefused(
        f"no layer of the model can run in {precision}: it would be called quantised and be float32",
        details=(*reasons[:8], *([f"and {len(reasons) - 8} more"] if len(reasons) > 8 else [])),
        remedy=remedy if reasons else "it has no Conv, Gemm or MatMul",
    )


def refuse_quantised(model: Model) -> None:
    """Raises: `PrecisionRefused`: the model is quantised already."""
    for node in model.ir.graph.all_nodes():
        if node.op_type in QUANTISED:
            lines = provenance(node)
            raise PrecisionRefused(
                f"the model is quantised already: it has {node.op_type} `{name_of(node)}`",
                where=str(lines[0]) if lines else None,
                remedy="quantise the float32 model that it was made from",
            )


def _products(model: Model) -> Iterator[tuple[ir.Node, str | None]]:
    top = model.ir.graph
    for node in top.all_nodes():
        if has_macs(node.op_type, node.domain):
            yield node, None if node.graph is top else "the body of an If, Loop or Scan"
    for function in model.ir.functions.values():
        for node in function.all_nodes():
            if has_macs(node.op_type, node.domain):
                yield node, f"the function {function.domain}::{function.name}"


def _why_not(node: ir.Node, operators: tuple[str, ...]) -> str | None:
    import onnx_ir as ir

    if node.op_type not in operators or node.domain not in ("", "ai.onnx"):
        return f"{node.op_type} is not quantised in this precision"
    activation, weight = (node.inputs[i] if i < len(node.inputs) else None for i in (0, 1))
    if activation is None or weight is None:
        return "it lacks an input"
    tensor = constant(weight)
    if tensor is None:
        if constant(activation) is not None:
            return "its constant is the left operand"
        return "both sides are computed: its weight is no constant"
    if weight.is_graph_input():
        return f"its weight `{weight.name}` is an input of the graph too, and may be replaced at run time"
    if constant(activation) is not None:
        return "both sides are constant: it is folded, not run"
    if tensor.dtype != ir.DataType.FLOAT:
        return f"its weight is {tensor.dtype.name.lower()}, not float32"
    if node.op_type == "MatMul" and (len(tensor.shape) < 2 or any(d != 1 for d in tensor.shape[:-2])):
        return f"its weight {[*tensor.shape]} is no matrix: one scale per channel needs one"
    return None


def constant(value: ir.Value) -> ir.TensorProtocol | None:
    """The tensor that a value is in every run, if it is an initializer or the output of a Constant."""
    import onnx_ir as ir

    tensor: ir.TensorProtocol | None = ir.convenience.get_const_tensor(value)
    return tensor


def _axes(node: ir.Node, weight: ir.TensorProtocol | None) -> tuple[int | None, int | None]:
    match node.op_type:
        case "Conv":
            return 0, None
        case "ConvTranspose":  # [in, out / group, ...]: with groups an output channel is no slice along one axis
            return (1 if node.attributes.get_int("group", 1) == 1 else None), None
        case "Gemm":
            return (0, 1) if node.attributes.get_int("transB", 0) else (1, 0)
        case _:  # [K, N], with leading ones where an optimiser left them
            rank = len(weight.shape) if weight is not None else 2
            return rank - 1, rank - 2
