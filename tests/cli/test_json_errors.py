"""With `--json`, stdout holds an answer even where the answer is an error."""

import json

import pytest

from tests.test_digests import two_layers


@pytest.mark.parametrize(
    "command",
    [
        ("convert", "gone.onnx", "--to", "onnx", "-o", "out.onnx"),
        ("validate", "gone.onnx", "gone.onnx"),
        ("locate", "gone.onnx", "gone.onnx"),
        ("reduce", "gone.onnx", "--until", "ort"),
        ("optimize", "gone.onnx"),
        ("quantize", "gone.onnx", "--precision", "fp16"),
        ("build", "gone.onnx"),
        ("bench", "gone.onnx"),
        ("inspect", "gone.onnx"),
        ("check", "gone.onnx", "--target", "rtx"),
        ("hash", "gone.onnx"),
        ("diff", "gone.onnx", "gone.onnx"),
    ],
    ids=lambda command: command[0],
)
def test_a_file_that_is_not_there(run, command):
    said = run(*command, "--json")
    told = json.loads(said.out)
    assert (said.code, told["schema"], told["error"]["code"]) == (2, f"graphkit.{command[0]}/1", "GK201")


def test_the_given_model_is_not_replaced_by_a_lowered_one(run, tmp_path):
    given = two_layers().SerializeToString()
    (tmp_path / "m.onnx").write_bytes(given)
    said = run("quantize", "m.onnx", "--precision", "fp16", "-o", "m.onnx", "-q", "--json")
    assert (said.code, json.loads(said.out)["error"]["code"]) == (2, "GK212")
    assert (tmp_path / "m.onnx").read_bytes() == given


def test_a_picture_that_cannot_be_written_is_refused_before_the_work(run, tmp_path):
    (tmp_path / "m.onnx").write_bytes(two_layers().SerializeToString())
    asked = ("quantize", "m.onnx", "--precision", "int8", "--uncalibrated", "--max-drop", "0.5", "-q", "--json")
    said = run(*asked, "--plot", "gone/p.svg")
    assert (said.code, json.loads(said.out)["error"]["code"]) == (2, "GK211")
    assert [path.name for path in tmp_path.iterdir()] == ["m.onnx"]


@pytest.mark.parametrize("words", ["optimize m.onnx --verify none", "quantize m.onnx --precision fp16"])
def test_success_says_so_where_an_error_would_be_said(run, tmp_path, words):
    (tmp_path / "m.onnx").write_bytes(two_layers().SerializeToString())
    said = run(*words.split(), "-q", "--json")
    assert (said.code, json.loads(said.out)["status"]) == (0, "ok")
