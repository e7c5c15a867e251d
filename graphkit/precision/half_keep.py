"""Which nodes stay in float32, and why: what the range trace saw, what weights hold, what an operator does inside."""

from __future__ import annotations

from collections.abc import Collection, Iterator, Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, NamedTuple

from graphkit.precision.half_types import NAMES, Slots, is_float
from graphkit.precision.ranges import Range

if TYPE_CHECKING:
    import onnx_ir as ir

SAFETY = 0.5
"""Share of the largest number that a tensor may reach on the user's samples: one doubling is left for other data."""

SAFETY_DRAWN = 0.125
"""The same where samples were drawn: N(0, 1) says less of what real data reaches, so three doublings are left.

Neither applies to what constants add: a mask of -10000 is as large on any data."""

LARGEST = {"fp16": 65504.0, "bf16": 3.3895313892515355e38}
NORMAL = {"fp16": 2.0**-14, "bf16": 2.0**-126}
EXACT = {"fp16": 2048, "bf16": 256}
"""Up to here every integer is exact. Above, adding 1 changes nothing: a running sum of equal terms stops growing."""

_OFF = 0.01  # relative error of a scalar constant from which on it is another constant
_MOSTLY = 0.5

_SUMS = frozenset(("ReduceSum", "ReduceMean", "ReduceL1", "GlobalAveragePool"))
_SQUARES = frozenset(("ReduceL2", "ReduceSumSquare", "LpNormalization", "LRN"))
_SERIAL = {
    "CumSum": "adds up along an axis, each rounding on top of the one before",
    "ReduceLogSumExp": "takes exponentials inside, which overflow from 12 on",
    "MeanVarianceNormalization": "squares its input inside",
}
# Normalisations (Layer, Group, Instance, RMS) are not here: ONNX's stash_type and TensorRT's INormalizationLayer (its
# documentation, setComputePrecision) compute mean and variance in float32, whatever the type of their input.

_REFUSED = {
    "fp16": frozenset(("Celu",)),
    "bf16": frozenset((
        "Celu", "ConvTranspose", "GlobalLpPool", "GRU", "HardSwish", "LpNormalization", "LpPool", "Mish", "Shrink",
    )),
}  # fmt: skip
"""What TensorRT-RTX 1.7.1 does not build in the type, but in float32: 130 operators were built alone, for SM 8.6."""


@dataclass(frozen=True, slots=True)
class Reason:
    """Why a node stays in float32, and the value that decided."""

    why: str
    figure: float | None = None


class Weight(NamedTuple):
    """What is known of a weight: its range, and its value where it is a scalar."""

    range: Range
    scalar: float | None


def reasons(
    graph: ir.Graph,
    slots: Mapping[int, Slots],
    ranges: Mapping[int, Range],
    weights: Mapping[int, Weight],
    precision: str,
    *,
    drawn: bool,
    keep: Collection[str] = (),
) -> dict[int, Reason]:
    """The nodes that must stay in float32, by id.

    Args:
        ranges: By id of the value; a value of a body that is missing or zero was never computed.
        weights: By id of the initializer.
        drawn: Whether the samples were drawn, and not given.
        keep: Names of nodes that the user wants in float32.
    """
    rules = _Rules(graph, ranges, weights, precision, drawn)
    found: dict[int, Reason] = {}
    for node in graph.all_nodes():
        if not slots[id(node)]:
            continue
        if node.name in keep:
            found[id(node)] = Reason("asked for")
            continue
        reason = next(rules.of(node, slots[id(node)]), None)
        if reason is not None:
            found[id(node)] = reason
    for node, reason in (*_exact(graph, precision, weights), *_guards(graph, precision, weights)):
        if slots[id(node)]:
            found.setdefault(id(node), reason)
    return found


