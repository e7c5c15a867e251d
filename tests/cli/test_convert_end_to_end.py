"""The installed command, as a user runs it: exit code, stdout, stderr, and the files that are left."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from pathlib import Path

import numpy as np
import onnxruntime
import pytest
import torch

from fixtures import malformed
from fixtures.torch_models import EXAMPLES

ROOT = Path(__file__).resolve().parents[2]
COMMAND = shutil.which("graphkit", path=str(Path(sys.executable).parent)) or "graphkit"


def graphkit(folder: Path, *arguments: str, **environment: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [COMMAND, *arguments],
        cwd=folder,
        capture_output=True,
        text=True,
        check=False,
        timeout=300,
        env={**os.environ, "PYTHONPATH": str(ROOT), **environment},
    )


@pytest.fixture(scope="module")
def archive(tmp_path_factory) -> Path:
    return malformed.write(
        "torchscript.pt", tmp_path_factory.mktemp("archive"), tmp_path_factory.mktemp("c") / "canary"
    )


@pytest.mark.slow
def test_a_torchscript_archive_becomes_onnx(archive, tmp_path):
    said = graphkit(
        tmp_path, "convert", str(archive), "--shape", "input=batch,3,64,64", "--dim", "batch=1:4:8", "-o", "m.onnx"
    )
    assert said.returncode == 0, said.stderr
    assert sorted(p.name for p in tmp_path.iterdir()) == ["m.onnx", "m.onnx.parity.json"]
    assert "m.onnx" in said.stdout
    assert "capture" in said.stderr
    session = onnxruntime.InferenceSession(str(tmp_path / "m.onnx"))
    example = EXAMPLES["residual_cnn"]
    for batch in (1, 8):
        x = example.sample(batch=batch)["input"]
        with torch.no_grad():
            wanted = example.factory()(x).numpy()
        np.testing.assert_allclose(session.run(None, {"input": x.numpy()})[0], wanted, atol=1e-4, rtol=1e-4)


@pytest.mark.slow
def test_a_torchscript_archive_becomes_an_engine(archive, tmp_path):
    pytest.importorskip("tensorrt_rtx", reason="needs TensorRT-RTX")
    shape = ("--shape", "input=batch,3,64,64", "--dim", "batch=1:4:8")
    said = graphkit(tmp_path, "convert", str(archive), "--to", "trt", *shape, "-o", "m.engine", "--json", "-q")
    assert said.returncode == 0, said.stdout + said.stderr
    assert said.stderr == ""
    answer = json.loads(said.stdout, parse_constant=pytest.fail)
    assert (answer["schema"], answer["status"], answer["parity"]["status"]) == ("graphkit.convert/1", "ok", "pass")
    assert [s["name"] for s in answer["stages"]][:3] == ["capture", "optimise", "validate"]
    assert (tmp_path / "m.engine").read_bytes()[:4] in (b"vtrt", b"ftrt")
    assert {p.name for p in tmp_path.iterdir()} >= {"m.engine", "m.engine.json", "m.engine.parity.json"}


@pytest.mark.slow
def test_a_callable_of_the_working_directory_is_converted_with_the_answer_as_json(tmp_path):
    (tmp_path / "mine.py").write_text(
        "from torch import nn\n\ndef net():\n    print('hello')\n    return nn.Linear(4, 2)\n"
    )
    said = graphkit(tmp_path, "convert", "mine:net", "--shape", "input=batch,4", "--json")
    assert said.returncode == 0, said.stderr
    answer = json.loads(said.stdout, parse_constant=pytest.fail)
    assert answer["output"] == "net.onnx"
    assert answer["signature"]["outputs"] == [{"name": "output", "dtype": "float32", "shape": ["batch", 2]}]
    assert (tmp_path / "net.onnx").is_file()


BAD = {
    "empty.pt": "GK202",
    "text.pt": "GK202",
    "directory.pt": "GK202",
    "truncated_torchscript.pt": "GK203",
    "pickle_zip.pt": "GK204",
    "torchscript_from_file_on_load.pt": "GK204",
    "state_dict.pt": "GK205",
}


@pytest.mark.parametrize("name", list(BAD))
def test_a_bad_file_is_one_clear_error(name, tmp_path):
    path = malformed.write(name, tmp_path / "files", tmp_path / "canary")
    (tmp_path / "here").mkdir()
    said = graphkit(
        tmp_path / "here", "convert", str(path), "--shape", "x=4", "-q", TORCH_FORCE_NO_WEIGHTS_ONLY_LOAD="1"
    )
    assert said.returncode == 2
    assert said.stdout == ""
    assert said.stderr.startswith(f"error[{BAD[name]}]: ")
    assert said.stderr.count("error[") == 1
    assert "try:" in said.stderr
    assert "Traceback" not in said.stderr
    assert list((tmp_path / "here").iterdir()) == []
    assert malformed.bitten(tmp_path / "canary") == []


def test_a_missing_file_is_said_to_be_missing_also_as_json(tmp_path):
    said = graphkit(tmp_path, "convert", "none.pt", "--json")
    assert said.returncode == 2
    assert json.loads(said.stdout)["error"]["code"] == "GK201"


def test_an_output_that_cannot_be_written_is_refused_at_once(archive, tmp_path):
    for output in (".", "no/such/folder/m.onnx"):
        said = graphkit(tmp_path, "convert", str(archive), "--shape", "input=1,3,64,64", "-o", output)
        assert said.returncode == 2
        assert "error[GK211]" in said.stderr
    assert list(tmp_path.iterdir()) == []
