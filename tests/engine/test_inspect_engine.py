"""Engines looked at without a GPU, without TensorRT, and without loading them."""

from __future__ import annotations

import json
import struct
import subprocess
import sys
import venv
from importlib.util import find_spec

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from onnx import TensorProto, helper, numpy_helper

import graphkit as gk
from graphkit.engine import kernels, plan
from graphkit.engine.kernels import Kernel, in_engine, of_inspector
from graphkit.errors import CorruptFile, GraphkitError
from graphkit.model import SourceLine, set_provenance

VERSIONS = {  # first part of the version -> bits of the default engine's targets, as measured
    (1, 4, 0, 76): (0x3E, ("8.0", "8.6", "8.9", "12.0", "later")),
    (1, 5, 0, 114): (0x7E, ("8.0", "8.6", "8.9", "12.0", "12.1", "later")),
    (1, 6, 1, 120): (0x7E, ("8.0", "8.6", "8.9", "12.0", "12.1", "later")),
    (1, 7, 1, 116): (0x7E, ("8.0", "8.6", "8.9", "12.0", "12.1", "later")),
}

PROGRAM = b"""\0\x01junk
  tensor={ alignment=2 dims={ "b" 8 } mem_prop=0 name="r.1" offset=0 strides={ 8 1 } type=half }
  tensor={ alignment=2 dims={ "b" 8 } mem_prop=0 name="y.1" offset=0 strides={ 8 1 } type=float }
main {
 label bb1:
  shape_call={ name="__mye196_0" stream=0  layers="" subg_id=0 }
  corrltn={ name="stem.conv" output={"r.1" } input={"x" } layers="[ONNX Layer: stem.conv]\x1f[ONNX Layer: act]" }
  function={ name=__myl_Mean args={ "r.1" } output_args={ "y.1" } layers="[ONNX Layer: pool]" swap_ab=false }
  function={ name=__myl_Mean args={ "r.1" } output_args={ "y.1" } layers="[ONNX Layer: pool]" swap_ab=false }
}
\xff\xfe"""


def engine(path, version=(1, 7, 1, 116), mask=0x7E, body=PROGRAM):
    """An engine's header and text, as they were measured; there is no program in it."""
    size = 64 + len(body)
    head = b"vtrt" + struct.pack("<IQQ", 0, 2, size) + bytes(version) + b"vtrt" + bytes((mask,))
    path.write_bytes(head.ljust(64, b"\0") + body)
    return path


@pytest.mark.parametrize("version", VERSIONS)
def test_each_release_says_its_targets_and_kernels(tmp_path, version):
    mask, targets = VERSIONS[version]
    path = engine(tmp_path / "m.engine", version, mask)
    assert plan.read(path).targets == targets
    facts = dict(gk.inspect(path).facts)
    assert facts["version"].startswith(".".join(map(str, version)))
    assert facts["kernels"].startswith("2, of 3 ONNX nodes [best effort")


def test_kernels_are_named_with_nodes_and_dtype_each_once(tmp_path):
    assert in_engine(engine(tmp_path / "m.engine"), "1.7.1.116") == (
        Kernel("stem.conv", "corrltn", ("stem.conv", "act"), "float16"),
        Kernel("__myl_Mean", "function", ("pool",), "float32"),
    )


def test_a_release_that_nobody_looked_into_is_not_guessed_at(tmp_path):
    path = engine(tmp_path / "m.engine", (1, 9, 0, 1))
    found = gk.inspect(path)
    assert found.engine_layers is None
    assert "1.9.0.1 keeps the layers of its kernels is not known" in found.notes[-1]


@given(st.data())
def test_damage_in_the_body_never_ends_the_inspection(tmp_path_factory, data):
    body = bytearray(PROGRAM)
    for _ in range(data.draw(st.integers(1, 12))):
        body[data.draw(st.integers(0, len(body) - 1))] = data.draw(st.integers(0, 255))
    path = engine(tmp_path_factory.mktemp("e") / "m.engine", body=bytes(body))
    assert len(in_engine(path, "1.7.1.116")) <= 3


