"""Operators that a target has not, or takes for something else."""

from __future__ import annotations

from collections.abc import Iterator

from graphkit.support.operators import ANOTHER, CONTRIB_TAKEN, FIXES, TAKEN, WITHOUT_PLUGIN
from graphkit.support.rule import NVIDIA, TARGETS, Hit, Rule
from graphkit.support.scene import Place, Scene

_STANDARD = ("", "ai.onnx")


def _missing(scene: Scene) -> Iterator[Hit]:
    title = TARGETS[scene.target]
    for domain, op in scene.kinds:
        known = CONTRIB_TAKEN if domain == "com.microsoft" else TAKEN
        lacks_plugin = scene.target == "rtx" and op in WITHOUT_PLUGIN
        if op in known and not lacks_plugin:
            continue
        name = op if domain in _STANDARD else f"{domain}::{op}"
        what = f"{title} has no plugin for `{name}`" if lacks_plugin else f"{title} has no operator `{name}`"
        for place in _without_body(scene, domain, op):
            yield Hit(what, place, fix=FIXES.get(op, ANOTHER))


def _foreign(scene: Scene) -> Iterator[Hit]:
    for domain, op in scene.kinds:
        if domain in _STANDARD or domain == "com.microsoft" or op not in TAKEN:
            continue
        for place in _without_body(scene, domain, op):
            yield Hit(f"`{domain}::{op}` is built as ONNX's own `{op}`", place)


def _without_body(scene: Scene, domain: str, op: str) -> Iterator[Place]:
    """The nodes of an operator that the model itself does not define."""
    functions = {function.key for function in scene.view.functions}
    for place in scene.of_kind(domain, op):
        if (domain, op, place.graph.overloads.get(place.index, "")) not in functions:
            yield place


_SINCE = {
    "LayerNormalization": 17,
    "Gelu": 20,
    "GroupNormalization": 18,
    "RMSNormalization": 23,
    "RotaryEmbedding": 23,
    "Attention": 23,
    "TensorScatter": 24,
    "Swish": 24,
    "GridSample": 16,
    "HardSwish": 14,
    "Mish": 18,
    "Trilu": 14,
    "Einsum": 12,
    "Celu": 12,
}


def _newer(scene: Scene) -> Iterator[Hit]:
    """Operators that the model's operator set does not have."""
    for op, since in _SINCE.items():
        for place in scene.of(op):
            if 0 < scene.opset < since:
                yield Hit(f"`{op}` exists since opset {since}, and the model states opset {scene.opset}", place)


RULES = (
    Rule(
        "GKC101",
        "the target has no such operator",
        "error",
        NVIDIA,
        "NVIDIA's ONNX parser has no importer of that name, and no plugin is loaded for it. Its own words are `false`, "
        "or `Plugin not found, are the plugin name, version, and namespace correct?`. The list is that of "
        "the parser of TensorRT-RTX 1.7.1; TensorRT's is built from the same source.",
        ANOTHER,
        _missing,
    ),
    Rule(
        "GKC301",
        "an operator of another domain is taken for ONNX's own",
        "warning",
        NVIDIA,
        "The parser goes by the operator's name and does not look at its domain: `my::Gelu` is built as `Gelu`. If it "
        "computes something else, the engine is wrong without a word.",
        "rename the operator, or make it a function of the model with a body",
        _foreign,
    ),
    Rule(
        "GKC302",
        "an operator is newer than the model's operator set",
        "warning",
        ("trt", "rtx", "ort"),
        "The file states an operator set in which the operator does not exist yet. NVIDIA's parser does not "
        "look at the operator set and takes it; onnx.checker and ONNX Runtime refuse the file.",
        "export the model at an operator set that has the operator",
        _newer,
    ),
)
