"""NVIDIA TensorRT: with a stand-in for the library where there is no GPU, for real where there is one.

The stand-in replaces what needs a GPU (parsing and building); graphkit's own code on both sides of the process
boundary, and Polygraphy's Profile, are the real ones.
"""

from __future__ import annotations

import importlib
import json
import struct
from enum import IntEnum
from importlib.machinery import ModuleSpec
from importlib.util import find_spec
from types import ModuleType, SimpleNamespace

import numpy as np
import onnx
import pytest

import graphkit as gk
from graphkit.engine import builder, refit, running, sidecar, tensorrt, trt_child, trt_session
from graphkit.engine.builder import BuildRequest, Library
from graphkit.engine.kernels import Kernel
from graphkit.engine.make import key_for
from graphkit.engine.settings import TensorRTSettings
from graphkit.engine.tensorrt import TensorRTBuilder
from graphkit.errors import (
    BadOption,
    BadSample,
    BuildFailed,
    CorruptFile,
    ExtraMissing,
    InternalError,
    UnknownTarget,
    UntrustedSource,
    WeightsMismatch,
)
from graphkit.model import SourceLine, file_sha256, set_provenance
from graphkit.shapes import DimRange

BATCH = (DimRange("batch", 1, 4, 8),)


class Flag(IntEnum):
    TF32 = 7
    EDITABLE_TIMING_CACHE = 9


class HardwareLevel(IntEnum):
    AMPERE_PLUS = 1
    SAME_COMPUTE_CAPABILITY = 2


class Pool(IntEnum):
    WORKSPACE = 0


class Serialization(IntEnum):
    EXCLUDE_WEIGHTS = 0
    INCLUDE_REFIT = 2


class Severity(IntEnum):
    INTERNAL_ERROR = 0
    ERROR = 1
    WARNING = 2


class Config:
    def __init__(self, flags):
        self.flags = flags

    def get_flag(self, flag):
        return flag in self.flags

    def set_flag(self, flag):
        self.flags.add(flag)

    def clear_flag(self, flag):
        self.flags.discard(flag)


INSPECTOR = {
    "Layers": [
        {
            "Name": "project_myl0_1",
            "LayerType": "gemm",
            "Metadata": "[ONNX Layer: project]",
            "Outputs": [{"Name": "y", "Format/Datatype": "Row major linear FP32"}],
        }
    ]
}


class LoadedEngine:
    """An engine that TensorRT has loaded, with one weight."""

    def create_engine_inspector(self):
        return SimpleNamespace(get_engine_information=lambda _: json.dumps(INSPECTOR))

    def create_serialization_config(self):
        return Config({Serialization.EXCLUDE_WEIGHTS})

    def serialize_with_config(self, config):
        assert config.flags == {Serialization.INCLUDE_REFIT}
        return plan_bytes(200)


class Refitter:
    """Takes the weights that `OnnxRefitter` finds in a file."""

    def __init__(self, engine, logger):
        assert isinstance(engine, LoadedEngine)
        self.given = set()

    def get_all_weights(self):
        return ["w"]

    def get_missing_weights(self):
        return sorted({"w"} - self.given)

    def refit_cuda_engine(self):
        return True


