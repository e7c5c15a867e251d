"""`graphkit edit`, as it is run."""

from __future__ import annotations

import json
import re

import numpy as np
import onnx
import pytest

from tests.test_optimization import network


def test_a_part_is_written(run, tmp_path):
    network(tmp_path / "m.onnx")
    said = run("edit", "extract", "m.onnx", "--inputs", "product", "--outputs", "turn", "-o", "part.onnx")
    assert said.code == 0, said.err
    assert said.out == "wrote part.onnx\n"
    part = onnx.load(tmp_path / "part.onnx")
    onnx.checker.check_model(part, full_check=True)
    assert [i.name for i in part.graph.input] == ["product"]
    assert [o.name for o in part.graph.output] == ["negative"]


def test_two_parts_and_back(run, tmp_path):
    network(tmp_path / "m.onnx")
    assert run("edit", "split", "m.onnx", "--at", "positive", "-o", "half.onnx").code == 0
    joined = run("edit", "merge", "half.1.onnx", "half.2.onnx", "--map", "positive=positive", "-o", "both.onnx")
    assert joined.code == 0, joined.err
    assert run("diff", "m.onnx", "both.onnx", "--name-status").out.count("\nD ") == 0


def test_the_answer_as_json(run, tmp_path):
    network(tmp_path / "m.onnx")
    said = run("edit", "split", "m.onnx", "--at", "positive", "-o", "half.onnx", "--json")
    told = json.loads(said.out)
    assert (said.code, told["schema"], told["status"]) == (0, "graphkit.edit/1", "ok")
    assert [m["files"] for m in told["models"]] == [["half.1.onnx"], ["half.2.onnx"]]
    first, second = (m["signature"] for m in told["models"])
    assert [t["name"] for t in second["inputs"]] == [t["name"] for t in first["outputs"]] == ["positive"]
    said = run("edit", "cut", "m.onnx", "--after", "nowhere", "-o", "part.onnx", "--json")
    assert (said.code, json.loads(said.out)["error"]["code"]) == (2, "GK208")


@pytest.mark.parametrize(
    "words",
    ["edit mark m.onnx positive -o m.onnx", "edit split m.1.onnx --at positive -o m.onnx", "optimize m.onnx -o m.onnx"],
)
def test_the_given_model_is_not_replaced(run, tmp_path, words):
    for name in ("m.onnx", "m.1.onnx"):
        network(tmp_path / name)
    before = {path.name: path.read_bytes() for path in tmp_path.iterdir()}
    said = run(*words.split())
    assert (said.code, "the result would replace it" in said.err) == (2, True), said.err
    assert {path.name: path.read_bytes() for path in tmp_path.iterdir()} == before


def test_what_cannot_be_done_is_refused(run, tmp_path):
    network(tmp_path / "m.onnx")
    for words in (
        ("freeze", "m.onnx", "z=1"),
        ("set-dim", "m.onnx", "batch=0"),
        ("rename", "m.onnx", "x"),
        ("cut", "m.onnx", "--after", "nowhere"),
        ("layout", "m.onnx", "x", "nhwc"),
    ):
        said = run("edit", *words, "-o", "out.onnx")
        assert said.code == 2, words
    assert not (tmp_path / "out.onnx").exists()


def _boxes(path):
    nodes = [onnx.helper.make_node("Identity", ["b"], ["boxes"]), onnx.helper.make_node("Softmax", ["s"], ["scores"])]
    nodes.append(onnx.helper.make_node("If", ["c"], ["z"], then_branch=_branch("Neg"), else_branch=_branch("Abs")))
    made = onnx.helper.make_tensor_value_info
    shapes = {"b": ["n", 9, 4], "s": ["n", 3, 9]}
    results = {"boxes": shapes["b"], "scores": shapes["s"], "z": shapes["s"]}
    graph = onnx.helper.make_graph(
        nodes,
        "boxes",
        [*(made(name, 1, shape) for name, shape in shapes.items()), made("c", 9, [])],
        [*(made(name, 1, shape) for name, shape in results.items()), made("s", 1, shapes["s"])],
    )
    onnx.save(onnx.helper.make_model(graph, opset_imports=[onnx.helper.make_opsetid("", 12)], ir_version=8), path)


