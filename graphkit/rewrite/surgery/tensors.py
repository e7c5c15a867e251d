"""What the operations share: finding tensors by name, their types, and a model with another graph."""

from __future__ import annotations

from collections.abc import Iterable
from difflib import get_close_matches
from typing import TYPE_CHECKING

from graphkit.analyze.tensors import Tensor
from graphkit.errors import BadOption, UnknownName
from graphkit.model import Model
from graphkit.rewrite.facts import Facts
from graphkit.rewrite.onnx_forms import dtype_of

if TYPE_CHECKING:
    import onnx_ir as ir


class Table:
    """The tensors of a model's main graph by name, with what is known of their types.

    Attributes:
        graph: A copy of the model's graph, to be changed.
    """

    def __init__(self, model: Model) -> None:
        from graphkit import view

        self.model = model
        self.ir = model.ir.clone()
        self.graph = self.ir.graph
        self.facts = Facts.of(self.ir, view.of(model))
        self._values = {v.name: v for v in (*self.graph.inputs, *self.graph.initializers.values()) if v.name}
        self._values.update((o.name, o) for node in self.graph for o in node.outputs if o.name)
        self._taken = set(self._values)
        self._nodes: set[str] = set()
        for graph in (self.graph, *self.graph.subgraphs()):
            self._nodes.update(node.name for node in graph if node.name)
            if graph is not self.graph:  # inner names may not be those of outer tensors
                inner = (*graph.inputs, *graph.initializers.values(), *(o for node in graph for o in node.outputs))
                self._taken.update(value.name for value in inner if value.name)

    def find(self, name: str, what: str = "tensor") -> ir.Value:
        """The tensor of a name; where a node has that name and one output, that output.

        Raises:
            UnknownName: there is neither.
        """
        if name in self._values:
            return self._values[name]
        made = [o for node in self.graph if node.name == name for o in node.outputs if o.name]
        if len(made) == 1:
            return made[0]
        if made:
            raise UnknownName(
                f"node `{name}` has {len(made)} outputs", remedy=f"name one: {', '.join(o.name or '' for o in made)}"
            )
        near = get_close_matches(name, self._values, n=3)
        listed = "graphkit inspect --layers lists the nodes, each of which stands for its output"
        raise UnknownName(
            f"there is no {what} `{name}`", remedy=f"did you mean {' or '.join(near)}?" if near else listed
        )

    def input(self, name: str) -> ir.Value:
        """An input of the model.

        Raises:
            UnknownName: there is none of that name.
        """
        inputs = {v.name: v for v in self.graph.inputs if v.name not in self.graph.initializers}
        if name not in inputs:
            raise UnknownName(f"there is no input `{name}`", remedy=f"the inputs are: {', '.join(map(str, inputs))}")
        return inputs[name]

    def output(self, name: str) -> ir.Value:
        """An output of the model.

        Raises:
            UnknownName: there is none of that name.
        """
        outputs = {v.name: v for v in self.graph.outputs}
        if name not in outputs:
            raise UnknownName(f"there is no output `{name}`", remedy=f"the outputs are: {', '.join(map(str, outputs))}")
        return outputs[name]

    def state(self, value: ir.Value) -> None:
        """Write on a tensor the type that is known of it: what is an input or output has to have one.

        Raises:
            BadOption: its dtype is not known.
        """
        import onnx_ir as ir

        known: Tensor = self.facts.tensor(value)
        if value.type is None:
            if known.dtype is None:
                raise BadOption(
                    f"the dtype of `{value.name}` is not known, so it can be neither input nor output",
                    remedy="have the file state it (value_info), or choose another tensor",
                )
            value.type = ir.TensorType(dtype_of(known.dtype))
        if known.shape is not None:
            value.shape = ir.Shape([s if s is None or isinstance(s, int) else str(s) for s in known.shape])

    def free_name(self, name: str) -> str:
        """A name that no tensor and no node has; it is taken from now on."""
        found, number = name, 1
        while found in self._taken or found in self._nodes:
            found, number = f"{name}_{number}", number + 1
        self._taken.add(found)
        return found

    def known(self) -> frozenset[str]:
        """Names of all tensors, those of bodies too."""
        return frozenset(self._taken)

    def done(self, step: str) -> Model:
        """The model with the changed graph: without nodes, weights and inputs that nothing needs any more."""
        remove_dead(self.ir)
        return _with_ranges(self.model.with_step(step, self.ir))


def remove_dead(model: ir.Model) -> None:
    """Remove nodes whose outputs nobody needs, and weights that nobody reads; inputs stay."""
    from onnx_ir.passes.common import RemoveUnusedNodesPass

    RemoveUnusedNodesPass()(model)


def _with_ranges(model: Model) -> Model:
    from dataclasses import replace

    symbols = set(model.signature.symbols)
    return replace(model, dims=tuple(d for d in model.dims if d.symbol in symbols))


def names(values: Iterable[ir.Value]) -> str:
    """Names in one line."""
    return ", ".join(f"`{v.name}`" for v in values)
