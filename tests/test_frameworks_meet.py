"""One network in PyTorch and in Keras, with the same weights: equal, and so are their two conversions."""

from __future__ import annotations

from pathlib import Path

import pytest

import graphkit as gk
from graphkit.comparison import ValidateRequest
from graphkit.shapes import DimRange, TensorSpec

pytestmark = pytest.mark.slow

TORCH, KERAS = "fixtures.torch_models:residual_cnn", "fixtures.keras_models:residual_cnn_from_torch"
SHAPES = (TensorSpec("input", "float32", ("batch", 3, 64, 64)),)
DIMS = (DimRange("batch", 1, 2, 5),)


@pytest.fixture(scope="module")
def graphs(tmp_path_factory) -> tuple[Path, Path]:
    """The conversion of each."""
    folder = tmp_path_factory.mktemp("graphs")
    files = folder / "torch.onnx", folder / "keras.onnx"
    for source, file in zip((TORCH, KERAS), files, strict=True):
        gk.convert(source, output=file, shapes={"input": SHAPES[0].shape}, dims={"batch": (1, 2, 5)})
    return files


def agree(reference, candidate, request=None) -> list[dict[str, int]]:
    """The sizes at which the two were compared; they pass at each."""
    report = gk.validate(reference, [candidate], request)
    assert [c.reason for c in report.comparisons if c.status != "pass"] == []
    return [dict(c.sizes) for c in report.comparisons]


def test_a_module_and_its_twin_in_keras_are_equal():
    sizes = agree(TORCH, KERAS, ValidateRequest(shapes=SHAPES, dims=DIMS))
    assert {s["batch"] for s in sizes} >= {1, 5}


def test_the_two_conversions_are_equal_though_their_graphs_are_not(graphs):
    assert {s["batch"] for s in agree(*graphs)} >= {1, 5}
    assert gk.digest(graphs[0]).structure != gk.digest(graphs[1]).structure
    assert gk.locate(*graphs).status == "equal"


def test_each_conversion_is_equal_to_the_other_framework(graphs):
    agree(KERAS, graphs[0])
    agree(TORCH, graphs[1])
