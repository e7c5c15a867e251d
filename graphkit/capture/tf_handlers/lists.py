"""TensorArrays of loops as tensors, where tf2onnx's own way with them would be wrong.

A list becomes a tensor of [elements, ...] that goes through the loop: reading is Gather, writing is an update of one
row. It needs the shape of an element; where that is not known, the loop is refused.
"""

from __future__ import annotations

from typing import Any

from graphkit.capture.tf_handlers.list_order import written_in_order
from graphkit.capture.tf_handlers.rooms import Room
from graphkit.errors import UnsupportedOperator

_LOOPS = ("While", "StatelessWhile")


def lists_to_tensors(graph_def: Any) -> None:
    """Replace every list that a loop does not write front to back; in place.

    Raises:
        UnsupportedOperator: such a list cannot be replaced.
    """
    functions = {f.signature.name: f for f in graph_def.library.function}
    for owner in (graph_def, *graph_def.library.function):
        room = Room(owner)
        for loop in [n for n in room.nodes if n.op in _LOOPS]:
            for position in _written(loop, functions):
                if not written_in_order(room, loop, position, functions):
                    _replace(room, loop, position, functions)


def _written(loop: Any, functions: dict[str, Any]) -> list[int]:
    """The inputs of a loop that are lists which its body writes, and that are lists still."""
    body = Room(functions[loop.attr["body"].func.name])
    found = []
    for position in range(len(body.arguments)):
        node = body.producer(body.behind(body.result(position)))
        if node is not None and node.op == "TensorListSetItem":
            found.append(position)
    return found


def _replace(room: Room, loop: Any, position: int, functions: dict[str, Any]) -> None:
    source, item = room.producer(room.behind(loop.input[position])), None
    while source is not None and source.op == "TensorListSetItem":
        item = source.input[2]
        source = room.producer(room.behind(source.input[0]))
    if source is None or source.op not in ("TensorListReserve", "TensorListFromTensor"):
        raise _refusal(loop, f"it starts as {source.op if source is not None else 'an argument'}")
    dtype = source.attr["element_dtype"].type
    old = room.output(source, "output_handle" if source.op == "TensorListFromTensor" else "handle")
    if source.op == "TensorListFromTensor":
        tensor = source.input[0]
    else:
        tensor = _zeros(room, source, item or _item_shape(loop, position, functions), dtype)
    _follow(room, old, tensor, dtype, functions)


def _zeros(room: Room, reserve: Any, item: Any, dtype: int) -> str:
    """A tensor for a list of zeros; `item` is one of its elements, or their shape."""
    import tensorflow as tf

    name, integer = reserve.name, tf.int32.as_datatype_enum
    one = room.const(f"{name}/one", tf.constant([1]).numpy())
    count = room.add("Reshape", f"{name}/count", [reserve.input[1], one], "output", T=integer, Tshape=integer)
    if isinstance(item, str):
        row = room.add("Shape", f"{name}/row", [item], "output", T=dtype, out_type=integer)
    else:
        row = room.const(f"{name}/row", tf.constant(item, tf.int32).numpy().reshape(-1))
    axis = room.const(f"{name}/axis", tf.constant(0).numpy())
    shape = _joined(room, f"{name}/shape", [count, row], axis, integer)
    zero = room.const(f"{name}/zero", tf.zeros((), tf.as_dtype(dtype)).numpy())
    return room.add("Fill", f"{name}/zeros", [shape, zero], "output", T=dtype, index_type=integer)


def _item_shape(loop: Any, position: int, functions: dict[str, Any]) -> list[int]:
    """The static shape of what the body writes.

    Raises:
        UnsupportedOperator: it has none.
    """
    from tensorflow.python.framework.function_def_to_graph import function_def_to_graph

    body = Room(functions[loop.attr["body"].func.name])
    write = body.producer(body.behind(body.result(position)))
    shapes = list(loop.attr["output_shapes"].list.shape) or None
    graph = function_def_to_graph(body.owner, input_shapes=shapes)
    item = graph.get_operation_by_name(write.name).inputs[2]  # type: ignore[union-attr]
    if not item.shape.is_fully_defined():
        raise _refusal(loop, "the shape of an element is not known before the loop")
    return [int(n) for n in item.shape]


def _follow(room: Room, old: str, tensor: str, dtype: int, functions: dict[str, Any]) -> None:
    """Put a tensor where a list was, and go on through everything that made a list of it."""
    readers = list(room.readers(old))
    room.rename(old, tensor)
    for node, position in readers:
        if node.op == "Identity":
            node.attr["T"].type = dtype
            _follow(room, room.output(node, "output"), room.output(node, "output"), dtype, functions)
        elif node.op == "TensorListSetItem":
            before = room.output(node, "output_handle")
            _as_update(room, node, dtype)
            _follow(room, before, room.output(node, "output"), dtype, functions)
        elif node.op == "TensorListGetItem":
            _as_gather(room, node, dtype)
        elif node.op == "TensorListStack":
            before = room.output(node, "tensor")
            _become(node, "Identity", [tensor], T=dtype)
            room.rename(before, room.output(node, "output"))
        elif node.op in _LOOPS:
            _through(room, node, position, dtype, functions)
        else:
            raise _refusal(node, f"the list goes to {node.op}")


