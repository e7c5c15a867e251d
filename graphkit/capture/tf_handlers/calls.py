"""Functions that TensorFlow would compile, made ones that Grappler may inline."""

from __future__ import annotations

from typing import Any

_KEPT_APART = ("_noinline", "_XlaMustCompile", "_XlaCompile", "_xla_compile_id", "_has_manual_control_dependencies")


def let_calls_be_inlined(graph_def: Any) -> None:
    """Drop what keeps a `jit_compile` function (in Keras, a grouped convolution) a call of its own; in place."""
    for owner in (*graph_def.node, *graph_def.library.function, *_nodes_of_functions(graph_def)):
        for name in _KEPT_APART:
            if name in owner.attr:
                del owner.attr[name]
    for node in (*graph_def.node, *_nodes_of_functions(graph_def)):
        if node.op == "StatefulPartitionedCall":
            node.op = "PartitionedCall"  # Grappler inlines a stateful call only if something fetches every effect


def _nodes_of_functions(graph_def: Any) -> list[Any]:
    return [node for function in graph_def.library.function for node in function.node_def]
