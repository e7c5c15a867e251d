"""What only some GPUs have: data types by compute capability."""

from __future__ import annotations

from collections.abc import Iterator

from graphkit.support.rule import NVIDIA, Hit, Rule
from graphkit.support.scene import Place, Scene


def _number(capability: str) -> tuple[int, int]:
    major, _, minor = capability.partition(".")
    return int(major), int(minor)


def _below(scene: Scene, least: tuple[int, int]) -> tuple[str, ...]:
    return tuple(c for c in scene.capabilities if _number(c) < least)


def _with_type(scene: Scene, dtype: str, least: tuple[int, int]) -> Iterator[Hit]:
    """The first node, input or weight of a type, for the capabilities that lack it."""
    below = _below(scene, least)
    if not below:
        return
    places = [p for p in scene.places if _has(scene, p, dtype)]
    if places:
        count = f"{len(places)} nodes compute" if len(places) > 1 else "a node computes"
        yield Hit(f"{count} with {dtype}, which {', '.join(below)} has not", places[0], capabilities=below)


def _has(scene: Scene, place: Place, dtype: str) -> bool:
    graph = place.graph
    values = (*graph.reads[place.index], *graph.makes[place.index])
    return any(v and scene.tensor(graph, v).dtype == dtype for v in values)


def _bfloat16(scene: Scene) -> Iterator[Hit]:
    return _with_type(scene, "bfloat16", (8, 0))


def _float8(scene: Scene) -> Iterator[Hit]:
    return _with_type(scene, "float8e4m3fn", (8, 9))


def _int4(scene: Scene) -> Iterator[Hit]:
    return _with_type(scene, "int4", (8, 0))


def _float4(scene: Scene) -> Iterator[Hit]:
    return _with_type(scene, "float4e2m1", (10, 0))


_PRODUCTS = ("MatMul", "Gemm", "Einsum", "LSTM", "GRU", "RNN")


def _turing(scene: Scene) -> Iterator[Hit]:
    below = _below(scene, (8, 0))
    places = [p for p in scene.of(*_PRODUCTS) if scene.dtype(p, 0) == "float32"] if below else []
    if places:
        count = f"{len(places)} matrix products" if len(places) > 1 else "a matrix product"
        yield Hit(f"{count} in float32, which TensorRT-RTX has not for 7.5", places[0], capabilities=below)


def _turing_3d(scene: Scene) -> Iterator[Hit]:
    below = _below(scene, (8, 0))
    places = (
        [p for p in scene.of("Conv") if scene.dtype(p, 0) == "float32" and _rank(scene, p, 1) == 5] if below else []
    )
    if places:
        count = (
            f"{len(places)} three-dimensional convolutions" if len(places) > 1 else "a three-dimensional convolution"
        )
        yield Hit(f"{count} in float32, which TensorRT-RTX has not for 7.5", places[0], capabilities=below)


def _rank(scene: Scene, place: Place, index: int) -> int | None:
    shape = scene.shape(place, index)
    return None if shape is None else len(shape)


_NEWER = "name newer compute capabilities with --cc, or use a type that these have"

RULES = (
    Rule(
        "GKC201",
        "bfloat16 needs compute capability 8.0",
        "error",
        NVIDIA,
        "`Cannot compile for target(s) sm75, because the model contains HW-specific datatypes`.",
        "use float16 for 7.5",
        _bfloat16,
        seen_by="builder",
    ),
    Rule(
        "GKC202",
        "float8 needs compute capability 8.9",
        "error",
        NVIDIA,
        "FP8 came with Ada (8.9) and Hopper (9.0). Without --cc TensorRT-RTX 1.7.1 builds such a model for `8.0 and "
        "later`, and says 8.0 in the engine's header all the same.",
        _NEWER,
        _float8,
        seen_by="builder",
    ),
    Rule(
        "GKC203",
        "int4 needs compute capability 8.0",
        "error",
        NVIDIA,
        "Weights in INT4 are not compiled for 7.5.",
        "use int8 or float16 weights for 7.5",
        _int4,
        seen_by="builder",
    ),
    Rule(
        "GKC204",
        "float4 needs compute capability 10.0",
        "error",
        NVIDIA,
        "FP4 came with Blackwell (10.0, 12.0).",
        _NEWER,
        _float4,
        seen_by="builder",
    ),
    Rule(
        "GKC205",
        "float32 matrix products are not built for 7.5",
        "error",
        ("rtx",),
        "`Cannot compile operation for Turing (SM75): FP32 GEMM is not supported`; LSTM, GRU and RNN hold "
        "such products. One bad target fails the whole build. Convolutions in float32 are built.",
        "convert the model to float16 for 7.5, or name 8.0 and later with --cc",
        _turing,
        seen_by="builder",
    ),
    Rule(
        "GKC206",
        "float32 convolutions in three dimensions are not built for 7.5",
        "error",
        ("rtx",),
        "`Cannot compile operation for Turing (SM75): FP32 3D convolution is not supported`. Those in one and two "
        "dimensions are built.",
        "convert the model to float16 for 7.5, or name 8.0 and later with --cc",
        _turing_3d,
        seen_by="builder",
    ),
)
