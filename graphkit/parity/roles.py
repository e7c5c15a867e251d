"""What a graph does with an input: does it index a table, mask, count? Found by following the value forward."""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from graphkit.shapes import Dim, evaluate

if TYPE_CHECKING:
    import onnx_ir as ir

_MASK_FILL = -1e3
"""A mask multiplied by this or less is a mask: BERT adds -10000, others -1e9 or the smallest float."""
_VISITS = 4
"""How often one value may be visited: a loop-carried index grows by its step each time round."""


@dataclass(frozen=True, slots=True)
class Limit:
    """`0 <= scale * x + below` and `scale * x + above < size` must hold for every element x of an input.

    Attributes:
        size: Size of the table that the value indexes; None where the graph does not tell.
        scale, below, above: What the graph does to x on its way: a constant factor, and the least and the most of
            the constants that it adds.
        by: What needs it: ``Gather of `embeddings.weight` ``.
    """

    size: Dim
    by: str
    scale: int = 1
    below: int = 0
    above: int = 0

    @property
    def low(self) -> int:
        """Least value allowed; never negative, although ONNX lets some indices count from the end."""
        return max(0, -(self.below // self.scale))

    def high(self, sizes: Mapping[str, int]) -> int:
        """First value that is too large. An unknown size allows 0 only: every table has a first row."""
        size = evaluate(self.size, sizes)
        return self.low + 1 if size is None else (size - 1 - self.above) // self.scale + 1


@dataclass(slots=True)
class Roles:
    """What was found about one input.

    Attributes:
        limits: Tables that it indexes.
        counts: Lengths and trip counts that it gives: at least 1, at most the size.
        masks: It is tested against 0 or 1, cast to bool, or multiplied by a large negative number.
        only_masks: None of its uses is anything else.
        divides: It is a divisor, where 0 would crash.
    """

    limits: list[Limit] = field(default_factory=list)
    counts: list[Limit] = field(default_factory=list)
    masks: bool = False
    only_masks: bool = True
    divides: bool = False


def find_roles(model: ir.Model) -> dict[str, Roles]:
    """Roles of every input of the graph, by name; subgraphs and model-local functions are followed too."""
    links = _Links(model)
    inputs = [v for v in model.graph.inputs if v.name not in model.graph.initializers]
    return {str(value.name): _Walk(links).run(value) for value in inputs}


# --- where a value goes ------------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class _Step:
    """A value on the way: `scale * x + [below, above]`; `inverted` once it was subtracted from a constant."""

    value: ir.Value
    scale: int = 1
    below: int = 0
    above: int = 0
    inverted: bool = False

    def at(self, value: ir.Value) -> _Step:
        return _Step(value, self.scale, self.below, self.above, self.inverted)


class _Links:
    """Edges that onnx_ir does not store: from a subgraph to its node, from a function to its calls."""

    def __init__(self, model: ir.Model) -> None:
        self.functions = model.functions
        self.owner: dict[int, ir.Node] = {}
        self.calls: dict[int, list[ir.Node]] = {}
        nodes = [*model.graph.all_nodes(), *(n for f in model.functions.values() for n in f.all_nodes())]
        for node in nodes:
            for graph in _subgraphs(node):
                self.owner[id(graph)] = node
            function = self.functions.get(node.op_identifier())
            if function is not None:
                self.calls.setdefault(id(function.graph), []).append(node)

    def outward(self, value: ir.Value) -> Iterator[ir.Value]:
        """Where a value that its graph returns arrives: outputs of the node around it, the next turn of a loop."""
        graph: Any = value.graph
        for position, output in enumerate(graph.outputs if graph is not None else ()):
            if output is not value:
                continue
            for call in self.calls.get(id(graph), ()):
                yield from call.outputs[position : position + 1]
            node = self.owner.get(id(graph))
            if node is None:
                continue
            shift = 1 if node.op_type == "Loop" else 0  # a loop's body returns its condition first
            if position >= shift:
                yield from node.outputs[position - shift : position - shift + 1]
                if node.op_type == "Loop" and position + 1 < len(graph.inputs):
                    yield graph.inputs[position + 1]

    def inward(self, node: ir.Node, index: int) -> Iterator[ir.Value]:
        """Where a value that a node takes arrives inside its subgraph or function."""
        function = self.functions.get(node.op_identifier())
        if function is not None:
            yield from function.inputs[index : index + 1]
        elif (node.op_type == "Loop" and index >= 2) or node.op_type == "Scan":
            for graph in _subgraphs(node):
                yield from graph.inputs[index : index + 1]


_CARRY: dict[str, tuple[int, ...]] = {
    **dict.fromkeys(("Cast", "CastLike", "Identity", "Reshape", "Unsqueeze", "Squeeze", "Transpose", "Slice"), (0,)),
    **dict.fromkeys(("Expand", "Flatten", "Tile", "Split", "Gather", "GatherElements", "GatherND", "Pad"), (0,)),
    **dict.fromkeys(("ReduceMax", "ReduceMin", "Abs", "Clip", "Floor", "Ceil", "Round", "Trilu", "Compress"), (0,)),
    **dict.fromkeys(("DepthToSpace", "SpaceToDepth", "Dropout", "TopK", "ReverseSequence"), (0,)),
    **dict.fromkeys(("ScatterElements", "Scatter", "ScatterND"), (0, 2)),
    **dict.fromkeys(("Concat", "Max", "Min"), tuple(range(64))),
    "Where": (1, 2),
}
"""Inputs whose elements come out again, in some other place or type."""

_INDEX: dict[tuple[str, int], int] = {
    **{(op, 1): 0 for op in ("Gather", "GatherElements", "GatherND", "Scatter", "ScatterElements", "ScatterND")},
    ("GatherBlockQuantized", 1): 0,
    ("ArrayFeatureExtractor", 1): 0,
    ("EmbedLayerNormalization", 0): 2,
    ("EmbedLayerNormalization", 1): 4,
    ("EmbedLayerNormalization", 7): 3,
}
"""(op, input that holds indices) -> input that holds the table."""

_COUNT: dict[tuple[str, int], int | None] = {
    **{(op, 4): 0 for op in ("LSTM", "GRU", "RNN")},
    **{(op, 1): None for op in ("Reshape", "Expand", "Tile", "Range")},
    ("ReverseSequence", 1): 0,
    ("TopK", 1): 0,
    ("Loop", 0): None,
    ("Range", 2): None,
    ("ConstantOfShape", 0): None,
    ("Resize", 3): None,
    ("Slice", 2): None,
    ("OneHot", 1): None,
}
"""(op, input that counts) -> input whose axis it counts along, if there is one."""

_MASKED = {("Where", 0), ("If", 0), ("Not", 0), *((op, i) for op in ("And", "Or", "Xor") for i in (0, 1))}
_IGNORED = {"Shape", "Size"}


class _Walk:
    def __init__(self, links: _Links) -> None:
        self.links = links
        self.roles = Roles()
        self.pending: list[_Step] = []
        self.visits: dict[int, int] = {}

    def run(self, value: ir.Value) -> Roles:
        self.pending.append(_Step(value))
        while self.pending:
            step = self.pending.pop()
            times = self.visits[id(step.value)] = self.visits.get(id(step.value), 0) + 1
            if times > _VISITS:
                continue
            for use in step.value.uses():
                self._use(step, use.node, use.idx)
            if step.value.is_graph_output():
                self.pending.extend(step.at(v) for v in self.links.outward(step.value))
        return self.roles

    def _use(self, step: _Step, node: ir.Node, index: int) -> None:
        key = (node.op_type, index)
        inside = list(self.links.inward(node, index))
        self.pending.extend(step.at(v) for v in inside)
        if key in _INDEX or key == ("OneHot", 0):
            self._add(self.roles.limits, step, _table_sizes(node, index), _named(node, index))
        elif key in _COUNT:
            self._count(step, node, index)
        elif _is_mask_use(node, index):
            self.roles.masks = True
        elif index in _CARRY.get(node.op_type, ()):
            outputs = node.outputs if node.op_type == "Split" else node.outputs[:1]
            self.pending.extend(step.at(v) for v in outputs)
        elif node.op_type in ("Add", "Sub", "Mul"):
            self._arithmetic(step, node, index)
        elif node.op_type in ("Div", "Mod") and index == 1:
            self.roles.divides, self.roles.only_masks = True, False
        elif node.op_type not in _IGNORED and not inside:
            self.roles.only_masks = False

    def _add(self, to: list[Limit], step: _Step, sizes: tuple[Dim, ...], by: str, extra: int = 0) -> None:
        self.roles.only_masks = False
        if not step.inverted:
            to.extend(Limit(s, by, step.scale, step.below + extra, step.above + extra) for s in sizes)

    def _count(self, step: _Step, node: ir.Node, index: int) -> None:
        axis = {"TopK": -1, "ReverseSequence": 0}.get(node.op_type, 1 if _int(node, "layout", 0) else 0)
        axis = _int(node, "time_axis" if node.op_type == "ReverseSequence" else "axis", axis)
        data = _COUNT[node.op_type, index]
        sizes: tuple[Dim, ...] = (_DEFAULT_COUNT,) if data is None else (_dim(node.inputs[data], axis),)
        # A count may equal the size, an index may not: 1 <= x <= size is 0 <= x - 1 < size.
        self._add(self.roles.counts, step, sizes, node.op_type, extra=-1)

    def _arithmetic(self, step: _Step, node: ir.Node, index: int) -> None:
        other, output = node.inputs[1 - index], node.outputs[0]
        bounds = _constant_range(other)
        if bounds is None or not all(map(math.isfinite, bounds)):
            self.roles.only_masks = False
            if node.op_type == "Add" and bounds is None and not step.inverted:
                # Two unknown terms: each gets half of the table.
                self.pending.append(_Step(output, 2 * step.scale, 2 * step.below, 2 * step.above))
            return
        least, most = bounds
        if node.op_type == "Mul":
            if least == most and least >= 1 and least == int(least) and not step.inverted:
                k = int(least)
                self.pending.append(_Step(output, k * step.scale, k * step.below, k * step.above))
            else:
                self.roles.only_masks = False
        elif node.op_type == "Sub" and index == 1:
            self.pending.append(_Step(output, inverted=True))
        else:
            least, most = (-most, -least) if node.op_type == "Sub" else (least, most)
            below, above = step.below + int(least // 1), step.above + int(-(-most // 1))
            self.pending.append(_Step(output, step.scale, below, above, step.inverted))


_READ_AT_MOST = 65536
_DEFAULT_COUNT = 4
"""Trip counts and lengths that nothing bounds stay at or below this."""


def _is_mask_use(node: ir.Node, index: int) -> bool:
    if (node.op_type, index) in _MASKED:
        return True
    if node.op_type == "Cast":
        return _int(node, "to", 0) == 9  # TensorProto.BOOL
    if node.op_type in ("Equal", "Mul"):
        bounds = _constant_range(node.inputs[1 - index])
        if bounds is None:
            return False
        return bounds in ((0, 0), (1, 1)) if node.op_type == "Equal" else bounds[1] <= _MASK_FILL
    return False


# --- reading the graph -------------------------------------------------------------------------------------------


def _table_sizes(node: ir.Node, index: int) -> tuple[Dim, ...]:
    """Sizes that the indices of a node must stay below."""
    if node.op_type == "OneHot":
        depth = _constant_range(node.inputs[1])
        return (int(depth[0]),) if depth else (None,)
    table = node.inputs[_INDEX[node.op_type, index]]
    if node.op_type in ("GatherND", "ScatterND"):
        first = _int(node, "batch_dims", 0)
        shape = _shape(table)
        width = _dim(node.inputs[1], -1)
        if shape is None:
            return (None,)
        return shape[first : first + width] if isinstance(width, int) else shape[first:]
    axis = {"ArrayFeatureExtractor": -1}.get(node.op_type, _int(node, "axis", _int(node, "gather_axis", 0)))
    return (_dim(table, axis),)


def _named(node: ir.Node, index: int) -> str:
    table = None if node.op_type == "OneHot" else node.inputs[_INDEX[node.op_type, index]]
    return node.op_type if table is None or not table.name else f"{node.op_type} of `{table.name}`"


def _dim(value: ir.Value | None, axis: int) -> Dim:
    shape = _shape(value)
    return shape[axis] if shape is not None and -len(shape) <= axis < len(shape) else None


def _shape(value: ir.Value | None) -> tuple[Dim, ...] | None:
    """Shape of a value: as declared, of its constant, or of what a Cast or Transpose made it from."""
    import onnx_ir as ir

    if value is None:
        return None
    if value.shape is not None:
        return tuple(d if isinstance(d, int) else d.value for d in value.shape)
    constant = ir.convenience.get_const_tensor(value)
    if constant is not None:
        return tuple(int(d) for d in constant.shape.numpy())
    node = value.producer()
    if node is None or not node.inputs:
        return None
    if node.op_type in ("Cast", "Identity", "DequantizeLinear", "QuantizeLinear"):
        return _shape(node.inputs[0])
    if node.op_type == "Transpose":
        shape = _shape(node.inputs[0])
        order = node.attributes["perm"].as_ints() if "perm" in node.attributes else None
        return shape and tuple(shape[i] for i in (order or range(len(shape))[::-1]))
    return None


def _constant_range(value: ir.Value | None) -> tuple[float, float] | None:
    """Least and largest element of a constant; None if the value is no constant, is empty, or is a large weight."""
    import onnx_ir as ir

    tensor = ir.convenience.get_const_tensor(value) if value is not None else None
    if tensor is None or not 0 < tensor.size <= _READ_AT_MOST or tensor.dtype == ir.DataType.STRING:
        return None
    array = tensor.numpy()
    return float(array.min()), float(array.max())


def _int(node: ir.Node, name: str, default: int) -> int:
    import onnx_ir as ir

    attribute = node.attributes.get(name)
    return attribute.as_int() if attribute is not None and attribute.type == ir.AttributeType.INT else default


def _subgraphs(node: ir.Node) -> list[ir.Graph]:
    import onnx_ir as ir

    return [a.as_graph() for a in node.attributes.values() if a.type == ir.AttributeType.GRAPH and not a.is_ref()]
