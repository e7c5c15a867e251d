"""What a compute capability is known not to build, found in the graph before anything is built.

The table was measured with TensorRT-RTX 1.7.1 by building one-layer models for each target alone; NVIDIA's support
matrices say the same of TensorRT. What the table does not know is the builder's to refuse (`targets.build`).
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

from graphkit.engine.profiles import node_label, node_source
from graphkit.model import Model

if TYPE_CHECKING:
    import onnx_ir as ir

Types = Mapping[int, str]
"""Dtype of each value, as `onnx_ir.DataType` names it, by the value's identity."""


@dataclass(frozen=True, slots=True)
class Need:
    """Something in a graph that only newer GPUs have.

    Attributes:
        code: Of the rule that `graphkit check` reports it under.
        what: What it is, as the subject of a sentence.
        least: The first compute capability that has it.
        rtx_only: Whether TensorRT proper builds it for older ones too.
        remedy: What to do for an older one.
        is_in: Whether a node needs it.
    """

    code: str
    what: str
    least: tuple[int, int]
    rtx_only: bool
    remedy: str
    is_in: Callable[[ir.Node, Types], bool]


@dataclass(frozen=True, slots=True)
class Obstacle:
    """Why a target cannot have an engine of a model.

    Attributes:
        code: As of `Need`.
        reason: In one line.
        nodes: The nodes that are why, as people call them, in the order of the graph.
        sources: Their places in the user's code, where those are known, each once.
        remedy: What to do.
    """

    code: str
    reason: str
    nodes: tuple[str, ...]
    sources: tuple[str, ...]
    remedy: str


@dataclass(frozen=True, slots=True)
class Verdict:
    """What the table says of one target; without obstacles the builder has the last word."""

    target: str
    obstacles: tuple[Obstacle, ...]

    @property
    def fits(self) -> bool:
        return not self.obstacles


def preflight(model: Model, targets: Sequence[str], *, rtx: bool) -> tuple[Verdict, ...]:
    """A verdict for each compute capability (`8.6`), in the order given. Builds nothing and reads no weight.

    Args:
        rtx: Whether TensorRT-RTX will build, or TensorRT.
    """
    oldest = min(map(_number, targets), default=(99, 0))
    needs = [need for need in NEEDS if oldest < need.least and (rtx or not need.rtx_only)]
    if not needs:
        return tuple(Verdict(target, ()) for target in targets)
    nodes = list(_live(model.ir))
    types = _types(nodes)
    found = {need.code: [node for node in nodes if need.is_in(node, types)] for need in needs}

    def obstacles(target: str) -> Iterator[Obstacle]:
        for need in needs:
            if _number(target) < need.least and (why := found[need.code]):
                yield _obstacle(need, why, target)

    return tuple(Verdict(target, tuple(obstacles(target))) for target in targets)


def _number(target: str) -> tuple[int, int]:
    major, _, minor = target.partition(".")
    return int(major), int(minor)


def _obstacle(need: Need, nodes: list[ir.Node], target: str) -> Obstacle:
    least = ".".join(map(str, need.least))
    count = f"{len(nodes)} nodes" if len(nodes) > 1 else "1 node"
    sources = tuple(dict.fromkeys(source for node in nodes if (source := node_source(node))))
    reason = f"{need.what} needs compute capability {least}, not {target} ({count})"
    return Obstacle(need.code, reason, tuple(map(node_label, nodes)), sources, need.remedy)


# --- the table ---------------------------------------------------------------------------------------------------


def _holding(*dtypes: str) -> Callable[[ir.Node, Types], bool]:
    def is_in(node: ir.Node, types: Types) -> bool:
        return any(v is not None and types.get(id(v)) in dtypes for v in (*node.inputs, *node.outputs))

    return is_in


_WIDE = ("FLOAT", "DOUBLE")  # NVIDIA computes float64 as float32


def _wide_product(node: ir.Node, types: Types) -> bool:
    """A product of matrices in float32: also with one vector, of constants, and an elementwise Einsum."""
    products = ("MatMul", "Gemm", "Einsum", "LSTM", "GRU", "RNN")
    return node.domain == "" and node.op_type in products and _first_type(node, types) in _WIDE


def _wide_convolution_3d(node: ir.Node, types: Types) -> bool:
    kernel = node.inputs[1] if len(node.inputs) > 1 else None
    rank = len(kernel.shape) if kernel is not None and kernel.shape is not None else 0
    return node.domain == "" and node.op_type == "Conv" and rank == 5 and _first_type(node, types) in _WIDE


