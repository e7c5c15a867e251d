"""NCHW at the interface of a graph that computes in NHWC.

A Transpose is put behind the input and before the output in TensorFlow's graph, where tf2onnx's optimiser cancels it
against those of the convolutions. (tf2onnx's own `inputs_as_nchw` also transposes an argument of the same name in
every function of the graph, and ignores an unknown name.)
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import Any

from graphkit.capture.tf_frozen import Frozen, FrozenTensor
from graphkit.errors import BadOption, UnknownName

_TO_NCHW = (0, 3, 1, 2)
_TO_NHWC = (0, 2, 3, 1)


def as_nchw(frozen: Frozen, layout: Sequence[str]) -> Frozen:
    """The graph with these inputs and outputs in NCHW, computing the same.

    Args:
        layout: Names of inputs or outputs; or `in0`, `out0`, by position; a bare `0` is `in0`.

    Raises:
        UnknownName: there is no such input or output.
        BadOption: it is not of rank 4.
    """
    if not layout:
        return frozen
    inputs = {_position(entry, frozen.inputs, "in") for entry in layout}
    outputs = {_position(entry, frozen.outputs, "out") for entry in layout}
    for entry in layout:
        if _position(entry, frozen.inputs, "in") is None and _position(entry, frozen.outputs, "out") is None:
            raise _unknown(entry, frozen)
    graph = type(frozen.graph)()
    graph.CopyFrom(frozen.graph)
    return replace(
        frozen,
        graph=graph,
        inputs=tuple(_input(graph, t) if i in inputs else t for i, t in enumerate(frozen.inputs)),
        outputs=tuple(_output(graph, t) if i in outputs else t for i, t in enumerate(frozen.outputs)),
    )


def _position(entry: str, tensors: tuple[FrozenTensor, ...], side: str) -> int | None:
    for position, tensor in enumerate(tensors):
        if entry == tensor.spec.name:
            return position
    digits = entry if entry.isdecimal() and side == "in" else entry.removeprefix(side) if entry != side else ""
    if digits.isdecimal() and (entry.isdecimal() or entry.startswith(side)) and int(digits) < len(tensors):
        return int(digits)
    return None


def _unknown(entry: str, frozen: Frozen) -> UnknownName:
    inputs = ", ".join(tensor.spec.name for tensor in frozen.inputs)
    outputs = ", ".join(tensor.spec.name for tensor in frozen.outputs)
    return UnknownName(
        f"--layout {entry}: the model has no input or output called `{entry}`",
        remedy=f"its inputs: {inputs}; its outputs: {outputs}; or by position: in0, out0",
    )


def _permuted(tensor: FrozenTensor, name: str) -> FrozenTensor:
    shape = tensor.spec.shape
    if shape is None or len(shape) != 4:
        raise BadOption(
            f"--layout {tensor.spec.name}: NCHW has four dimensions, but it is {tensor.spec}",
            where=f"tensor `{tensor.tensor}`",
            remedy="name an input or output of rank 4 (NHWC images)",
        )
    return FrozenTensor(replace(tensor.spec, shape=tuple(shape[axis] for axis in _TO_NCHW)), name)


def _input(graph: Any, tensor: FrozenTensor) -> FrozenTensor:
    """The placeholder gets a name of its own, and a Transpose takes its place."""
    name = tensor.tensor.partition(":")[0]
    node = next((n for n in graph.node if n.name == name), None)
    if node is None or node.op not in ("Placeholder", "PlaceholderWithDefault"):
        raise BadOption(f"--layout {tensor.spec.name}: `{tensor.tensor}` is no placeholder of the graph")
    outer = _free(graph, f"{name}_nchw")
    placed = _permuted(tensor, f"{outer}:0")
    dtype = node.attr["dtype"].type
    node.Clear()
    node.name, node.op = outer, "Placeholder"
    node.attr["dtype"].type = dtype
    for dim in placed.spec.shape or ():
        node.attr["shape"].shape.dim.add(size=dim if isinstance(dim, int) else -1)
    _transpose(graph, name, outer, dtype, _TO_NHWC)
    return placed


def _output(graph: Any, tensor: FrozenTensor) -> FrozenTensor:
    name = _free(graph, f"{tensor.tensor.partition(':')[0]}_nchw")
    placed = _permuted(tensor, f"{name}:0")
    source = tensor.tensor.removesuffix(":0")
    _transpose(graph, name, source, _dtype(tensor), _TO_NCHW)
    return placed


def _free(graph: Any, name: str) -> str:
    """A name that no node has. In the scope of the node it is made for: it belongs to the same layer."""
    taken = {node.name for node in graph.node}
    candidate, number = name, 1
    while candidate in taken:
        candidate, number = f"{name}_{number}", number + 1
    return candidate


def _dtype(tensor: FrozenTensor) -> int:
    import tensorflow as tf

    return int(tf.as_dtype(tensor.spec.dtype or "float32").as_datatype_enum)


def _transpose(graph: Any, name: str, source: str, dtype: int, perm: tuple[int, ...]) -> None:
    import tensorflow as tf

    int32 = tf.int32.as_datatype_enum
    constant = graph.node.add(name=_free(graph, f"{name}_perm"), op="Const")
    constant.attr["dtype"].type = int32
    constant.attr["value"].tensor.CopyFrom(tf.make_tensor_proto(perm, tf.int32))
    node = graph.node.add(name=name, op="Transpose", input=[source, constant.name])
    node.attr["T"].type = dtype
    node.attr["Tperm"].type = int32
