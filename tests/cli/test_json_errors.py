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