class _Rules:
    def __init__(
        self,
        graph: ir.Graph,
        ranges: Mapping[int, Range],
        weights: Mapping[int, Weight],
        precision: str,
        drawn: bool,
    ) -> None:
        self._graph, self._ranges, self._weights, self._precision = graph, ranges, weights, precision
        self._low = NAMES[precision]
        self._safety = SAFETY_DRAWN if drawn else SAFETY
        self._limit = LARGEST[precision] * self._safety
        self._fixed = _from_constants(graph, ranges, weights)

    def of(self, node: ir.Node, slots: Slots) -> Iterator[Reason]:
        if node.op_type in _REFUSED[self._precision]:
            yield Reason(f"TensorRT-RTX does not take a {self._low} {node.op_type}")
        if node.op_type in _SERIAL:
            yield Reason(f"{node.op_type} {_SERIAL[node.op_type]}")
        reads = [v for i in slots.inputs if (v := node.inputs[i]) is not None]
        for value in reads:
            if id(value) in self._weights:
                yield from self._weight(value, self._weights[id(value)])
        inner = node.graph is not self._graph
        for value in (*(node.outputs[i] for i in slots.outputs), *reads):
            seen = self._ranges.get(id(value))
            if seen is not None:
                yield from self._tensor(value, seen, made=value.producer() is node, inner=inner)
        yield from self._sum(node)

    def _tensor(self, value: ir.Value, seen: Range, *, made: bool, inner: bool) -> Iterator[Reason]:
        what = f"`{value.name}`" if made else f"its input `{value.name}`"
        fixed = min(self._fixed.get(id(value), 0.0), seen.largest)
        if fixed + (seen.largest - fixed) / self._safety > LARGEST[self._precision]:
            yield Reason(
                f"{what} reaches {seen.largest:.3g}, more than {self._safety:g} of the largest {self._low}, "
                f"{LARGEST[self._precision]:.6g}",
                seen.largest,
            )
        if inner and made and seen.largest == 0:
            yield Reason(f"{what} is in a branch or loop that ran on no sample, or is zero: its range is not known")
        if 0 < seen.largest < NORMAL[self._precision]:
            yield Reason(f"{what} is at most {seen.largest:.3g}: all of it is subnormal in {self._low}", seen.largest)

    def _weight(self, value: ir.Value, weight: Weight) -> Iterator[Reason]:
        seen = weight.range
        if seen.largest > LARGEST[self._precision]:
            yield Reason(f"its weight `{value.name}` reaches {seen.largest:.3g}", seen.largest)
        if weight.scalar is not None and _off(weight.scalar, self._precision) > _OFF:
            yield Reason(f"its constant {weight.scalar:.3g} is not a {self._low}", abs(weight.scalar))
        if self._precision == "fp16" and weight.scalar is None and seen.share_subnormal > _MOSTLY:
            share = seen.share_subnormal
            yield Reason(f"{share:.0%} of its weight `{value.name}` is subnormal in {self._low}", share)

    def _sum(self, node: ir.Node) -> Iterator[Reason]:
        if node.op_type not in _SUMS | _SQUARES or node.inputs[0] is None:
            return
        seen, made = self._ranges.get(id(node.inputs[0])), self._ranges.get(id(node.outputs[0]))
        if seen is None or made is None or not made.elements:
            return
        terms = seen.elements // made.elements
        if node.op_type in _SUMS and terms > EXACT[self._precision]:
            end = EXACT[self._precision]
            yield Reason(f"sums {terms} terms, and a sum of equal ones stops growing at {end} in {self._low}", terms)
        if node.op_type in _SQUARES:
            terms = node.attributes["size"].as_int() if node.op_type == "LRN" else max(terms, 1)
        most = terms * (seen.largest**2 if node.op_type in _SQUARES else seen.largest)
        if most > self._limit:
            what = "squares" if node.op_type in _SQUARES else "values"
            yield Reason(f"sums {terms} {what} of at most {seen.largest:.3g}: up to {most:.3g} on the way", most)


def _off(value: float, precision: str) -> float:
    """Relative error of a number in the low type; 0 for infinity, which every type has."""
    import ml_dtypes
    import numpy as np

    if value == 0 or not np.isfinite(value):
        return 0.0
    with np.errstate(over="ignore", under="ignore"):
        low = np.float32(value).astype(np.float16 if precision == "fp16" else ml_dtypes.bfloat16)
    return abs(float(low) - value) / abs(value)


# --- what is as large on any data ----------------------------------------------------------------------------------

_ADDS = frozenset(("Add", "Sub", "Sum"))
_HANDS_ON = frozenset((
    "Identity", "Reshape", "Expand", "Transpose", "Unsqueeze", "Squeeze", "Concat", "Slice", "Gather", "Tile", "Where",
    "Max", "Min", "Split", "Flatten", "Cast",
))  # fmt: skip


