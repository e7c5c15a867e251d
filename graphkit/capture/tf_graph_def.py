"""A frozen GraphDef of TensorFlow 1: its inputs and outputs are found in the graph."""

from __future__ import annotations

import functools
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from graphkit.capture import tf_unsafe_ops
from graphkit.capture.request import CaptureRequest
from graphkit.capture.tf_callee import Callee, Slot, spec_of
from graphkit.capture.tf_freeze import pruned
from graphkit.capture.tf_frozen import Frozen, FrozenTensor
from graphkit.capture.tf_trace import sentence
from graphkit.capture.torch_example import Leaf
from graphkit.errors import CorruptFile, UnknownFormat, UnknownName, UnsupportedOperator
from graphkit.model import Finding

_AGAIN = "copy or save it again"
_VARIABLES = ("Variable", "VariableV2", "VarHandleOp", "TemporaryVariable")
_NO_OUTPUT = ("Assert", "NoOp", "Print", "PrintV2", "Const", "Placeholder", "PlaceholderWithDefault", "CheckNumerics")


@dataclass(frozen=True, slots=True)
class Graph:
    """A GraphDef that can be called and frozen.

    Attributes:
        graph: The GraphDef.
        callee: Calls it; its inputs are the placeholders.
        inputs: The placeholders that are read, in the graph's order.
        outputs: The tensors that are returned.
        findings: What was noticed.
    """

    graph: Any
    callee: Callee
    inputs: tuple[str, ...]
    outputs: tuple[FrozenTensor, ...]
    findings: tuple[Finding, ...] = ()

    def freeze(self, leaves: tuple[Leaf, ...]) -> Frozen:
        """The graph between its inputs and outputs, names kept."""
        import tensorflow as tf

        specs = {leaf.name: leaf.spec for leaf in leaves}
        graph = tf.compat.v1.GraphDef()
        graph.CopyFrom(self.graph)
        for node in graph.node:
            if node.op == "PlaceholderWithDefault":
                _settle(node, fed=node.name in specs)
        inputs = tuple(FrozenTensor(specs[name], f"{name}:0") for name in self.inputs)
        part = pruned(graph, [t.tensor for t in inputs], [t.tensor for t in self.outputs])
        return Frozen(part, inputs, self.outputs)


def load(path: Path, request: CaptureRequest) -> Graph:
    """The graph in a `.pb` file.

    Args:
        path: The file.
        request: Names of `outputs`, and by its `shapes` and `samples` the placeholders with a default to feed.

    Raises:
        CorruptFile: it is damaged. `UnknownFormat`: its variables are not frozen, or it computes nothing.
        UntrustedSource: it holds operations that reach out of the graph. `UnsupportedOperator`: TensorFlow does not
        know an operation. `UnknownName`: an output is not there.
    """
    graph_def = _parse(path)
    if not request.trust:
        tf_unsafe_ops.refuse(_unsafe(graph_def), path.name)
    _check_frozen(graph_def, path.name)
    graph = _imported(graph_def, path.name)
    outputs = _outputs(graph, request.outputs, path.name)
    given = {s.name for s in request.shapes} | {s.name for s in request.samples}
    read = _reached(graph_def, [t.tensor for t in outputs])
    inputs = tuple(
        node.name
        for node in graph_def.node
        if node.name in read
        and (node.op == "Placeholder" or (node.op == "PlaceholderWithDefault" and node.name in given))
    )
    callee = _callee(graph, inputs, outputs)
    return Graph(graph_def, callee, inputs, outputs, tuple(_findings(graph_def, read, inputs)))


def _parse(path: Path) -> Any:
    import tensorflow as tf
    from google.protobuf.message import DecodeError

    try:
        graph_def = tf.compat.v1.GraphDef.FromString(path.read_bytes())
    except DecodeError as error:
        raise CorruptFile(f"{path.name} is a damaged GraphDef: {sentence(error)}", remedy=_AGAIN) from error
    if not graph_def.node or any(not n.op for n in graph_def.node):
        raise CorruptFile(f"{path.name} is a damaged GraphDef: a node without an operation", remedy=_AGAIN)
    return graph_def


def _unsafe(graph_def: Any) -> list[tf_unsafe_ops.UnsafeOp]:
    found = list(tf_unsafe_ops.unsafe_ops(graph_def.node))
    for function in graph_def.library.function:
        found.extend(tf_unsafe_ops.unsafe_ops(function.node_def, function.signature.name))
    return found


def _check_frozen(graph_def: Any, name: str) -> None:
    variables = [n.name for n in graph_def.node if n.op in _VARIABLES]
    if variables:
        more = f" and {len(variables) - 1} more" if len(variables) > 1 else ""
        raise UnknownFormat(
            f"{name} is not frozen: the values of variable `{variables[0]}`{more} are not in it",
            remedy="freeze it with its checkpoint (tf.compat.v1.graph_util.convert_variables_to_constants), or save a "
            "SavedModel",
            data={"variables": variables},
        )


