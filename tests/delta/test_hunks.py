"""What people read: hunks that are folded, and where they are."""

import json

import pytest
from onnx import helper

from graphkit import view
from graphkit.delta.folding import fold
from graphkit.delta.places import Place, common, place_of, ranges
from graphkit.report import diff as report
from tests.delta.models import diff, layers, model, tensor


def fused(count=12):
    nodes, weights, value = [], [], "x"
    for k in range(count):
        weights += [tensor(f"w{k}", 16, 16), tensor(f"b{k}", 16)]
        new = "y" if k == count - 1 else f"r{k}"
        nodes += [
            helper.make_node("Gemm", [value, f"w{k}", f"b{k}"], [f"a{k}"]),
            helper.make_node("Relu", [f"a{k}"], [f"h{k}"]),
            helper.make_node("Add", [value, f"h{k}"], [new]),
        ]
        value = new
    return model(nodes, weights)


def test_a_rewrite_of_every_block_is_one_line(tmp_path):
    delta = diff(layers(12), fused(), tmp_path)
    (folded,) = fold(delta.graphs[0])
    assert len(folded.hunks) == 12
    assert (folded.removed, folded.added) == ((("MatMul", 1), ("Add", 1)), (("Gemm", 1),))
    assert folded.where == "layers.0..11"
    text = report.to_text(delta)
    assert "  x12  -{MatMul, Add}  +{Gemm}  at layers.0..11  [weights: 2 identical]" in text.splitlines()


def test_the_full_report_shows_each_node_with_its_neighbours(tmp_path):
    text = report.to_text(diff(layers(2), fused(2), tmp_path), full=True, context=1)
    assert "  @@ -0,2 +0,1 layers.0 @@\n  - m0 = MatMul(x, float32[16,16])  # layers.0" in text
    assert "  + a0 = Gemm(x, float32[16,16], float32[16])\n    h0 = Relu(a0)  # layers.0" in text


def test_the_report_begins_with_what_breaks_callers(tmp_path):
    text = report.to_text(diff(layers(12), fused(), tmp_path))
    other = fused()
    other.graph.input[0].type.tensor_type.shape.dim[1].dim_value = 8
    text = report.to_text(diff(layers(12), other, tmp_path))
    assert text.index("input retyped: x: float32[n,16] -> x: float32[n,8]") < text.index("x12")


@pytest.mark.parametrize(
    ("modules", "said"),
    [
        (["layers.0", "layers.1", "layers.2"], "layers.0..2"),
        (["h.0.attn", "h.2.attn", "h.3.attn", "h.3.attn"], "h.0,2..3.attn"),
        (["encoder"], "encoder"),
        (["encoder.a", "encoder.b"], "encoder and 2 parts of it"),
        (["a", "b"], "a and 1 more"),
    ],
)
def test_how_modules_are_listed(modules, said):
    assert ranges(modules) == said


def test_what_modules_share():
    assert common(["layers.1.attn.q", "layers.1.attn.k"]) == "layers.1.attn"
    assert common(["layers.1", "layers.10"]) == "layers"
    assert common([]) == ""


def test_places_are_told_by_source_lines_then_torch_then_names(tmp_path):
    made = layers(1)
    first, second, third, fourth = made.graph.node
    line = json.dumps([["head.fc", "net.py", 12, "Net.forward"]])
    first.metadata_props.add(key="graphkit.source", value=line)
    second.metadata_props.add(key="pkg.torch.onnx.name_scopes", value="['', 'body', 'body.fc', 'add']")
    second.metadata_props.add(
        key="pkg.torch.onnx.stack_trace", value='File "/home/me/net.py", line 7, in forward\n    return self.fc(x)'
    )
    third.metadata_props.add(key="pkg.torch.onnx.name_scopes", value="[" * 3000)
    fourth.metadata_props.add(
        key="pkg.torch.onnx.name_scopes", value="['', '_empty_nn_module_stack_from_metadata_hook', 'add']"
    )
    (tmp_path / "m.onnx").write_bytes(made.SerializeToString())
    graph = view.read(tmp_path / "m.onnx").graph
    assert place_of(graph, 0) == Place("head.fc", "net.py:12 in Net.forward")
    assert place_of(graph, 1) == Place("body.fc", "net.py:7 in forward")
    assert place_of(graph, 2) == Place("layers.0", "")
    assert place_of(graph, 3) == Place("layers.0", "")
