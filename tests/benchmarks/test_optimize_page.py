"""The page of the optimisers: what is counted, what is kept, and what it shows."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import onnx
from onnx import helper, numpy_helper

from benchmarks import optimize_kept, optimize_pages
from benchmarks.optimize_measures import compact_weights


def _model(body: str) -> onnx.ModelProto:
    graph = onnx.parser.parse_graph(body)
    return helper.make_model(graph, opset_imports=[helper.make_opsetid("", 20)], ir_version=10)


def test_a_constant_of_shape_is_a_weight_only_where_its_shape_is_known() -> None:
    weight = _model("g (float[2] x) => (float[2] y) <int64[1] s = {2}> { w = ConstantOfShape(s) y = Add(x, w) }")
    node = _model("g (float[n] x) => (float[n] y) { s = Shape(x) w = ConstantOfShape(s) y = Add(x, w) }")
    spelled = _model("g (float[2] x) => (float[2] y) { s = Constant<value_ints=[2]>() w = ConstantOfShape(s) "
                     "y = Add(x, w) }")  # fmt: skip
    assert [compact_weights(each) for each in (weight, node, spelled)] == [1, 0, 1]


def test_compact_weights_of_bodies_are_seen() -> None:
    outer = helper.make_graph(
        [
            helper.make_node(
                "If",
                ["c"],
                ["y"],
                then_branch=helper.make_graph(
                    [helper.make_node("ConstantOfShape", ["s"], ["w"])], "a", [], [_info("w")]
                ),
                else_branch=helper.make_graph([helper.make_node("Identity", ["x"], ["v"])], "b", [], [_info("v")]),
            )
        ],
        "outer",
        [_info("x"), helper.make_tensor_value_info("c", onnx.TensorProto.BOOL, [])],
        [_info("y")],
        [numpy_helper.from_array(np.array([2], np.int64), "s")],
    )
    assert compact_weights(helper.make_model(outer)) == 1


def _info(name: str) -> onnx.ValueInfoProto:
    return helper.make_tensor_value_info(name, onnx.TensorProto.FLOAT, [2])


def test_what_is_kept_comes_back(tmp_path: Path) -> None:
    work, store, other = tmp_path / "work", tmp_path / "store", tmp_path / "other"
    (work / "peer").mkdir(parents=True)
    (work / "streams").mkdir()
    (work / "peer" / "a.b.graph.json").write_text(json.dumps({"nodes": 3, "ops": {"Add": 3}, "wrong": ""}))
    (work / "peer" / "a.b.json").write_text(json.dumps({"error": f"no such file: '{'/tmp'}/x/y.onnx'"}))
    lines = [
        {"name": "one", "verdict": "good", "detail": ""},
        {"name": "two", "verdict": "wrong", "detail": "not equal"},
        {"name": "three", "verdict": "good", "detail": ""},
        {"end": True, "on": "2026-01-01"},
    ]
    (work / "streams" / "nodes.peer.jsonl").write_text("".join(f"{json.dumps(line)}\n" for line in lines))
    (work / "streams" / "patterns.peer.jsonl").write_text(f"{json.dumps(lines[0])}\n")  # not at its end

    optimize_kept.pack(work, ["peer", "never run"], store)
    optimize_kept.unpack(other, ["peer", "never run"], store)

    assert [file.name for file in store.iterdir()] == ["peer.json"]
    assert json.loads((other / "peer" / "a.b.graph.json").read_text()) == {"nodes": 3, "wrong": ""}
    assert json.loads((other / "peer" / "a.b.json").read_text()) == {"error": "no such file: 'a file'"}
    assert not (other / "streams" / "patterns.peer.jsonl").exists()
    back = [json.loads(line) for line in (other / "streams" / "nodes.peer.jsonl").read_text().splitlines()]
    assert [line.get("verdict") for line in back] == ["good", "good", "wrong", None]
    assert back[-1] == lines[-1]


def test_what_is_there_is_not_overwritten(tmp_path: Path) -> None:
    (tmp_path / "work" / "peer").mkdir(parents=True)
    kept = tmp_path / "work" / "peer" / "a.json"
    kept.write_text("1")
    optimize_kept.pack(tmp_path / "work", [], tmp_path / "store")
    (tmp_path / "store" / "peer.json").write_text('{"graphs": {"a": 2}, "speed": {}, "streams": {}}')
    optimize_kept.unpack(tmp_path / "work", ["peer"], tmp_path / "store")
    assert kept.read_text() == "1"


def _row(nodes: int, **more: object) -> dict[str, object]:
    return {"nodes": nodes, "counted": nodes, "foreign": {}, "wrong": "", **more}


def test_the_page_names_every_graph_where_a_peer_has_fewer() -> None:
    none = {"error": "failed"}
    both = {"given": _row(9), "graphkit": _row(5, revision="r")}
    first = {**both, "onnxsim": _row(4), "ort_basic": _row(3, wrong="x"), "ort_all": none}
    second = {**both, "onnxsim": _row(7), "ort_basic": none, "ort_all": _row(2, foreign={"c": 1})}
    found = {"first": first, "second": second}
    page = optimize_pages.nodes(found, "r")
    assert "operators: fewer nodes on 1, as many on 0, more on 1: first 5 against 4 (onnxsim)" in page
    assert "any operators: fewer nodes on 0, as many on 0, more on 2" in page


def test_a_stale_cell_is_marked_and_the_full_count_stands_behind() -> None:
    found = {"g": {"given": _row(9), "graphkit": {**_row(5, revision="old"), "counted": 7}}}
    assert "| g | 9 | 5† (7) |" in optimize_pages.nodes(found, "new")
    assert "| g | 9 | 5 (7) |" in optimize_pages.nodes(found, "old")