@pytest.mark.parametrize("kept", [3, 40, 64, 200])
def test_a_truncated_engine_is_one_error(tmp_path, kept):
    path = engine(tmp_path / "m.engine")
    path.write_bytes(path.read_bytes()[:kept])
    with pytest.raises(GraphkitError) as caught:
        gk.inspect(path)
    assert caught.value.exit_code == 2
    if kept > 4:
        assert isinstance(caught.value, CorruptFile)


def test_the_inspector_of_both_releases_is_understood():
    """`Format/Datatype` is TensorRT 10's; keys of their own are 11's; a name alone is an engine without detail."""
    ten = {"Name": "a + b", "LayerType": "gemm", "Metadata": "[ONNX Layer: a]\x1e[ONNX Layer: b]"}
    ten["Outputs"] = [{"Name": "y", "Format/Datatype": "Row major linear FP16 format"}]
    eleven = {"Name": "c", "LayerType": "gemm", "Metadata": "[ONNX Layer: c]"}
    eleven["Outputs"] = [{"Name": "z", "Format": "Row major linear", "DataType": "Float"}]
    assert of_inspector({"Layers": [ten, eleven, "bare"], "Bindings": ["x", "y"]}) == (
        Kernel("a + b", "gemm", ("a", "b"), "float16"),
        Kernel("c", "gemm", ("c",), "float32"),
        Kernel("bare", "", ()),
    )
    assert of_inspector({"I/O Tensors": []}) == ()


# --- the sidecar ---------------------------------------------------------------------------------------------------


def described(path, **changes):
    from graphkit.model import file_sha256

    spec = [{"name": "x", "dtype": "float32", "shape": ["batch", 3]}]
    facts = {
        "schema": "graphkit.engine/1",
        "engine": {"name": path.name, "sha256": file_sha256(path), "size": path.stat().st_size, "layers": 7},
        "model": {
            "sha256": "1" * 64, "signature": {"inputs": spec, "outputs": spec}, "opset": 20, "nodes": 9,
            "origin": {"kind": "torch module", "name": "net", "sha256": "2" * 64},
        },
        "profiles": [{"x": {"min": [1, 3], "opt": [4, 3], "max": [8, 3]}}] * 2,
        "tf32": True, "precision": {"compute": {"float16": 3}, "weights": {"float16": 512}}, "targets": ["8.6"],
        **changes,
    }  # fmt: skip
    path.with_name(f"{path.name}.json").write_text(json.dumps(facts))


def test_the_sidecar_says_what_the_engine_cannot(tmp_path):
    path = engine(tmp_path / "m.engine")
    described(path)
    found = gk.inspect(path)
    facts = dict(found.facts)
    assert [str(spec) for spec in found.inputs] == ["x: float32[batch, 3]"]
    assert (facts["profile 1"], facts["profile 2"]) == ("x 1x3 4x3 8x3",) * 2
    assert facts["precision"] == "compute float16 3 layers; weights float16 512 bytes"
    assert facts["source"] == "sha256 222222222222"
    assert facts["built for"] == "8.6"


def test_a_sidecar_of_another_engine_is_not_believed_though_the_size_agrees(tmp_path):
    path = engine(tmp_path / "m.engine")
    described(path)
    data = bytearray(path.read_bytes())
    data[-1] ^= 1
    path.write_bytes(data)
    found = gk.inspect(path)
    assert found.inputs is None
    assert any("its sha256 differs" in note for note in found.notes)


@pytest.mark.parametrize("changes", [{"profiles": [3]}, {"kernels": [{"name": "x"}]}, {"model": {}}])
def test_a_damaged_sidecar_is_said_and_ends_nothing(tmp_path, changes):
    path = engine(tmp_path / "m.engine")
    described(path, **changes)
    found = gk.inspect(path)
    assert found.inputs is None
    assert any("is damaged: it was not used" in note for note in found.notes)


def test_kernels_carry_the_users_lines_where_the_graph_is_beside_them(make, tmp_path):
    model = make([helper.make_node("Relu", ["x"], ["y"], name="act")], [("x", 1, [4])], [("y", 1, [4])])
    set_provenance(next(iter(model.ir.graph)), [SourceLine("stem", "net.py", 7, "Net.forward")])
    model.save(tmp_path / "m.engine.onnx")
    stem, pool = gk.inspect(engine(tmp_path / "m.engine")).engine_layers
    assert stem.sources == ("net.py:7 in Net.forward (module `stem`)",)
    assert pool.sources == ()
    (tmp_path / "m.engine.onnx").write_bytes(b"\x08")
    assert gk.inspect(tmp_path / "m.engine").engine_layers[0].sources == ()


