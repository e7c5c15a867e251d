"""Whatever the bytes are: a view, or a GraphkitError that says where; never another exception, never a long time."""

import contextlib
import os
import subprocess
import sys
import time

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from fixtures import malformed
from graphkit import view
from graphkit.digests import digest
from graphkit.errors import CorruptFile, FileMissing, GraphkitError
from tests.view.test_reader import with_everything

WHOLE = with_everything().SerializeToString()
NESTED_TOO_DEEP = 2000


def length(number: int) -> bytes:
    out = b""
    while number > 0x7F:
        out += bytes([number & 0x7F | 0x80])
        number >>= 7
    return out + bytes([number])


def message(tag: int, content: bytes) -> bytes:
    return bytes([tag]) + length(len(content)) + content


def in_model(graph: bytes) -> bytes:
    return b"\x08\x0a" + message(0x3A, graph)


def nested_ifs(depth: int) -> bytes:
    graph = b""
    for _ in range(depth):
        attribute = message(0x0A, b"then_branch") + message(0x32, graph) + b"\xa0\x01\x05"
        graph = message(0x0A, message(0x22, b"If") + message(0x2A, attribute))
    return in_model(graph)


def nested_types(depth: int) -> bytes:
    inner = b""
    for _ in range(depth):
        inner = message(0x22, message(0x0A, inner))
    return in_model(message(0x5A, message(0x0A, b"x") + message(0x12, inner)))


def looked_at(content: bytes, folder) -> None:
    """Everything that a view can be asked for, without a weight's values and with them."""
    path = folder / "damaged.onnx"
    path.write_bytes(content)
    started = time.process_time()
    try:
        seen = view.read(path)
        for graph in seen.graphs():
            for node in graph.nodes:
                _ = node.inputs, node.outputs, node.attributes, node.captures
                for _ in (node.metadata, node.provenance):
                    pass
        for weight in seen.weights():
            _ = weight.missing
            if weight.nbytes < 10_000:
                weight.digest()
                weight.read()
        digest(seen)
    except GraphkitError:
        pass
    assert time.process_time() - started < 1


BAD = {
    "empty": (b"", "is empty"),
    "zeros": (bytes(100), "no field has the number 0"),
    "no graph": (b"\x08\x0a", "holds no graph"),
    "two graphs": (in_model(b"") + message(0x3A, b""), "holds two graphs"),
    "overlong varint": (b"\x08" + b"\xff" * 10 + b"\x01", "more than 10 bytes"),
    "65 bits": (b"\x08" + b"\xff" * 9 + b"\x02", "more than 64 bits"),
    "cut-off varint": (b"\x08\xff", "in the middle of a field"),
    "cut-off length": (b"\x3a", "in the middle of a field"),
    "length beyond the file": (b"\x3a\x7f\x00", "its message at byte 3"),
    "length of 2^63": (b"\x3a" + b"\xff" * 9 + b"\x01", "its message at byte"),
    "inner length beyond its message": (in_model(b"\x0a\x20\x22") + message(0x7A, bytes(40)), "field 1 ends at byte"),
    "group": (in_model(b"\x0b\x0c"), "wire type 3 of field 1"),
    "wire type 7": (in_model(b"\x0f\x00"), "wire type 7"),
    "node as a number": (in_model(b"\x08\x01"), "field 1 has wire type 0"),
    "name as a number": (in_model(message(0x0A, b"\x20\x01")), "field 4 has wire type 0"),
    "dims as float": (in_model(message(0x2A, b"\x0d\x00\x00\x00\x00")), "field 1 has wire type 5"),
    "negative size": (in_model(message(0x2A, b"\x08" + b"\xff" * 9 + b"\x01")), "a negative size"),
    "attribute of type 77": (in_model(message(0x0A, message(0x2A, b"\xa0\x01\x4d"))), "the type 77"),
    "value name not UTF-8": (in_model(message(0x0A, message(0x0A, b"\xff"))), "not UTF-8"),
    "operator not UTF-8": (in_model(message(0x0A, message(0x22, b"\xff"))), "not UTF-8"),
    "weight name not UTF-8": (in_model(message(0x2A, message(0x42, b"\xff"))), "not UTF-8"),
    "tensor attribute without a tensor": (in_model(message(0x0A, message(0x2A, b"\xa0\x01\x04"))), "0 values of type"),
    "2,000 nested subgraphs": (nested_ifs(NESTED_TOO_DEEP), "graphs are nested deeper than 40"),
    "rank 2,000": (in_model(message(0x2A, b"\x08\x01" * 2000)), "a rank of 2000: at most 1024"),
    "two weights of one name": (in_model(message(0x2A, message(0x42, b"w")) * 2), "have the same name"),
    "field number 0 with a length": (in_model(b"\x02\x00"), "no field has the number 0"),
    "2,000 nested types": (nested_types(NESTED_TOO_DEEP), "types are nested deeper than 64"),
}


