"""ExportedPrograms: nothing needs to be said, for their inputs, values and ranges are in them already."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from graphkit.errors import BadOption, FrozenDimension, ShapeMismatch, StateMutated, UnknownName
from graphkit.shapes import DimRange

pytestmark = pytest.mark.filterwarnings("ignore::DeprecationWarning", "ignore::FutureWarning")


class Join(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.lin = nn.Linear(4, 4)

    def forward(self, x: Tensor, extra: dict[str, Tensor], k: int = 2) -> dict[str, Tensor]:
        return {"sum": self.lin(x) + extra["b"] * k, "all": torch.cat([x, extra["b"]])}


def program() -> Any:
    torch.manual_seed(0)
    batch = torch.export.Dim("batch", min=1, max=16)
    inputs = (torch.randn(3, 4), {"b": torch.randn(3, 4)}, 5)
    shapes = ({0: batch}, {"b": {0: batch}}, None)
    return torch.export.export(Join().eval(), inputs, dynamic_shapes=shapes)


@pytest.fixture(scope="module")
def pt2(tmp_path_factory) -> Path:
    path = tmp_path_factory.mktemp("pt2") / "join.pt2"
    torch.export.save(program(), path)
    return path


@pytest.fixture(scope="module")
def model(pt2, captured) -> Any:
    return captured(pt2)


def test_a_file_is_captured_without_a_word_about_shapes(model):
    assert [(t.name, t.shape) for t in model.signature.inputs] == [("x", ("batch", 4)), ("extra.b", ("batch", 4))]
    assert [(t.name, t.shape) for t in model.signature.outputs] == [("sum", ("batch", 4)), ("all", ("2*batch", 4))]
    assert model.origin.kind == "torch.export archive"


def test_its_own_range_is_kept_and_its_own_example_is_used(model):
    assert model.dims == (DimRange("batch", 1, 3, 16),)
    assert model.origin.sizes == {"batch": 3}


@pytest.mark.parametrize("batch", [1, 3, 16])
def test_it_computes_what_the_program_computes(model, onnx_run, batch):
    x, b = torch.randn(batch, 4), torch.randn(batch, 4)
    wanted = program().module()(x, {"b": b}, 5)
    found = onnx_run(model, **{"x": x, "extra.b": b})
    for name, want in wanted.items():
        np.testing.assert_allclose(found[name], want.detach(), atol=1e-5, rtol=1e-5)


def test_an_object_in_memory_is_the_same_as_its_file(model, captured):
    direct = captured(program())
    assert direct.signature == model.signature
    assert direct.dims == model.dims


def test_its_dimensions_can_be_named_and_its_range_narrowed(captured):
    named = captured(program(), {"x": ("rows", 4)}, {"rows": (2, 4, 8)})
    assert named.signature.inputs[1].shape == ("rows", 4)
    assert named.signature.outputs[1].shape == ("2*rows", 4)
    assert named.dims == (DimRange("rows", 2, 4, 8),)


@pytest.mark.parametrize(
    ("shapes", "error"),
    [
        ({"x": ("batch", "width")}, FrozenDimension),
        ({"x": ("batch", 5)}, ShapeMismatch),
        ({"x": ("batch",)}, ShapeMismatch),
        ({"y": ("batch", 4)}, UnknownName),
    ],
)
def test_what_the_program_does_not_have_is_refused(captured, shapes, error):
    with pytest.raises(error):
        captured(program(), shapes)


def test_a_size_where_the_program_is_dynamic_is_honoured_or_refused(captured):
    try:
        found = captured(program(), {"x": (3, 4)}).signature.inputs[0].shape
    except (ShapeMismatch, BadOption, FrozenDimension):
        return
    assert found == (3, 4)


@pytest.mark.parametrize("batch", [(1, 4, 32), (0, 1, 2)])
def test_a_range_wider_than_the_programs_is_refused(captured, batch):
    with pytest.raises(Exception) as caught:
        captured(program(), {"x": ("batch", 4)}, {"batch": batch})
    assert caught.value.exit_code in (1, 2)


@pytest.mark.parametrize("via", ["script", "trace"])
def test_it_is_exported_already(captured, via):
    with pytest.raises(BadOption, match="exported already"):
        captured(program(), via=via)


def test_a_program_that_writes_a_buffer_is_refused(captured):
    class Counts(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.register_buffer("seen", torch.zeros(1))

        def forward(self, x: Tensor) -> Tensor:
            self.seen.add_(1.0)
            return x + self.seen

    with pytest.raises(StateMutated, match="`seen`") as caught:
        captured(torch.export.export(Counts().eval(), (torch.ones(2),)))
    assert "test_torch_program.py" in str(caught.value.where)
