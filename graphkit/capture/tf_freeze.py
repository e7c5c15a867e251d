"""From a trace to a frozen graph: variables become constants, and calls are inlined; control flow stays whole."""

from __future__ import annotations

import contextlib
import threading
from collections.abc import Iterator, Sequence
from typing import Any

from graphkit.capture import tf_functional, tf_state
from graphkit.capture.tf_callee import spec_of
from graphkit.capture.tf_frozen import Frozen, FrozenTensor
from graphkit.capture.tf_idle import is_idle
from graphkit.capture.tf_state import State
from graphkit.capture.tf_trace import Trace
from graphkit.capture.torch_example import Leaf
from graphkit.errors import CaptureFailed
from graphkit.shapes import TensorSpec


def freeze(traced: Trace, leaves: tuple[Leaf, ...], states: Sequence[State] = ()) -> Frozen:
    """Freeze a trace.

    Args:
        traced: The trace.
        leaves: Its inputs.
        states: Variables that become inputs and outputs instead of constants, behind the others.

    Raises:
        CaptureFailed: TensorFlow cannot freeze it. `StateMutated`: a variable is assigned in a way that has no
            functional form.
    """
    graph = _without_variables(traced.concrete, [s.placeholder for s in states])
    finals: dict[str, str] = {}
    if states:
        graph, finals = tf_functional.functional(graph, {s.placeholder: s for s in states})
    inputs, outputs = _interface(traced, leaves)
    inputs += [FrozenTensor(s.spec, f"{s.placeholder}:0") for s in states]
    outputs += [
        FrozenTensor(TensorSpec(s.next_name, s.spec.dtype, s.spec.shape), finals[s.placeholder]) for s in states
    ]
    return Frozen(pruned(graph, [t.tensor for t in inputs], [t.tensor for t in outputs]), tuple(inputs), tuple(outputs))


def freeze_without(states: Sequence[State], traced: Trace, leaves: tuple[Leaf, ...], name: str) -> Frozen:
    """Freeze a trace and leave out what it assigns, where nobody can miss it.

    Args:
        states: The variables that it assigns.
        traced, leaves: As for `freeze`.
        name: What to call it in the refusal.

    Raises:
        StateMutated: an output depends on one of them, or one holds something of the inputs.
        CaptureFailed: TensorFlow cannot freeze it.
    """
    handles = [s.placeholder for s in states]
    graph = _without_variables(traced.concrete, handles)
    inputs, outputs = _interface(traced, leaves)
    sources, results = [t.tensor for t in inputs], [t.tensor for t in outputs]
    if not is_idle(graph, handles, [tensor.partition(":")[0] for tensor in sources], results):
        tf_state.refuse(states, name)
    graph = pruned(graph, sources, results)
    if any(node.name in handles for node in graph.node):  # a branch or a loop still takes it
        graph = pruned(_with_first_values(graph, states), sources, results)
    return Frozen(graph, tuple(inputs), tuple(outputs))


def _interface(traced: Trace, leaves: tuple[Leaf, ...]) -> tuple[list[FrozenTensor], list[FrozenTensor]]:
    inputs = [FrozenTensor(leaf.spec, tensor) for leaf, tensor in zip(leaves, traced.inputs, strict=True)]
    return inputs, [FrozenTensor(spec_of(tensor, name), tensor.name) for name, tensor in traced.outputs]


def _with_first_values(graph: Any, states: Sequence[State]) -> Any:
    """The graph with constants in place of variables that it assigns and that no output depends on."""
    import tensorflow as tf

    held = {s.placeholder: s for s in states if any(node.name == s.placeholder for node in graph.node)}
    graph, _ = tf_functional.functional(graph, held)
    for node in graph.node:
        if node.name in held:
            value = held[node.name].variable.numpy()
            node.op = "Const"
            node.attr.pop("shape", None)
            node.attr["value"].tensor.CopyFrom(tf.make_tensor_proto(value))
    return graph


def pruned(graph: Any, inputs: Sequence[str], outputs: Sequence[str]) -> Any:
    """The part of a graph that the outputs are made of, with every input, without control dependencies.

    A control dependency orders side effects (assertions, prints, assignments), and ONNX has none of these. A graph
    with TensorFlow 1 control flow keeps them: there they say which branch a constant belongs to.
    """
    import tensorflow as tf

    copy = tf.compat.v1.GraphDef()
    copy.CopyFrom(graph)
    if not any(node.op in ("Switch", "RefSwitch", "Enter", "RefEnter") for node in copy.node):
        for node in copy.node:
            kept = [name for name in node.input if not name.startswith("^")]
            del node.input[:]
            node.input.extend(kept)
    wanted = list(dict.fromkeys(name.partition(":")[0] for name in (*inputs, *outputs)))
    return tf.compat.v1.graph_util.extract_sub_graph(copy, wanted)


def _without_variables(concrete: Any, kept: Sequence[str]) -> Any:
    """The GraphDef with constants for all variables but `kept`.

    `convert_variables_to_constants_v2` is this, but can keep no variable, and builds a function again that nobody
    needs here.
    """
    from tensorflow.python.framework import convert_to_constants as tf_freezing

    try:
        with _everything_inlined():
            data = tf_freezing._FunctionConverterDataInEager(
                func=concrete, lower_control_flow=False, aggressive_inlining=False, variable_names_denylist=set(kept)
            )
        return tf_freezing._replace_variables_by_constants(data)[0]
    except (ValueError, KeyError, AttributeError) as error:
        raise CaptureFailed(
            f"TensorFlow cannot freeze the function: {str(error).splitlines()[0] if str(error) else error!r}",
            remedy="a variable may be uninitialised, or not a variable that TensorFlow tracks",
        ) from error


_inlining = threading.Lock()


@contextlib.contextmanager
def _everything_inlined() -> Iterator[None]:
    """Let TensorFlow inline functions marked `jit_compile=True` too, and keep a `Case` whole, as it keeps an `If`.

    Keras wraps grouped convolutions in one; TensorFlow does not inline it (2.21; `_XlaMustCompile` with `_noinline`),
    so that it would reach ONNX as a call. The marks are taken off the copy that is inlined, in the step in which
    TensorFlow itself takes off those of control flow; its list of those (2.21) lacks `Case`, which it would take
    apart into `_SwitchN` and `Merge`.
    """
    from tensorflow.python.framework import convert_to_constants as tf_freezing

    original, whole = tf_freezing.disable_lower_using_switch_merge, tf_freezing._CONTROL_FLOW_OPS

    def without_marks(graph: Any) -> Any:
        graph = original(graph)
        for function in graph.library.function:
            for marked in (function, *function.node_def):
                for mark in ("_XlaMustCompile", "_noinline"):
                    marked.attr.pop(mark, None)
        for node in graph.node:
            node.attr.pop("_XlaMustCompile", None)
        return graph

    with _inlining:
        tf_freezing.disable_lower_using_switch_merge = without_marks
        tf_freezing._CONTROL_FLOW_OPS = whole | {"Case", "StatelessCase"}
        try:
            yield
        finally:
            tf_freezing.disable_lower_using_switch_merge = original
            tf_freezing._CONTROL_FLOW_OPS = whole