class OnnxRefitter:
    num_errors = 0

    def __init__(self, refitter, logger):
        self.refitter = refitter

    def refit_from_file(self, path):
        self.refitter.given = {tensor.name for tensor in onnx.load(path).graph.initializer}
        return True


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

    layer = SimpleNamespace(
        type=SimpleNamespace(name="MATRIX_MULTIPLY"),
        num_inputs=1,
        num_outputs=1,
        get_input=lambda _: tensor("x"),
        get_output=lambda _: tensor("y"),
    )
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
    trt.IProfiler = type("Profiler", (), {"__init__": lambda self: None})
    trt.Logger, trt.BuilderFlag = Severity, Flag
    trt.HardwareCompatibilityLevel, trt.MemoryPoolType, trt.SerializationFlag = HardwareLevel, Pool, Serialization
    trt.LayerInformationFormat = SimpleNamespace(JSON=1)
    trt.Refitter, trt.OnnxParserRefitter = Refitter, OnnxRefitter
    monkeypatch.setitem(importlib.import_module("sys").modules, "tensorrt", trt)
    asked = {}

    def parse(path, **options):
        asked["parse"] = options
        return SimpleNamespace(), network(), SimpleNamespace()

    def configure(_builder, _network, **options):
        asked["config"] = options
        asked["flags"] = Config({Flag.TF32} if options["tf32"] else set())
        return asked["flags"]

    def serialise(_network, config, save_timing_cache=None):
        asked["saved"] = save_timing_cache
        return plan_bytes()

    polygraphy = importlib.import_module("polygraphy.backend.trt")
    util = importlib.import_module("polygraphy.backend.trt.util")
    monkeypatch.setattr(importlib.import_module("polygraphy.config"), "USE_TENSORRT_RTX", False)
    monkeypatch.setattr(importlib.import_module("polygraphy.logger").G_LOGGER, "module_severity", 20)
    monkeypatch.setattr(util, "TRT_LOGGER", None)
    monkeypatch.setattr(polygraphy, "network_from_onnx_path", parse)
    monkeypatch.setattr(polygraphy, "create_config", configure)
    monkeypatch.setattr(polygraphy, "engine_bytes_from_network", serialise)
    monkeypatch.setattr(polygraphy, "engine_from_bytes", lambda _: LoadedEngine())
    monkeypatch.setattr(builder, "gpu_name", lambda: "NVIDIA H100")
    monkeypatch.setattr(builder, "missing", lambda package, extra: None)
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
        def __init__(self, _engine, optimization_profile):
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


# --- what only TensorRT can be asked for -----------------------------------------------------------------------------


def build_with(gemm, folder, **settings):
    request = BuildRequest(gemm, BATCH, settings=TensorRTSettings(**settings))
    engine = TensorRTBuilder().build(request, folder / "m.engine")
    sidecar.write(engine, request)
    return engine


def test_settings_reach_polygraphy_in_the_librarys_terms(library, gemm, tmp_path):
    cache = tmp_path / "kernels.cache"
    build_with(
        gemm, tmp_path, timing_cache=cache, hardware="ampere-plus", workspace=64, level=5, version_compatible=True
    )
    asked = library.asked["config"]
    assert asked["load_timing_cache"] == library.asked["saved"] == str(cache)
    assert Flag.EDITABLE_TIMING_CACHE in library.asked["flags"].flags
    assert asked["hardware_compatibility_level"] is HardwareLevel.AMPERE_PLUS
    assert asked["memory_pool_limits"] == {Pool.WORKSPACE: 64 << 20}
    assert (asked["builder_optimization_level"], asked["version_compatible"]) == (5, True)
    said = json.loads((tmp_path / "m.engine.json").read_text())
    assert said["settings"]["timing_cache"] == "kernels.cache"  # no folder: it differs between machines


def test_without_settings_polygraphy_is_asked_for_nothing_more(library, gemm, tmp_path):
    build_with(gemm, tmp_path)
    assert set(library.asked["config"]) == {"profiles", "progress_monitor", "tf32"}
    assert library.asked["saved"] is None
    assert "settings" not in json.loads((tmp_path / "m.engine.json").read_text())


def test_several_profiles_reach_polygraphy(library, gemm, tmp_path):
    profiles = ((DimRange("batch", 1, 1, 1),), (DimRange("batch", 2, 4, 8),))
    engine = TensorRTBuilder().build(BuildRequest(gemm, profiles=profiles), tmp_path / "m.engine")
    assert [profile["x"].max for profile in library.asked["config"]["profiles"]] == [(1, 64), (8, 64)]
    assert running.profile_for(engine, {"x": (1, 64)}) == 0
    assert running.profile_for(engine, {"x": (3, 64)}) == 1
    with pytest.raises(BadSample, match=r"none of the engine's 2 profiles takes x \[9, 64\]"):
        running.profile_for(engine, {"x": (9, 64)})


@pytest.mark.parametrize("bad", [{"level": 6}, {"workspace": 0}, {"hardware": "turing"}])
def test_settings_that_tensorrt_has_not_are_refused(bad):
    with pytest.raises(BadOption):
        TensorRTSettings(**bad)


def test_the_gpu_decides_what_the_cache_gives(library, monkeypatch):
    monkeypatch.setattr(tensorrt, "version", lambda _: "11.4.0.106")
    here = TensorRTBuilder().identity()
    monkeypatch.setattr(builder, "gpu_name", lambda: "NVIDIA L4")
    assert TensorRTBuilder().identity() != here


