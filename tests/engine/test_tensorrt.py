"""NVIDIA TensorRT: with a stand-in for the library where there is no GPU, for real where there is one.

The stand-in replaces what needs a GPU (parsing and building); graphkit's own code on both sides of the process
boundary, and Polygraphy's Profile, are the real ones.
"""

from __future__ import annotations

import importlib
import struct
from enum import IntEnum
from importlib.machinery import ModuleSpec
from importlib.util import find_spec
from types import ModuleType, SimpleNamespace

import numpy as np
import pytest

from graphkit.engine import builder, tensorrt, trt_child, trt_session
from graphkit.engine.builder import BuildRequest, Library
from graphkit.engine.tensorrt import TensorRTBuilder
from graphkit.errors import BadSample, BuildFailed, CorruptFile, ExtraMissing, InternalError, UnknownTarget
from graphkit.shapes import DimRange

BATCH = (DimRange("batch", 1, 4, 8),)


class Flag(IntEnum):
    TF32 = 7


class Severity(IntEnum):
    INTERNAL_ERROR = 0
    ERROR = 1
    WARNING = 2


class Config:
    def __init__(self, flags):
        self.flags = flags

    def get_flag(self, flag):
        return flag in self.flags


class InProcess:
    """A worker whose child is this process."""

    def start(self):
        pass

    def call(self, function, /, *, timeout=None, **arguments):
        module, _, name = function.partition(":")
        return getattr(importlib.import_module(module), name)(**arguments)


def plan_bytes(size=96):
    return (b"ftrt" + struct.pack("<IQQ", 0, 2, size) + bytes((11, 4, 0, 106))).ljust(size, b"\0")


def network():
    def tensor(name):
        return SimpleNamespace(name=name, dtype=SimpleNamespace(name="FLOAT"), is_shape_tensor=False, shape=(-1, 64))

    layer = SimpleNamespace(type=SimpleNamespace(name="MATRIX_MULTIPLY"), get_output=lambda _: tensor("y"))
    return SimpleNamespace(
        num_layers=1,
        num_inputs=1,
        num_outputs=1,
        get_input=lambda _: tensor("x"),
        get_output=lambda _: tensor("y"),
        get_layer=lambda _: layer,
    )


@pytest.fixture
def library(monkeypatch):
    """TensorRT 11 as graphkit sees it; what it was asked for is kept in `asked`."""
    trt = ModuleType("tensorrt")
    trt.__spec__ = ModuleSpec("tensorrt", None)
    trt.__version__ = "11.4.0.106"
    trt.ILogger = trt.IProgressMonitor = type("Native", (), {"__init__": lambda self: None})
    trt.Logger, trt.BuilderFlag = Severity, Flag
    monkeypatch.setitem(importlib.import_module("sys").modules, "tensorrt", trt)
    asked = {}

    def parse(path, **options):
        asked["parse"] = options
        return SimpleNamespace(), network(), SimpleNamespace()

    def configure(_builder, _network, **options):
        asked["config"] = options
        return Config({Flag.TF32} if options["tf32"] else set())

    polygraphy = importlib.import_module("polygraphy.backend.trt")
    util = importlib.import_module("polygraphy.backend.trt.util")
    monkeypatch.setattr(importlib.import_module("polygraphy.config"), "USE_TENSORRT_RTX", False)
    monkeypatch.setattr(importlib.import_module("polygraphy.logger").G_LOGGER, "module_severity", 20)
    monkeypatch.setattr(util, "TRT_LOGGER", None)
    monkeypatch.setattr(polygraphy, "network_from_onnx_path", parse)
    monkeypatch.setattr(polygraphy, "create_config", configure)
    monkeypatch.setattr(polygraphy, "engine_bytes_from_network", lambda _network, config, **_: plan_bytes())
    monkeypatch.setattr(trt_session, "_logs", {})
    monkeypatch.setattr(builder, "visible_gpus", lambda: ("9.0",))
    monkeypatch.setattr(tensorrt, "library", lambda: Library("TensorRT", "tensorrt", False, InProcess()))
    return SimpleNamespace(asked=asked, polygraphy=polygraphy, util=util)


@pytest.mark.parametrize("tf32", [True, False])
def test_the_network_is_strongly_typed_and_tf32_explicit(library, gemm, tmp_path, tf32):
    engine = TensorRTBuilder().build(BuildRequest(gemm, BATCH, tf32=tf32), tmp_path / "m.engine")
    assert library.asked["parse"]["strongly_typed"] is True
    assert library.asked["config"]["tf32"] is tf32
    assert (engine.kind, engine.version, engine.targets, engine.tf32) == ("tensorrt", "11.4.0.106", ("9.0",), tf32)
    assert engine.precision["compute"] == {"float32": 1}


def test_the_profile_reaches_polygraphy(library, gemm, tmp_path):
    TensorRTBuilder().build(BuildRequest(gemm, BATCH), tmp_path / "m.engine")
    [profile] = library.asked["config"]["profiles"]
    assert (profile["x"].min, profile["x"].opt, profile["x"].max) == ((1, 64), (4, 64), (8, 64))
    assert "progress_monitor" in library.asked["config"]


