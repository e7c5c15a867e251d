"""A graph that assigns variables as one that does not: the value of each goes in, and its next value comes out.

Every read and write of a variable is ordered in a traced function by data and control dependencies, so that walking
its nodes in that order, with the current value of each variable at hand, is enough. Branches and loops carry the
values in and out.
"""

from __future__ import annotations

import graphlib
from collections.abc import Mapping
from typing import Any

from graphkit.capture.tf_state import State
from graphkit.errors import StateMutated

_SCATTER = {
    "ResourceScatterAdd": "TensorScatterAdd",
    "ResourceScatterSub": "TensorScatterSub",
    "ResourceScatterUpdate": "TensorScatterUpdate",
    "ResourceScatterMin": "TensorScatterMin",
    "ResourceScatterMax": "TensorScatterMax",
}
_ARITHMETIC = {"AssignAddVariableOp": "AddV2", "AssignSubVariableOp": "Sub"}
_FIRST_OUTPUT = {"AddV2": "z", "Sub": "z"}
_CALLS = {
    "If": (("then_branch", "else_branch"), 1),
    "StatelessIf": (("then_branch", "else_branch"), 1),
    "PartitionedCall": (("f",), 0),
    "StatefulPartitionedCall": (("f",), 0),
}
"""Operation -> the attributes that name its functions, and how many inputs come before those of the functions."""
_LOOPS = ("While", "StatelessWhile")


def functional(graph: Any, states: Mapping[str, State]) -> tuple[Any, dict[str, str]]:
    """The graph with values for variables, and the tensor that holds the last value of each.

    Args:
        graph: A GraphDef, inlined.
        states: Placeholder of a variable's handle -> the variable; the placeholder becomes that of its value.

    Raises:
        StateMutated: a variable is used by an operation that has no functional form.
    """
    import tensorflow as tf

    result = tf.compat.v1.GraphDef()
    result.CopyFrom(graph)
    nodes = list(graph.node)
    body = _Body(result, nodes, states, {name: name for name in states}, in_function=False)
    del result.node[:]
    body.rewrite()
    finals = {name: body.output(name, f"state_next_{i}") for i, name in enumerate(states)}
    result.node.extend(body.made)
    return result, finals