def test_an_engine_with_a_timing_cache_is_not_cached(library, gemm, monkeypatch, tmp_path):
    monkeypatch.setattr(tensorrt, "version", lambda _: "11.4.0.106")
    made = TensorRTBuilder()
    assert key_for(made, BuildRequest(gemm, BATCH), "0") is not None
    settings = TensorRTSettings(timing_cache=tmp_path / "t")
    assert key_for(made, BuildRequest(gemm, BATCH, settings=settings), "0") is None


# --- layers ----------------------------------------------------------------------------------------------------------


def test_layers_are_in_the_description_with_the_onnx_nodes(library, gemm, tmp_path):
    engine = build_with(gemm, tmp_path)
    assert engine.kernels == (Kernel("project_myl0_1", "gemm", ("project",), "float32"),)
    [layer] = gk.inspect(engine.path).engine_layers
    assert (layer.nodes, layer.dtype) == (("project",), "float32")


def test_layer_times_are_means_joined_to_the_onnx_nodes(library, gemm, tmp_path, monkeypatch):
    class Runner:
        def __init__(self, _engine, optimization_profile):
            self.context = SimpleNamespace(profiler=None)

        def __enter__(self):
            return self

        def __exit__(self, *_):
            pass

        def infer(self, feed):
            if self.context.profiler is not None:
                self.context.profiler.report_layer_time("project_myl0_1", 2.0)
                self.context.profiler.report_layer_time("reformat", 0.5)

    engine = build_with(gemm, tmp_path)
    monkeypatch.setattr(library.polygraphy, "TrtRunner", Runner)
    times = running.layer_times(tensorrt.library(), engine, {"x": np.zeros((2, 64), "f")}, rounds=4)
    assert times == ((engine.kernels[0], 2.0), (Kernel("reformat", "", ()), 0.5))


# --- refit -----------------------------------------------------------------------------------------------------------


def other_weights(make, name="w", shape=(64, 64)):
    node = onnx.helper.make_node("MatMul", ["x", name], ["y"], name="project")
    ends = [("x", 1, ["batch", shape[0]])], [("y", 1, ["batch", shape[1]])]
    return make([node], *ends, [(name, np.full(shape, 2, "f"))])


def test_a_refittable_engine_lists_its_weights_and_their_parameters(library, make, tmp_path):
    model = other_weights(make, "head.proj.weight")
    set_provenance(next(iter(model.ir.graph)), [SourceLine("head.proj", "net.py", 3, "forward")])
    weights = refit.weights_of(model, ["head.proj.weight", "folded"])
    assert weights["head.proj.weight"] == refit.Weight("float32", (64, 64), "head.proj.weight")
    assert weights["folded"] == refit.Weight()


def test_a_weight_that_a_rule_made_of_a_parameter_is_not_that_parameter(library, make, tmp_path):
    from graphkit.optimization import Options, rewrite_model

    nodes = [
        onnx.helper.make_node("MatMul", ["x", "net.weight"], ["z"], name="project"),
        onnx.helper.make_node("Mul", ["z", "net.scale"], ["y"], name="scale"),
    ]
    ends = [("x", 1, ["batch", 8])], [("y", 1, ["batch", 4])]
    random = np.random.default_rng(0)
    given = {"net.weight": random.random((8, 4), "f"), "net.scale": random.random(4, "f")}
    model = make(nodes, *ends, list(given.items()))
    for node in model.ir.graph:
        set_provenance(node, [SourceLine("net", "net.py", 3, "forward")])
    after = rewrite_model(model, Options()).model
    (name,) = after.ir.graph.initializers
    assert name not in given
    assert refit.weights_of(after, [name])[name].parameter is None


@pytest.mark.parametrize("settings", [{"refittable": True}, {"strip_weights": True}])
def test_new_weights_go_in_and_the_description_is_of_the_new_engine(library, gemm, make, tmp_path, settings):
    engine = build_with(gemm, tmp_path, **settings)
    assert library.asked["config"]["refittable"] is True
    assert library.asked["config"].get("strip_plan", False) is ("strip_weights" in settings)
    made = refit.refit(engine.path, other_weights(make), tmp_path / "new.engine", library=tensorrt.library())
    said = json.loads((tmp_path / "new.engine.json").read_text())
    assert said["engine"]["sha256"] == file_sha256(made)
    assert said["engine"]["name"] == "new.engine"
    assert said["model"]["sha256"] != engine.model_sha256
    assert {p.name for p in tmp_path.iterdir()} == {f"{n}.engine{e}" for n in ("m", "new") for e in ("", ".json")}


