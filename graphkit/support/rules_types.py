"""Types of inputs, outputs and weights that a target has not, or changes without a word."""

from __future__ import annotations

from collections.abc import Iterator

from graphkit.support.rule import NVIDIA, Hit, Rule
from graphkit.support.scene import Scene

_NAMES = "float32 float16 bfloat16 float64 int64 int32 int8 uint8 bool float8e4m3fn int4 float4e2m1 float8e8m0"
_TAKEN = frozenset(_NAMES.split())
"""Element types of TensorRT-RTX 1.7.1's `DataType`, and float64, which it reads as float32."""

_ON_STANDARD_OPERATORS = "convert it to int32 or float32 on the way in and out"


def _ends(scene: Scene) -> Iterator[tuple[str, int]]:
    """Role and id of every input and output."""
    yield from (("input", value) for value in scene.inputs())
    yield from (("output", value) for value in scene.graph.outputs)


def _strings(scene: Scene) -> Iterator[Hit]:
    for role, value in _ends(scene):
        if scene.tensor(scene.graph, value).dtype == "string":
            yield Hit(f"{role} `{scene.graph.values[value]}` is a string", value=scene.graph.values[value])


def _no_tensors(scene: Scene) -> Iterator[Hit]:
    for role, value in _ends(scene):
        type_ = scene.graph.types.get(value)
        if type_ is not None and type_.kind not in ("tensor", ""):
            name = scene.graph.values[value]
            yield Hit(f"{role} `{name}` is of the type {type_.kind.replace('_', ' ')}", value=name)


def _missing(scene: Scene) -> Iterator[Hit]:
    for role, value in _ends(scene):
        dtype, name = scene.tensor(scene.graph, value).dtype, scene.graph.values[value]
        if dtype not in _TAKEN and dtype not in (None, "string"):
            yield Hit(f"{role} `{name}` is {dtype}", value=name, fix=_ON_STANDARD_OPERATORS)
    for graph in scene.view.graphs():
        for value, weight in graph.initializers.items():
            if weight.dtype not in _TAKEN and weight.dtype != "string":
                yield Hit(f"weight `{graph.values[value]}` is {weight.dtype}", value=graph.values[value])


def _doubles(scene: Scene) -> Iterator[Hit]:
    for role, value in _ends(scene):
        if scene.tensor(scene.graph, value).dtype == "float64":
            name = scene.graph.values[value]
            yield Hit(f"{role} `{name}` is float64, and would become float32", value=name)


_QUANTISED = ("float8e4m3fn", "int4", "float4e2m1")


def _packed_inputs(scene: Scene) -> Iterator[Hit]:
    packed = {v: dtype for v in scene.inputs() if (dtype := scene.tensor(scene.graph, v).dtype) in _QUANTISED}
    consumers = scene.graph.consumers() if packed else []
    for value, dtype in packed.items():
        readers = [scene.graph.ops[i] for i in consumers[value]]
        other = next((op for op in readers if op != "DequantizeLinear"), None)
        if other is not None:
            name = scene.graph.values[value]
            yield Hit(f"input `{name}` is {dtype} and is read by {other}", value=name)


def _passed_through(scene: Scene) -> Iterator[Hit]:
    for value in dict.fromkeys(scene.graph.outputs):
        name = scene.graph.values[value]
        if value in scene.graph.inputs and value not in scene.graph.initializers:
            yield Hit(f"`{name}` is an input and an output", value=name)


def _int64(scene: Scene) -> Iterator[Hit]:
    for role, value in _ends(scene):
        if scene.tensor(scene.graph, value).dtype == "int64":
            name = scene.graph.values[value]
            yield Hit(f"{role} `{name}` is int64, and so is the engine's", value=name)


def _doubles_inside(scene: Scene) -> Iterator[Hit]:
    for place in scene.places:
        made = place.graph.makes[place.index]
        if place.op != "Constant" and any(scene.tensor(place.graph, v).dtype == "float64" for v in made if v):
            yield Hit(f"`{place.op}` computes in float64", place)


RULES = (
    Rule(
        "GKC111",
        "an input or output is a string",
        "error",
        NVIDIA,
        "An engine has no strings. Text is cut into numbers before it.",
        "cut the text into token ids outside the model, and let the model begin with those",
        _strings,
    ),
    Rule(
        "GKC112",
        "an input or output is no tensor",
        "error",
        NVIDIA,
        "Sequences, optionals, maps and sparse tensors are no tensors of an engine.",
        "hand over tensors: one for each element of a sequence",
        _no_tensors,
    ),
    Rule(
        "GKC113",
        "a data type that the target has not",
        "error",
        NVIDIA,
        "TensorRT-RTX 1.7.1 has float32, float16, bfloat16, int64, int32, int8, uint8, bool, float8e4m3fn, int4 and "
        "float4e2m1. A tensor of another type ends the parser: `Failed to convert ONNX date type to TensorRT data "
        "type`, which names no node.",
        "store and pass it in one of these types",
        _missing,
    ),
    Rule(
        "GKC114",
        "an input or output is float64",
        "error",
        NVIDIA,
        "The library reads float64 as float32 without a word, so that the engine's input has another type than the "
        "model's: a program that passes doubles would pass garbage. graphkit refuses to build it.",
        "export the model in float32 (`model.float()`), and tell its users",
        _doubles,
        seen_by="graphkit",
    ),
    Rule(
        "GKC115",
        "a quantised input is read by something else than DequantizeLinear",
        "error",
        NVIDIA,
        "The parser takes an FP8, INT4 or FP4 input; the builder refuses it unless a DequantizeLinear reads "
        "it: `Tensor x has datatype FP8 but is not consumed by IPluginLayer, ..., IDequantizeLayer`.",
        "dequantise it first with DequantizeLinear and a scale, or pass float16",
        _packed_inputs,
        seen_by="builder",
    ),
    Rule(
        "GKC116",
        "an input is an output, too",
        "error",
        NVIDIA,
        "A tensor of an engine is an input or an output. TensorRT-RTX renames the input to `__x`; a program that sets "
        "`x` would fail. graphkit refuses to build it.",
        "put an Identity between them, or leave the output out: the caller has it already",
        _passed_through,
        seen_by="graphkit",
    ),
    Rule(
        "GKC311",
        "an input or output is int64",
        "note",
        NVIDIA,
        "Since TensorRT 10 the engine's binding of an int64 tensor is int64; older programs pass int32 there and read "
        "half of it.",
        "allocate 8 bytes an element in the program that runs the engine, or cast to int32 in the model",
        _int64,
    ),
    Rule(
        "GKC312",
        "a node computes in float64",
        "warning",
        NVIDIA,
        "NVIDIA's libraries compute float64 as float32 without a word. ONNX Runtime computes it as it stands, so that "
        "the two differ where the precision mattered.",
        "export the model in float32, and compare it with `graphkit validate`",
        _doubles_inside,
    ),
)
