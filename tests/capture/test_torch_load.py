"""`.pt` files: what is stock loads, what would run code is refused by name, weights need their architecture."""

from __future__ import annotations

from collections import OrderedDict
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import nn

from fixtures import malformed
from fixtures.torch_models import EXAMPLES, mlp, two_inputs
from graphkit.errors import ArchitectureMissing, BadCallable, BadOption, UntrustedSource, WeightsMismatch

pytestmark = pytest.mark.filterwarnings("ignore::DeprecationWarning", "ignore::FutureWarning")

SHAPES = EXAMPLES["mlp"].shapes
X = torch.randn(3, 16, generator=torch.Generator().manual_seed(0))
MLP = "fixtures.torch_models:mlp"


@pytest.fixture
def file(tmp_path):
    return lambda name: malformed.write(name, tmp_path / "files", tmp_path / "canary")


@pytest.fixture(autouse=True)
def _from_the_root(monkeypatch):
    """Architectures are looked up from the working directory."""
    monkeypatch.chdir(Path(__file__).resolve().parents[2])


def assert_is_the_mlp(model, onnx_run):
    with torch.no_grad():
        np.testing.assert_allclose(onnx_run(model, input=X)["output"], mlp()(X), atol=1e-5)


@pytest.mark.parametrize("name", ["module_stock.pt", "module_stock_legacy.pt"])
def test_a_pickled_stock_module_is_loaded_or_asks_for_trust(file, captured, onnx_run, name):
    try:
        model = captured(file(name), SHAPES)
    except UntrustedSource:
        assert name == "module_stock_legacy.pt"  # of an old format, whose safe loader knows weights only
        model = captured(file(name), SHAPES, trust=True)
    assert_is_the_mlp(model, onnx_run)


def test_a_pickled_custom_module_is_refused_by_the_names_in_it_and_loads_with_trust(file, captured, onnx_run):
    path, example = file("module_custom.pt"), EXAMPLES["two_inputs"]
    with pytest.raises(UntrustedSource, match=r"fixtures\.torch_models\.TwoInputs") as caught:
        captured(path, example.shapes)
    assert caught.value.data["globals"] == ["fixtures.torch_models.TwoInputs"]
    assert "--trust" in caught.value.remedy
    model = captured(path, example.shapes, trust=True)
    inputs = example.sample(batch=3, count=5)
    with torch.no_grad():
        wanted = two_inputs()(**inputs)
    for have, want in zip(onnx_run(model, **inputs).values(), wanted, strict=True):
        np.testing.assert_allclose(have, want, atol=1e-5)


WEIGHTS = ["state_dict.pt", "state_dict_legacy.pt", "checkpoint.pt", "weights.safetensors"]


@pytest.mark.parametrize("name", WEIGHTS)
def test_weights_alone_are_no_model(file, captured, name):
    with pytest.raises(ArchitectureMissing, match=name) as caught:
        captured(file(name), SHAPES)
    assert "--model" in caught.value.remedy


@pytest.mark.parametrize("name", WEIGHTS)
def test_weights_with_their_architecture_are_a_model(file, captured, onnx_run, name):
    assert_is_the_mlp(captured(file(name), SHAPES, architecture=MLP), onnx_run)


def test_the_weights_are_the_files_and_not_the_architectures(tmp_path, captured, onnx_run):
    changed = {n: v + 0.5 for n, v in mlp().state_dict().items()}
    torch.save({"state_dict": {f"module.{n}": v for n, v in changed.items()}}, tmp_path / "parallel.pt")
    model = captured(tmp_path / "parallel.pt", SHAPES, architecture=MLP)
    module = mlp()
    module.load_state_dict(changed)
    with torch.no_grad():
        np.testing.assert_allclose(onnx_run(model, input=X)["output"], module(X), atol=1e-4)


def test_weights_of_another_architecture_are_refused_with_the_names(file, captured):
    with pytest.raises(WeightsMismatch) as caught:
        captured(file("state_dict.pt"), SHAPES, architecture="fixtures.torch_models:two_inputs")
    text = " ".join(caught.value.details)
    assert "project.weight" in text
    assert "0.weight" in text


def test_weights_of_other_shapes_are_refused(tmp_path, captured):
    weights = mlp().state_dict()
    weights["4.bias"] = torch.zeros(5)
    torch.save(weights, tmp_path / "w.pt")
    with pytest.raises(WeightsMismatch) as caught:
        captured(tmp_path / "w.pt", SHAPES, architecture=MLP)
    assert "4.bias" in " ".join(caught.value.details)


@pytest.mark.parametrize(
    "spec", ["fixtures.torch_models:nothing", "no_such_package:mlp", "fixtures.torch_models:VOCABULARY", "x"]
)
def test_an_architecture_that_cannot_be_built_is_refused(file, captured, spec):
    with pytest.raises(BadCallable):
        captured(file("state_dict.pt"), SHAPES, architecture=spec)


@pytest.mark.parametrize("name", ["torchscript.pt", "program.pt2", "module_stock.pt"])
def test_an_architecture_for_a_whole_model_is_refused(file, captured, name):
    with pytest.raises(BadOption, match="--model"):
        captured(file(name), SHAPES, architecture=MLP)


def test_an_empty_checkpoint_is_no_model(tmp_path, captured):
    torch.save(OrderedDict(), tmp_path / "empty.pt")
    with pytest.raises(ArchitectureMissing):
        captured(tmp_path / "empty.pt", SHAPES)


def test_a_list_is_no_model(tmp_path, captured):
    torch.save([torch.zeros(3)], tmp_path / "list.pt")
    with pytest.raises(Exception, match="list") as caught:
        captured(tmp_path / "list.pt", SHAPES)
    assert caught.value.code == "GK216"


def test_a_callable_is_built_and_captured(captured, onnx_run):
    model = captured(MLP, SHAPES)
    assert model.origin.name == MLP
    assert_is_the_mlp(model, onnx_run)


def test_a_module_in_a_file_is_evaluated_although_it_was_saved_in_training_mode(tmp_path, captured, onnx_run):
    torch.save(nn.Sequential(nn.Linear(16, 4), nn.Dropout(0.9)).train(), tmp_path / "train.pt")
    module = torch.load(tmp_path / "train.pt", weights_only=False).eval()
    with torch.no_grad():
        found = onnx_run(captured(tmp_path / "train.pt", SHAPES), input=X)["output"]
        np.testing.assert_allclose(found, module(X), atol=1e-5)