class _Body:
    """The nodes of a graph or of one function while they are rewritten.

    Attributes:
        handles: Reference to a variable's handle -> the variable's placeholder, which is its key.
        values: Key -> reference to the variable's current value.
        made: The new nodes.
    """

    def __init__(
        self, graph: Any, nodes: list[Any], states: Mapping[str, State], first: Mapping[str, str], *, in_function: bool
    ) -> None:
        self.graph = graph
        self.in_function = in_function
        self._nodes = nodes
        self._states = states
        self.handles = dict(first)
        self.values = {key: reference for reference, key in first.items()}
        self._first = dict(self.values)
        self.made: list[Any] = []
        self._renamed: dict[str, str] = {}  # inside functions a reference names the output: `read:value:0`

    def rewrite(self) -> list[Any]:
        """The new nodes; `handles` and `values` are right at their end."""
        for node in _ordered(self._nodes):
            self._rewrite(node)
        for node in self.made:
            kept = [name for name in node.input if not name.startswith("^")]  # what they ordered is ordered now
            del node.input[:]
            node.input.extend(self._renamed.get(name, name) for name in kept)
        self.values = {key: self._renamed.get(name, name) for key, name in self.values.items()}
        return self.made

    def changed(self, key: str) -> bool:
        """Whether a variable has another value at the end than at the start."""
        return bool(self.values[key] != self._first[key])

    def output(self, key: str, name: str) -> str:
        """A tensor of its own that holds the last value of a variable: those of a branch have no names in ONNX."""
        return f"{self._make(name, 'Identity', [self.values[key]], T=_dtype(self._states[key]))}:0"

    def _rewrite(self, node: Any) -> None:
        keys = [self._handle(name) for name in node.input if not name.startswith("^")]
        if node.op == "Placeholder" and node.name in self._states and not self.in_function:
            state = self._states[node.name]
            self._make(node.name, "Placeholder", [], dtype=_dtype(state), shape=state.variable.shape.as_proto())
        elif not any(keys):
            self.made.append(node)
        elif node.op in _CALLS:
            self._call(node, keys[_CALLS[node.op][1] :])
        elif node.op in _LOOPS:
            self._loop(node, keys)
        elif keys[0] is not None:
            self._on_variable(node, keys[0])
        else:
            raise self._refused(node)

    def _on_variable(self, node: Any, key: str) -> None:
        value, dtype = self.values[key], _dtype(self._states[key])
        if node.op == "Identity":
            self.handles[node.name] = key
        elif node.op == "ReadVariableOp":
            self._renamed[f"{node.name}:value:0"] = self._make(node.name, "Identity", [value], T=dtype)
        elif node.op == "AssignVariableOp":
            self.values[key] = node.input[1]
        elif node.op in _ARITHMETIC:
            self.values[key] = self._make(node.name, _ARITHMETIC[node.op], [value, node.input[1]], T=dtype)
        elif node.op == "ResourceGather":
            axis = self._constant(f"{node.name}/axis", 0)
            types = {"Tparams": dtype, "Tindices": node.attr["Tindices"], "Taxis": "int32"}
            self._make(node.name, "GatherV2", [value, node.input[1], axis], **types)
        elif node.op in _SCATTER:
            last = self._constant(f"{node.name}/last", -1)
            indices = node.attr["Tindices"]
            rows = self._make(f"{node.name}/rows", "ExpandDims", [node.input[1], last], T=indices, Tdim="int32")
            inputs = [value, rows, node.input[2]]
            self.values[key] = self._make(node.name, _SCATTER[node.op], inputs, T=dtype, Tindices=indices)
        else:
            raise self._refused(node)

    def _call(self, node: Any, keys: list[str | None]) -> None:
        """Functions and branches take the values of variables, and return those that any of them changes."""
        attributes, offset = _CALLS[node.op]
        bodies = {name: self._function(node.attr[name].func.name, keys) for name in attributes}
        changed = [k for k in dict.fromkeys(keys) if k and any(b.changed(k) for b, _ in bodies.values())]
        first = len(node.attr["Tout"].list.type)
        for name, (body, function) in bodies.items():
            for key in changed:
                argument = function.signature.output_arg.add(name=f"graphkit_{len(function.ret)}")
                argument.type = _dtype_number(self._states[key])
                function.ret[argument.name] = body.values[key]
            node.attr[name].func.name = self._add(function)
        self._pass_values(node, keys, "Tin", offset)
        for key in changed:
            node.attr["Tout"].list.type.append(_dtype_number(self._states[key]))
        for i, key in enumerate(changed):
            self.values[key] = self._numbered(node.name, first + i)

    def _loop(self, node: Any, keys: list[str | None]) -> None:
        """The handle's place among the loop's variables is taken by the value."""
        condition = self._function(node.attr["cond"].func.name, keys)[1]
        body, function = self._function(node.attr["body"].func.name, keys)
        for argument, key in zip(function.signature.output_arg, keys, strict=True):
            if key is not None:
                argument.type = _dtype_number(self._states[key])
                function.ret[argument.name] = body.values[key]
        node.attr["cond"].func.name, node.attr["body"].func.name = self._add(condition), self._add(function)
        self._pass_values(node, keys, "T", 0)
        for i, key in enumerate(keys):
            if key is not None:
                self.handles[self._numbered(node.name, i)] = key
                self.values[key] = self._numbered(node.name, i)

    def _function(self, name: str, keys: list[str | None]) -> tuple[_Body, Any]:
        """A copy of a function that takes values where handles are passed, and what became of them in it."""
        original = next(f for f in self.graph.library.function if f.signature.name == name)
        copy = type(original)()
        copy.CopyFrom(original)
        first: dict[str, str] = {}
        for argument, key in zip(copy.signature.input_arg, keys, strict=True):
            if key is not None:
                argument.type = _dtype_number(self._states[key])
                del argument.handle_data[:]
                first[argument.name] = key
        body = _Body(self.graph, list(copy.node_def), self._states, first, in_function=True)
        made = body.rewrite()
        del copy.node_def[:]
        copy.node_def.extend(made)
        for name, reference in list(copy.ret.items()):
            copy.ret[name] = body._renamed.get(reference, reference)
        copy.arg_attr.clear()  # shapes of handles
        copy.control_ret.clear()
        del copy.signature.control_output[:]
        return body, copy

    def _add(self, function: Any) -> str:
        names = {f.signature.name for f in self.graph.library.function}
        base, number = function.signature.name, 1
        while f"{base}_functional_{number}" in names:
            number += 1
        function.signature.name = f"{base}_functional_{number}"
        self.graph.library.function.append(function)
        return str(function.signature.name)

    def _pass_values(self, node: Any, keys: list[str | None], attribute: str, offset: int) -> None:
        """Hand `node` the current values in place of handles."""
        for i, key in enumerate(keys):
            if key is not None:
                node.input[offset + i] = self.values[key]
                node.attr[attribute].list.type[i] = _dtype_number(self._states[key])
        for name in ("output_shapes", "_output_shapes"):
            if name in node.attr:
                del node.attr[name]
        self.made.append(node)

    def _handle(self, reference: str) -> str | None:
        """The variable that a reference stands for: `x`, `x:0`, or inside functions `x:output:0`."""
        if reference in self.handles:
            return self.handles[reference]
        name, _, rest = reference.partition(":")
        return self.handles.get(name) if rest in ("0", "output:0") else None

    def _numbered(self, node: str, number: int) -> str:
        if self.in_function:
            return f"{node}:output:{number}"
        return f"{node}:{number}" if number else node

    def _constant(self, name: str, value: int) -> str:
        import tensorflow as tf

        return self._make(name, "Const", [], dtype="int32", value=tf.make_tensor_proto(value, tf.int32))

    def _make(self, name: str, op: str, inputs: list[str], **attributes: Any) -> str:
        """Add a node; returns the reference to its first output."""
        import tensorflow as tf

        node = tf.compat.v1.NodeDef(name=name, op=op, input=inputs)
        for key, value in attributes.items():
            if isinstance(value, str):
                node.attr[key].type = tf.as_dtype(value).as_datatype_enum
            elif key == "shape":
                node.attr[key].shape.CopyFrom(value)
            elif key == "value":
                node.attr[key].tensor.CopyFrom(value)
            else:
                node.attr[key].CopyFrom(value)
        self.made.append(node)
        return f"{name}:{_FIRST_OUTPUT.get(op, 'output')}:0" if self.in_function else name

    def _refused(self, node: Any) -> StateMutated:
        keys = [self._handle(name) for name in node.input]
        names = ", ".join(f"`{self._states[k].spec.name}`" for k in keys if k)
        return StateMutated(
            f"variable {names} is used by {node.op}, which cannot be written as an input and an output",
            where=f"TensorFlow node {node.name}",
            remedy="assign with assign, assign_add, assign_sub or scatter_update",
        )


def _ordered(nodes: list[Any]) -> list[Any]:
    """The nodes, each behind what it depends on, control dependencies included."""
    by_name = {n.name: n for n in nodes}
    depends = {n.name: [d for i in n.input if (d := i.lstrip("^").partition(":")[0]) in by_name] for n in nodes}
    try:
        return [by_name[name] for name in graphlib.TopologicalSorter(depends).static_order()]
    except graphlib.CycleError:
        raise StateMutated(
            "the function assigns a variable, and holds loops of TensorFlow 1",
            remedy="write the loop with tf.while_loop",
        ) from None


def _dtype(state: State) -> str:
    return state.spec.dtype or "float32"


def _dtype_number(state: State) -> int:
    import tensorflow as tf

    return int(tf.as_dtype(_dtype(state)).as_datatype_enum)
