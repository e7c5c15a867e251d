"""A TFLite file is read whole or refused; no byte outside of it is touched, and no native code sees a damaged one."""

from __future__ import annotations

import contextlib
import struct

import pytest
from hypothesis import given
from hypothesis import strategies as st

from fixtures.tflite_files import CUSTOM, INT8, adding
from graphkit.capture.tflite_flatbuffer import FlatBuffer
from graphkit.capture.tflite_schema import public_names, read
from graphkit.errors import CorruptFile

NAN = float("nan")
SOUND = adding(signatures=[("serving_default", "left", "sum")])


@pytest.fixture(scope="module")
def file(tmp_path_factory):
    return tmp_path_factory.mktemp("tflite") / "m.tflite"


def test_a_file_is_read_with_its_free_dimensions_and_names(file):
    file.write_bytes(SOUND)
    found = read(file)
    (graph,) = found.subgraphs
    assert [(t.name, t.dtype, t.shape, t.constant) for t in graph.tensors] == [
        ("x", "float32", (-1, 4), False),
        ("bias", "float32", (4,), True),
        ("y", "float32", (-1, 4), False),
    ]
    assert (graph.operators[0].inputs, graph.operators[0].outputs) == ((0, 1), (2,))
    assert list(public_names(found, found.signatures[0])) == ["left", "sum"]
    assert list(public_names(found, None)) == ["x", "y"]


@pytest.mark.parametrize(
    ("changes", "says"),
    [
        ({"version": 2}, "version 2"),
        ({"buffer": 9}, "buffer 9 of 2"),
        ({"bias": bytes(12)}, r"float32\[4\] and has 12 bytes"),
        ({"bias_type": 77}, "type of number 77"),
        ({"free": (-2, 4)}, r"shape \[-2, 4\]"),
        ({"free": (1 << 30, 1 << 30)}, "has the shape"),
        ({"operands": (0, 7)}, "tensor 7 of 3"),
        ({"operands": (-2, 1)}, "tensor -2 of 3"),
        ({"operands": (2, 1)}, "nothing has made"),
        ({"outputs": (3,)}, "tensor 3 of 3"),
        ({"bias_type": INT8, "bias": bytes(4), "bias_scales": (1.0, NAN, 1.0, 1.0)}, "not finite"),
        ({"bias_type": INT8, "bias": bytes(4), "bias_scales": (1.0, 1.0, 1.0)}, "3 scales"),
        ({"signatures": [("a", "", "sum")]}, "names in signature 0"),
        ({"names": ("x\0y", "bias", "y")}, "is no text"),
    ],
    ids=lambda value: "-".join(value) if isinstance(value, dict) else None,
)
def test_what_a_file_says_must_fit_together(changes, says, file):
    file.write_bytes(adding(**changes))
    with pytest.raises(CorruptFile, match=says) as caught:
        read(file)
    assert caught.value.message.startswith("m.tflite is damaged: ")
    assert caught.value.remedy


def test_an_operator_may_be_custom_and_a_constant_quantised(file):
    file.write_bytes(
        adding(code=CUSTOM, custom="Mine", bias_type=INT8, bias=bytes(4), bias_scales=(0.5, 1.0, 2.0, 4.0))
    )
    (graph,) = read(file).subgraphs
    assert graph.operators[0].custom == "Mine"
    assert graph.tensors[1].scales == (0.5, 1.0, 2.0, 4.0)


def test_no_truncated_file_is_read(file):
    for length in range(8, len(SOUND) - 16, 3):  # the last bytes are padding
        file.write_bytes(SOUND[:length])
        with pytest.raises(CorruptFile):
            read(file)


@given(st.lists(st.tuples(st.integers(0, len(SOUND) - 1), st.integers(0, 255)), min_size=1, max_size=8))
def test_changed_bytes_are_read_or_refused_and_nothing_else(file, changes):
    content = bytearray(SOUND)
    for position, value in changes:
        content[position] = value
    file.write_bytes(content)
    with contextlib.suppress(CorruptFile):
        assert read(file).subgraphs


def test_a_small_file_cannot_hold_more_tables_than_fit_into_it():
    """A list of lists that all point to one another would take hours to read."""
    vtable, table = struct.pack("<HH", 4, 4), struct.pack("<i", 8)
    content = struct.pack("<I", 12) + bytes(0) + vtable + bytes(4) + table
    buffer = FlatBuffer(content, "m")
    for _ in range(len(content) // 4):
        buffer.root()
    with pytest.raises(CorruptFile, match="more tables"):
        buffer.root()
