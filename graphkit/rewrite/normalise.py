"""The first pass: one spelling for what can be written in several.

Functions are inlined, Constant nodes become initializers of exactly the same dtype, initializers of old files leave the
list of inputs, and every node and value has a name of its own, in subgraphs too. No weight is read.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING

from graphkit.rewrite.inlining import inline
from graphkit.traversal import graphs_of, nodes_of, read_count

if TYPE_CHECKING:
    import onnx_ir as ir

    from graphkit.rewrite.editor import Editor

_OLDEST_IR = 10
"""Opset 21 needs it, and runtimes have read it for two years."""


def normalise(editor: Editor) -> None:
    """Bring a model into its normal form, in place.

    Raises:
        CorruptFile: functions call one another without end, or would make too many nodes.
    """
    model = editor.model
    inlined = inline(model)
    _unlist_initializers(model)
    _name_everything(model)
    if inlined:
        _learn_again(editor)
    _constants(editor)
    raise_ir_version(model)
    editor.names_changed()


def raise_ir_version(model: ir.Model) -> None:
    """Give the model the IR version that its opsets need, at least."""
    import onnx.helper

    opsets = [onnx.helper.make_opsetid(domain, version) for domain, version in model.opset_imports.items()]
    needed = onnx.helper.find_min_ir_version_for(opsets, ignore_unknown=True)
    model.ir_version = max(model.ir_version or 0, _OLDEST_IR, needed)


def _learn_again(editor: Editor) -> None:
    """What stood in functions has become part of the graph: ask what is known of it."""
    from graphkit import view
    from graphkit.model import Model, Origin
    from graphkit.rewrite.facts import Facts

    editor.facts = Facts.of(editor.model, view.of(Model(editor.model, Origin("rewriting"))))


def _unlist_initializers(model: ir.Model) -> None:
    """Before IR version 4 every initializer had to be listed as an input too, which said nothing."""
    if (model.ir_version or 0) >= 4:
        return
    for graph in graphs_of(model.graph):
        listed = [v for v in graph.inputs if v.is_initializer()]
        for value in listed:
            graph.inputs.remove(value)


def _name_everything(model: ir.Model) -> None:
    """A name of its own for every node and every value; the first to have a name keeps it."""
    graphs = graphs_of(model.graph)
    taken: set[str] = {v.name for v in (*model.graph.inputs, *model.graph.outputs) if v.name}
    kept = {id(v) for v in (*model.graph.inputs, *model.graph.outputs)}
    numbers: dict[str, int] = {}
    for graph in graphs:
        for value in (*graph.inputs, *graph.initializers.values(), *_made(graph)):
            if id(value) in kept:
                continue
            kept.add(id(value))
            if not value.name and not read_count(value) and not value.is_graph_output():
                continue  # an output that is left out
            if not value.name or value.name in taken:
                value.name = _free(value.name or "value", taken, numbers)
            taken.add(value.name)
    nodes: set[str] = set()
    numbers = {}
    for node in nodes_of(model.graph):
        if not node.name or node.name in nodes:
            node.name = _free(node.name or f"node_{node.op_type}", nodes, numbers)
        nodes.add(node.name)


def _made(graph: ir.Graph) -> Iterator[ir.Value]:
    return (output for node in graph for output in node.outputs)


def _free(hint: str, taken: set[str], numbers: dict[str, int]) -> str:
    """A name like `hint`; `numbers` holds the last one tried for each, so that many of a kind are named in one go."""
    name, number = hint, numbers.get(hint, 1)
    while name in taken:
        number += 1
        name = f"{hint}_{number}"
    numbers[hint] = number
    return name


# --- constants --------------------------------------------------------------------------------------------------------


def _constants(editor: Editor) -> None:
    """Every Constant node becomes an initializer of its graph; one that is an output of a graph stays a node, whose
    tensor is written as `value`."""
    import onnx_ir as ir

    for graph in graphs_of(editor.model.graph):
        for node in [n for n in graph if n.op_type == "Constant" and not n.domain]:
            tensor = constant_tensor(node)
            if tensor is None:
                continue
            old = node.outputs[0]
            if old.is_graph_output():
                node.attributes.clear()
                node.attributes["value"] = ir.AttrTensor("value", tensor)
                continue
            new = ir.Value(
                name=old.name,
                shape=ir.Shape(tensor.shape.numpy()),
                type=ir.TensorType(tensor.dtype),
                const_value=tensor,
            )
            editor.facts.same(new, old)
            old.replace_all_uses_with(new)
            graph.remove(node)
            graph.register_initializer(new)


def constant_tensor(node: ir.Node) -> ir.TensorProtocol | None:
    """The tensor of a Constant node, whichever attribute holds it; None for a sparse one."""
    import numpy as np
    import onnx_ir as ir

    for name, attribute in node.attributes.items():
        if attribute.is_ref():
            return None
        if name == "value":
            return attribute.as_tensor()
        if name in ("value_float", "value_floats"):
            return ir.tensor(np.asarray(attribute.value, dtype=np.float32))
        if name in ("value_int", "value_ints"):
            return ir.tensor(np.asarray(attribute.value, dtype=np.int64))
        if name == "value_string":
            return ir.StringTensor([attribute.as_string().encode()], shape=ir.Shape([]))
        if name == "value_strings":
            written = [text.encode() for text in attribute.as_strings()]
            return ir.StringTensor(written, shape=ir.Shape([len(written)]))
    return None
