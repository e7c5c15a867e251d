"""`graphkit inspect`, as it is run."""

import json

import numpy as np
import pytest
from onnx import numpy_helper

from tests.analyze.graphs import model


@pytest.fixture
def net(tmp_path):
    """Two layers over x [batch, 8] with weights inside; `net.onnx` in the working directory."""
    made = model("net (float[batch,8] x) => (y) { a = MatMul(x, w) b = Add(a, bias) y = Relu(b) }")
    for node, name in zip(made.graph.node, ("head/MatMul", "head/Add", "head/act/Relu"), strict=True):
        node.name = name
    made.producer_name, made.producer_version = "by hand", "1"
    weights = {"w": np.arange(32, dtype=np.float32).reshape(8, 4), "bias": np.zeros(4, np.float32)}
    made.graph.initializer.extend(numpy_helper.from_array(values, name) for name, values in weights.items())
    path = tmp_path / "net.onnx"
    path.write_bytes(made.SerializeToString())
    return path


def test_one_screen_says_what_it_is_and_what_it_costs(run, net):
    said = run("inspect", "net.onnx")
    assert (said.code, said.err) == (0, "")
    first, *rest = said.out.splitlines()
    assert first == f"net.onnx  ONNX, {net.stat().st_size} B"
    assert [" ".join(line.split()) for line in rest] == [
        "IR version 10",
        "opsets ai.onnx 21, com.microsoft 1, mine 1",
        "producer by hand 1",
        "inputs x: float32[batch, 8]",
        "outputs y: float32[batch, 4]",
        "graph 3 nodes, control flow: none",
        "operators 1 Add, 1 MatMul, 1 Relu",
        "weights 36 parameters, 144 B: float32 144 B in 2 [exact]",
        "compute 32*batch MACs, 64*batch FLOPs [symbolic] = 32",
        "elementwise: 8*batch [symbolic] = 8",
        "MACs of Conv, Gemm, MatMul, Einsum, Attention and recurrent",
        "layers; FLOPs = 2 x MACs",
        "memory peak 48 B of activations at `head/MatMul` (MatMul)",
        "48*batch bytes [symbolic]",
        "intensity 0.25 FLOPs a byte, 256 B moved without a cache [estimated]",
        "evaluated at batch=1; --dim NAME=N sets a size",
        "precision float32 100 % of MACs, no Q/DQ",
        "dynamic dimensions: batch; shapes that depend on data: none",
        "readiness TensorRT, TensorRT-RTX, ONNX Runtime: no rule stands in the way",
        "[by rules; graphkit check asks the library]",
    ]


def test_a_size_makes_figures_exact(run, net):
    said = run("inspect", "net.onnx", "--dim", "batch=8").out
    assert "256 MACs, 512 FLOPs [exact]" in said
    assert "384 bytes [exact]" in said
    assert "symbolic" not in said
    for wrong in ("batch", "batch=0", "batch=1:4:8", "=3"):
        said = run("inspect", "net.onnx", "--dim", wrong)
        assert (said.code, said.out) == (2, "")
        assert said.err.startswith(f"error[GK212]: --dim {wrong} is not a name and a size")
    assert run("inspect", "net.onnx", "--dim", "b=1").err.startswith("error[GK208]: the model has no dimension `b`")


def test_json_is_strict_and_the_same_twice(run, net):
    said = run("inspect", "net.onnx", "--json", "--layers", "--by", "module", "--weights", "--find", "MatMul > Add")
    told = json.loads(said.out, parse_constant=pytest.fail)
    assert told["schema"] == "graphkit.inspect/1"
    assert told["graph"]["macs"] == {"value": "32*batch", "status": "symbolic", "at": 32}
    assert told["graph"]["peak_memory"]["node"] == "head/MatMul"
    assert told["weights"]["parameters"] == 36
    assert [row["macs"] for row in told["layers"]] == ["32*batch", 0, 0]
    assert [row["path"] for row in told["modules"]] == ["", "head", "head.act"]
    assert told["matches"][0]["nodes"] == ["head/MatMul", "head/Add"]
    assert told["weight_statistics"][0]["mean"] == 15.5
    again = run("inspect", "net.onnx", "--json", "--layers", "--by", "module", "--weights", "--find", "MatMul > Add")
    assert again.out == said.out


def test_the_tables(run, net):
    lines = run("inspect", "net.onnx", "--top", "flops", "-n", "1").out.splitlines()
    assert lines[0] == "the 1 nodes with most MACs"
    assert lines[2].split() == ["head/MatMul", "MatMul", "[batch,", "4]", "32*batch", "32", "48", "B"]
    assert run("inspect", "net.onnx", "--top", "params").out.splitlines()[2].split()[0] == "head/MatMul"
    assert run("inspect", "net.onnx", "--top", "memory").out.splitlines()[2].split()[0] == "head/MatMul"
    tree = run("inspect", "net.onnx", "--by", "module").out.splitlines()
    assert [line.split()[0] for line in tree[2:]] == ["(model)", "head", "act"]
    assert "1 paths match MatMul > Add" in run("inspect", "net.onnx", "--find", "MatMul > Add").out
    assert "15.5" in run("inspect", "net.onnx", "--weights").out
    assert len(run("inspect", "net.onnx", "--layers").out.splitlines()) == 5


def test_weights_that_are_missing_are_said_to_be(run, net, tmp_path):
    import onnx

    onnx.save(onnx.load(net), "ext.onnx", save_as_external_data=True, location="ext.data", size_threshold=0)
    (tmp_path / "ext.data").unlink()
    said = run("inspect", "ext.onnx")
    assert said.code == 0
    assert "ext.data (MISSING)" in said.out
    assert run("inspect", "ext.onnx", "--weights").out.count("missing") == 2


def test_a_name_cannot_command_the_terminal(run, net):
    import onnx

    made = onnx.load(net)
    made.producer_name = "\x1b[31mred"
    made.graph.node[0].name = "\x1b]0;title\x07"
    net.write_bytes(made.SerializeToString())
    assert "\x1b" not in run("inspect", "net.onnx").out
    assert "\x1b" not in run("inspect", "net.onnx", "--layers").out


def test_what_only_onnx_has_is_refused_for_others(run, tmp_path):
    content = {"w": {"dtype": "F16", "shape": [2, 3], "data_offsets": [0, 12]}}
    header = json.dumps(content).encode()
    (tmp_path / "w.safetensors").write_bytes(len(header).to_bytes(8, "little") + header + bytes(12))
    assert "6 parameters, 12 B: float16" in run("inspect", "w.safetensors").out
    assert "[2, 3]" in run("inspect", "w.safetensors", "--weights").out
    said = run("inspect", "w.safetensors", "--layers")
    assert (said.code, said.out) == (2, "")
    assert said.err.startswith("error[GK212]: w.safetensors is a safetensors: modules, layers")


def test_what_is_no_model_is_a_bad_file(run, tmp_path):
    (tmp_path / "page.onnx").write_text("<!DOCTYPE html><html></html>")
    said = run("inspect", "page.onnx")
    assert (said.code, said.out) == (2, "")
    assert said.err.startswith("error[GK202]: page.onnx is a web page, not a model")
    assert run("inspect", "gone.onnx").err.startswith("error[GK201]: no such file: gone.onnx")
