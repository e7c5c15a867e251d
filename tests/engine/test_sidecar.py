from __future__ import annotations

import hashlib
import json
from importlib.util import find_spec

import pytest

import graphkit as gk
from graphkit.engine import sidecar
from graphkit.engine.builder import BuildRequest
from graphkit.engine.rtx import RtxBuilder
from graphkit.errors import CannotWrite, CorruptFile, FileMissing
from graphkit.shapes import DimRange

pytestmark = pytest.mark.skipif(find_spec("tensorrt_rtx") is None, reason="tensorrt-rtx is not installed")


@pytest.fixture
def built(cnn, tmp_path):
    request = BuildRequest(cnn, (DimRange("batch", 1, 4, 8),), ("8.6",), tf32=False)
    return RtxBuilder().build(request, tmp_path / "m.engine"), request


def test_it_says_what_the_engine_cannot(built, tmp_path):
    engine, request = built
    path = sidecar.write(engine, request)
    assert path == tmp_path / "m.engine.json"
    said = json.loads(path.read_text())
    assert said["schema"] == "graphkit.engine/1"
    assert said["engine"]["sha256"] == hashlib.sha256(engine.path.read_bytes()).hexdigest()
    assert said["targets"] == ["8.6"]
    assert said["tf32"] is False
    assert said["profiles"] == [{"x": {"min": [1, 3, 16, 16], "opt": [4, 3, 16, 16], "max": [8, 3, 16, 16]}}]
    assert said["precision"]["compute"] == {"float32": 2}
    assert said["model"]["origin"]["name"] == "zoo:Small"
    assert said["model"]["signature"]["outputs"] == [{"name": "logits", "dtype": "float32", "shape": ["batch", 5]}]
    assert set(said["versions"]) == {"tensorrt-rtx", "polygraphy", "graphkit"}


def test_the_model_digest_is_that_of_the_onnx_file(built, cnn, tmp_path):
    engine, _ = built
    cnn.save(tmp_path / "m.onnx")
    assert engine.model_sha256 == hashlib.sha256((tmp_path / "m.onnx").read_bytes()).hexdigest()


def test_it_is_the_same_every_time_and_names_no_folder(built, tmp_path):
    engine, request = built
    first = sidecar.write(engine, request).read_bytes()
    again = RtxBuilder().build(request, engine.path)
    assert sidecar.write(again, request).read_bytes() == first
    assert str(tmp_path).encode() not in first


def test_a_folder_in_its_place_is_refused(built):
    engine, request = built
    sidecar.path_for(engine.path).mkdir()
    with pytest.raises(CannotWrite):
        sidecar.write(engine, request)


def test_the_graph_that_an_engine_was_built_from_is_found_and_checked(built, cnn, tmp_path):
    engine, request = built
    with pytest.raises(FileMissing, match=r"m\.engine\.onnx"):
        sidecar.graph_of(engine.path)
    sidecar.write(engine, request)
    cnn.save(tmp_path / "m.engine.onnx")
    assert sidecar.graph_of(engine.path) == tmp_path / "m.engine.onnx"
    assert gk.diff(engine.path, tmp_path / "m.engine.onnx").empty
    (tmp_path / "m.engine.onnx").write_bytes((tmp_path / "m.engine.onnx").read_bytes() + b"\x1a\x00")
    with pytest.raises(CorruptFile, match="is not the graph"):
        gk.diff(engine.path, engine.path)
