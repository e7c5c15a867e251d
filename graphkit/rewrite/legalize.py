"""What is elegant ONNX, as what TensorRT's parser and builder take; last of all, for the targets `trt` and `rtx`.

`run` stays within the standard: ONNX's checker and ONNX Runtime take what it makes. `mark` then sets an attribute that
only TensorRT knows, on the way to the builder, after both have seen the graph without it. What is taken was measured
(`fixtures/legal_table.py`) with TensorRT-RTX 1.7.1.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from graphkit.model import Model
from graphkit.rewrite.reading import nodes_of

if TYPE_CHECKING:
    import onnx_ir as ir

    from graphkit.rewrite.editor import Editor
    from graphkit.rewrite.passes import Options
    from graphkit.rewrite.rule import Rule

TARGETS = ("trt", "rtx")
DECOMPOSABLE = "TRT_decomposable"


def rules() -> tuple[Rule, ...]:
    """The rules of the last step, in the order of trying."""
    from graphkit.rewrite import legalize_attention, legalize_forms

    return (*legalize_forms.RULES, *legalize_attention.RULES)


def run(editor: Editor, options: Options) -> None:
    """Make a graph legal for its target, whatever the level; for `onnx` and `ort` everything is."""
    if editor.target not in TARGETS:
        return
    from graphkit.rewrite import driver

    skipped = set(options.skip)
    driver.run(editor, [rule for rule in rules() if rule.name not in skipped and rule.group not in skipped])


def needs_mark(graph: ir.Model) -> bool:
    """Whether `mark` would change anything."""
    return any(_to_mark(node) for node in nodes_of(graph.graph))


def mark(model: Model) -> Model:
    """The model for TensorRT's builder: `Attention` that has no kernel of its own may be taken apart.

    Kernels are there for some sizes of heads in float16 and bfloat16 (32 to 256 were built, 8 and 512 refused) and
    for hardly any float32; without one the builder stops, unless the node has `TRT_decomposable=1`, which is a leave
    and no order (`IAttention::setDecomposable`). onnx.checker and ONNX Runtime refuse that attribute, so the marked
    model is for the builder alone. Weights are shared with the given model.
    """
    import onnx_ir as ir

    if not needs_mark(model.ir):
        return model
    graph = model.ir.clone()
    for node in nodes_of(graph.graph):
        if _to_mark(node):
            node.attributes[DECOMPOSABLE] = ir.AttrInt64(DECOMPOSABLE, 1)
    return model.with_step("marked for TensorRT", graph)


def _to_mark(node: ir.Node) -> bool:
    return node.op_type == "Attention" and not node.domain and DECOMPOSABLE not in node.attributes