def _branch(op):
    made = onnx.helper.make_tensor_value_info("r", 1, ["n", 3, 9])
    return onnx.helper.make_graph([onnx.helper.make_node(op, ["s"], ["r"])], op, [], [made])


@pytest.mark.parametrize(
    ("words", "why"),
    [
        ("freeze m.onnx c=3", "`c`"),
        ("freeze m.onnx b=wrong.npy", r"takes \[n,9,4\], not an array of shape \[1, 8, 4\]"),
        ("set-dim m.onnx n=2.5", "cannot be called"),
        ("set-dim m.onnx n=k+1", "cannot be called"),
        ("set-dim m.onnx n=99999999999999999999", "int64"),
        ("rename m.onnx boxes=r", "taken"),
        ("extract m.onnx --inputs ,", "give --inputs"),
        ("merge m.onnx m.onnx --map scores=s", "both input and output"),
        ("normalise m.onnx b --mean 1 --std nan", "above 0"),
        ("normalise m.onnx b --mean inf --std 1", "finite"),
        ("normalise m.onnx b --mean 1,2 --std 1 --axis 9", "do not fit"),
        ("normalise m.onnx b --mean 1 --std 1 --scale 0", "factor"),
        ("normalise m.onnx b --mean 1 --std 1 --dtype float99", "unknown"),
        ("normalise m.onnx b --mean 1 --std 1 --dtype string", "unknown"),
        ("resize m.onnx b", "image"),
        ("softmax m.onnx scores --axis 5", "no axis 5"),
        ("softmax m.onnx scores --axis 1", "opset 12 takes all axes"),
        ("softmax m.onnx s", "passed through"),
        ("top-k m.onnx scores 3 --axis -4", "no axis -4"),
        ("top-k m.onnx scores 0", "1 or more"),
        ("nms m.onnx --boxes boxes --scores scores --iou 2", "between 0 and 1"),
        ("nms m.onnx --boxes scores --scores boxes", "not 4"),
    ],
)
def test_a_bad_argument_gets_a_code_and_no_file(run, tmp_path, words, why):
    _boxes(tmp_path / "m.onnx")
    np.save(tmp_path / "wrong.npy", np.zeros((1, 8, 4), np.float32))
    said = run("edit", *words.split(), "-o", "out.onnx")
    assert said.code == 2, said.err
    assert "error[GK2" in said.err
    assert re.search(why, " ".join(said.err.split())), said.err
    assert not (tmp_path / "out.onnx").exists()


@pytest.mark.parametrize(
    "words",
    [
        "fp16-io m.onnx",
        "layout m.onnx s 0,2,1",
        "extract m.onnx --outputs scores,scores",
        "normalise m.onnx b --mean 1 --std 2 --axis 9",
        "top-k m.onnx scores 2",
        "nms m.onnx --boxes boxes --scores scores",
    ],
)
def test_what_is_written_is_valid(run, tmp_path, words):
    """Also where an input is an output as it is, and where the same is done twice."""
    _boxes(tmp_path / "m.onnx")
    assert run("edit", *words.split(), "-o", "once.onnx").code == 0
    onnx.checker.check_model(onnx.load(tmp_path / "once.onnx"), full_check=True)
    again = run("edit", *words.replace("m.onnx", "once.onnx").split(), "-o", "twice.onnx")
    if again.code == 0:
        onnx.checker.check_model(onnx.load(tmp_path / "twice.onnx"), full_check=True)
    else:
        assert words.startswith("fp16-io")  # nothing is float32 any more
