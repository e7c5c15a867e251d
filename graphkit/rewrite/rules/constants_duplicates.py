"""Nodes that compute the same from the same, and constants with the same content, become one.

Not what draws random numbers, has a body, or stands in another domain; nor Q/DQ, which belong to the value beside them.
No external weight is read: two are the same if they lie in the same place of the same file.
"""

from __future__ import annotations

from collections.abc import Hashable
from dataclasses import replace
from functools import partial
from typing import TYPE_CHECKING, Any

from graphkit.rewrite.rule import Rule
from graphkit.traversal import graphs_of

if TYPE_CHECKING:
    import onnx_ir as ir

    from graphkit.rewrite.editor import Editor

_LEFT_ALONE = frozenset(
    [
        "RandomNormal",
        "RandomNormalLike",
        "RandomUniform",
        "RandomUniformLike",
        "Multinomial",
        "Bernoulli",
        "Dropout",
        "QuantizeLinear",
        "DequantizeLinear",
        "DynamicQuantizeLinear",
        "Constant",
        "SequenceEmpty",
        "SequenceConstruct",
        "SequenceInsert",
        "SequenceErase",
        "Optional",
    ]
)
_SMALL = 256
_MOST_HASHED = 1 << 28
"""Bytes of weights that are compared by content; the rest are compared by place only."""
_SAMPLE = 64


def _nothing(editor: Editor, node: ir.Node) -> bool:
    return False


NODES = Rule("duplicate-nodes", "structure", (), _nothing, "nodes that compute the same become one")
CONSTANTS = Rule("duplicate-constants", "structure", (), _nothing, "constants with the same content become one")


def merge(editor: Editor, rules: set[str]) -> None:
    """Merge constants, then nodes, as far as the rules' names are among `rules`; linear in the graph."""
    graphs = graphs_of(editor.model.graph) if {CONSTANTS.name, NODES.name} & rules else []
    if CONSTANTS.name in rules:
        for graph in graphs:
            _merge_constants(editor, graph)
    if NODES.name in rules:
        for graph in graphs:
            _merge_nodes(editor, graph)


# --- nodes ------------------------------------------------------------------------------------------------------------


def _merge_nodes(editor: Editor, graph: ir.Graph) -> None:
    first: dict[Hashable, ir.Node] = {}
    for node in list(graph):
        key = _key(node)
        if key is None or node.graph is None:
            continue
        kept = first.setdefault(key, node)
        if kept is node or len(kept.outputs) != len(node.outputs):
            continue
        if any(o.is_graph_output() for o in node.outputs):
            continue  # an output has a name of its own
        editor.apply(replace(NODES, apply=partial(_one, kept=kept)), node)


def _one(editor: Editor, node: ir.Node, *, kept: ir.Node) -> bool:
    pairs = dict(zip(node.outputs, kept.outputs, strict=True))
    editor.replace_all(pairs)
    return True


def _key(node: ir.Node) -> Hashable | None:
    op_type, written = node.op_type, node.attributes.data
    if node.domain or op_type in _LEFT_ALONE:
        return None
    attributes = []
    for name in sorted(written) if len(written) > 1 else written:
        value = _frozen(written[name])
        if value is None:
            return None
        attributes.append((name, value))
    return op_type, tuple(map(id, node.inputs)), tuple(attributes), len(node.outputs)


def _frozen(attribute: ir.Attr) -> Hashable | None:
    kind = attribute.type.name
    if attribute.is_ref() or kind not in ("FLOAT", "INT", "STRING", "FLOATS", "INTS", "STRINGS", "TENSOR"):
        return None
    if kind == "TENSOR":
        tensor = attribute.as_tensor()
        return (kind, _content(tensor)) if tensor.nbytes <= _SMALL and tensor.dtype.name != "STRING" else None
    value: Any = attribute.value
    return kind, tuple(value) if isinstance(value, list | tuple) else value


def _content(tensor: ir.TensorProtocol) -> Hashable:
    return tensor.dtype.name, tuple(tensor.shape), tensor.tobytes()


# --- constants --------------------------------------------------------------------------------------------------------


def _merge_constants(editor: Editor, graph: ir.Graph) -> None:
    import onnx_ir as ir

    groups: dict[Hashable, list[ir.Value]] = {}
    for value in graph.initializers.values():
        tensor = value.const_value
        if tensor is None or value.is_graph_input() or tensor.dtype.name == "STRING":
            continue
        if isinstance(tensor, ir.LazyTensor):
            continue
        groups.setdefault((tensor.dtype.name, tuple(tensor.shape)), []).append(value)
    budget = _MOST_HASHED
    for values in groups.values():
        if len(values) < 2:
            continue
        by_content: dict[Hashable, list[ir.Value]] = {}
        for value in values:
            by_content.setdefault(_place_or_sample(value.const_value), []).append(value)  # type: ignore[arg-type]
        for same in by_content.values():
            budget = _merge_equal(editor, same, budget) if len(same) > 1 else budget


def _place_or_sample(tensor: ir.TensorProtocol) -> Hashable:
    """Small content, the place in a file, or the first and last bytes."""
    import onnx_ir as ir

    if isinstance(tensor, ir.ExternalTensor):
        return str(tensor.location), tensor.offset, tensor.length
    if tensor.nbytes <= _SMALL:
        return tensor.tobytes()
    raw = tensor.numpy().reshape(-1)
    return raw[:_SAMPLE].tobytes(), raw[-_SAMPLE:].tobytes()


def _merge_equal(editor: Editor, values: list[ir.Value], budget: int) -> int:
    import hashlib

    import onnx_ir as ir

    first: dict[Hashable, ir.Value] = {}
    for value in values:
        tensor = value.const_value
        assert tensor is not None
        key: Hashable = None
        if not isinstance(tensor, ir.ExternalTensor) and tensor.nbytes > _SMALL:
            if tensor.nbytes > budget:
                continue
            budget -= tensor.nbytes
            key = hashlib.blake2b(tensor.tobytes()).digest()
        kept = first.setdefault(key, value)
        if kept is not value and not value.is_graph_output():
            _use_instead(editor, value, kept)
    return budget


def _use_instead(editor: Editor, value: ir.Value, kept: ir.Value) -> None:
    users = editor.users(value)
    if not users:
        return

    def rewire(hand: Editor, node: ir.Node) -> bool:
        for user in users:
            for index, read in enumerate(user.inputs):
                if read is value:
                    hand.set_input(user, index, kept)
        return True

    editor.apply(replace(CONSTANTS, apply=rewire), users[0])


RULES = (CONSTANTS, NODES)
