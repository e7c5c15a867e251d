"""`graphkit build`, `graphkit cache`, and engines for some of the targets that were asked for."""

from __future__ import annotations

import json
from importlib.util import find_spec

import numpy as np
import pytest
from onnx import TensorProto, helper, numpy_helper, save

pytestmark = pytest.mark.skipif(find_spec("tensorrt_rtx") is None, reason="tensorrt-rtx is not installed")


@pytest.fixture(autouse=True)
def empty_cache(tmp_path, monkeypatch):
    monkeypatch.setenv("GRAPHKIT_CACHE_DIR", str(tmp_path / "cache"))


@pytest.fixture
def here(tmp_path):
    """A folder with one float32 matrix product, which 7.5 does not build."""
    node = helper.make_node("MatMul", ["x", "w"], ["y"], name="project")
    ends = [helper.make_tensor_value_info(name, TensorProto.FLOAT, ["batch", 8]) for name in "xy"]
    weight = numpy_helper.from_array(np.eye(8, dtype="f"), "w")
    save(
        helper.make_model(helper.make_graph([node], "g", ends[:1], ends[1:], [weight]), ir_version=9),
        tmp_path / "m.onnx",
    )
    return tmp_path


LINE = ("build", "m.onnx", "-q", "--dim", "batch=1:4:8", "--cc", "8.6,8.9")


def test_a_second_build_comes_from_the_cache_and_says_so(run, here):
    first, second = run(*LINE), run(*LINE)
    assert (first.code, second.code) == (0, 0)
    assert "built in" in first.out
    assert "taken from the cache" in second.out
    assert "profile   x 1x8 4x8 8x8" in second.out
    assert "parity    not run: build makes an engine and compares nothing" in second.out
    assert (here / "m.engine").read_bytes()[:4] == b"vtrt"


def test_several_profiles_are_numbered(run, here):
    said = run("build", "m.onnx", "-q", "--cc", "8.6", "--profile", "batch=1:1:1", "--profile", "batch=2:4:8")
    assert said.code == 0, said.err
    assert "  profile 1 x 1x8 1x8 1x8\n  profile 2 x 2x8 4x8 8x8\n" in said.out


def test_some_targets_are_built_and_the_others_end_the_command_with_1(run, here):
    said = run("build", "m.onnx", "-q", "--dim", "batch=1:4:8", "--cc", "all", "--json")
    assert said.code == 1
    answer = json.loads(said.out)
    assert answer["status"] == "no"
    assert answer["engine"]["targets"] == ["8.0", "8.6", "8.9", "12.0", "12.1"]
    assert [each["target"] for each in answer["error"]["data"]["left_out"]] == ["7.5"]
    assert "error[GK115]: the engine was built for 8.0" in said.err
    assert (
        "7.5: a matrix product in float32 needs compute capability 8.0, not 7.5 (1 node): project (MatMul)" in said.err
    )
    assert (here / "m.engine").exists()
    again = run("build", "m.onnx", "-q", "--dim", "batch=1:4:8", "--cc", "all")
    assert (again.code, "taken from the cache" in again.out) == (1, True)


@pytest.mark.slow
def test_convert_builds_what_can_be_and_hits_the_cache(run, here):
    line = ("convert", "m.onnx", "--to", "trt", "--dim", "batch=1:4:8", "--cc", "7.5,8.6", "--json", "-q")
    first, second = run(*line), run(*line)
    for said in (first, second):
        answer = json.loads(said.out)
        assert (said.code, answer["status"], answer["output"]) == (1, "no", "m.engine")
        assert answer["error"]["code"] == "GK115"
        assert answer["parity"]["engine"] == "not run"
    builds = [next(s for s in json.loads(said.out)["stages"] if s["name"] == "build") for said in (first, second)]
    assert [build["detail"].endswith(", from the cache") for build in builds] == [False, True]
    assert builds[1]["seconds"] < 0.2
    assert {"m.engine", "m.engine.json", "m.engine.onnx", "m.engine.parity.json"} <= {p.name for p in here.iterdir()}


@pytest.mark.slow
def test_convert_proves_the_model_over_all_profiles(run, here):
    profiles = ("--profile", "batch=1:1:1", "--profile", "batch=4:5:6")
    said = run("convert", "m.onnx", "--to", "trt", *profiles, "--cc", "8.6", "--json", "-q")
    assert said.code == 0, said.err
    sizes = {c["sizes"]["batch"] for c in json.loads(said.out)["parity"]["comparisons"]}
    assert {1, 6} <= sizes <= set(range(1, 7))
    described = json.loads((here / "m.engine.json").read_text())
    assert [p["x"]["max"] for p in described["profiles"]] == [[1, 8], [6, 8]]