def _imported(graph_def: Any, name: str) -> Any:
    import tensorflow as tf

    graph = tf.Graph()
    try:
        with graph.as_default():
            tf.graph_util.import_graph_def(graph_def, name="")
    except (ValueError, TypeError, KeyError, tf.errors.OpError) as error:
        text = sentence(error)
        if "Op type not registered" in text or "No attr" in text:
            raise UnsupportedOperator(
                f"{name} holds an operation that TensorFlow {tf.__version__} does not have: {text}",
                remedy="convert it with a graph of standard operations",
            ) from error
        raise CorruptFile(f"{name} is not a consistent graph: {text}", remedy=_AGAIN) from error
    return graph


def _outputs(graph: Any, wanted: Sequence[str], name: str) -> tuple[FrozenTensor, ...]:
    """Those that are asked for, else what nothing reads."""
    if wanted:
        return tuple(_named(graph, each) for each in wanted)
    operations = graph.get_operations()
    read = {t.op.name for op in operations for t in op.inputs} | {
        c.name for op in operations for c in op.control_inputs
    }
    last = [op for op in operations if op.name not in read and op.type not in _NO_OUTPUT and op.outputs]
    if not last:
        raise UnknownFormat(
            f"{name} has no output: all that nothing else reads is "
            + (", ".join(sorted({op.type for op in operations if op.name not in read})) or "nothing"),
            remedy="name the outputs: --output-name NODE",
        )
    return tuple(_output(tensor) for op in last for tensor in op.outputs)


def _output(tensor: Any) -> FrozenTensor:
    """Named after its node; a second output of the same node has its number behind it."""
    node, _, number = tensor.name.partition(":")
    return FrozenTensor(spec_of(tensor, node if number == "0" else f"{node}_{number}"), tensor.name)


def _named(graph: Any, wanted: str) -> FrozenTensor:
    node, _, number = wanted.partition(":")
    try:
        return _output(graph.get_tensor_by_name(f"{node}:{number or 0}"))
    except (KeyError, ValueError) as error:
        names = [op.name for op in graph.get_operations() if op.outputs and op.type != "Const"]
        close = [n for n in names if node.rpartition("/")[2] in n] or names[-8:]
        raise UnknownName(
            f"--output-name {wanted}: the graph has no such tensor", remedy=f"for example {', '.join(close[:8])}"
        ) from error


def _reached(graph_def: Any, tensors: Sequence[str]) -> set[str]:
    """Nodes that the tensors are made of."""
    by_name = {n.name: n for n in graph_def.node}
    pending = [t.partition(":")[0] for t in tensors]
    found: set[str] = set()
    while pending:
        name = pending.pop()
        if name in found or name not in by_name:
            continue
        found.add(name)
        pending.extend(i.lstrip("^").partition(":")[0] for i in by_name[name].input)
    return found


def _callee(graph: Any, inputs: tuple[str, ...], outputs: tuple[FrozenTensor, ...]) -> Callee:
    @functools.cache  # only a run needs it, and it costs a fifth of a conversion
    def fetch() -> Any:
        import tensorflow as tf

        graph_def = graph.as_graph_def()
        wrapped = tf.compat.v1.wrap_function(lambda: tf.graph_util.import_graph_def(graph_def, name=""), [])
        return wrapped.prune([f"{name}:0" for name in inputs], [t.tensor for t in outputs])

    def run(**tensors: Any) -> dict[str, Any]:
        values = fetch()(*(tensors[name] for name in inputs))
        return dict(zip((t.spec.name for t in outputs), values, strict=True))

    specs = tuple(spec_of(graph.get_tensor_by_name(f"{name}:0"), name) for name in inputs)
    return Callee("GraphDef", run, (), {name: Slot(name) for name in inputs}, specs)


def _findings(graph_def: Any, read: set[str], inputs: tuple[str, ...]) -> list[Finding]:
    kept = [
        n.name for n in graph_def.node if n.op == "PlaceholderWithDefault" and n.name in read and n.name not in inputs
    ]
    return [
        Finding(
            "default",
            f"placeholder `{name}` keeps its default; it is no input of the graph",
            remedy=f"--shape {name}=DIMS makes it an input",
        )
        for name in kept
    ]


def _settle(node: Any, *, fed: bool) -> None:
    """A placeholder with a default becomes a plain one, or its default."""
    dtype = node.attr["dtype"].type
    if fed:
        node.op = "Placeholder"
        del node.input[:]
        return
    node.op = "Identity"
    node.attr.clear()
    node.attr["T"].type = dtype
