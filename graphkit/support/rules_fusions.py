"""Patterns of small operators that a newer operator set has one operator for."""

from __future__ import annotations

from collections.abc import Iterator

from graphkit.support.rule import NVIDIA, Hit, Rule
from graphkit.support.scene import Place, Scene


def _too_old(scene: Scene) -> Iterator[Hit]:
    patterns = [("LayerNormalization", 17, _layer_norms(scene)), ("Gelu", 20, _gelus(scene))]
    if scene.target == "trt":  # TensorRT-RTX has no kernel for most forms of Attention
        patterns.append(("Attention", 23, _attentions(scene)))
    for name, since, found in patterns:
        places = list(found) if 0 < scene.opset < since else []
        if places:
            what = f"{name} is in pieces{f', {len(places)} times' if len(places) > 1 else ''}"
            fix = f"export the model at opset {since} or above, if its exporter then writes {name}"
            yield Hit(f"{what}: opset {scene.opset} has no such operator, {since} has", places[0], fix=fix)


def _layer_norms(scene: Scene) -> Iterator[Place]:
    """x - mean, divided by sqrt(mean of squares + epsilon): seen from the Sqrt."""
    for root in scene.of("Sqrt"):
        if _ops_behind(scene, root, ("Add", "ReduceMean")) and scene.read_by(root, "Div"):
            yield root


def _gelus(scene: Scene) -> Iterator[Place]:
    """x * (1 + erf(x / sqrt 2)) / 2: seen from the Erf."""
    for erf in scene.of("Erf"):
        scaled = _ops_behind(scene, erf, ("Div",)) or _ops_behind(scene, erf, ("Mul",))
        if scaled and scene.read_by(erf, "Add"):
            yield erf


def _attentions(scene: Scene) -> Iterator[Place]:
    """A Softmax between two matrix products."""
    for soft in scene.of("Softmax"):
        if scene.read_by(soft, "MatMul") and any(
            _ops_behind(scene, soft, path)
            for path in (("MatMul",), ("Add", "MatMul"), ("Div", "MatMul"), ("Mul", "MatMul"))
        ):
            yield soft


def _ops_behind(scene: Scene, place: Place, path: tuple[str, ...]) -> bool:
    """Whether a chain of operators leads to a node, the nearest first."""
    if not path:
        return True
    for value in place.graph.reads[place.index]:
        maker = scene.producer(place.graph, value) if value else None
        if maker is not None and maker.op == path[0] and _ops_behind(scene, maker, path[1:]):
            return True
    return False


RULES = (
    Rule(
        "GKC351",
        "the operator set is too old for a fusion",
        "note",
        NVIDIA,
        "TensorRT has one layer for LayerNormalization (opset 17) and Gelu (opset 20), where an older model has five "
        "to eight nodes; TensorRT 11 has one for Attention (opset 23), too. It recognises many such patterns, not all.",
        "export the model at an operator set that has the operator",
        _too_old,
    ),
)