def test_the_librarys_own_reason_is_given_and_no_file_left(library, gemm, tmp_path, monkeypatch):
    from polygraphy.exception import PolygraphyException

    def fail(*_, **__):
        logger = library.util.get_trt_logger()
        logger.log(Severity.ERROR, "(cudaError 35: CUDA driver version is insufficient)")
        logger.log(Severity.ERROR, "Could not find any implementation for node {ForeignNode[project...project]}.")
        raise PolygraphyException("Invalid Engine. Please ensure the engine was built correctly")

    monkeypatch.setattr(library.polygraphy, "engine_bytes_from_network", fail)
    with pytest.raises(BuildFailed, match=r"TensorRT 11\.4\.0\.106 .*Could not find any implementation"):
        TensorRTBuilder().build(BuildRequest(gemm, BATCH), tmp_path / "m.engine")
    assert list(tmp_path.iterdir()) == []


def test_a_library_that_ignores_tf32_is_caught(library, gemm, tmp_path, monkeypatch):
    monkeypatch.setattr(library.polygraphy, "create_config", lambda *_, **__: Config({Flag.TF32}))
    with pytest.raises(BuildFailed, match="something else than was asked for"):
        TensorRTBuilder().build(BuildRequest(gemm, BATCH, tf32=False), tmp_path / "m.engine")
    assert list(tmp_path.iterdir()) == []


def test_a_library_that_writes_rubbish_is_caught(library, gemm, tmp_path, monkeypatch):
    monkeypatch.setattr(library.polygraphy, "engine_bytes_from_network", lambda _network, config, **_: b"ftrt")
    with pytest.raises(CorruptFile):
        TensorRTBuilder().build(BuildRequest(gemm, BATCH), tmp_path / "m.engine")
    assert list(tmp_path.iterdir()) == []


def test_only_the_gpu_of_this_machine_is_a_target(library, gemm, tmp_path):
    output = tmp_path / "m.engine"
    assert TensorRTBuilder().build(BuildRequest(gemm, BATCH, ("9.0",)), output).targets == ("9.0",)
    with pytest.raises(UnknownTarget, match=r"not for 8\.6") as caught:
        TensorRTBuilder().build(BuildRequest(gemm, BATCH, ("8.6",)), output)
    assert "--backend rtx" in str(caught.value.remedy)


def test_an_engine_runs_on_named_arrays(library, gemm, tmp_path, monkeypatch):
    class Runner:
        def __init__(self, _engine):
            pass

        def __enter__(self):
            return self

        def __exit__(self, *_):
            pass

        def infer(self, feed):
            return {"file": feed["x"] + 1}  # `file` is a parameter of numpy.savez

    engine = TensorRTBuilder().build(BuildRequest(gemm, BATCH), tmp_path / "m.engine")
    monkeypatch.setattr(library.polygraphy, "engine_from_bytes", lambda data: data)
    monkeypatch.setattr(library.polygraphy, "TrtRunner", Runner)
    outputs = TensorRTBuilder().run(engine, {"x": np.zeros((2, 64), "f")})
    np.testing.assert_array_equal(outputs["file"], np.ones((2, 64), "f"))


def test_an_engine_that_changed_since_is_not_loaded(library, gemm, tmp_path, monkeypatch):
    engine = TensorRTBuilder().build(BuildRequest(gemm, BATCH), tmp_path / "m.engine")
    monkeypatch.setattr(library.polygraphy, "engine_from_bytes", lambda data: pytest.fail("loaded a foreign engine"))
    engine.path.write_bytes(plan_bytes(97))
    with pytest.raises(CorruptFile, match="sha256"):
        TensorRTBuilder().run(engine, {"x": np.zeros((2, 64), "f")})


def test_an_engine_that_cannot_run_gives_the_librarys_lines(library, gemm, tmp_path, monkeypatch):
    from polygraphy.exception import PolygraphyException

    def refuse(_data):
        library.util.get_trt_logger().log(Severity.ERROR, "set_input_shape: out of the profile")
        raise PolygraphyException("For input: x, failed to set shape")

    engine = TensorRTBuilder().build(BuildRequest(gemm, BATCH), tmp_path / "m.engine")
    monkeypatch.setattr(library.polygraphy, "engine_from_bytes", refuse)
    with pytest.raises(BadSample, match="failed to set shape") as caught:
        TensorRTBuilder().run(engine, {"x": np.zeros((99, 64), "f")})
    assert caught.value.details == ("set_input_shape: out of the profile",)


def test_the_wrong_child_is_noticed(library, monkeypatch):
    monkeypatch.setattr(importlib.import_module("polygraphy.config"), "USE_TENSORRT_RTX", True)
    with pytest.raises(InternalError):
        trt_child.build("m.onnx", "m.engine", [{}], [], True, rtx=False, settings={})


@pytest.mark.skipif(find_spec("tensorrt") is not None, reason="tensorrt is installed")
def test_without_the_library_the_extra_is_named(gemm, tmp_path):
    with pytest.raises(ExtraMissing) as caught:
        TensorRTBuilder().build(BuildRequest(gemm, BATCH), tmp_path / "m.engine")
    assert caught.value.remedy == "pip install 'graphkit-onnx[tensorrt]'"


@pytest.mark.gpu
def test_a_real_engine_is_built_and_computes_what_the_model_says(gemm, tmp_path, gpu):
    pytest.importorskip("tensorrt", exc_type=ImportError)
    made = TensorRTBuilder()
    engine = made.build(BuildRequest(gemm, BATCH, tf32=False), tmp_path / "m.engine")
    assert engine.targets == (gpu,)
    x = np.random.default_rng(0).standard_normal((3, 64)).astype("f")
    np.testing.assert_allclose(made.run(engine, {"x": x})["y"], x, rtol=1e-5, atol=1e-6)
