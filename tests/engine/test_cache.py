"""The cache of engines: what is the same is not built again, and what is damaged is never handed out."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from importlib.util import find_spec
from pathlib import Path

import numpy as np
import onnx
import pytest
from hypothesis import given
from hypothesis import strategies as st
from onnx import helper, numpy_helper

from graphkit import isolate
from graphkit.building import EngineRequest, build
from graphkit.engine import cache
from graphkit.engine.builder import Engine
from graphkit.engine.cache import EngineCache, key_of
from graphkit.engine.profiles import Profile
from graphkit.engine.settings import TensorRTSettings
from graphkit.engine.targets import Built, LeftOut
from graphkit.errors import BadOption, CannotWrite, FileMissing, UnsafePath
from graphkit.model import file_sha256
from graphkit.shapes import DimRange

needs_rtx = pytest.mark.skipif(find_spec("tensorrt_rtx") is None, reason="tensorrt-rtx is not installed")

BATCH = (DimRange("batch", 1, 4, 8),)
KEY, OTHER = "a" * 64, "b" * 64


@pytest.fixture(autouse=True)
def empty(tmp_path, monkeypatch):
    """A cache of its own for each test."""
    monkeypatch.setenv(cache.VARIABLE, str(tmp_path / "cache"))


@pytest.fixture
def file(cnn, tmp_path):
    return cnn.save(tmp_path / "m.onnx")[0]


def a_built(folder, data=b"an engine") -> Built:
    """Something that looks built, for tests that need no library."""
    path = folder / "built.engine"
    path.write_bytes(data)
    profile = Profile({"x": ((1, 3), (4, 3), (8, 3))})
    engine = Engine(
        path, "tensorrt", "11.4", ("9.0",), len(data), file_sha256(path), "0" * 64, 7, 1.5, False, profile,
        {"compute": {"float16": 3}}, more_profiles=(profile,), weights=("w",),
    )  # fmt: skip
    return Built(engine, (LeftOut("7.5", "GKC205", "no", ("mm (MatMul)",), "net.py:3", "float16"),))


SIDECAR = {"model": {"origin": {"name": "net.onnx"}}, "engine": {"name": "built.engine"}}


# --- taking what is there ------------------------------------------------------------------------------------------


def test_what_was_stored_comes_back_whole(tmp_path):
    built = a_built(tmp_path)
    store = EngineCache()
    assert store.take(KEY, tmp_path / "out.engine") == cache.Hit()
    assert store.store(KEY, built, SIDECAR) is None
    hit = store.take(KEY, tmp_path / "out.engine")
    assert (tmp_path / "out.engine").read_bytes() == b"an engine"
    assert hit.sidecar == SIDECAR
    assert hit.built.left_out == built.left_out
    assert hit.built.engine.path == tmp_path / "out.engine"
    expected = {name: getattr(built.engine, name) for name in Engine.__slots__ if name != "path"}
    assert {name: getattr(hit.built.engine, name) for name in expected} == expected


def _cut(folder):
    (folder / "engine").write_bytes((folder / "engine").read_bytes()[:-1])


def _flip(folder):
    data = bytearray((folder / "engine").read_bytes())
    data[3] ^= 1
    (folder / "engine").write_bytes(data)


def _another_target(folder):
    said = (folder / "entry.json").read_text()
    assert '"targets": ["9.0"]' in said
    (folder / "entry.json").write_text(said.replace('"targets": ["9.0"]', '"targets": ["8.0"]'))


def _a_folder(folder):
    (folder / "engine").unlink()
    (folder / "engine").mkdir()


def _a_file(folder):
    shutil.rmtree(folder)
    folder.write_bytes(b"")


@pytest.mark.parametrize(
    "damage",
    [
        _cut,
        _flip,
        lambda folder: (folder / "engine").unlink(),
        lambda folder: (folder / "entry.json").unlink(),
        lambda folder: (folder / "entry.json").write_bytes(b""),
        lambda folder: (folder / "entry.json").write_bytes(b"[]"),
        lambda folder: (folder / "entry.json").write_text('{"schema": "graphkit.cache/1"}'),
        _another_target,
        _a_folder,
        _a_file,
    ],
)
def test_a_damaged_entry_is_dropped_and_nothing_is_handed_out(tmp_path, damage):
    store = EngineCache()
    store.store(KEY, a_built(tmp_path), SIDECAR)
    damage(store.root / KEY)
    (tmp_path / "out.engine").write_bytes(b"old")
    hit = store.take(KEY, tmp_path / "out.engine")
    assert hit.built is None
    assert hit.findings[0].code == "cache-entry-damaged"
    assert (tmp_path / "out.engine").read_bytes() == b"old"
    assert not (store.root / KEY).exists()
    assert store.store(KEY, a_built(tmp_path), SIDECAR) is None
    assert store.take(KEY, tmp_path / "out.engine").built is not None


def test_an_entry_under_another_key_is_not_taken(tmp_path):
    store = EngineCache()
    store.store(KEY, a_built(tmp_path), SIDECAR)
    shutil.copytree(store.root / KEY, store.root / OTHER)
    assert "is not one" in str(store.take(OTHER, tmp_path / "out.engine").damaged)


def test_an_output_that_cannot_be_written_leaves_the_entry_alone(tmp_path):
    store = EngineCache()
    store.store(KEY, a_built(tmp_path), SIDECAR)
    with pytest.raises(CannotWrite):
        store.take(KEY, tmp_path / "no" / "out.engine")
    assert len(store.entries()) == 1


def test_a_cache_that_cannot_be_written_is_said_and_stops_nothing(tmp_path, monkeypatch):
    (tmp_path / "file").write_bytes(b"")
    monkeypatch.setenv(cache.VARIABLE, str(tmp_path / "file"))
    assert EngineCache().store(KEY, a_built(tmp_path), SIDECAR).code == "cache-not-written"


def test_storing_twice_keeps_the_first_and_leaves_no_draft(tmp_path):
    store = EngineCache()
    store.store(KEY, a_built(tmp_path), SIDECAR)
    store.store(KEY, a_built(tmp_path, b"another"), SIDECAR)
    assert [path.name for path in store.root.iterdir()] == [KEY]
    store.take(KEY, tmp_path / "out.engine")
    assert (tmp_path / "out.engine").read_bytes() == b"an engine"


def test_a_process_that_was_faster_is_no_trouble(tmp_path, monkeypatch):
    store = EngineCache()
    rename = Path.rename

    def late(draft, target):
        shutil.copytree(draft, target)
        return rename(draft, target)

    monkeypatch.setattr(Path, "rename", late)
    assert store.store(KEY, a_built(tmp_path), SIDECAR) is None
    assert [path.name for path in store.root.iterdir()] == [KEY]


# --- where it is, and what goes ------------------------------------------------------------------------------------


@pytest.mark.skipif(sys.platform in ("win32", "darwin"), reason="the rules of Linux")
def test_the_folder_follows_the_platform(monkeypatch):
    monkeypatch.delenv(cache.VARIABLE)
    monkeypatch.setenv("XDG_CACHE_HOME", "/var/xdg")
    assert cache.folder() == Path("/var/xdg/graphkit")
    monkeypatch.setenv("XDG_CACHE_HOME", "relative")  # the XDG specification wants such a value ignored
    assert cache.folder() == Path.home() / ".cache" / "graphkit"
    monkeypatch.setenv(cache.VARIABLE, "/elsewhere")
    assert cache.folder() == Path("/elsewhere")


def test_only_its_owner_can_look_into_it(tmp_path):
    store = EngineCache()
    store.store(KEY, a_built(tmp_path), SIDECAR)
    assert store.root.stat().st_mode & 0o077 == 0


def three(tmp_path):
    """Engines of 100 bytes and their descriptions, used one, two and three days ago."""
    store = EngineCache()
    for days, key in enumerate(("1" * 64, "2" * 64, "3" * 64), 1):
        store.store(key, a_built(tmp_path, b"x" * 100), SIDECAR)
        then = (store.root / key).stat().st_mtime - days * 86_400
        os.utime(store.root / key, (then, then))
    return store


def test_the_last_used_is_listed_first_and_use_counts(tmp_path):
    store = three(tmp_path)
    assert [entry.key[0] for entry in store.entries()] == ["1", "2", "3"]
    store.take("3" * 64, tmp_path / "out.engine")
    first = store.entries()[0]
    assert (first.key[0], first.model, first.library, first.targets) == ("3", "net.onnx", "tensorrt 11.4", ("9.0",))


def test_what_was_not_used_for_long_goes(tmp_path):
    store = three(tmp_path)
    assert [entry.key[0] for entry in store.prune(older_than=1.5 * 86_400)] == ["2", "3"]
    assert [entry.key[0] for entry in store.entries()] == ["1"]


def test_the_longest_unused_go_until_the_rest_fits(tmp_path):
    store = three(tmp_path)
    one = store.entries()[0].size
    assert [entry.key[0] for entry in store.prune(max_size=2 * one)] == ["3"]
    assert [entry.key[0] for entry in store.prune(max_size=0)] == ["1", "2"]


def test_without_limits_all_goes_damaged_entries_too(tmp_path):
    store = three(tmp_path)
    (store.root / ("1" * 64) / "entry.json").write_bytes(b"?")
    assert len(store.prune()) == 3
    assert store.entries() == []
    assert EngineCache(tmp_path / "never").prune() == []


# --- the key -------------------------------------------------------------------------------------------------------

FACTS = st.dictionaries(st.text(max_size=5), st.integers() | st.booleans() | st.text(max_size=5), max_size=4)


@given(FACTS, FACTS)
def test_keys_are_equal_just_where_the_facts_are(a, b):
    same = json.dumps(a, sort_keys=True) == json.dumps(b, sort_keys=True)
    assert (key_of(a) == key_of(b)) == same
    assert key_of(a) == key_of(dict(reversed(a.items())))


def external(folder, value):
    """A model whose weight lies in a file of its own."""
    tensor = numpy_helper.from_array(np.full(64, value, "f"), "w")
    graph = helper.make_graph(
        [helper.make_node("Add", ["x", "w"], ["y"])],
        "g",
        [helper.make_tensor_value_info("x", 1, [64])],
        [helper.make_tensor_value_info("y", 1, [64])],
        [tensor],
    )
    folder.mkdir(exist_ok=True)
    onnx.save_model(
        helper.make_model(graph), folder / "m.onnx", save_as_external_data=True, location="w.bin", size_threshold=0
    )
    return folder / "m.onnx"


def test_the_digest_covers_weights_in_other_files(tmp_path):
    one, two = external(tmp_path / "one", 1.0), external(tmp_path / "two", 2.0)
    assert one.read_bytes() == two.read_bytes()
    assert cache.digest(one) != cache.digest(two)
    shutil.copyfile(two.with_name("w.bin"), one.with_name("w.bin"))
    assert cache.digest(one) == cache.digest(two)


def test_weights_that_are_missing_or_elsewhere_are_refused(tmp_path):
    path = external(tmp_path / "m", 1.0)
    path.with_name("w.bin").unlink()
    with pytest.raises(FileMissing):
        cache.digest(path)
    path.with_name("w.bin").symlink_to("/etc/hostname")
    with pytest.raises(UnsafePath):
        cache.digest(path)


# --- building ------------------------------------------------------------------------------------------------------


@needs_rtx
def test_a_second_build_is_a_hit_with_the_same_bytes(file, tmp_path, monkeypatch):
    request = EngineRequest("rtx", BATCH, compute_capabilities=("8.6", "7.5"))
    first = build(file, tmp_path / "a.engine", request)
    monkeypatch.setattr(isolate.Worker, "call", lambda *_, **__: pytest.fail("asked the library"))
    second = build(file, tmp_path / "b.engine", request)
    assert (first.cached, second.cached) == (False, True)
    assert (tmp_path / "a.engine").read_bytes() == (tmp_path / "b.engine").read_bytes()
    ours, theirs = (json.loads((tmp_path / f"{n}.engine.json").read_text()) for n in "ab")
    assert (ours["engine"].pop("name"), theirs["engine"].pop("name")) == ("a.engine", "b.engine")
    assert ours == theirs
    assert second.to_json()["parity"]["status"] == "not run"
    assert second.complaint.to_json() == first.complaint.to_json()  # 7.5 is left out of a cached engine too


@needs_rtx
def test_a_damaged_engine_is_built_again_and_that_is_said(file, tmp_path):
    request = EngineRequest("rtx", BATCH, compute_capabilities=("8.6",))
    first = build(file, tmp_path / "m.engine", request).engine.sha256
    [entry] = EngineCache().entries()
    _flip(EngineCache().root / entry.key)
    again = build(file, tmp_path / "m.engine", request)
    assert (again.cached, [f.code for f in again.findings]) == (False, ["cache-entry-damaged"])
    assert again.engine.sha256 == first == file_sha256(tmp_path / "m.engine")
    assert build(file, tmp_path / "m.engine", request).cached


@needs_rtx
def test_without_the_cache_nothing_is_taken_or_kept(file, tmp_path):
    request = EngineRequest("rtx", BATCH, compute_capabilities=("8.6",), cache=False)
    assert not build(file, tmp_path / "m.engine", request).cached
    assert EngineCache().entries() == []


@needs_rtx
def test_a_hit_imports_neither_onnx_nor_a_library(file, tmp_path):
    program = (
        "import sys; from graphkit.building import *; from graphkit.shapes import DimRange; "
        f"r = build({str(file)!r}, {str(tmp_path / 'm.engine')!r}, "
        "EngineRequest('rtx', (DimRange('batch', 1, 4, 8),), compute_capabilities=('8.6',))); "
        "heavy = {'onnx', 'onnx_ir', 'numpy', 'onnxruntime', 'tensorrt_rtx', 'polygraphy'} & set(sys.modules); "
        "print(r.cached, sorted(heavy))"
    )
    build(file, tmp_path / "m.engine", EngineRequest("rtx", BATCH, compute_capabilities=("8.6",)))
    said = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True)
    assert said.stdout.split("\n")[0] == "True []"


@pytest.mark.parametrize(
    "settings",
    [
        TensorRTSettings(level=3),
        TensorRTSettings(timing_cache=Path("t.cache")),
        TensorRTSettings(version_compatible=True),
        TensorRTSettings(hardware="ampere-plus"),
        TensorRTSettings(refittable=True),
        TensorRTSettings(strip_weights=True),
    ],
    ids=lambda s: s.given[0],
)
@needs_rtx
def test_what_rtx_has_not_is_refused_with_the_reason(file, tmp_path, settings):
    with pytest.raises(BadOption, match="means nothing for TensorRT-RTX: ") as caught:
        build(file, tmp_path / "m.engine", EngineRequest("rtx", BATCH, settings=settings))
    assert "--backend tensorrt" in caught.value.remedy
    assert not (tmp_path / "m.engine").exists()


@needs_rtx
def test_a_workspace_is_honoured_by_rtx(file, tmp_path):
    asked = EngineRequest("rtx", BATCH, settings=TensorRTSettings(workspace=64), cache=False)
    plain = EngineRequest("rtx", BATCH, cache=False)
    assert build(file, tmp_path / "a", asked).engine.sha256 != build(file, tmp_path / "b", plain).engine.sha256