@pytest.mark.parametrize(
    ("name", "shape", "said"),
    [("other", (64, 64), "`w` is missing"), ("w", (64, 32), r"\[64, 32\], not float32\[64, 64\]")],
)
def test_weights_that_do_not_fit_are_refused_before_the_gpu_is_asked(library, gemm, make, tmp_path, name, shape, said):
    engine = build_with(gemm, tmp_path, refittable=True)
    with pytest.raises(WeightsMismatch, match=said):
        refit.refit(engine.path, other_weights(make, name, shape), tmp_path / "new.engine", library=tensorrt.library())
    assert not (tmp_path / "new.engine").exists()


def test_what_tensorrt_says_no_to_is_given_and_no_file_left(library, gemm, make, tmp_path, monkeypatch):
    engine = build_with(gemm, tmp_path, refittable=True)
    monkeypatch.setattr(OnnxRefitter, "refit_from_file", lambda *_: False)
    with pytest.raises(BuildFailed, match="did not refit") as caught:
        refit.refit(engine.path, other_weights(make), tmp_path / "new.engine", library=tensorrt.library())
    assert caught.value.details == ("no weights for `w`",)
    assert {p.name for p in tmp_path.iterdir()} == {"m.engine", "m.engine.json"}


@pytest.mark.parametrize("load", ["to look into it", "to refit it"])
def test_an_engine_that_cannot_be_loaded_gives_the_librarys_reason(library, gemm, make, tmp_path, monkeypatch, load):
    from polygraphy.exception import PolygraphyException

    def refuse(_data):
        said = "Using an engine plan file across different models of devices"
        library.util.get_trt_logger().log(Severity.ERROR, said)
        raise PolygraphyException("Could not deserialize engine. See log for details.")

    engine, new = build_with(gemm, tmp_path, refittable=True), tmp_path / "n.engine"
    monkeypatch.setattr(library.polygraphy, "engine_from_bytes", refuse)
    steps = {
        "to look into it": lambda: TensorRTBuilder().build(BuildRequest(gemm, BATCH), new),
        "to refit it": lambda: refit.refit(engine.path, other_weights(make), new, library=tensorrt.library()),
    }
    with pytest.raises(BuildFailed, match="across different models of devices"):
        steps[load]()
    assert not (tmp_path / "n.engine").exists()


def test_an_engine_that_takes_no_weights_or_is_anothers_is_refused(library, gemm, make, tmp_path):
    engine = build_with(gemm, tmp_path)
    with pytest.raises(BadOption, match="takes no new weights"):
        refit.refit(engine.path, other_weights(make), tmp_path / "new.engine", library=tensorrt.library())
    engine.path.write_bytes(plan_bytes(100))
    with pytest.raises(UntrustedSource, match="does not vouch"):
        refit.refit(engine.path, other_weights(make), tmp_path / "new.engine", library=tensorrt.library())


@pytest.mark.gpu
def test_a_stripped_engine_is_refitted_and_computes_with_the_new_weights(gemm, make, tmp_path, gpu):
    from graphkit.refitting import refit as refit_and_compare

    pytest.importorskip("tensorrt", exc_type=ImportError)
    engine = build_with(gemm, tmp_path, strip_weights=True)
    new = other_weights(make).save(tmp_path / "new.onnx")[0]
    done = refit_and_compare(engine.path, new, tmp_path / "new.engine")
    assert {c.status for c in done.parity.comparisons} == {"pass"}


@pytest.mark.gpu
def test_the_layers_of_a_real_engine_are_timed(gemm, tmp_path, gpu):
    pytest.importorskip("tensorrt", exc_type=ImportError)
    engine = build_with(gemm, tmp_path, timing_cache=tmp_path / "t.cache")
    assert (tmp_path / "t.cache").stat().st_size > 0
    times = running.layer_times(tensorrt.library(), engine, {"x": np.zeros((4, 64), "f")})
    assert any("project" in kernel.nodes and ms > 0 for kernel, ms in times)


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
