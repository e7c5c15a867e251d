"""The border between float32 and the low type costs the least that it can."""

from __future__ import annotations

import itertools

import onnx_ir as ir
from hypothesis import given, settings
from hypothesis import strategies as st

from graphkit.precision.half_cut import HIGH, LOW, divide
from graphkit.precision.half_types import slots_of

FLOAT = ir.TensorType(ir.DataType.FLOAT)


def graph_of(reads):
    """Nodes that add two earlier values each; the last value is the output. Value 0 is the input."""
    values = [ir.Value(name="x", type=FLOAT)]
    nodes = []
    for number, (a, b) in enumerate(reads):
        node = ir.node("Add", [values[a % len(values)], values[b % len(values)]], name=f"n{number}")
        node.outputs[0].name, node.outputs[0].type = f"v{number}", FLOAT
        nodes.append(node)
        values.append(node.outputs[0])
    return ir.Graph(values[:1], values[-1:], nodes=nodes, opset_imports={"": 20})


def cost(graph, side):
    """Casts at 4 each, and nodes in float32 at 1: the input and the output are in float32."""
    total = sum(side[id(n)] == HIGH for n in graph)
    for value in (*graph.inputs, *(n.outputs[0] for n in graph)):
        made = HIGH if value.producer() is None else side[id(value.producer())]
        read = {side[id(u.node)] for u in value.uses()} | ({HIGH} if value.is_graph_output() else set())
        total += 4 * bool(read - {made})
    return total


@settings(max_examples=150, deadline=None)
@given(
    st.lists(st.tuples(st.integers(0, 9), st.integers(0, 9)), min_size=1, max_size=8),
    st.sets(st.integers(0, 7)),
    st.sets(st.integers(0, 7)),
)
def test_no_other_division_is_cheaper(reads, high, low):
    graph = graph_of(reads)
    nodes = list(graph)
    high = {id(n) for i, n in enumerate(nodes) if i in high}
    low = {id(n) for i, n in enumerate(nodes) if i in low}
    slots = {id(n): slots_of(n, 20, "fp16") for n in nodes}
    sides = divide(graph, slots, high, low, ())
    choices = [
        [HIGH] if id(n) in high else [LOW] if id(n) in low else [HIGH, LOW] for n in nodes
    ]  # what must stay in float32 wins over what must be low
    ids = [id(n) for n in nodes]
    assert all(sides.node[i] in choice for i, choice in zip(ids, choices, strict=True))
    # A node that must be low costs nothing in float32 and cannot be there: both sides count it alike.
    best = min(cost(graph, dict(zip(ids, sides_, strict=True))) for sides_ in itertools.product(*choices))
    assert cost(graph, sides.node) == best
