"""Every kind of file that graphkit knows, without the framework that wrote it; and every file that is none."""

import hashlib
import json
import struct
import subprocess
import sys

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper, numpy_helper

import graphkit as gk
from fixtures import malformed
from graphkit.analyze.checkpoint import tensors as checkpoint_tensors
from graphkit.analyze.inert_pickle import tensors_in
from graphkit.errors import BadOption, CorruptFile, FileMissing, GraphkitError, UnknownFormat, UnknownName
from tests.analyze.graphs import model

MLP = 16 * 32 + 32 + 32 * 32 + 32 + 32 * 4 + 4


@pytest.fixture(scope="module")
def files(tmp_path_factory):
    folder = tmp_path_factory.mktemp("malformed")
    canary = folder / "canary"
    return malformed.write_all(folder / "files", canary), canary


@pytest.mark.filterwarnings("ignore::DeprecationWarning", "ignore::FutureWarning")
def test_every_file_is_told_or_refused_and_none_runs_code(files):
    paths, canary = files
    for name, path in paths.items():
        if name in malformed.WELL_FORMED or name in malformed.RUNS_CODE:
            assert gk.inspect(path).kind, name
            continue
        with pytest.raises(GraphkitError) as caught:
            gk.inspect(path)
        assert caught.value.code in ("GK202", "GK203", "GK217"), name
        assert caught.value.remedy, name
    assert malformed.bitten(canary) == []


@pytest.mark.parametrize(
    ("name", "kind", "parameters"),
    [
        ("state_dict.pt", "PyTorch pickle", MLP),
        ("state_dict_legacy.pt", "PyTorch pickle (before 1.6)", MLP),
        ("checkpoint.pt", "PyTorch pickle", MLP),
        ("module_stock.pt", "PyTorch pickle", MLP),
        ("module_stock_legacy.pt", "PyTorch pickle (before 1.6)", MLP),
        ("weights.safetensors", "safetensors", MLP),
        ("program.pt2", "exported program (.pt2)", MLP),
        ("torchscript.pt", "TorchScript archive", None),
        ("model.tflite", "TFLite", 4),
    ],
)
@pytest.mark.filterwarnings("ignore::DeprecationWarning", "ignore::FutureWarning")
def test_weights_are_counted_in_every_format(name, kind, parameters, files):
    found = gk.inspect(files[0][name])
    assert found.kind == kind
    if parameters is None:
        from fixtures.torch_models import residual_cnn

        tensors = residual_cnn().state_dict().values()
        parameters = sum(tensor.numel() for tensor in tensors if tensor.is_floating_point())
    assert found.weights.parameters == parameters
    assert sum(each.elements for each in found.stored if each.dtype == "float32") == parameters


def test_a_program_has_its_signature_and_ranges(files):
    found = gk.inspect(files[0]["program.pt2"])
    (given,) = found.inputs
    assert (given.name, given.dtype, given.shape[1]) == ("input", "float32", 16)
    assert found.outputs[0].shape == (given.shape[0], 4)
    assert ("range of " + given.shape[0], "1 to 8") in found.facts
    assert dict(found.operators)["aten.linear.default"] == 3
    pickled = gk.inspect(files[0]["pickled_weight.pt2"])
    assert any("would run code" in note for note in pickled.notes)


def test_names_that_a_pickle_would_import_are_told(files):
    assert ("names", "posix.mkdir") in gk.inspect(files[0]["pickle_zip.pt"]).facts
    assert "torch.nn.modules.linear.Linear" in dict(gk.inspect(files[0]["module_stock.pt"]).facts)["names"]