# --- real engines --------------------------------------------------------------------------------------------------


def small_network():
    """Conv, Relu and a MatMul in float16, which every target builds."""
    half = TensorProto.FLOAT16
    nodes = [
        helper.make_node("Conv", ["x", "w"], ["c"], name="stem.conv", pads=[1] * 4),
        helper.make_node("Relu", ["c"], ["r"], name="act"),
        helper.make_node("GlobalAveragePool", ["r"], ["p"], name="pool"),
        helper.make_node("Flatten", ["p"], ["f"], name="flat"),
        helper.make_node("MatMul", ["f", "v"], ["y"], name="head mm"),
    ]
    weights = [
        numpy_helper.from_array(np.ones(shape, np.float16), name)
        for name, shape in (("w", (8, 8, 3, 3)), ("v", (8, 8)))
    ]
    ends = [helper.make_tensor_value_info("x", half, [2, 8, 8, 8]), helper.make_tensor_value_info("y", half, [2, 8])]
    graph = helper.make_graph(nodes, "g", ends[:1], ends[1:], weights)
    return helper.make_model(graph, opset_imports=[helper.make_opsetid("", 18)], ir_version=9)


BARE = """
import sys
import tensorrt_rtx as trt
builder = trt.Builder(logger := trt.Logger(trt.Logger.ERROR))
network = builder.create_network(0)
assert trt.OnnxParser(network, logger).parse_from_file(sys.argv[1])
engine = builder.build_serialized_network(network, builder.create_builder_config())
open(sys.argv[2], "wb").write(memoryview(engine))
"""


def check_real(path, release):
    found = gk.inspect(path)
    facts = dict(found.facts)
    assert facts["version"].startswith(release)
    assert facts["size"] == "as the header says"
    assert "8.6" in facts["targets"]
    assert facts["targets"].endswith("later")
    assert {"stem.conv", "act", "pool", "head mm"} <= {n for layer in found.engine_layers for n in layer.nodes}
    assert {layer.dtype for layer in found.engine_layers} == {"float16"}
    path.write_bytes(path.read_bytes()[:-1000])
    with pytest.raises(CorruptFile, match="its header says"):
        gk.inspect(path)


@pytest.mark.skipif(find_spec("tensorrt_rtx") is None, reason="tensorrt-rtx is not installed")
def test_an_engine_of_the_installed_release_is_read(tmp_path):
    (tmp_path / "m.onnx").write_bytes(small_network().SerializeToString())
    line = [sys.executable, "-c", BARE, str(tmp_path / "m.onnx"), str(tmp_path / "m.engine")]
    subprocess.run(line, check=True, capture_output=True)
    check_real(tmp_path / "m.engine", kernels.KNOWN[-1])


@pytest.mark.slow
@pytest.mark.parametrize("release", ["1.4.0.76", "1.5.0.114", "1.6.1.120"])
def test_engines_of_other_releases_are_read(tmp_path, release):
    """Each release in an environment of its own; where its wheel (200 MB) cannot be had, it is skipped."""
    import os

    if not os.environ.get("GRAPHKIT_TEST_DOWNLOADS"):
        pytest.skip("downloads 200 MB: set GRAPHKIT_TEST_DOWNLOADS=1")
    venv.create(tmp_path / "venv", with_pip=False)
    python = str(tmp_path / "venv" / "bin" / "python")
    install = [sys.executable, "-m", "pip", "--python", python, "install", "-q", f"tensorrt-rtx=={release}", "numpy"]
    got = subprocess.run(install, capture_output=True, text=True)
    if got.returncode:
        pytest.skip(f"tensorrt-rtx {release} cannot be had: {got.stderr.strip().splitlines()[-1:]}")
    (tmp_path / "m.onnx").write_bytes(small_network().SerializeToString())
    line = [python, "-c", BARE, str(tmp_path / "m.onnx"), str(tmp_path / "m.engine")]
    subprocess.run(line, check=True, capture_output=True)
    check_real(tmp_path / "m.engine", release)
