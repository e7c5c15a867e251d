"""The last pass: nothing is left that nothing needs, and everything is in order.

Dead nodes and constants go, outputs of a node that nobody reads are left out at its end, nodes stand in an order in
which they can run, and opsets that no node needs are not listed. Names stay.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from graphkit.rewrite.editor import bury_all
from graphkit.rewrite.normalise import raise_ir_version
from graphkit.traversal import graphs_of, nodes_of, read_count

if TYPE_CHECKING:
    import onnx_ir as ir

    from graphkit.rewrite.editor import Editor


def tidy(editor: Editor) -> None:
    """Tidy a model up, in place. Inputs and outputs of the graph stay, used or not."""
    model = editor.model
    bury_all(editor)
    for graph in graphs_of(model.graph):
        _drop_constants(graph)
        if not _in_order(graph):
            graph.sort()
    for node in nodes_of(model.graph):
        _trim(editor, node)
    used = {node.domain for node in nodes_of(model.graph)}
    used |= {node.domain for function in model.functions.values() for node in function.all_nodes()}
    for domain in [domain for domain in model.opset_imports if domain and domain not in used]:
        del model.opset_imports[domain]
    raise_ir_version(model)


def _drop_constants(graph: ir.Graph) -> None:
    kept = {id(value) for value in (*graph.inputs, *graph.outputs)}
    unused = [name for name, v in graph.initializers.items() if not read_count(v) and id(v) not in kept]
    for name in unused:
        del graph.initializers[name]


def _in_order(graph: ir.Graph) -> bool:
    """Whether every node of a graph, and of the graphs within, stands behind those whose results it reads."""
    from graphkit.rewrite.editor import _captured

    done: set[int] = set()
    for node in graph:
        for value in (*node.inputs, *_captured(node)):
            source = value.producer() if value is not None else None
            if source is not None and source.graph is graph and id(source) not in done:
                return False
        done.add(id(node))
    return True


def _trim(editor: Editor, node: ir.Node) -> None:
    """Leave out the last outputs, where nobody reads them and the operator may do without.

    How many outputs a BatchNormalization has says whether it trains.
    """
    if node.domain or len(node.outputs) < 2 or node.op_type == "BatchNormalization":
        return
    needed = len(node.outputs)
    while needed > 1 and not read_count(node.outputs[needed - 1]) and not node.outputs[needed - 1].is_graph_output():
        needed -= 1
    if needed == len(node.outputs):
        return
    import onnx.defs

    try:
        schema = onnx.defs.get_schema(node.op_type, editor.version(node), "")
    except onnx.defs.SchemaError:
        return
    optional = onnx.defs.OpSchema.FormalParameterOption.Optional
    while needed < len(node.outputs) and (needed >= len(schema.outputs) or schema.outputs[needed].option != optional):
        needed += 1
    if needed < len(node.outputs):
        node.resize_outputs(needed)
