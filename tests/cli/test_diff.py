"""`graphkit diff` and what git runs, as they are run."""

import json

import pytest
from onnx import helper

from tests.delta.models import edited, layers, node, set_weight, tensor


@pytest.fixture
def files(tmp_path):
    """Two layers of three are retrained or changed, and there is another input."""

    def change(graph):
        node(graph, "h1").op_type = "Tanh"
        graph.node.insert(0, helper.make_node("Abs", ["x"], ["new"]))
        node(graph, "m0").input[0] = "new"
        set_weight(graph, "w2", 2 * weights["w2"])
        graph.input[0].type.tensor_type.shape.dim[0].dim_value = 1

    from onnx import numpy_helper

    weights = {"w2": numpy_helper.to_array(tensor("w2", 16, 16))}
    for name, model in (("a", layers()), ("b", edited(layers(), change))):
        (tmp_path / f"{name}.onnx").write_bytes(model.SerializeToString())


def test_the_report_is_folded_and_the_exit_code_tells(run, files):
    said = run("diff", "a.onnx", "b.onnx")
    assert (said.code, said.err) == (1, "")
    assert (
        said.out
        == """\
a.onnx -> b.onnx

signature
  input retyped: x: float32[n,16] -> x: float32[1,16]

nodes
  +{Abs}  at new node 0

changed
  Relu: op Relu -> Tanh  at layers.1

weights
  5 equal
  1 scaled, max abs 2.82, max rel 1, cosine from 1

12 nodes matched, 1 added, 1 changed
"""
    )
    same = run("diff", "a.onnx", "a.onnx")
    assert (same.code, same.out, same.err) == (0, "a.onnx -> a.onnx\nthe same\n", "")


def test_the_other_forms_of_text(run, files):
    assert (
        run("diff", "a.onnx", "b.onnx", "--stat").out
        == """\
a.onnx -> b.onnx
  model      0 changed
  signature  1 changed
  nodes      12 matched, 0 removed, 1 added, 1 changed, 0 inputs rewired
  weights    5 equal, 1 not
"""
    )
    assert (
        run("diff", "a.onnx", "b.onnx", "--name-status").out
        == """\
A	Abs #0
M	Relu /layers.1/Relu	Tanh /layers.1/Relu
W	MatMul /layers.2/MatMul	w2	w2
"""
    )
    shown = run("diff", "a.onnx", "b.onnx", "-U", "1").out
    assert "  @@ +0,1 @@\n  + new = Abs(x)\n    m0 = MatMul(x, float32[16,16])  # layers.0\n" in shown


def test_a_part_alone_decides_the_exit_code(run, files):
    said = run("diff", "a.onnx", "b.onnx", "--signature")
    assert (said.code, said.out) == (1, "input retyped: x: float32[n,16] -> x: float32[1,16]\n")
    assert run("diff", "a.onnx", "a.onnx", "--signature").out == "the signature is the same\n"
    said = run("diff", "a.onnx", "b.onnx", "--weights")
    assert said.code == 1
    assert said.out.splitlines()[0].startswith("scaled: w2 float32[16,16], max abs 2.8")
    assert run("diff", "a.onnx", "b.onnx", "--ignore", "constants", "--weights").code == 0


def test_json_is_strict_and_maps_nodes(run, files):
    said = run("diff", "a.onnx", "b.onnx", "--json")
    found = json.loads(said.out, parse_constant=pytest.fail)
    assert (said.code, found["schema"], found["same"], found["alignment"]) == (1, "graphkit.diff/1", False, "exact")
    (graph,) = found["graphs"]
    assert graph["mapping"][0] == {"a": [0], "b": [1]}
    assert graph["hunks"][0]["added"] == [{"index": 0, "name": "", "op": "Abs", "module": None, "source": None}]
    assert graph["changes"][0]["details"] == [{"what": "op", "a": "Relu", "b": "Tanh"}]
    assert (graph["weights"][0]["kind"], graph["weights"][0]["max_rel"]) == ("scaled", 1.0)


def test_the_mapping_for_model_explorer(run, files):
    found = json.loads(run("diff", "a.onnx", "b.onnx", "--format", "model-explorer").out)
    assert found["type"] == "sync_navigation"
    assert found["mapping"]["/layers.1/Relu"] == "/layers.1/Relu"
    assert len(found["mapping"]) == 12


