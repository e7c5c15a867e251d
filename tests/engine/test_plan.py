from __future__ import annotations

import struct

import pytest
from hypothesis import given
from hypothesis import strategies as st

from graphkit.engine import plan
from graphkit.errors import CorruptFile, FileMissing, UnknownFormat


def header(magic=b"vtrt", size=100, mask=0x7E) -> bytes:
    head = magic + struct.pack("<IQQ", 0, 2, size) + bytes((1, 7, 1, 116)) + b"vtrt" + bytes((mask,))
    return head.ljust(size, b"\0")


def test_an_rtx_header_says_version_and_targets(tmp_path):
    (tmp_path / "m.engine").write_bytes(header(mask=0b101))
    assert plan.read(tmp_path / "m.engine") == plan.Plan("tensorrt-rtx", "1.7.1.116", ("7.5", "8.6"), 100, True)


def test_a_tensorrt_header_says_what_is_public_and_no_more(tmp_path):
    (tmp_path / "m.engine").write_bytes(header(b"ftrt", mask=0xFF))
    assert plan.read(tmp_path / "m.engine") == plan.Plan("tensorrt", "1.7.1.116", (), 100, None)


@pytest.mark.parametrize("kept", [4, 24, 63, 64, 99])
def test_a_cut_file_is_refused(tmp_path, kept):
    (tmp_path / "m.engine").write_bytes(header()[:kept])
    with pytest.raises(CorruptFile, match=str(kept)):
        plan.read(tmp_path / "m.engine")


@given(st.binary(max_size=200).filter(lambda b: b[:4] not in (b"vtrt", b"ftrt")))
def test_anything_else_is_no_engine(tmp_path_factory, data):
    path = tmp_path_factory.mktemp("p") / "m.engine"
    path.write_bytes(data)
    with pytest.raises(UnknownFormat):
        plan.read(path)


def test_a_missing_file_is_missing(tmp_path):
    with pytest.raises(FileMissing):
        plan.read(tmp_path / "m.engine")