def _through(room: Room, loop: Any, position: int, dtype: int, functions: dict[str, Any]) -> None:
    import tensorflow as tf

    if loop.attr["T"].list.type[position] == dtype:
        return
    loop.attr["T"].list.type[position] = dtype
    shapes = loop.attr["output_shapes"].list.shape
    if len(shapes) > position:
        shapes[position].CopyFrom(tf.TensorShape(None).as_proto())
    for name in ("body", "cond"):
        function = functions[loop.attr[name].func.name]
        function.signature.input_arg[position].type = dtype
        if position in function.arg_attr:  # says that it is a scalar, as a list is
            del function.arg_attr[position]
        if name == "body":
            function.signature.output_arg[position].type = dtype
        inner = Room(function)
        _follow(inner, inner.arguments[position], inner.arguments[position], dtype, functions)
    output = room.output(loop, "output", position)
    _follow(room, output, output, dtype, functions)


def _as_update(room: Room, node: Any, dtype: int) -> None:
    import tensorflow as tf

    integer = tf.int32.as_datatype_enum
    tensor, index, item = node.input[:3]
    if node.attr["resize_if_index_out_of_bounds"].b:
        tensor = _grown(room, node.name, tensor, index, item, dtype)
    place = room.const(f"{node.name}/place", tf.constant([1, 1]).numpy())
    where = room.add("Reshape", f"{node.name}/where", [index, place], "output", T=integer, Tshape=integer)
    axis = room.const(f"{node.name}/axis", tf.constant(0).numpy())
    row = room.add("ExpandDims", f"{node.name}/row", [item, axis], "output", T=dtype, Tdim=integer)
    _become(node, "TensorScatterUpdate", [tensor, where, row], T=dtype, Tindices=integer)


def _grown(room: Room, name: str, tensor: str, index: str, item: str, dtype: int) -> str:
    """The tensor with as many rows of zeros more as element `index` needs, as a dynamic TensorArray grows."""
    import tensorflow as tf

    integer = tf.int32.as_datatype_enum
    types = {"T": dtype, "out_type": integer}
    zero, one = room.const(f"{name}/zero", tf.constant(0).numpy()), room.const(f"{name}/one", tf.constant([1]).numpy())
    first = room.const(f"{name}/first", tf.constant([0]).numpy())
    shape = room.add("Shape", f"{name}/shape", [tensor], "output", **types)
    taken = {"Tparams": integer, "Tindices": integer, "Taxis": integer}
    rows = room.add("GatherV2", f"{name}/rows", [shape, first, zero], "output", **taken)
    place = room.add("Reshape", f"{name}/index", [index, one], "output", T=integer, Tshape=integer)
    beyond = room.add("Sub", f"{name}/beyond", [place, rows], "z", T=integer)
    needed = room.add("AddV2", f"{name}/needed", [beyond, one], "z", T=integer)
    missing = room.add("Maximum", f"{name}/missing", [needed, first], "z", T=integer)
    row = room.add("Shape", f"{name}/row_shape", [item], "output", **types)
    size = _joined(room, f"{name}/size", [missing, row], zero, integer)
    nothing = room.const(f"{name}/nothing", tf.zeros((), tf.as_dtype(dtype)).numpy())
    zeros = room.add("Fill", f"{name}/zeros", [size, nothing], "output", T=dtype, index_type=integer)
    return _joined(room, f"{name}/grown", [tensor, zeros], zero, dtype)


def _joined(room: Room, name: str, tensors: list[str], axis: str, dtype: int) -> str:
    import tensorflow as tf

    made = room.add("ConcatV2", name, [*tensors, axis], "output", T=dtype, Tidx=tf.int32.as_datatype_enum)
    room.by_name[made.partition(":")[0]].attr["N"].i = len(tensors)
    return made


def _as_gather(room: Room, node: Any, dtype: int) -> None:
    import tensorflow as tf

    integer = tf.int32.as_datatype_enum
    before = room.output(node, "item")
    axis = room.const(f"{node.name}/axis", tf.constant(0).numpy())
    _become(node, "GatherV2", [node.input[0], node.input[1], axis], Tparams=dtype, Tindices=integer, Taxis=integer)
    node.attr["batch_dims"].i = 0
    room.rename(before, room.output(node, "output"))


def _become(node: Any, op: str, inputs: list[str], **types: int) -> None:
    inputs = list(inputs)
    node.op = op
    del node.input[:]
    node.input.extend(inputs)
    node.attr.clear()
    for key, value in types.items():
        node.attr[key].type = value


def _refusal(node: Any, why: str) -> UnsupportedOperator:
    return UnsupportedOperator(
        f"the loop at `{node.name}` writes a TensorArray in an order that ONNX's Loop cannot, and {why}",
        where=f"node `{node.name}`",
        remedy="write element i in round i, for every i; or give the TensorArray an element_shape",
        data={"operators": [{"op": node.op, "count": 1, "layers": [], "nodes": [node.name], "reason": why}]},
    )
