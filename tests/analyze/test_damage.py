"""Whatever the bytes are: an answer, or a GraphkitError; never another exception, never a long time."""

import contextlib
import time

import pytest

import graphkit as gk
from fixtures import malformed
from graphkit.errors import GraphkitError
from graphkit.report.inspect import to_json, to_text
from graphkit.report.inspect_tables import by_module, layers, weights
from tests.analyze.graphs import model
from tests.analyze.test_formats import graph_def
from tests.view.test_reader import with_everything

CONTROL = model(
    """g (float[n,8] x, float[8,8] w, bool c, int64 k) => (y, z) <int64[2] shape = {0, -1}, bool yes = {1}>
    { a = MatMul(x, w) b = Reshape(a, shape) d = Slice(b, shape, shape, shape) y = If (c) <
        then_branch = t () => (float[n,8] e) { e = Add(a, x) }, else_branch = f () => (float[n,8] g) { g = Neg(a) }>
      z = Loop (k, yes, x) <body = l (int64 i, bool o, float[n,8] s) => (bool p, float[n,8] r)
        { p = Identity(o) r = mine.F<q = 1>(s, w) }>
      h = Conv<kernel_shape = [3, 3]>(d, w) j = Resize(h, "", "", shape) m = Concat<axis = 1>(j, x) }""",
    functions='<domain: "mine", opset_import: ["" : 21]> F <q> (x, w) => (y) { y = Gemm<transB: int = @q>(x, w) }',
)


def looked_at(path):
    started = time.process_time()
    with contextlib.suppress(GraphkitError):
        found = gk.inspect(path)
        to_text(found)
        if found.graph is not None:
            parts = [by_module(found.graph), layers(found.graph)]
            if found.weights.nbytes < 100_000:
                parts.append(weights(found))
            to_json(found, {part.key: part.to_json() for part in parts})
            for part in parts:
                part.to_text()
    assert time.process_time() - started < 2


@pytest.mark.parametrize(
    ("name", "content"),
    [
        ("m.onnx", CONTROL.SerializeToString()),
        ("everything.onnx", with_everything().SerializeToString()),
        ("m.pb", graph_def()),
    ],
)
def test_no_flipped_byte_is_more_than_an_error(name, content, tmp_path):
    for at in range(len(content)):
        flipped = bytes([content[at] ^ (0x01 if at % 2 else 0xFF)])
        (tmp_path / name).write_bytes(content[:at] + flipped + content[at + 1 :])
        looked_at(tmp_path / name)


@pytest.mark.parametrize("name", ["weights.safetensors", "state_dict_legacy.pt", "pickle_bare.pt", "model.tflite"])
def test_no_damage_to_other_files_is_more_than_an_error(name, tmp_path):
    path = malformed.write(name, tmp_path, tmp_path / "canary")
    content = path.read_bytes()
    for at in range(0, min(len(content), 1200), 6):
        for damaged in (content[:at], content[:at] + bytes([content[at] ^ 0xFF]) + content[at + 1 :]):
            path.write_bytes(damaged)
            looked_at(path)
    assert malformed.bitten(tmp_path / "canary") == []
