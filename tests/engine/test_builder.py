from __future__ import annotations

import pytest

from graphkit.engine import builder
from graphkit.engine.builder import BUILDERS, choose
from graphkit.errors import ExtraMissing, GpuRequired, UnknownTarget


@pytest.fixture
def machine(monkeypatch):
    """Pretend what is installed and which GPUs are there."""

    def pretend(*packages: str, gpus: tuple[str, ...] = ()) -> None:
        monkeypatch.setattr("importlib.util.find_spec", lambda name, *_: object() if name in packages else None)
        monkeypatch.setattr(builder, "visible_gpus", lambda: gpus)

    return pretend


@pytest.mark.parametrize(
    ("packages", "gpus", "chosen"),
    [
        (("tensorrt", "tensorrt_rtx"), ("9.0",), "tensorrt"),
        (("tensorrt", "tensorrt_rtx"), (), "rtx"),
        (("tensorrt_rtx",), ("9.0",), "rtx"),
        (("tensorrt",), ("9.0",), "tensorrt"),
    ],
)
def test_tensorrt_needs_the_library_and_a_gpu_else_rtx(machine, packages, gpus, chosen):
    machine(*packages, gpus=gpus)
    assert choose(None).name == chosen


@pytest.mark.parametrize(
    ("backend", "packages", "error", "remedy"),
    [
        ("rtx", (), ExtraMissing, "pip install 'graphkit-onnx[trt]'"),
        ("tensorrt", ("tensorrt_rtx",), ExtraMissing, "pip install 'graphkit-onnx[tensorrt]'"),
        ("tensorrt", ("tensorrt", "tensorrt_rtx"), GpuRequired, "--backend rtx"),
        (None, (), ExtraMissing, "pip install 'graphkit-onnx[trt]'"),
        (None, ("tensorrt",), ExtraMissing, "pip install 'graphkit-onnx[trt]'"),
    ],
)
def test_what_cannot_build_here_says_what_would_help(machine, backend, packages, error, remedy):
    machine(*packages)
    with pytest.raises(error) as caught:
        choose(backend)
    assert remedy in str(caught.value.remedy)


def test_an_insisted_backend_is_honoured(machine):
    machine("tensorrt", "tensorrt_rtx", gpus=("8.9",))
    assert choose("rtx").name == "rtx"


def test_an_unknown_backend_lists_the_known_ones():
    with pytest.raises(UnknownTarget, match="'openvino'") as caught:
        choose("openvino")
    assert all(name in str(caught.value.remedy) for name in BUILDERS)


@pytest.mark.parametrize("name", BUILDERS)
def test_every_registered_builder_keeps_the_contract(name):
    made = builder._load(name)
    assert made.name == name
    assert all(callable(getattr(made, method)) for method in ("available", "warm_up", "build", "run"))


def test_the_driver_is_asked_in_a_child_that_is_gone_afterwards():
    builder.visible_gpus.cache_clear()
    assert all(part.isdigit() for gpu in builder.visible_gpus() for part in gpu.split("."))