@pytest.mark.parametrize(
    ("options", "said"),
    [
        (["--json", "--stat"], "--stat is a form of text"),
        (["--json", "--format", "text"], "exclude one another"),
        (["--ignore", "weather"], "'weather'"),
        (["-U", "2", "--stat"], "-U shows nodes one by one"),
    ],
)
def test_options_that_make_no_sense_are_refused(options, said, run, files):
    result = run("diff", "a.onnx", "b.onnx", *options)
    assert result.code == 2
    assert said in result.err


def test_trouble_is_2(run, files, tmp_path):
    assert run("diff", "a.onnx", "gone.onnx").code == 2
    (tmp_path / "bad.onnx").write_bytes(b"\x08\x08garbage")
    result = run("diff", "a.onnx", "bad.onnx")
    assert (result.code, result.out) == (2, "")
    assert result.err.startswith("error[GK203]: bad.onnx is not a valid ONNX file")


def test_textconv_prints_a_line_for_each_node(run, files):
    lines = run("textconv", "a.onnx").out.splitlines()
    assert lines[0] == "onnx, IR version 10, opset ai.onnx 20"
    assert lines[1] == "input x: float32[n,16]"
    assert lines[2].startswith("MatMul(x, float32[16,16]:")
    assert lines[4:6] == ["Relu(^1)", "Add(x, ^1)"]
    assert lines[-1] == "output y: float32 = ^1"


def test_git_diff_takes_what_git_gives(run, files):
    said = run("git-diff", "m.onnx", "a.onnx", "0" * 40, "100644", "b.onnx", "1" * 40, "100644")
    assert said.code == 0
    assert said.out.startswith("diff --graphkit a/m.onnx b/m.onnx\nm.onnx -> m.onnx\n")
    gone = run("git-diff", "m.onnx", "a.onnx", "0" * 40, "100644", "/dev/null", ".", ".")
    assert gone.out.endswith("deleted model, 12 nodes, 6 weights\n")
    assert run("git-diff", "m.onnx").out == "* unmerged: m.onnx\n"
    assert run("git-diff", "m.onnx", "a.onnx").code == 2


def test_the_report_of_two_large_graphs_fits_on_a_screen_and_counts_what_it_leaves_out(run, tmp_path):
    """Sixty branches, each changed in a way of its own, and thirty new outputs."""
    ops = ["Abs", "Exp", "Neg", "Sin", "Cos", "Tanh", "Ceil", "Sqrt", "Erf", "Sign"]

    def branches(edits):
        nodes, outputs = [], []
        for index in range(60):
            value = "x"
            for step in range(3 + index % 7):
                op = "Sigmoid" if step == 1 and edits else "Relu"
                nodes.append(helper.make_node(op, [value], [f"v{index}_{step}"]))
                value = f"v{index}_{step}"
            for step in range(1 + index // 10 if edits else 0):
                nodes.append(helper.make_node(ops[(index + step) % 10], [value], [f"n{index}_{step}"]))
                value = f"n{index}_{step}"
            outputs.append(helper.make_tensor_value_info(f"y{index}", 1, ["n"] * (2 if edits and index < 30 else 1)))
            nodes.append(helper.make_node("Softplus", [value], [f"y{index}"]))
        graph = helper.make_graph(nodes, "g", [helper.make_tensor_value_info("x", 1, ["n"])], outputs)
        return helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)])

    for name, edits in (("a", False), ("b", True)):
        (tmp_path / f"{name}.onnx").write_bytes(branches(edits).SerializeToString())
    shown = run("diff", "a.onnx", "b.onnx").out.splitlines()
    counts = json.loads(run("diff", "a.onnx", "b.onnx", "--json").out)["graphs"][0]
    assert len(shown) <= 40
    left = next(int(line.split()[2]) for line in shown if line.endswith("more hunks of nodes: --full"))
    folded = [line.split()[0] for line in shown[shown.index("nodes") + 1 :] if line.startswith("  ")]
    folded = folded[: folded.index("...")]
    assert left + sum(int(first[1:]) if first.startswith("x") else 1 for first in folded) == len(counts["hunks"])
    assert any(line.endswith("more inputs and outputs: --signature") for line in shown)
    assert len(run("diff", "a.onnx", "b.onnx", "--full").out.splitlines()) > 100
