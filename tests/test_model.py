"""`Model`: what is saved is what is loaded, weights are safe to look for, and source lines stay with their nodes."""

import os
from pathlib import Path

import numpy as np
import onnx
import onnx_ir as ir
import onnxruntime
import pytest
from onnx import TensorProto, helper

from graphkit import model as room
from graphkit.errors import CannotWrite, CorruptFile, FileMissing, UnsafePath
from graphkit.model import Finding, Model, Origin, Rung, SourceLine, load, provenance, set_provenance
from graphkit.shapes import DimRange, TensorSpec

WEIGHT = np.arange(64, dtype=np.float32).reshape(4, 16)


def proto(location: str | None = None, **external: int) -> onnx.ModelProto:
    """y = x @ weight + 1; the weight's bytes are at `location`, where one is given."""
    weight = onnx.numpy_helper.from_array(WEIGHT, "weight")
    if location is not None:
        weight.ClearField("raw_data")
        weight.data_location = TensorProto.EXTERNAL
        for key, value in {"location": location, "length": 256, **external}.items():
            weight.external_data.append(onnx.StringStringEntryProto(key=key, value=str(value)))
    one = onnx.numpy_helper.from_array(np.ones(1, np.float32), "one")
    x = helper.make_tensor_value_info("x", TensorProto.FLOAT, ["batch", 4])
    y = helper.make_tensor_value_info("y", TensorProto.FLOAT, ["batch", 16])
    nodes = [helper.make_node("MatMul", ["x", "weight"], ["h"]), helper.make_node("Add", ["h", "one"], ["y"])]
    graph = helper.make_graph(nodes, "g", [x], [y], [weight, one])
    return helper.make_model(graph, opset_imports=[helper.make_opsetid("", 20)], ir_version=10, producer_name="maker")


@pytest.fixture
def model() -> Model:
    graph = ir.from_proto(proto())
    set_provenance(next(iter(graph.graph)), [SourceLine("head", "net.py", 12, "Head.forward"), SourceLine("body")])
    origin = Origin(
        "torch module",
        "net",
        "ab" * 32,
        {"torch": "2.13"},
        (Rung("export", "GK104: no"), Rung("script")),
        (Finding("default", "k keeps 2", "net.py:3", "give it"),),
        ("onnxsim 0.8.1",),
        {"batch": 2},
    )
    return Model(graph, origin, (DimRange("batch", 1, 4, 8),))


def run(path: Path) -> np.ndarray:
    x = np.random.default_rng(0).standard_normal((3, 4), dtype=np.float32)
    [y] = onnxruntime.InferenceSession(str(path)).run(None, {"x": x})
    np.testing.assert_allclose(y, x @ WEIGHT + 1, rtol=1e-5)
    return y


def test_a_saved_model_comes_back_with_origin_ranges_and_source_lines(model, tmp_path):
    assert model.save(tmp_path / "m.onnx") == [tmp_path / "m.onnx"]
    again = load(tmp_path / "m.onnx")
    assert again.origin == model.origin
    assert again.dims == model.dims
    assert again.signature == model.signature
    assert [provenance(n) for n in again.ir.graph] == [provenance(n) for n in model.ir.graph]
    assert provenance(next(iter(again.ir.graph)))[0] == SourceLine("head", "net.py", 12, "Head.forward")
    run(tmp_path / "m.onnx")


def test_saving_twice_gives_the_same_bytes(model, tmp_path):
    model.save(tmp_path / "a.onnx")
    load(tmp_path / "a.onnx").save(tmp_path / "b.onnx")
    assert (tmp_path / "a.onnx").read_bytes() == (tmp_path / "b.onnx").read_bytes()


def test_the_file_is_valid_onnx(model, tmp_path):
    model.save(tmp_path / "m.onnx")
    onnx.checker.check_model(str(tmp_path / "m.onnx"), full_check=True)


def test_signature_and_sizes_are_the_graphs(model):
    assert model.signature.inputs == (TensorSpec("x", "float32", ("batch", 4)),)
    assert model.signature.outputs == (TensorSpec("y", "float32", ("batch", 16)),)
    assert (model.opset, model.node_count, model.weight_bytes) == (20, 2, 64 * 4 + 4)


def test_a_foreign_file_says_who_made_it_and_its_digest(tmp_path):
    onnx.save(proto(), tmp_path / "foreign.onnx")
    found = load(tmp_path / "foreign.onnx").origin
    assert (found.kind, found.name) == ("onnx file", "foreign.onnx")
    assert "maker" in found.versions
    assert found.sha256 == room.file_sha256(tmp_path / "foreign.onnx")


