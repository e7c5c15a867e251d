"""`graphkit hash`, as it is run."""

import json

import graphkit as gk
from tests.test_digests import changed, renamed, two_layers


def write(folder, **named):
    for name, model in named.items():
        (folder / f"{name}.onnx").write_bytes(model.SerializeToString())


def test_each_file_has_four_lines(run, tmp_path):
    write(tmp_path, a=two_layers(), b=renamed(two_layers()))
    said = run("hash", "a.onnx", "b.onnx")
    assert (said.code, said.err) == (0, "")
    first, second = said.out.strip().split("\n\n")
    name, *rows = first.splitlines()
    assert name == "a.onnx"
    assert [row.split() for row in rows] == [list(pair) for pair in gk.digest("a.onnx").to_json().items()]
    assert second == first.replace("a.onnx", "b.onnx")


def test_json_is_one_document(run, tmp_path):
    write(tmp_path, a=two_layers(), b=changed(lambda m: None))
    told = json.loads(run("hash", "a.onnx", "b.onnx", "--json").out)
    assert told["schema"] == "graphkit.hash/1"
    assert [m["file"] for m in told["models"]] == ["a.onnx", "b.onnx"]
    assert told["models"][0]["structure"] == told["models"][1]["structure"]
    assert set(told["models"][0]) == {"file", "model", "structure", "weights", "signature"}


def test_a_file_that_cannot_be_read_is_a_bad_request(run, tmp_path):
    (tmp_path / "cut.onnx").write_bytes(two_layers().SerializeToString()[:-9])
    said = run("hash", "cut.onnx")
    assert (said.code, said.out) == (2, "")
    assert said.err.startswith("error[GK203]: cut.onnx is not a valid ONNX file: ")
    assert run("hash", "gone.onnx").err.startswith("error[GK201]: no such file: gone.onnx")
