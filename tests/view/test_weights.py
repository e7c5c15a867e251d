"""Weights: the same values and the same digest however the file stores them, and never from outside the folder."""

import os
import tracemalloc

import ml_dtypes
import numpy as np
import onnx
import pytest
from onnx import TensorProto, external_data_helper, helper, numpy_helper

from graphkit import view
from graphkit.errors import CorruptFile, FileMissing, UnsafePath

SIGNED = [-2.0, 1.0, 0.0, 1.0, -1.0]
UNSIGNED = [2, 1, 0, 1, 3]
TYPED = {
    "float32": SIGNED, "float64": SIGNED, "float16": SIGNED, "bfloat16": SIGNED, "int8": SIGNED, "int16": SIGNED,
    "int32": SIGNED, "int64": SIGNED, "uint8": UNSIGNED, "uint16": UNSIGNED, "uint32": UNSIGNED, "uint64": UNSIGNED,
    "bool": [1, 0, 0, 1, 1], "complex64": [1 + 2j, -1j, 0, 1, 2], "complex128": [1 + 2j, -1j, 0, 1, 2],
    "float8e4m3fn": SIGNED, "float8e4m3fnuz": SIGNED, "float8e5m2": SIGNED, "float8e5m2fnuz": SIGNED,
    "float8e8m0": [1, 2, 4, 8, 0.5], "uint4": UNSIGNED, "int4": SIGNED, "float4e2m1": SIGNED, "uint2": UNSIGNED,
    "int2": SIGNED, "float6e2m3": SIGNED, "float6e3m2": SIGNED,
}  # fmt: skip
"""Every numeric dtype, with five values that it can hold: packed types do not fill their last byte."""

CODES = {
    name: getattr(TensorProto, {"float32": "FLOAT", "float64": "DOUBLE"}.get(name, name.upper())) for name in TYPED
}


def weight_of(tensor, folder, *, name="model.onnx"):
    path = folder / name
    model = helper.make_model(helper.make_graph([], "g", [], [], [tensor]), ir_version=10)
    path.write_bytes(model.SerializeToString())
    return view.read(path).graph.initializers[1]


@pytest.mark.parametrize("dtype", TYPED)
def test_raw_and_typed_values_are_read_alike(dtype, tmp_path):
    typed = helper.make_tensor("w", CODES[dtype], [5], np.array(TYPED[dtype]))
    values = numpy_helper.to_array(typed)
    raw = numpy_helper.from_array(values, "w")
    assert raw.HasField("raw_data")
    assert not typed.HasField("raw_data")
    ours, other = weight_of(typed, tmp_path), weight_of(raw, tmp_path)
    assert (ours.dtype, ours.dims, other.storage) == (dtype, (5,), "raw")
    for weight in (ours, other):
        read = weight.read()
        assert read.dtype == values.dtype
        np.testing.assert_array_equal(read, values)
    assert ours.digest() == other.digest()
    assert other.nbytes == len(raw.raw_data)


def test_unpacked_entries_are_read_like_packed_ones(tmp_path):
    """proto2 writers that ignore `packed` give every element a tag of its own."""
    packed = helper.make_tensor("w", TensorProto.INT64, [3], [1, -2, 2**40])
    unpacked = onnx.TensorProto(name="w", data_type=7, dims=[3]).SerializeToString()
    unpacked += b"\x38\x01" + b"\x38\xfe\xff\xff\xff\xff\xff\xff\xff\xff\x01" + b"\x38\x80\x80\x80\x80\x80\x20"
    path = tmp_path / "m.onnx"
    graph = b"\x2a" + bytes([len(unpacked)]) + unpacked
    path.write_bytes(b"\x08\x0a\x3a" + bytes([len(graph)]) + graph)
    weight = view.read(path).graph.initializers[1]
    assert weight.read().tolist() == [1, -2, 2**40]
    assert weight.digest() == weight_of(packed, tmp_path).digest()


def test_bits_that_hold_no_element_do_not_count(tmp_path):
    clean = onnx.TensorProto(name="w", data_type=TensorProto.UINT4, dims=[3], raw_data=b"\x21\x03")
    dirty = onnx.TensorProto(name="w", data_type=TensorProto.UINT4, dims=[3], raw_data=b"\x21\xf3")
    assert weight_of(clean, tmp_path).digest() == weight_of(dirty, tmp_path).digest()
    assert weight_of(dirty, tmp_path).read().astype(int).tolist() == [1, 2, 3]


def test_dtype_and_shape_are_part_of_the_digest(tmp_path):
    arrays = [np.zeros(4, np.float32), np.zeros(4, np.int32), np.zeros((2, 2), np.float32), np.zeros(3, np.float32)]
    arrays.append(np.zeros(4, np.float32) * -1)
    digests = {weight_of(numpy_helper.from_array(a, "w"), tmp_path).digest() for a in arrays}
    assert len(digests) == len(arrays)


