"""What only the libraries themselves can say: their refusals, as findings."""

from __future__ import annotations

from graphkit.support.rule import NVIDIA, Rule, nothing

PARSER = "GKC901"
BUILDER = "GKC902"
CONTRADICTION = "GKC903"
ORT_OPERATOR = "GKC401"
ORT_LOAD = "GKC402"

RULES = (
    Rule(
        ORT_OPERATOR,
        "ONNX Runtime has no such operator",
        "error",
        ("ort",),
        "ONNX Runtime's CPU provider has no kernel for the operator at the model's operator set, and the "
        "operator has no definition in terms of others. Its own error names the first such node only.",
        "replace it in the model, or register the library of custom operators that has it",
        nothing,
    ),
    Rule(
        ORT_LOAD,
        "ONNX Runtime cannot load the model",
        "error",
        ("ort",),
        "All operators are known, yet the session cannot be made; ONNX Runtime's own words are given.",
        "correct the model at the node that is named; `graphkit reduce --until ort` finds a smallest part that fails",
        nothing,
    ),
    Rule(
        PARSER,
        "the parser refuses a node",
        "error",
        NVIDIA,
        "The target's own parser says no, and no rule here says why; its words are given.",
        "replace it in the model, or keep that part outside with --partition",
        nothing,
    ),
    Rule(
        BUILDER,
        "the builder cannot build the model",
        "error",
        NVIDIA,
        "The parser takes every node, but does not look into how branches nest, which kernels there are, or "
        "whether the sizes agree. The builder does, was asked, and says no; its words are given.",
        "graphkit convert simplifies a model before it builds; `graphkit reduce --until build` finds a smallest part "
        "that fails",
        nothing,
        seen_by="builder",
    ),
    Rule(
        CONTRADICTION,
        "the graph contradicts itself",
        "error",
        NVIDIA,
        "ONNX's own shape inference finds two tensors whose sizes do not fit, whatever the ranges. graphkit builds no "
        "engine from such a graph, though TensorRT's parser may take it.",
        "correct the shapes in the model, or export it again",
        nothing,
        seen_by="graphkit",
    ),
)