def test_ranges_that_are_found_are_said(run, here):
    said = run("build", "m.onnx", "-q", "--profile", "auto", "--cc", "8.6")
    assert said.code == 0
    assert "warning   dimension `batch` was given no range: 1:8:32 was found in the graph" in said.out


def test_each_profile_is_in_the_answer(run, here):
    said = run("build", "m.onnx", "--json", "--profile", "batch=1:1:1", "--profile", "batch=2:4:8", "--cc", "8.6")
    shapes = [[s[0] for s in profile["x"].values()] for profile in json.loads(said.out)["engine"]["profiles"]]
    assert shapes == [[1, 1, 1], [2, 4, 8]]


@pytest.mark.parametrize(
    ("more", "code", "shown"),
    [
        ((), 2, "error[GK209]: an engine needs a range for dimension `batch`"),
        (("--profile", "batch=8:4:1"), 2, "error[GK209]: dimension `batch` has the range 8:4:1"),
        (("--profile", "batch=1:1:1,seq=1:1:1"), 2, "error[GK208]: no input has a dimension `seq`"),
        (("--profile", "batch=1:1:1", "--profile", "batch=1:1:1"), 2, "error[GK212]: a --profile is given twice"),
        (("--dim", "batch=1:4:8", "--level", "3"), 2, "error[GK212]: --level means nothing for TensorRT-RTX"),
        (("--dim", "batch=1:4:8", "--cc", "7.5"), 1, "error[GK110]: TensorRT-RTX cannot build the model for 7.5"),
        (("--dim", "batch=1:4:8", "--cc", "8.8"), 2, "error[GK210]"),
        (("--dim", "batch=1:4:8", "--cc", "all,8.6"), 2, "error[GK212]"),
    ],
)
def test_what_cannot_be_built_leaves_no_file(run, here, more, code, shown):
    said = run("build", "m.onnx", "-q", *more)
    assert (said.code, said.err.startswith(shown)) == (code, True), said.err
    assert not (here / "m.engine").exists()


def test_a_missing_file_and_one_that_is_no_model(run, here):
    assert run("build", "no.onnx").code == 2
    (here / "text.onnx").write_text("hello")
    said = run("build", "text.onnx", "--json")
    assert (said.code, json.loads(said.out)["status"]) == (2, "error")


def test_the_source_is_never_replaced(run, here):
    before = (here / "m.onnx").read_bytes()
    for line in (("build", "m.onnx", "-o", "./m.onnx"), ("convert", "m.onnx", "--to", "trt", "-q", "-o", "m.onnx")):
        said = run(*line, "--dim", "batch=1:4:8", "--cc", "8.6")
        assert (said.code, "error[GK212]" in said.err) == (2, True), said.err
    assert (here / "m.onnx").read_bytes() == before


def test_another_kind_of_model_is_named(run, here):
    header = b'{"w":{"dtype":"F32","shape":[1],"data_offsets":[0,4]}}'
    (here / "net.safetensors").write_bytes(len(header).to_bytes(8, "little") + header + bytes(4))
    (here / "x.engine").write_bytes(b"vtrt" + (128).to_bytes(8, "little").rjust(20, b"\0").ljust(124, b"\1"))
    assert "net.safetensors is no ONNX file: safetensors" in run("build", "net.safetensors").err
    assert "x.engine is no ONNX file: TensorRT-RTX engine" in run("build", "x.engine").err
    assert run("build", ".").err.startswith("error[GK202]: . is a folder")


def test_sizes_that_no_profile_holds_are_refused(run, here):
    found = run("build", "m.onnx", "-q", "--dim", "batch=1:4:2147483648", "--cc", "8.6")
    said = "error[GK209]: the dimension `batch` of input `x` becomes 2147483648"
    assert (found.code, found.err.startswith(said)) == (2, True), found.err
    assert not (here / "m.engine").exists()


def test_the_cache_is_listed_and_pruned(run, here):
    assert run("cache", "list").out == f"0 engines, 0.00 MB in {here}/cache/engines\n"
    assert run("cache", "dir").out == f"{here}/cache/engines\n"
    run(*LINE)
    [entry] = json.loads(run("cache", "list", "--json").out)["entries"]
    assert (entry["model"], entry["targets"]) == ("m.onnx", ["8.6", "8.9"])
    assert "m.onnx" in run("cache", "list").out
    assert run("cache", "prune", "--older-than", "1", "--max-size", "1G").out.startswith("removed 0 engines")
    assert [e["key"] for e in json.loads(run("cache", "prune", "--json").out)["removed"]] == [entry["key"]]
    assert run("cache", "prune", "--max-size", "large").code == 2
