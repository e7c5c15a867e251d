"""Loops that step through a recurrent cell become the ONNX operators `GRU`, `LSTM` and `RNN`.

tf2onnx writes the recurrent layers of Keras (all but the plain LSTM) as a `Loop` over the time steps, which runtimes
execute node by node and TensorRT takes badly. Here the body of each Loop is evaluated symbolically, and the Loop is
replaced where the result *is* the operator's equation, with every part proved: the step, the number of steps, the
initial states, and that nothing else of the Loop is used. Anything else stays a Loop.

Covered: GRU with the reset before or after the product, SimpleRNN, LSTM; any of ONNX's activations that has a node of
its own (Sigmoid, Tanh, Relu, HardSigmoid, LeakyRelu, Elu, Softsign, Softplus); given initial states; masks of any
kind, through `sequence_lens` (see `masking`); both directions of a bidirectional layer, as two operators. All of it in
float32, from opset 15 on.

Two differences from the Loop, both towards the layer it came from: tf2onnx multiplies by the mask where Keras selects,
so the Loop lets a NaN of a masked step through; and it compares step numbers as float32, which ends above 2^24 steps.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator
from typing import TYPE_CHECKING

from graphkit.traversal import graphs_of, nodes_of

if TYPE_CHECKING:
    import onnx_ir as ir

    from graphkit.model import Model

OLDEST = 15
"""Opset from which on Loops are recognised: that of Shape with start and end."""


def fuse(model: Model) -> Model:
    """The model with every Loop that is a recurrent layer as its operator; the same object where there is none.

    The step in the origin says what was found: `recurrent: 2 GRU, 1 LSTM`.
    """
    if model.opset < OLDEST or not any(_loops(model.ir)):
        return model
    graph = model.ir.clone()
    made = recognise_recurrent(graph)
    if not made:
        return model
    return model.with_step("recurrent: " + ", ".join(f"{n} {op}" for op, n in sorted(made.items())), graph)


def recognise_recurrent(graph: ir.Model) -> Counter[str]:
    """Replace in place what is recognised; returns how many of each operator were made."""
    from graphkit.rewrite.recurrent.emit import emit
    from graphkit.rewrite.recurrent.plan import plan

    made: Counter[str] = Counter()
    loops = list(_loops(graph))
    taken = _names(graph) if loops else set()
    for node in loops:
        found = plan(node)
        if found is not None:
            emit(found, taken)
            made[found.cell.op] += 1
    return made


def _loops(graph: ir.Model) -> Iterator[ir.Node]:
    return (n for n in nodes_of(graph.graph) if n.op_type == "Loop" and not n.domain)


def _names(graph: ir.Model) -> set[str]:
    """Every name of a node or a value, those of subgraphs included."""
    names = {v.name for g in graphs_of(graph.graph) for v in (*g.inputs, *g.initializers.values())}
    for node in nodes_of(graph.graph):
        names |= {node.name, *(o.name for o in node.outputs)}
    return {n for n in names if n}
