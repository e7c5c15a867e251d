"""The path of a layer, from the names that TensorFlow gives to operations.

Keras 3 opens the name scope of a layer twice for a call, and TensorFlow makes the second one unique: what layer
`conv_1` computes is named `functional_1/conv_1_1/convolution`, in a SavedModel with `StatefulPartitionedCall/` before
it (measured with Keras 3.15, TensorFlow 2.21). So exactly one number is taken off each layer, and none elsewhere.
"""

from __future__ import annotations

import re
from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from types import MappingProxyType
from typing import TYPE_CHECKING, Any

from graphkit.model import SourceLine, set_provenance

if TYPE_CHECKING:
    import onnx_ir as ir

_CALL = re.compile(r"^(Stateful)?PartitionedCall(_\d+)?$")
_PLUMBING = re.compile(r"^Func/(.*/)?(input|output)(_control_node)?/_\d+$")
_CONTROL = re.compile(r"^(while|cond|switch_case|indexed_case)(_\d+)?$")
_NUMBERED = re.compile(r"^(?P<bare>.+)_\d+$")
_PORT = re.compile(r":\d+$")
_MADE = re.compile(r"__\d+$")  # tf2onnx's suffix for what it makes from a node

_FOLDED = "ConstantFolding/"  # Grappler's scope for what it computed
_ROOT = ""


@dataclass(frozen=True, slots=True)
class Layers:
    """The layers of a graph, by the names of its operations.

    Attributes:
        names: Every operation of the graph, `plain`.
        children: Names under each scope.
        known: Layer paths that the source itself gives, from the model's own name on; empty if it gives none.
        keras: Whether scopes are those of Keras layers.
        functions: Names of the graph's functions; tf2onnx puts one before the names of an If's or Loop's nodes.
    """

    names: frozenset[str]
    children: Mapping[str, frozenset[str]]
    known: frozenset[str]
    keras: bool
    functions: tuple[str, ...] = ()

    @classmethod
    def of(cls, graph_def: Any, known: Sequence[str] = (), inlined: Iterable[str] = ()) -> Layers:
        """The layers of a GraphDef and its functions.

        Args:
            known: Layer paths that the source itself gives.
            inlined: Names of operations that came out of functions.
        """
        names = [node.name for node in graph_def.node]
        names += [node.name for function in graph_def.library.function for node in function.node_def]
        names += [name for name in inlined if not name.startswith(_FOLDED)]
        functions = tuple(function.signature.name for function in graph_def.library.function)
        return replace(cls.of_names(names, known), functions=functions)

    @classmethod
    def of_names(cls, names: Iterable[str], known: Sequence[str] = ()) -> Layers:
        """The layers that these operations belong to."""
        all_names = frozenset(map(plain, names))
        children: dict[str, set[str]] = defaultdict(set)
        for name in all_names:
            scope = _ROOT
            for part in _parts(name):
                children[scope].add(part)
                scope = f"{scope}/{part}" if scope else part
        frozen = {scope: frozenset(inside) for scope, inside in children.items()}
        return cls(all_names, frozen, frozenset(known), bool(known) or _from_keras(frozen))

    def path(self, operation: str) -> str:
        """Path of the layer that an operation belongs to, `encoder.block2.conv`; "" for the model itself."""
        scopes = _parts(operation)[:-1]
        if not self.keras:
            return ".".join(scope for scope in scopes if not _CONTROL.match(scope))
        return ".".join(self._layers(scopes)[1:])

    def operation(self, name: str) -> str | None:
        """The operation that an ONNX node or value is named after, plain; None for a name of tf2onnx's own."""
        name = plain(_PORT.sub("", name))
        while name not in self.names:
            shorter = _PORT.sub("", _MADE.sub("", name))
            if shorter == name:
                return self._in_function(name)
            name = shorter
        return name

    def _in_function(self, name: str) -> str | None:
        rest = (name[len(function) + 1 :] for function in self.functions if name.startswith(f"{function}_"))
        return next((each for each in rest if each in self.names), None)

    def _layers(self, scopes: list[str]) -> list[str]:
        """Names of the layers, the model's first; the scopes inside a layer, such as `batchnorm`, are left out."""
        found: list[str] = []
        scope = _ROOT
        for part in scopes:
            layer = self._layer(part, scope, "/".join(found))
            if layer is None:
                break
            found.append(layer)
            scope = f"{scope}/{part}" if scope else part
        return found

    def _layer(self, part: str, scope: str, parent: str) -> str | None:
        """The layer whose scope `part` is; None where it is no layer's."""
        match = _NUMBERED.match(part)
        bare = match["bare"] if match else part
        prefix = f"{parent}/" if parent else ""
        if prefix + bare in self.known:
            return bare
        if prefix + part in self.known:
            return part
        # a layer's first scope holds no operation: where the bare name is taken, the number is an operation's
        return bare if match and bare not in self.children.get(scope, frozenset()) else None


