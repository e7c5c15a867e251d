"""From a trace to a frozen graph: variables become constants, and calls are inlined; control flow stays whole."""

from __future__ import annotations

import contextlib
import threading
from collections.abc import Iterator, Sequence
from typing import Any

from graphkit.capture import tf_functional
from graphkit.capture.tf_callee import spec_of
from graphkit.capture.tf_frozen import Frozen, FrozenTensor
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
    concrete = traced.concrete
    graph = _without_variables(concrete, [s.placeholder for s in states])
    finals: dict[str, str] = {}
    if states:
        graph, finals = tf_functional.functional(graph, {s.placeholder: s for s in states})
    inputs = [FrozenTensor(leaf.spec, tensor) for leaf, tensor in zip(leaves, traced.inputs, strict=True)]
    outputs = [FrozenTensor(spec_of(tensor, name), tensor.name) for name, tensor in traced.outputs]
    inputs += [FrozenTensor(s.spec, f"{s.placeholder}:0") for s in states]
    outputs += [
        FrozenTensor(TensorSpec(s.next_name, s.spec.dtype, s.spec.shape), finals[s.placeholder]) for s in states
    ]
    return Frozen(pruned(graph, [t.tensor for t in inputs], [t.tensor for t in outputs]), tuple(inputs), tuple(outputs))


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
    """Let TensorFlow inline functions marked `jit_compile=True` too.

    Keras wraps grouped convolutions in one; TensorFlow does not inline it (2.21; `_XlaMustCompile` with `_noinline`),
    so that it would reach ONNX as a call. The marks are taken off the copy that is inlined, in the step in which
    TensorFlow itself takes off those of control flow.
    """
    from tensorflow.python.framework import convert_to_constants as tf_freezing

    original = tf_freezing.disable_lower_using_switch_merge

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
        try:
            yield
        finally:
            tf_freezing.disable_lower_using_switch_merge = original