def _from_constants(graph: ir.Graph, ranges: Mapping[int, Range], weights: Mapping[int, Weight]) -> dict[int, float]:
    """How much of the largest |x| of a value comes from constants and from integers, by id of the value."""
    fixed = {key: weight.range.largest for key, weight in weights.items()}
    whole: dict[int, ir.Node] = {}
    for node in graph.all_nodes():
        floats = [id(v) for v in node.inputs if v is not None and is_float(v)]
        if _from_integers(node, whole, weights):
            whole.update({id(v): node for v in node.outputs if is_float(v)})
            fixed.update({id(v): ranges[id(v)].largest for v in node.outputs if id(v) in ranges})
        elif node.op_type in _ADDS | _HANDS_ON:
            parts = [fixed.get(i, 0.0) for i in floats]
            total = sum(parts) if node.op_type in _ADDS else max(parts, default=0.0)
            fixed.update({id(v): total for v in node.outputs})
    return fixed


# --- what has to be exact ----------------------------------------------------------------------------------------

_SMALL = 4096  # elements of a constant that takes part in computing sizes, positions or angles
_NEEDS_EXACT = frozenset(("Sin", "Cos", "Tan", "Floor", "Ceil", "Round", "Mod", "Range"))


def _exact(graph: ir.Graph, precision: str, weights: Mapping[int, Weight]) -> Iterator[tuple[ir.Node, Reason]]:
    """Nodes that compute sizes, indices and angles in floats, from integers alone.

    A position in float16 is right only up to 2048, its sine no more than its angle; and a size that is rounded
    differently is another shape.
    """
    whole: dict[int, ir.Node] = {}  # values that come from integers and constants, by id
    ends: list[ir.Value] = []
    for node in graph.all_nodes():
        if _from_integers(node, whole, weights):
            whole.update({id(v): node for v in node.outputs if is_float(v)})
        if node.op_type in _NEEDS_EXACT or (node.op_type == "Cast" and _is_whole(node.outputs[0])):
            ends.extend(v for v in node.inputs if v is not None)
            ends.extend(v for v in node.outputs if id(v) in whole)
        elif node.op_type in ("Resize", "Upsample"):
            ends.extend(v for v in node.inputs[1:] if v is not None)
    reason = Reason(
        f"makes a size, a position or an angle from integers, and {NAMES[precision]} counts to {EXACT[precision]}",
        EXACT[precision],
    )
    seen: set[int] = set()
    while ends:
        maker = whole.get(id(ends.pop()))
        if maker is not None and id(maker) not in seen:
            seen.add(id(maker))
            yield maker, reason
            ends.extend(v for v in maker.inputs if v is not None)


def _from_integers(node: ir.Node, whole: Mapping[int, ir.Node], weights: Mapping[int, Weight]) -> bool:
    floats = [v for v in node.inputs if v is not None and is_float(v)]
    if node.op_type == "Cast":
        return bool(floats and id(floats[0]) in whole) or _is_whole(node.inputs[0])
    if not floats:
        return node.op_type == "Range"
    small = all(id(v) in whole or (id(v) in weights and weights[id(v)].range.elements <= _SMALL) for v in floats)
    return small and any(id(v) in whole for v in floats)


def _is_whole(value: ir.Value | None) -> bool:
    return value is not None and value.dtype is not None and "INT" in value.dtype.name


# --- guards against zero -----------------------------------------------------------------------------------------

_THROUGH = frozenset((
    "Sqrt", "Reciprocal", "Pow", "Log", "Identity", "Expand", "Unsqueeze", "Squeeze", "Reshape", "Transpose", "Cast",
))  # fmt: skip
_UNTIL = frozenset(("Div", "Mul"))


def _guards(graph: ir.Graph, precision: str, weights: Mapping[int, Weight]) -> Iterator[tuple[ir.Node, Reason]]:
    """What divides by a number that is kept from zero by a constant too small for the type: `max(count, 1e-9)`.

    The node with the constant is kept for that; here are those up to the division, before which nothing may be
    rounded to zero.
    """
    for node in graph.all_nodes():
        if node.op_type not in ("Add", "Max", "Clip"):
            continue
        constants = [weights[id(v)].scalar for v in node.inputs if v is not None and id(v) in weights]
        tiny = next((c for c in constants if c and 0 < c < NORMAL[precision] and _off(c, precision) > _OFF), None)
        if tiny is None:
            continue
        reason = Reason(f"divides by what {tiny:.3g} keeps from zero, which {NAMES[precision]} rounds", tiny)
        pending, seen = list(node.outputs), set[int]()
        while pending:
            for use in pending.pop().uses():
                if id(use.node) in seen or use.node.op_type not in _THROUGH | _UNTIL:
                    continue
                seen.add(id(use.node))
                yield use.node, reason
                if use.node.op_type in _THROUGH:
                    pending.extend(use.node.outputs)