def test_no_framework_is_imported(files):
    code = (
        "import sys, graphkit as gk; [gk.inspect(p) for p in sys.argv[1:]]; "
        "print(sorted({'torch', 'tensorflow', 'keras', 'onnx', 'onnx_ir', 'numpy', 'onnxruntime'} & set(sys.modules)))"
    )
    names = ("state_dict.pt", "torchscript.pt", "program.pt2", "weights.safetensors", "model.tflite")
    paths = [str(files[0][name]) for name in names]
    done = subprocess.run([sys.executable, "-c", code, *paths], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"


def test_a_pickle_that_calls_something_only_describes_it():
    data = b"\x80\x02cos\nsystem\nX\x04\x00\x00\x00trueq\x00\x85R."
    assert tensors_in(data) == ()
    with pytest.raises(CorruptFile, match="damaged"):
        tensors_in(data[:-4])


# --- ONNX --------------------------------------------------------------------------------------------------------


def test_missing_external_data_is_said_and_everything_else_is_known(tmp_path):
    made = model("g (float[batch,8] x) => (y) { y = MatMul(x, w) }")
    made.graph.initializer.append(numpy_helper.from_array(np.zeros((8, 4), np.float32), "w"))
    onnx.save(made, tmp_path / "m.onnx", save_as_external_data=True, location="m.data", size_threshold=0)
    assert gk.inspect(tmp_path / "m.onnx").weights.external == {"m.data": True}
    (tmp_path / "m.data").unlink()
    found = gk.inspect(tmp_path / "m.onnx")
    assert found.weights.external == {"m.data": False}
    assert found.weights.nbytes == 128
    assert str(found.graph.macs.value) == "32*batch"
    assert "m.data are missing" in found.notes[0]
    (tmp_path / "m.data").write_bytes(bytes(100))
    assert "it was cut off" in gk.inspect(tmp_path / "m.onnx").notes[0]


def test_figures_say_how_they_are_known(tmp_path):
    path = tmp_path / "m.onnx"
    path.write_bytes(model("g (float[batch,8] x, float[8,4] w) => (y) { y = MatMul(x, w) }").SerializeToString())
    figure = gk.inspect(path).graph.macs
    assert (str(figure.value), figure.status, figure.at) == ("32*batch", "symbolic", 32)
    figure = gk.inspect(path, {"batch": 8}).graph.macs
    assert (figure.value, figure.status, figure.at) == (256, "exact", 256)
    path.write_bytes(model("g (float x, float[8,4] w) => (y) { y = MatMul(x, w) }").SerializeToString())
    assert gk.inspect(path).graph.macs.status == "at least"  # a product with a scalar is not ONNX
    with pytest.raises(UnknownName, match="no dimension `seq`"):
        gk.inspect(path, {"seq": 3})


def test_the_shape_of_an_output_follows_from_the_graph(tmp_path):
    path = tmp_path / "m.onnx"
    path.write_bytes(model("g (float[batch,8] x, float[8,4] w) => (y) { y = MatMul(x, w) }").SerializeToString())
    assert gk.inspect(path).outputs[0].shape == ("batch", 4)
    assert gk.inspect(path, {"batch": 2}).outputs[0].shape == (2, 4)


def test_a_cycle_is_an_error(tmp_path):
    nodes = [helper.make_node("Neg", ["a"], ["b"]), helper.make_node("Neg", ["b"], ["a"])]
    made = helper.make_model(
        helper.make_graph(nodes, "g", [], [helper.make_tensor_value_info("a", TensorProto.FLOAT, [1])])
    )
    (tmp_path / "m.onnx").write_bytes(made.SerializeToString())
    with pytest.raises(CorruptFile, match="cycle"):
        gk.inspect(tmp_path / "m.onnx")


# --- TensorFlow --------------------------------------------------------------------------------------------------


def field(number: int, content) -> bytes:
    if isinstance(content, int):
        return varint(number << 3) + varint(content)
    content = content.encode() if isinstance(content, str) else content
    return varint(number << 3 | 2) + varint(len(content)) + content


def varint(value: int) -> bytes:
    value &= (1 << 64) - 1
    out = b""
    while value > 0x7F:
        out += bytes([value & 0x7F | 0x80])
        value >>= 7
    return out + bytes([value])


def shape_of(*dims: int) -> bytes:
    return b"".join(field(2, field(1, dim)) for dim in dims)


def node(name: str, op: str, *inputs: str, **attributes: bytes) -> bytes:
    content = field(1, name) + field(2, op) + b"".join(field(3, each) for each in inputs)
    return content + b"".join(field(5, field(1, key) + field(2, value)) for key, value in attributes.items())


def graph_def() -> bytes:
    weight = field(8, field(1, 1) + field(2, shape_of(4, 3)) + field(4, bytes(48)))
    nodes = [
        node("x", "Placeholder", dtype=field(6, 1), shape=field(7, shape_of(-1, 4))),
        node("w", "Const", dtype=field(6, 1), value=weight),
        node("y", "MatMul", "x", "w"),
    ]
    return b"".join(field(1, each) for each in nodes)


def test_a_graph_def(tmp_path):
    (tmp_path / "frozen.pb").write_bytes(graph_def())
    found = gk.inspect(tmp_path / "frozen.pb")
    assert (found.kind, dict(found.operators)) == ("frozen GraphDef", {"Const": 1, "MatMul": 1, "Placeholder": 1})
    assert [str(spec) for spec in found.inputs] == ["x: float32[?, 4]"]
    assert [spec.name for spec in found.outputs] == ["y"]
    assert (found.weights.parameters, found.weights.nbytes) == (12, 48)
    (tmp_path / "frozen.pb").write_bytes(graph_def()[:-5])
    with pytest.raises(CorruptFile, match="damaged"):
        gk.inspect(tmp_path / "frozen.pb")


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore::DeprecationWarning")
def test_what_tensorflow_and_keras_write(tmp_path):
    """One child, for TensorFlow takes long to import: it saves, and prints what the files hold."""
    code = """
import sys, os
os.environ["TF_CPP_MIN_LOG_LEVEL"] = "3"
import tensorflow as tf, keras
m = keras.Sequential([keras.layers.Input((8,)), keras.layers.Dense(4, activation="relu"), keras.layers.Dense(2)])
m.export(sys.argv[1] + "/saved"); m.save(sys.argv[1] + "/m.keras"); m.save(sys.argv[1] + "/m.h5")
"""
    subprocess.run([sys.executable, "-c", code, str(tmp_path)], capture_output=True, check=True)
    saved = gk.inspect(tmp_path / "saved")
    assert (saved.kind, saved.weights.parameters) == ("SavedModel", 8 * 4 + 4 + 4 * 2 + 2)
    assert [spec.shape for spec in saved.inputs] == [(None, 8)]
    assert [spec.shape for spec in saved.outputs] == [(None, 2)]
    assert dict(saved.operators)["MatMul"] == 2
    assert "serving_default" in dict(saved.facts)["signatures"]
    for name in ("m.keras", "m.h5"):
        found = gk.inspect(tmp_path / name)
        assert found.weights.parameters == 46, name
        assert dict(found.operators)["Dense"] == 2
        assert [spec.shape for spec in found.inputs] == [(None, 8)]
    index = tmp_path / "saved" / "variables" / "variables.index"
    whole = index.read_bytes()
    index.write_bytes(whole[:-20])
    found = gk.inspect(tmp_path / "saved")
    assert found.weights is None
    assert any("variables.index is damaged" in note for note in found.notes)
    for at in range(0, len(whole), 7):  # no byte makes it fail otherwise
        index.write_bytes(whole[:at] + bytes([whole[at] ^ 0xFF]) + whole[at + 1 :])
        checkpoint_tensors(index)
    (tmp_path / "m.keras").write_bytes((tmp_path / "m.keras").read_bytes()[:-300])
    with pytest.raises(CorruptFile):
        gk.inspect(tmp_path / "m.keras")


# --- engines -----------------------------------------------------------------------------------------------------


def engine(folder, size=200):
    header = bytearray(size)
    header[:4] = b"vtrt"
    struct.pack_into("<Q", header, 16, size)
    header[24:28] = bytes((1, 7, 1, 116))
    header[32] = 0b1000110
    path = folder / "m.engine"
    path.write_bytes(bytes(header))
    return path


def sidecar(path, size=200):
    digest = hashlib.sha256(path.read_bytes()).hexdigest()
    spec = [{"name": "x", "dtype": "float32", "shape": ["batch", 3]}]
    return {
        "schema": "graphkit.engine/1",
        "engine": {"name": "m.engine", "kind": "tensorrt-rtx", "sha256": digest, "size": size, "layers": 7},
        "model": {
            "sha256": "1" * 64, "signature": {"inputs": spec, "outputs": spec}, "opset": 20, "nodes": 9,
            "origin": {"kind": "torch module", "name": "net"},
        },
        "profiles": [], "tf32": True, "precision": "float32",
    }  # fmt: skip


def test_an_engine_says_its_version_and_targets_without_tensorrt(tmp_path):
    path = engine(tmp_path)
    found = gk.inspect(path)
    facts = dict(found.facts)
    assert found.kind == "TensorRT-RTX engine"
    assert facts["version"].startswith("1.7.1.116")
    assert facts["targets"] == "compute capability 8.0, 8.6, later"
    assert found.inputs is None
    assert "signature unknown" in found.notes[0]
    path.with_name("m.engine.json").write_text(json.dumps(sidecar(path)))
    found = gk.inspect(path)
    assert [str(spec) for spec in found.inputs] == ["x: float32[batch, 3]"]
    assert dict(found.facts)["built from"] == "torch module net"
    path.with_name("m.engine.json").write_text(json.dumps(sidecar(path, size=201)))
    assert "is of another engine" in gk.inspect(path).notes[0]
    path.with_name("m.engine.json").write_text('{"schema": "graphkit.engine/1", "engine": 3}')
    assert "is damaged" in gk.inspect(path).notes[0]
    path.write_bytes(path.read_bytes()[:-1])
    with pytest.raises(CorruptFile, match="holds 199 bytes"):
        gk.inspect(path)


# --- what is no model --------------------------------------------------------------------------------------------


def test_what_is_not_there_or_no_file(tmp_path):
    import os

    with pytest.raises(FileMissing, match="no such file"):
        gk.inspect(tmp_path / "gone.onnx")
    os.mkfifo(tmp_path / "pipe.onnx")
    with pytest.raises(FileMissing, match="not a plain file"):
        gk.inspect(tmp_path / "pipe.onnx")
    with pytest.raises(UnknownFormat, match="no SavedModel"):
        gk.inspect(tmp_path)


def test_sizes_are_for_onnx_files_only(files):
    with pytest.raises(BadOption, match="for ONNX files only"):
        gk.inspect(files[0]["model.tflite"], {"batch": 2})