# --- weights in a file of their own ------------------------------------------------------------------------------


@pytest.fixture
def large(monkeypatch):
    """Every weight counts as too large to be inline."""
    monkeypatch.setattr(room, "INLINE_LIMIT", 16)


@pytest.mark.usefixtures("large")
def test_weights_above_the_limit_lie_beside_the_model(model, tmp_path):
    files = model.save(tmp_path / "m.onnx")
    assert [f.parent for f in files] == [tmp_path, tmp_path]
    assert sorted(tmp_path.iterdir()) == sorted(files)
    assert files[0] == tmp_path / "m.onnx"
    assert files[1].name.startswith("m.")
    assert files[1].suffix == ".data"
    assert files[1].stat().st_size >= 64 * 4
    run(files[0])


@pytest.mark.usefixtures("large")
def test_a_model_with_weights_beside_it_comes_back_and_can_be_moved(model, tmp_path):
    model.save(tmp_path / "m.onnx")
    again = load(tmp_path / "m.onnx")
    assert (again.origin, again.dims) == (model.origin, model.dims)
    (tmp_path / "elsewhere").mkdir()
    for file in again.save(tmp_path / "elsewhere" / "n.onnx"):
        assert file.is_relative_to(tmp_path / "elsewhere")
    for file in [*tmp_path.glob("m.*")]:
        file.unlink()
    run(tmp_path / "elsewhere" / "n.onnx")


@pytest.mark.usefixtures("large")
def test_saving_over_an_old_model_never_pairs_it_with_new_weights(model, tmp_path):
    first = model.save(tmp_path / "m.onnx")
    changed = model.ir.clone()
    changed.graph.initializers["weight"].const_value = ir.tensor(WEIGHT * 2, name="weight")
    second = Model(changed, model.origin, model.dims).save(tmp_path / "m.onnx")
    assert first[1] != second[1]
    x = np.ones((1, 4), np.float32)
    [y] = onnxruntime.InferenceSession(str(second[0])).run(None, {"x": x})
    np.testing.assert_allclose(y, x @ (WEIGHT * 2) + 1)


@pytest.mark.usefixtures("large")
def test_saving_leaves_the_model_in_memory_as_it_was(model, tmp_path):
    model.save(tmp_path / "m.onnx")
    for file in tmp_path.iterdir():
        file.unlink()
    np.testing.assert_array_equal(model.ir.graph.initializers["weight"].const_value.numpy(), WEIGHT)


def test_a_proto_holds_its_weights_also_where_they_were_outside(model, tmp_path, monkeypatch):
    with monkeypatch.context() as patch:
        patch.setattr(room, "INLINE_LIMIT", 16)
        model.save(tmp_path / "m.onnx")
    made = load(tmp_path / "m.onnx").to_proto()
    assert not any(t.external_data for t in made.graph.initializer)
    onnx.save(made, tmp_path / "whole.onnx")
    run(tmp_path / "whole.onnx")


# --- what load refuses -------------------------------------------------------------------------------------------


def test_weights_inside_the_folder_are_read(tmp_path):
    (tmp_path / "w").mkdir()
    (tmp_path / "w" / "weight.bin").write_bytes(WEIGHT.tobytes())
    onnx.save(proto("w/weight.bin"), tmp_path / "m.onnx")
    np.testing.assert_array_equal(load(tmp_path / "m.onnx").ir.graph.initializers["weight"].const_value.numpy(), WEIGHT)


@pytest.mark.parametrize("location", ["../secret.bin", "sub/../../secret.bin", "/etc/passwd", ".", ""])
def test_weights_outside_the_folder_are_refused(tmp_path, location):
    (tmp_path / "secret.bin").write_bytes(WEIGHT.tobytes())
    (tmp_path / "in" / "sub").mkdir(parents=True)
    (tmp_path / "in" / "m.onnx").write_bytes(proto(location).SerializeToString())
    with pytest.raises((UnsafePath, CorruptFile)) as caught:
        load(tmp_path / "in" / "m.onnx")
    assert caught.value.exit_code == 2
    if ".." in location or location.startswith("/"):
        assert caught.value.code == "GK217"