def _first_type(node: ir.Node, types: Types) -> str | None:
    return types.get(id(node.inputs[0])) if node.inputs and node.inputs[0] is not None else None


_NEWER = "name newer targets with --cc, or use a data type that these have"
_HALF = "convert the model to float16 for 7.5, or name 8.0 and later with --cc"

NEEDS = (
    Need("GKC201", "bfloat16", (8, 0), False, "use float16 for 7.5", _holding("BFLOAT16")),
    Need("GKC202", "float8", (8, 9), False, _NEWER, _holding("FLOAT8E4M3FN", "FLOAT8E5M2")),
    Need("GKC203", "int4", (8, 0), False, "use int8 or float16 weights for 7.5", _holding("INT4", "UINT4")),
    Need("GKC204", "float4", (10, 0), False, _NEWER, _holding("FLOAT4E2M1")),
    Need("GKC205", "a matrix product in float32", (8, 0), True, _HALF, _wide_product),
    Need("GKC206", "a three-dimensional convolution in float32", (8, 0), True, _HALF, _wide_convolution_3d),
)
"""In the order of the codes. Two-dimensional float32 convolutions, float16, and int8 beside either build for 7.5."""


# --- reading the graph -------------------------------------------------------------------------------------------


def _live(model: ir.Model) -> Iterator[ir.Node]:
    """Nodes that an output depends on, with those of their bodies, in the order of the graph.

    The builder drops the others before it looks at them.
    """
    needed = {v.producer() for v in model.graph.outputs}
    pending = [node for node in needed if node is not None]
    while pending:
        for value in _reads(pending.pop()):
            maker = value.producer()
            if maker is not None and maker not in needed:
                needed.add(maker)
                pending.append(maker)
    for node in model.graph:
        if node in needed:
            yield node
            yield from _inside(node)


def _reads(node: ir.Node) -> Iterator[ir.Value]:
    """What a node reads, what its bodies read from outside included."""
    for each in (node, *_inside(node)):
        yield from (value for value in each.inputs if value is not None)
    for graph in _bodies(node):  # a branch may give back a value of the outer graph as it is
        yield from graph.outputs


def _inside(node: ir.Node) -> Iterator[ir.Node]:
    for graph in _bodies(node):
        yield from graph.all_nodes()


def _bodies(node: ir.Node) -> Iterator[ir.Graph]:
    import onnx_ir as ir

    for attribute in node.attributes.values():
        if attribute.type == ir.AttributeType.GRAPH:
            yield attribute.as_graph()
        elif attribute.type == ir.AttributeType.GRAPHS:
            yield from attribute.as_graphs()


_NOT_OF_THE_INPUT = ("Shape", "Size", "NonZero", "ArgMax", "ArgMin", "Equal", "Greater", "Less", "Not", "And", "Or")


def _types(nodes: Sequence[ir.Node]) -> dict[int, str]:
    """What the graph declares; where it is silent, what the operators that change a type say, else that of the first
    input: only products and convolutions are looked at, and what they read is never a truth value or an index."""
    types: dict[int, str] = {}
    for node in nodes:
        for value in node.inputs:
            if value is not None and id(value) not in types and (declared := _declared(value)):
                types[id(value)] = declared
        for value in node.outputs:
            known = _declared(value) or _made_by(node, types)
            if known:
                types[id(value)] = known
    return types


def _declared(value: ir.Value) -> str | None:
    dtype = value.dtype if value.dtype is not None else getattr(value.const_value, "dtype", None)
    return dtype.name if dtype is not None else None


def _made_by(node: ir.Node, types: Types) -> str | None:
    import onnx_ir as ir

    if node.op_type in ("Constant", "ConstantOfShape"):
        held = node.attributes.get("value")
        return str(held.as_tensor().dtype.name) if held is not None else None
    to = node.attributes.get("to") or node.attributes.get("output_dtype")
    if node.op_type in ("Cast", "QuantizeLinear", "DequantizeLinear") and to is not None and to.as_int():
        return ir.DataType(to.as_int()).name
    at = {"QuantizeLinear": 2, "DequantizeLinear": 1, "CastLike": 1, "Where": 1}.get(node.op_type, 0)
    if node.domain != "" or node.op_type in _NOT_OF_THE_INPUT or len(node.inputs) <= at or len(node.outputs) != 1:
        return None
    source = node.inputs[at]
    return types.get(id(source)) if source is not None else None