@pytest.mark.parametrize("case", BAD)
def test_damage_is_told_in_one_line(case, tmp_path):
    content, said = BAD[case]
    path = tmp_path / "bad.onnx"
    path.write_bytes(content)
    with pytest.raises(CorruptFile, match=said) as caught:
        view.read(path)
    assert caught.value.message.startswith("bad.onnx ")


def test_the_place_of_the_damage_is_named(tmp_path):
    path = tmp_path / "bad.onnx"
    node = message(0x0A, message(0x22, b"If"))
    path.write_bytes(in_model(node * 3 + message(0x0A, message(0x2A, b"\xa0\x01\x4d"))))
    with pytest.raises(CorruptFile) as caught:
        view.read(path)
    assert caught.value.where == "graph.node[3]"


def test_thirty_nested_subgraphs_are_seen(tmp_path):
    path = tmp_path / "deep.onnx"
    path.write_bytes(nested_ifs(30))
    assert len(list(view.read(path).graphs())) == 31


def test_a_node_of_many_attributes_takes_linear_time(tmp_path):
    looked_at(in_model(message(0x0A, message(0x2A, b"\xa0\x01\x02") * 200_000)), tmp_path)


def test_a_pipe_and_a_folder_are_no_models(tmp_path):
    os.mkfifo(tmp_path / "pipe.onnx")
    for path in (tmp_path / "pipe.onnx", tmp_path):
        with pytest.raises(FileMissing, match="not a plain file"):
            view.read(path)


def test_a_field_of_a_later_onnx_is_passed_over(tmp_path):
    path = tmp_path / "new.onnx"
    path.write_bytes(in_model(message(0x0A, message(0x22, b"Add") + message(0x7A, b"new"))) + b"\xf8\x07\x01")
    assert view.read(path).graph.ops == ("Add",)


def test_a_pointer_and_a_page_are_told_for_what_they_are(tmp_path):
    for name, said in (("lfs_pointer.onnx", "git lfs pull"), ("html.onnx", "a web page")):
        with pytest.raises(CorruptFile) as caught:
            view.read(malformed.write(name, tmp_path / "files", tmp_path / "canary"))
        assert said in caught.value.remedy


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore::DeprecationWarning", "ignore::FutureWarning")
def test_every_malformed_file_gives_a_view_or_an_error(tmp_path):
    seen = {}
    for name, path in malformed.write_all(tmp_path / "files", tmp_path / "canary").items():
        with contextlib.suppress(CorruptFile, FileMissing):
            seen[name] = view.read(path)
    assert set(seen) == {"model.onnx", "outside/external_data.onnx", "outside/external_data_link.onnx"}
    assert malformed.bitten(tmp_path / "canary") == []


@settings(max_examples=150, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(cut=st.integers(0, len(WHOLE) - 1))
def test_any_truncation_is_an_error(cut, tmp_path):
    path = tmp_path / "cut.onnx"
    path.write_bytes(WHOLE[:cut])
    try:
        view.read(path)
    except CorruptFile:
        return
    assert cut > WHOLE.index(b"Double")  # a cut between two fields of the model itself, after the graph


@settings(max_examples=400, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(flips=st.lists(st.tuples(st.integers(0, len(WHOLE) - 1), st.integers(0, 7)), min_size=1, max_size=6))
def test_flipped_bits_raise_nothing_else(flips, tmp_path):
    content = bytearray(WHOLE)
    for place, bit in flips:
        content[place] ^= 1 << bit
    looked_at(bytes(content), tmp_path)


@settings(max_examples=200, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(graph=st.binary(max_size=200))
def test_random_bytes_raise_nothing_else(graph, tmp_path):
    looked_at(in_model(graph), tmp_path)


@pytest.mark.skipif(sys.platform != "linux", reason="reads the peak from /proc")
def test_the_cost_follows_the_graph_and_not_the_weights(tmp_path):
    """2 GB of weights in a file with a hole: resident memory stays that of a small model."""
    path = tmp_path / "big.onnx"
    size = 1 << 31
    tensor = b"\x08" + length(size // 4) + b"\x10\x01" + b"\x4a" + length(size)
    head = b"\x2a" + length(len(tensor) + size) + tensor
    node = message(0x0A, message(0x22, b"Relu"))
    with path.open("wb") as file:
        file.write(b"\x3a" + length(len(head) + size + len(node)) + head)
        file.seek(size, 1)
        file.write(node)
    code = (
        "import sys; from graphkit import view; v = view.read(sys.argv[1]);"
        "peak = next(l.split()[1] for l in open('/proc/self/status') if l.startswith('VmHWM'));"
        "print(v.graph.ops, v.graph.initializers[0].nbytes, peak)"
    )
    done = subprocess.run([sys.executable, "-c", code, str(path)], capture_output=True, text=True, check=True)
    ops, nbytes, resident = done.stdout.rsplit(" ", 2)
    assert (ops, int(nbytes)) == ("('Relu',)", size)
    assert int(resident) < 100_000
