"""Weights in a file of their own: the graph stays what it was, and what cannot be unpacked is left alone."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import onnx
import onnx_ir as ir
import pytest
from onnx import helper, numpy_helper, parser

from graphkit.model import load
from graphkit.parity import unpack as room
from graphkit.parity.unpack import WEIGHTS, unpack

RNG = np.random.default_rng(0)
LARGE = {"w": RNG.standard_normal((128, 130), dtype=np.float32), "v": RNG.standard_normal((130, 128)).astype("float16")}
TEXT = """<ir_version: 10, opset_import: ["" : 20], producer_name: "p">
    g (float[n, 128] x) => (float[n, 128] y) {
        a = MatMul (x, w)  c = Cast <to = 1> (v)  b = MatMul (a, c)  y = Add (b, s) }"""


@pytest.fixture(autouse=True)
def any_size(monkeypatch):
    monkeypatch.setattr(room, "_WORTH", 1)


def write(path: Path) -> Path:
    proto = parser.parse_model(TEXT)
    proto.graph.initializer.extend(numpy_helper.from_array(a, n) for n, a in LARGE.items())
    proto.graph.initializer.append(numpy_helper.from_array(np.float32(2), "s"))
    proto.metadata_props.add(key="k", value="v")
    onnx.save(proto, path)
    return path


def test_the_model_is_the_same_with_its_weights_outside(tmp_path):
    path, folder = write(tmp_path / "m.onnx"), tmp_path / "unpacked"
    folder.mkdir()
    made = unpack(path, folder)
    assert (made, made.stat().st_size < 40_000) == (folder / "m.onnx", True)
    again, before = onnx.load(made), onnx.load(path)
    for proto in (again, before):
        for tensor in proto.graph.initializer:
            value = numpy_helper.to_array(tensor)
            tensor.CopyFrom(numpy_helper.from_array(value, tensor.name))
    assert again == before


def test_weights_are_mapped_and_aligned(tmp_path):
    folder = tmp_path / "unpacked"
    folder.mkdir()
    model = load(unpack(write(tmp_path / "m.onnx"), folder))
    tensors = {n: v.const_value for n, v in model.ir.graph.initializers.items()}
    assert {n for n, t in tensors.items() if isinstance(t, ir.ExternalTensor)} == {"w"}
    assert tensors["w"].offset % 4096 == 0
    assert np.array_equal(tensors["w"].numpy(), LARGE["w"])


def test_what_is_small_outside_already_or_no_model_is_left_alone(tmp_path, monkeypatch):
    folder = tmp_path / "unpacked"
    folder.mkdir()
    path = write(tmp_path / "m.onnx")
    monkeypatch.setattr(room, "_WORTH", 1 << 30)
    assert unpack(path, folder) is None
    monkeypatch.setattr(room, "_WORTH", 1)
    onnx.save(onnx.load(path), tmp_path / "outside.onnx", save_as_external_data=True, location="d", size_threshold=0)
    assert unpack(tmp_path / "outside.onnx", folder) is None
    data = path.read_bytes()
    for content in (data[: len(data) // 2], b"\x0b" + data, b"no model at all", data[:-1]):
        path.write_bytes(content)
        assert unpack(path, folder) is None
    assert list(folder.iterdir()) == []


def test_weights_that_are_not_raw_bytes_stay_inside(tmp_path):
    folder = tmp_path / "unpacked"
    folder.mkdir()
    proto = parser.parse_model(TEXT)
    flat = [float(x) for x in LARGE["w"].reshape(-1)]
    proto.graph.initializer.append(helper.make_tensor("w", onnx.TensorProto.FLOAT, LARGE["w"].shape, flat))
    onnx.save(proto, tmp_path / "m.onnx")
    assert unpack(tmp_path / "m.onnx", folder) is None
    assert not (folder / WEIGHTS).exists()
