"""Operators that a target takes in some forms only."""

from __future__ import annotations

from collections.abc import Iterator

from graphkit.support.rule import NVIDIA, Hit, Rule
from graphkit.support.scene import Place, Scene

MOST_HEAD = 256
"""Elements of a head up to which TensorRT-RTX 1.7.1 has a kernel for float16 and bfloat16."""


def _attention(scene: Scene) -> Iterator[Hit]:
    for place in scene.of("Attention"):
        if scene.attribute(place, "TRT_decomposable", 0):
            continue
        shape, dtype = scene.shape(place, 0), scene.dtype(place, 0)
        rank = None if shape is None else len(shape)
        causal = bool(scene.attribute(place, "is_causal", 0))
        if dtype == "float32" and (rank == 4 or causal):
            yield Hit(
                f"`Attention` in float32{', causal' if causal else ''}, of rank {rank or '?'}, has no kernel", place
            )
        elif dtype in ("float16", "bfloat16") and rank == 4:
            assert shape is not None
            head = shape[3]
            if isinstance(head, int) and head > MOST_HEAD:
                yield Hit(f"`Attention` with heads of {head} elements has no kernel", place)


def _attention_forms(scene: Scene) -> Iterator[Hit]:
    for place in scene.of("Attention"):
        if scene.attribute(place, "softcap", 0.0):
            yield Hit("`Attention` with softcap", place)
        if _outputs(place) > 1 or any(scene.given(place, slot) for slot in (4, 5, 6)):
            yield Hit("`Attention` with a cache (past, present, or more than one output)", place)
        if scene.given(place, 3) and scene.attribute(place, "is_causal", 0):
            yield Hit("`Attention` with a mask and is_causal at once", place)


_ONE_OUTPUT = {
    "LayerNormalization": "mean and inverse deviation, which only training needs",
    "MaxPool": "the indices of the maxima",
    "BatchNormalization": "running mean and variance, which only training needs",
}


def _more_outputs(scene: Scene) -> Iterator[Hit]:
    for place in scene.of(*_ONE_OUTPUT):
        if _outputs(place) > 1:
            yield Hit(f"`{place.op}` gives {_outputs(place)} outputs: {_ONE_OUTPUT[place.op]}", place)


def _training(scene: Scene) -> Iterator[Hit]:
    for place in scene.of("BatchNormalization"):
        if scene.attribute(place, "training_mode", 0):
            yield Hit("`BatchNormalization` in training mode", place)


def _outputs(place: Place) -> int:
    return sum(1 for value in place.graph.makes[place.index] if value)


_CONSTANT_SLOTS: dict[str, tuple[int, str]] = {
    **{f"Reduce{kind}": (1, "axes") for kind in ("Sum", "Mean", "Max", "Min", "Prod", "L1", "L2", "SumSquare")},
    **{f"Reduce{kind}": (1, "axes") for kind in ("LogSum", "LogSumExp")},
    "Squeeze": (1, "axes"),
    "Unsqueeze": (1, "axes"),
    "Resize": (2, "scales"),
    "CumSum": (1, "axis"),
}


def _not_constant(scene: Scene) -> Iterator[Hit]:
    for place in scene.of(*_CONSTANT_SLOTS):
        slot, what = _CONSTANT_SLOTS[place.op]
        if scene.given(place, slot) and not scene.constant_slot(place, slot):
            value = place.graph.values[place.graph.reads[place.index][slot]]
            yield Hit(f"the {what} of `{place.op}` are computed (`{value}`)", place)


def _resize(scene: Scene) -> Iterator[Hit]:
    for place in scene.of("Resize"):
        if scene.attribute(place, "antialias", 0):
            yield Hit("`Resize` with antialias", place)
        policy = scene.text(place, "keep_aspect_ratio_policy", "stretch")
        if policy != "stretch":
            yield Hit(f"`Resize` with keep_aspect_ratio_policy={policy}", place)
        mode = scene.text(place, "coordinate_transformation_mode", "half_pixel")
        if mode == "tf_crop_and_resize":
            yield Hit(f"`Resize` with coordinate_transformation_mode={mode}", place)


def _scatter(scene: Scene) -> Iterator[Hit]:
    for place in scene.of("ScatterElements", "ScatterND"):
        reduction = scene.text(place, "reduction", "none")
        if reduction != "none":
            yield Hit(f"`{place.op}` with reduction={reduction}", place)


def _mixed_norm(scene: Scene) -> Iterator[Hit]:
    for place in scene.of("LayerNormalization"):
        data, scale = scene.dtype(place, 0), scene.dtype(place, 1)
        if None not in (data, scale) and data != scale:
            yield Hit(f"`LayerNormalization` of {data} with a scale of {scale}", place)


RULES = (
    Rule(
        "GKC131",
        "no kernel for this Attention",
        "error",
        ("rtx",),
        "TensorRT-RTX 1.7.1 parses Attention, but has kernels for float16 and bfloat16 with heads of at most 256 "
        "elements; float32 of rank 4 ends in `Attention operation was not supported by a dedicated kernel ... may be "
        "marked as decomposable`.",
        "`graphkit build` and `graphkit convert --to trt` mark it as decomposable by themselves; for another "
        "builder, `graphkit optimize --target rtx` writes a file with TRT_decomposable=1 on the node",
        _attention,
        seen_by="builder",
    ),
    Rule(
        "GKC132",
        "a form of Attention that the parser refuses",
        "error",
        NVIDIA,
        "The parser wants one output, no softcap, no cache, and either a mask or is_causal.",
        "export attention as MatMul, Softmax, MatMul (opset 22 or below), with the cache as plain inputs and outputs",
        _attention_forms,
    ),
    Rule(
        "GKC133",
        "more outputs than the target gives",
        "error",
        NVIDIA,
        "NVIDIA's parser takes LayerNormalization, BatchNormalization and MaxPool with one output each.",
        "leave the other outputs out: call model.eval() before the export, and use max_pool2d without return_indices",
        _more_outputs,
    ),
    Rule(
        "GKC134",
        "BatchNormalization in training mode",
        "error",
        NVIDIA,
        "The model was exported while it was training: it would normalise by the batch, not by what it has learnt.",
        "call model.eval() before the export",
        _training,
    ),
    Rule(
        "GKC135",
        "an argument that must be constant is computed",
        "error",
        NVIDIA,
        "`Axis input must resolve to a build-time constant (an initializer or a constant-foldable subgraph)!`",
        "make it a constant of the model; graphkit convert folds what can be folded",
        _not_constant,
    ),
    Rule(
        "GKC136",
        "a mode of Resize that the target has not",
        "error",
        NVIDIA,
        "The parser takes Resize without antialias, with keep_aspect_ratio_policy=stretch, and not tf_crop_and_resize.",
        "resize without antialias, to a size that is given; or do it before the model",
        _resize,
    ),
    Rule(
        "GKC137",
        "a scatter that reduces",
        "error",
        NVIDIA,
        "ScatterElements and ScatterND with `reduction` are refused; the parser's error for the former names no node.",
        "multiply by a one-hot matrix with MatMul, or scatter without reduction where no index occurs twice",
        _scatter,
    ),
    Rule(
        "GKC138",
        "LayerNormalization of two types",
        "error",
        NVIDIA,
        "`INormalizationLayer input and scale must have identical types`. Converters to float16 that keep weights of "
        "norms in float32 make such models.",
        "cast the scale and the bias to the type of the data, or the data to float32 around the norm",
        _mixed_norm,
    ),
)