@pytest.mark.parametrize("link", ["file", "folder", "hard"])
def test_weights_behind_a_link_are_refused(tmp_path, link):
    (tmp_path / "out").mkdir()
    (tmp_path / "out" / "w.bin").write_bytes(WEIGHT.tobytes())
    folder = tmp_path / "in"
    folder.mkdir()
    if link == "file":
        (folder / "w.bin").symlink_to(tmp_path / "out" / "w.bin")
    elif link == "folder":
        (folder / "d").symlink_to(tmp_path / "out")
    else:
        os.link(tmp_path / "out" / "w.bin", folder / "w.bin")
    (folder / "m.onnx").write_bytes(proto("d/w.bin" if link == "folder" else "w.bin").SerializeToString())
    with pytest.raises(UnsafePath, match="link"):
        load(folder / "m.onnx")


def test_a_folder_of_models_that_is_itself_a_link_is_fine(tmp_path):
    (tmp_path / "real").mkdir()
    (tmp_path / "real" / "w.bin").write_bytes(WEIGHT.tobytes())
    (tmp_path / "real" / "m.onnx").write_bytes(proto("w.bin").SerializeToString())
    (tmp_path / "link").symlink_to(tmp_path / "real")
    assert load(tmp_path / "link" / "m.onnx").weight_bytes == 260


@pytest.mark.parametrize("external", [{"offset": 200}, {"length": 1 << 40}, {"offset": 1 << 62}])
def test_weights_beyond_the_end_of_their_file_are_refused(tmp_path, external):
    (tmp_path / "w.bin").write_bytes(WEIGHT.tobytes())
    (tmp_path / "m.onnx").write_bytes(proto("w.bin", **external).SerializeToString())
    with pytest.raises(CorruptFile, match=r"w\.bin holds 256 bytes"):
        load(tmp_path / "m.onnx")


def test_missing_weights_are_said_to_be_missing(tmp_path):
    (tmp_path / "m.onnx").write_bytes(proto("w.bin").SerializeToString())
    with pytest.raises(FileMissing, match=r"w\.bin"):
        load(tmp_path / "m.onnx")


def test_weights_hidden_in_a_subgraph_or_an_attribute_are_checked_too(tmp_path):
    outside = proto("../secret.bin").graph.initializer[0]
    (tmp_path / "secret.bin").write_bytes(WEIGHT.tobytes())
    (tmp_path / "in").mkdir()
    constant = proto()
    constant.graph.node.append(helper.make_node("Constant", [], ["c"], value=outside))
    branch = helper.make_graph(
        [helper.make_node("Identity", ["weight"], ["b"])],
        "branch",
        [],
        [helper.make_tensor_value_info("b", TensorProto.FLOAT, [4, 16])],
        [outside],
    )
    nested = proto()
    nested.graph.initializer.append(onnx.numpy_helper.from_array(np.array(True), "flag"))
    nested.graph.node.append(helper.make_node("If", ["flag"], ["i"], then_branch=branch, else_branch=branch))
    for each in (constant, nested):
        (tmp_path / "in" / "m.onnx").write_bytes(each.SerializeToString())
        with pytest.raises(UnsafePath):
            load(tmp_path / "in" / "m.onnx")


@pytest.mark.parametrize("content", [b"\x08\x0a" + b"\xff" * 40, b"\x0a\x7f", b"not onnx at all"])
def test_damaged_bytes_are_refused(tmp_path, content):
    (tmp_path / "m.onnx").write_bytes(content)
    with pytest.raises(CorruptFile, match=r"m\.onnx"):
        load(tmp_path / "m.onnx")


def test_a_missing_file_is_refused(tmp_path):
    with pytest.raises(FileMissing, match=r"none\.onnx"):
        load(tmp_path / "none.onnx")


def test_a_missing_folder_cannot_be_written(model, tmp_path):
    with pytest.raises(CannotWrite):
        model.save(tmp_path / "no" / "m.onnx")


def test_a_source_line_prints_place_function_and_module():
    assert str(SourceLine("head.gate", "m.py", 41, "Gate.forward")) == "m.py:41 in Gate.forward (module `head.gate`)"
    assert str(SourceLine("head")) == "module `head`"
    assert str(SourceLine("", "m.py", 4)) == "m.py:4"


def test_source_lines_are_kept_once_each():
    node = ir.node("Relu", [])
    a, b = SourceLine("a", "m.py", 1), SourceLine("b")
    set_provenance(node, [a, b, a])
    assert provenance(node) == (a, b)
    set_provenance(node, [])
    assert provenance(node) == ()
    assert not node.metadata_props