@pytest.fixture
def external(tmp_path):
    """`external(location)`: the weight of a model whose weights were moved to weights.bin, said to be at `location`."""
    values = np.arange(300, dtype=np.float32)

    def made(location="weights.bin", **keys):
        folder = tmp_path / "model"
        folder.mkdir(exist_ok=True)
        (folder / "weights.bin").write_bytes(bytes(16) + values.tobytes())
        tensor = numpy_helper.from_array(values, "w")
        external_data_helper.set_external_data(tensor, location, **({"offset": 16, "length": 1200} | keys))
        tensor.ClearField("raw_data")
        return weight_of(tensor, folder)

    return made


def test_an_external_weight_is_read_from_its_file(external, tmp_path):
    weight = external()
    assert (weight.storage, weight.location, weight.offset, weight.length) == ("external", "weights.bin", 16, 1200)
    assert not weight.missing
    assert weight.read().tolist() == list(range(300))
    assert weight.digest() == weight_of(numpy_helper.from_array(weight.read(), "w"), tmp_path).digest()
    assert external(length=None).read().tolist() == list(range(300))


def test_a_missing_external_file_is_said_and_the_view_works(external, tmp_path):
    weight = external()
    (tmp_path / "model" / "weights.bin").unlink()
    assert weight.missing
    assert weight.nbytes == 1200
    with pytest.raises(FileMissing, match=r"'weights\.bin' is missing"):
        weight.read()


@pytest.mark.parametrize(
    "location", ["../secret.bin", "/etc/passwd", "link.bin", "folder/weights.bin", "hard.bin", "."]
)
def test_nothing_outside_the_folder_is_read(location, external, tmp_path):
    external()
    folder = tmp_path / "model"
    (tmp_path / "secret.bin").write_bytes(bytes(2000))
    (tmp_path / "elsewhere").mkdir()
    (tmp_path / "elsewhere" / "weights.bin").write_bytes(bytes(2000))
    (folder / "link.bin").symlink_to("../secret.bin")
    (folder / "folder").symlink_to("../elsewhere")
    os.link(tmp_path / "secret.bin", folder / "hard.bin")
    with pytest.raises(UnsafePath):
        external(location).digest()


def test_a_pipe_does_not_hang(external, tmp_path):
    external()
    os.mkfifo(tmp_path / "model" / "pipe.bin")
    with pytest.raises(UnsafePath):
        external("pipe.bin").read()


@pytest.mark.parametrize(
    ("keys", "said"),
    [
        ({"offset": 32}, "holds 1216 bytes, but weight `w` ends at byte 1232"),
        ({"offset": 2**62}, "holds 1216 bytes"),
        ({"offset": -4}, "the offset of its external data is '-4'"),
        ({"length": 2**63}, "has 9223372036854775808 bytes, not 1200"),
        ({"length": 8}, "has 8 bytes, not 1200"),
        ({"location": ""}, "has no location"),
    ],
)
def test_external_bounds_are_checked(keys, said, external):
    weight = external(**keys)
    assert not weight.missing
    with pytest.raises(CorruptFile, match=said):
        weight.read()


def test_values_that_do_not_fit_the_shape_are_refused(tmp_path):
    short = onnx.TensorProto(name="w", data_type=1, dims=[2], raw_data=bytes(4))
    few = helper.make_tensor("w", 1, [2], [1, 2])
    few.dims[0] = 3
    unknown = onnx.TensorProto(name="w", data_type=99, dims=[1], raw_data=bytes(4))
    for tensor, said in ((short, "has 4 bytes, not 8"), (few, "has 2 values instead of 3"), (unknown, "dtype 99")):
        with pytest.raises(CorruptFile, match=said):
            weight_of(tensor, tmp_path).read()


def test_a_number_cut_off_in_a_typed_field_is_refused(tmp_path):
    tensor = onnx.TensorProto(name="w", data_type=7, dims=[1]).SerializeToString() + b"\x3a\x02\x80\x80"
    graph = b"\x2a" + bytes([len(tensor)]) + tensor
    path = tmp_path / "m.onnx"
    path.write_bytes(b"\x3a" + bytes([len(graph)]) + graph)
    with pytest.raises(CorruptFile, match="the last number is cut off"):
        view.read(path).graph.initializers[1].read()


def test_a_file_that_changed_is_not_believed(tmp_path):
    weight = weight_of(numpy_helper.from_array(np.zeros(100, np.float32), "w"), tmp_path)
    assert weight.read().sum() == 0
    weight_of(numpy_helper.from_array(np.ones(200, np.float32), "w"), tmp_path)
    with pytest.raises(CorruptFile, match="has changed since it was looked at"):
        weight.read()


def test_a_digest_is_taken_in_pieces(tmp_path):
    weight = weight_of(numpy_helper.from_array(np.zeros(10_000_000, np.float32), "w"), tmp_path)
    tracemalloc.start()
    weight.digest()
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert peak < 4_000_000


def test_bfloat16_is_of_ml_dtypes(tmp_path):
    tensor = numpy_helper.from_array(np.array([1.5], ml_dtypes.bfloat16), "w")
    assert weight_of(tensor, tmp_path).read().dtype == ml_dtypes.bfloat16
