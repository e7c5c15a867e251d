"""Q/DQ lint: layers that were meant to be quantised and are not, pairs that fuse with nothing, scales on wrong axes.

A layer is a Conv, ConvTranspose, Gemm or MatMul. It runs quantised where both of its sides are dequantised; where only
a constant weight is, it reads small weights and computes in float (weight-only). Values are followed through nodes that
only move data.
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Literal

from graphkit.support.rule import EVERY, NVIDIA, Hit, Rule
from graphkit.support.scene import Place, Scene
from graphkit.view import GraphView

_LAYERS = ("Conv", "ConvTranspose", "Gemm", "MatMul")
_MOVES = frozenset(("Transpose", "Reshape", "Flatten", "Squeeze", "Unsqueeze", "Identity", "MaxPool", "Concat"))
_FUSES_NOTHING = frozenset(
    (
        "Sigmoid", "Tanh", "Softmax", "LogSoftmax", "Exp", "Log", "Erf", "Gelu", "Sqrt", "Pow", "Reciprocal", "Sin",
        "Cos", "LayerNormalization", "InstanceNormalization", "GroupNormalization", "RMSNormalization", "TopK",
        "ArgMax", "Einsum", "LSTM", "GRU", "RNN", "Shape", "Resize", "Cast",
    )
)  # fmt: skip
"""Operators that no target runs on int8 or float8: a pair before them costs time and accuracy."""

State = Literal["quantised", "weights", "half", "plain", "computed"]
"""quantised: both sides. weights: the constant weight only. half: the activation only. plain: a constant weight,
nothing dequantised. computed: two activations, nothing dequantised, as in attention."""


@dataclass(frozen=True, slots=True)
class _Layer:
    place: Place
    state: State


def _layers(scene: Scene) -> list[_Layer]:
    """Every layer of a quantised model; [] where nothing is quantised or dequantised."""
    if not any(True for _ in scene.of("QuantizeLinear", "DequantizeLinear")):
        return []
    return [_Layer(place, _state(scene, place)) for place in scene.of(*_LAYERS)]


def _state(scene: Scene, place: Place) -> State:
    reads = place.graph.reads[place.index]
    if len(reads) < 2:
        return "computed"
    activation, weight = (_dequantised(scene, place.graph, value) for value in reads[:2])
    if activation and weight:
        return "quantised"
    if weight:
        return "weights"
    if scene.is_constant(place.graph, reads[1]):
        return "half" if activation else "plain"
    return "half" if activation else "computed"


def _dequantised(scene: Scene, graph: GraphView, value: int) -> bool:
    for _ in range(8):
        maker = scene.producer(graph, value)
        if maker is None:
            return False
        if maker.op == "DequantizeLinear":
            return True
        if maker.op not in _MOVES:
            return False
        graph, value = maker.graph, maker.graph.reads[maker.index][0]
    return False


def _none(scene: Scene) -> Iterator[Hit]:
    layers = _layers(scene)
    weighted = [each for each in layers if each.state != "computed"]
    if weighted and not any(each.state in ("quantised", "weights", "half") for each in weighted):
        pairs = sum(1 for _ in scene.of("QuantizeLinear", "DequantizeLinear"))
        yield Hit(f"{pairs} Q/DQ nodes, and none of {len(weighted)} layers reads through them", weighted[0].place)


def _half(scene: Scene) -> Iterator[Hit]:
    for each in _layers(scene):
        if each.state == "half":
            yield Hit(
                f"`{each.place.op}` has a dequantised input and a weight that is not: it runs in float", each.place
            )


def _islands(scene: Scene) -> Iterator[Hit]:
    """Plain layers with quantised ones both before and behind them, in the main graph."""
    layers = [each for each in _layers(scene) if each.place.graph is scene.graph]
    quantised = {each.place.index for each in layers if each.state == "quantised"}
    if not quantised:
        return
    before = _reached(scene.graph, quantised, forward=True)
    behind = _reached(scene.graph, quantised, forward=False)
    for each in layers:
        if each.state in ("plain", "half") and each.place.index in before and each.place.index in behind:
            yield Hit(f"`{each.place.op}` runs in float between quantised layers", each.place)


def _reached(graph: GraphView, start: set[int], *, forward: bool) -> set[int]:
    """Nodes that values of the start nodes reach, or whose values reach them; without a start that none reaches."""
    consumers = graph.consumers() if forward else None
    found: set[int] = set()
    pending = list(start)
    while pending:
        index = pending.pop()
        if consumers is not None:
            near = [user for value in graph.makes[index] if value for user in consumers[value]]
        else:
            near = [graph.producers[value] for value in graph.reads[index] if value and graph.producers[value] >= 0]
        for other in near:
            if other not in found:
                found.add(other)
                pending.append(other)
    return found


def _unfused(scene: Scene) -> Iterator[Hit]:
    consumers: dict[int, list[list[int]]] = {}
    for place in scene.of("QuantizeLinear", "DequantizeLinear"):
        graph = place.graph
        rows = consumers.setdefault(id(graph), [])
        if not rows:
            rows.extend(graph.consumers())
        made = graph.makes[place.index][0]
        users = [graph.ops[user] for user in rows[made]]
        if place.op == "QuantizeLinear":
            bad = [op for op in users if op not in _MOVES and op != "DequantizeLinear"]
            if bad:
                yield Hit(f"`QuantizeLinear` is read by `{bad[0]}`, not by a DequantizeLinear", place)
        elif users and not scene.constant_slot(place, 0) and all(op in _FUSES_NOTHING for op in users):
            yield Hit(f"`DequantizeLinear` feeds only {', '.join(f'`{op}`' for op in dict.fromkeys(users))}", place)


def _scales(scene: Scene) -> Iterator[Hit]:
    """Scales whose number is not that of the slices along their axis."""
    for place in scene.of("QuantizeLinear", "DequantizeLinear"):
        count, shape = _count(scene, place), scene.shape(place, 0)
        if count is None or shape is None or scene.attribute(place, "block_size", 0):
            continue
        axis = int(scene.attribute(place, "axis", 1))
        if not -len(shape) <= axis < len(shape):
            yield Hit(f"`{place.op}` has axis {axis} on {len(shape)} dimensions", place)
        elif isinstance(shape[axis], int) and shape[axis] != count:
            yield Hit(f"`{place.op}` has {count} scales for {shape[axis]} slices along axis {axis}", place)


def _count(scene: Scene, place: Place) -> int | None:
    """Number of scales of a node that has them per slice; None for one scale."""
    scale = scene.shape(place, 1)
    if scale is None or len(scale) != 1 or not isinstance(scale[0], int) or scale[0] == 1:
        return None
    return scale[0]


def _axes(scene: Scene) -> Iterator[Hit]:
    """Weights whose scales lie along an axis that is not that of the output channels."""
    for each in _layers(scene):
        place = each.place
        if each.state not in ("quantised", "weights"):
            continue
        maker = scene.producer(place.graph, place.graph.reads[place.index][1])
        if maker is None or maker.op != "DequantizeLinear" or scene.attribute(maker, "block_size", 0):
            continue
        shape = scene.shape(maker, 0)
        if _count(scene, maker) is None or shape is None:
            continue
        axis = int(scene.attribute(maker, "axis", 1)) % max(len(shape), 1)
        wanted = _channels(scene, place, len(shape))
        if axis != wanted:
            yield Hit(
                f"the weight of `{place.op}` has a scale per slice of axis {axis}, its channels are {wanted}", maker
            )


def _channels(scene: Scene, place: Place, rank: int) -> int:
    if place.op == "Gemm":
        return 0 if scene.attribute(place, "transB", 0) else 1
    return {"Conv": 0, "ConvTranspose": 1}.get(place.op, rank - 1)


def _share(scene: Scene) -> Iterator[Hit]:
    layers = _layers(scene)
    low = [each for each in layers if each.state in ("quantised", "weights")]
    if not layers or not low:
        return
    plain = [each for each in layers if each.state not in ("quantised", "weights")]
    only = sum(each.state == "weights" for each in low)
    share = math.floor(100 * len(low) / len(layers))
    told = f"{len(low)} of {len(layers)} layers are quantised ({share} %)" + (
        f", {only} by weight only" if only else ""
    )
    if plain:
        yield Hit(f"{told}; the first that is not: `{plain[0].place.op}`", plain[0].place)


RULES = (
    Rule(
        "GKC143",
        "a quantised model whose layers are not",
        "error",
        NVIDIA,
        "The model has QuantizeLinear or DequantizeLinear, but no Conv, ConvTranspose, Gemm or MatMul reads through "
        "them: it builds, and runs in float32 with conversions on top.",
        "quantise the layers themselves: graphkit quantize MODEL --precision int8 --data FOLDER",
        _none,
        seen_by="graphkit",
    ),
    Rule(
        "GKC144",
        "scales that do not fit their axis",
        "error",
        NVIDIA,
        "A scale per slice needs as many scales as the axis has slices, and an axis that the tensor has.",
        "set the attribute axis to that of the channels, or give one scale for the whole tensor",
        _scales,
    ),
    Rule(
        "GKC342",
        "a float island among quantised layers",
        "warning",
        EVERY,
        "A layer in float between quantised ones: values are converted before and after it, which often costs more "
        "time than the layer gains in accuracy.",
        "quantise it too, unless its accuracy needs float: graphkit quantize --max-drop finds out",
        _islands,
    ),
    Rule(
        "GKC343",
        "a layer with only its input quantised",
        "warning",
        EVERY,
        "The input is quantised and dequantised, the weight is float: the layer runs in float, with the error of "
        "quantisation and without its speed.",
        "quantise the weight too, one scale per output channel",
        _half,
    ),
    Rule(
        "GKC344",
        "a Q/DQ pair that fuses with nothing",
        "warning",
        EVERY,
        "A QuantizeLinear without its DequantizeLinear, or a DequantizeLinear that only feeds operators that have no "
        "quantised form: it costs time and accuracy.",
        "quantise only what Conv, Gemm, MatMul, Add, Concat and pooling read",
        _unfused,
    ),
    Rule(
        "GKC345",
        "layers that are not quantised",
        "note",
        EVERY,
        "How many of the layers that multiply run quantised; the others run in float.",
        "nothing where that is wanted; graphkit inspect gives the share of the multiplications",
        _share,
    ),
    Rule(
        "GKC346",
        "weight scales that are not per output channel",
        "warning",
        EVERY,
        "Scales of a weight along an axis that is summed over cannot be taken out of the sum: the layer is dequantised "
        "and runs in float.",
        "one scale per output channel: axis 0 of Conv, 1 of ConvTranspose, the last of MatMul, that of N in Gemm",
        _axes,
    ),
)
