"""`tf.switch_case` as nested `tf.cond`: tf2onnx has If and no Case."""

from __future__ import annotations

from typing import Any


def cases_to_conditions(graph_def: Any) -> None:
    """Every Case node becomes an If whose other branch holds the cases that are left; in place.

    TensorFlow takes the last branch for an index that is out of range, which the innermost If does.
    """
    library = {function.signature.name: function for function in graph_def.library.function}
    while left := [(nodes, node) for nodes in _rooms(graph_def) for node in nodes if node.op in _CASES]:
        for nodes, node in left:  # a copied branch may hold a case of its own
            _rewrite(graph_def, nodes, node, library)


_CASES = ("Case", "StatelessCase")


def _rooms(graph_def: Any) -> list[Any]:
    return [graph_def.node, *(function.node_def for function in graph_def.library.function)]


def _rewrite(graph_def: Any, nodes: Any, node: Any, library: dict[str, Any]) -> None:
    """The node and, for every branch but two, one function more."""
    branches = [f.name for f in node.attr["branches"].list.func]
    index, *inputs = node.input
    data = [i for i in inputs if not i.startswith("^")]
    in_function = nodes is not graph_def.node
    if len(branches) == 1:
        _as_call(node, branches[0], inputs)
        return
    others = _chain(graph_def, library, node, branches[1:], first=1)
    direct = _with_index(graph_def, library, node.name, branches[0])
    condition = _is(nodes, node.name, index, 0, in_function)
    _as_if(node, condition, [index, *data, *[i for i in inputs if i.startswith("^")]], direct, others)


def _chain(graph_def: Any, library: dict[str, Any], node: Any, branches: list[str], first: int) -> str:
    """The function that takes (index, inputs...) and runs the branch for `index - first`; its name."""
    name = _unique(library, f"{node.name}_from_{first}")
    if len(branches) == 1:
        return _with_index(graph_def, library, node.name, branches[0])
    others = _chain(graph_def, library, node, branches[1:], first + 1)
    direct = _with_index(graph_def, library, node.name, branches[0])
    template = library[direct]
    function = graph_def.library.function.add()
    function.signature.CopyFrom(template.signature)
    function.signature.name = name
    library[name] = function
    arguments = [a.name for a in function.signature.input_arg]
    condition = _is(function.node_def, "here", arguments[0], first, True)
    inner = function.node_def.add(name="choice")
    inner.attr["Tout"].list.type.extend([a.type for a in function.signature.output_arg])
    inner.attr["Tin"].list.type.extend([a.type for a in function.signature.input_arg[1:]])
    if "output_shapes" in node.attr:
        inner.attr["output_shapes"].CopyFrom(node.attr["output_shapes"])
    _as_if(inner, condition, arguments, direct, others)
    for position, output in enumerate(function.signature.output_arg):
        function.ret[output.name] = f"choice:output:{position}"
    return name


def _with_index(graph_def: Any, library: dict[str, Any], scope: str, branch: str) -> str:
    """A copy of the branch that takes the index before its own arguments: both branches of an If take the same."""
    import tensorflow as tf

    name = _unique(library, f"{scope}_{branch}")
    function = graph_def.library.function.add()
    function.CopyFrom(library[branch])
    function.signature.name = name
    arguments = [type(a).FromString(a.SerializeToString()) for a in function.signature.input_arg]
    taken = {a.name for a in arguments} | {n.name for n in function.node_def}
    del function.signature.input_arg[:]
    function.signature.input_arg.add(name=_free("branch_index", taken), type=tf.int32.as_datatype_enum)
    function.signature.input_arg.extend(arguments)
    attributes = {k + 1: v for k, v in function.arg_attr.items()}
    function.arg_attr.clear()
    for position, value in attributes.items():
        function.arg_attr[position].CopyFrom(value)
    library[name] = function
    return name


def _is(nodes: Any, scope: str, index: str, value: int, in_function: bool) -> str:
    """The tensor `index == value`."""
    import tensorflow as tf

    number = nodes.add(name=f"{scope}_case_{value}", op="Const")
    number.attr["dtype"].type = tf.int32.as_datatype_enum
    number.attr["value"].tensor.CopyFrom(tf.make_tensor_proto(value, tf.int32))
    same = nodes.add(name=f"{scope}_is_case_{value}", op="Equal")
    same.input.extend([index, f"{number.name}:output:0" if in_function else number.name])
    same.attr["T"].type = tf.int32.as_datatype_enum
    return f"{same.name}:z:0" if in_function else same.name


def _as_if(node: Any, condition: str, inputs: list[str], direct: str, others: str) -> None:
    import tensorflow as tf

    node.op = "StatelessIf"
    del node.input[:]
    node.input.extend([condition, *inputs])
    if "branches" in node.attr:
        del node.attr["branches"]
    node.attr["Tcond"].type = tf.bool.as_datatype_enum
    node.attr["then_branch"].func.name = direct
    node.attr["else_branch"].func.name = others
    node.attr["Tin"].list.type.insert(0, tf.int32.as_datatype_enum)
    node.attr["_lower_using_switch_merge"].b = False


def _as_call(node: Any, branch: str, inputs: list[str]) -> None:
    node.op = "PartitionedCall"
    del node.input[:]
    node.input.extend(inputs)
    del node.attr["branches"]
    node.attr["f"].func.name = branch


def _unique(library: dict[str, Any], name: str) -> str:
    return _free("".join(c if c.isalnum() else "_" for c in name), set(library))


def _free(name: str, taken: set[str]) -> str:
    found, number = name, 0
    while found in taken:
        number += 1
        found = f"{name}_{number}"
    return found
