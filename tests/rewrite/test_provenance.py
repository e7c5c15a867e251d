"""Source lines across a rewrite that does not keep them."""

import onnx_ir as ir

from graphkit.model import SourceLine, provenance, set_provenance
from graphkit.rewrite.provenance import carry_over

TEXT = '<ir_version: 10, opset_import: ["" : 20]>\ng (float[n] x) => (float[n] y) {{ {} }}'


def graph(body: str, **lines: str) -> ir.Model:
    """A graph from ONNX text; `lines` gives the node that makes a value its source line's module."""
    import onnx.parser

    model = ir.from_proto(onnx.parser.parse_model(TEXT.format(body)))
    for node in model.graph.all_nodes():
        name = node.outputs[0].name
        if name in lines:
            set_provenance(node, [SourceLine(lines[name])])
    return model


def modules(model: ir.Model) -> dict[str, set[str]]:
    return {n.outputs[0].name: {line.module for line in provenance(n)} for n in model.graph.all_nodes()}


def test_a_merged_node_has_the_union_of_what_it_replaced():
    before = graph("a = Neg(x) b = Abs(a) c = Exp(b) y = Relu(c)", a="neg", b="abs", c="exp", y="relu")
    after = graph("c = Sin(x) y = Relu(c)")
    carry_over(before, after)
    assert modules(after) == {"c": {"neg", "abs", "exp"}, "y": {"relu"}}


def test_a_node_that_stayed_keeps_its_own_lines_only():
    before = graph("a = Neg(x) b = Abs(a) y = Relu(b)", a="neg", b="abs", y="relu")
    after = graph("a = Neg(x) b = Abs(a) y = Relu(b)")
    carry_over(before, after)
    assert modules(after) == {"a": {"neg"}, "b": {"abs"}, "y": {"relu"}}


def test_branches_that_met_in_a_merged_node_are_all_there():
    before = graph("a = Neg(x) b = Abs(x) c = Add(a, b) y = Relu(c)", a="left", b="right", c="add", y="relu")
    after = graph("y = Sin(x)")
    carry_over(before, after)
    assert modules(after) == {"y": {"left", "right", "add", "relu"}}


def test_a_value_that_both_graphs_have_is_a_border():
    before = graph("a = Neg(x) b = Abs(a) y = Relu(b)", a="neg", b="abs", y="relu")
    after = graph("a = Neg(x) y = Sin(a)")
    carry_over(before, after)
    assert modules(after) == {"a": {"neg"}, "y": {"abs", "relu"}}


def test_a_new_node_belongs_to_what_uses_it():
    before = graph("a = Neg(x) y = Relu(a)", a="neg", y="relu")
    after = graph("new = Abs(x) newer = Exp(new) a = Neg(newer) y = Relu(a)")
    carry_over(before, after)
    assert modules(after) == {"new": {"neg"}, "newer": {"neg"}, "a": {"neg"}, "y": {"relu"}}


def test_nodes_of_subgraphs_are_seen():
    text = "z = ReduceSum(x) c = Cast<to=9>(z) y = If (c) <then_branch = t () => (float[n] p) { p = Neg(x) },"
    text += "else_branch = e () => (float[n] q) { q = Abs(x) }>"
    before = graph(text, p="then", q="else", y="if")
    after = graph(text)
    carry_over(before, after)
    found = modules(after)
    assert (found["p"], found["q"], found["y"]) == ({"then"}, {"else"}, {"if"})