def mark(
    model: ir.Model,
    layers: Layers,
    lines: Mapping[str, SourceLine],
    operations: Mapping[ir.Node, Sequence[str]] = MappingProxyType({}),
) -> None:
    """Record the source of each node: its layer, and the user's line where one is known.

    A node without a name from TensorFlow belongs to what reads it, or else to what it reads.

    Args:
        lines: The user's line, by the name of the operation.
        operations: The operations that a node does the work of; where a node is not in it, those it is named after.
    """
    lines = {plain(name): line for name, line in lines.items()}
    found: dict[ir.Node, list[SourceLine]] = {}
    nodes = list(model.graph.all_nodes())
    owners = {inner: node for node in nodes for graph in bodies(node) for inner in graph}
    for node in nodes:
        found[node] = _own(operations.get(node) or named_after(node, layers), layers, lines)
    for node in reversed(nodes):
        if not found[node]:
            readers = [user for output in node.outputs for user, _ in output.uses()]
            found[node] = _union(found, readers)
    for node in nodes:
        if not found[node]:
            makers = [v.producer() for v in node.inputs if v is not None]
            found[node] = _union(found, makers) or _union(found, [owners.get(node)])
        set_provenance(node, found[node])


def bodies(node: ir.Node) -> list[ir.Graph]:
    """The graphs of an If or Loop."""
    import onnx_ir as ir

    return [a.as_graph() for a in node.attributes.values() if a.type == ir.AttributeType.GRAPH]


def named_after(node: ir.Node, layers: Layers) -> list[str]:
    """The operations whose names a node and its outputs have."""
    names = (node.name, *(output.name for output in node.outputs))
    found = (layers.operation(name) for name in names if name)
    return list(dict.fromkeys(name for name in found if name is not None))


def _own(operations: Iterable[str], layers: Layers, lines: Mapping[str, SourceLine]) -> list[SourceLine]:
    found: list[SourceLine] = []
    for operation in operations:
        module = layers.path(operation)
        line = lines.get(operation)
        if line is not None:
            found.append(replace(line, module=module or line.module))
        elif module:
            found.append(SourceLine(module))
    return list(dict.fromkeys(reversed(found)))[::-1]  # what folded into a layer's constants stands before it


def _union(found: Mapping[ir.Node, list[SourceLine]], nodes: Iterable[ir.Node | None]) -> list[SourceLine]:
    return [line for node in nodes if node is not None for line in found.get(node, ())]


def plain(operation: str) -> str:
    """An operation's name without the calls that it was inlined from: `StatefulPartitionedCall/a/b` is `a/b`."""
    if "PartitionedCall" not in operation or _PLUMBING.match(operation):
        return operation
    return "/".join(_parts(operation)) or operation


def _parts(name: str) -> list[str]:
    if _PLUMBING.match(name):
        return [name.rpartition("/")[2]]
    return [part for part in name.split("/") if part and not _CALL.match(part)]


def _from_keras(children: Mapping[str, frozenset[str]]) -> bool:
    """Whether every scope at the top is numbered, and none stands beside the scope whose second use it would be."""
    tops = [part for part in children.get(_ROOT, ()) if part in children]
    numbered = [match for part in tops if (match := _NUMBERED.match(part))]
    return bool(tops) and len(numbered) == len(tops) and not {m["bare"] for m in numbered} & children[_ROOT]
