"""Modules of the Python API: what is asked of a capture is honoured or refused, and the module is left as it was."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from fixtures.baited import BAITED
from graphkit.errors import (
    BadDimRange,
    BadOption,
    BadSample,
    FrozenDimension,
    FrozenScalar,
    NotAModel,
    OpsetNotHonoured,
    Refused,
    ShapeDependentBranch,
    ShapeMismatch,
    ShapeMissing,
    StateMutated,
    UnknownName,
)
from graphkit.shapes import TensorSpec, evaluate

pytestmark = pytest.mark.filterwarnings("ignore::DeprecationWarning", "ignore::FutureWarning")


class Net(nn.Module):
    """Dropout and BatchNorm: in training mode it computes something else, and counts."""

    def __init__(self) -> None:
        super().__init__()
        self.body = nn.Sequential(nn.Linear(4, 8), nn.BatchNorm1d(8), nn.Dropout(0.5))
        self.head = nn.Linear(8, 3)

    def forward(self, x: Tensor) -> Tensor:
        return self.head(self.body(x))


def net() -> Net:
    with torch.random.fork_rng():
        torch.manual_seed(1)
        return Net().eval()


X = torch.randn(5, 4, generator=torch.Generator().manual_seed(0))
SHAPES = {"x": ("batch", 4)}


@pytest.fixture(scope="module")
def wanted() -> np.ndarray:
    with torch.no_grad():
        return net()(X).numpy()


def same(model, onnx_run, wanted, name="x") -> bool:
    [found] = onnx_run(model, **{name: X}).values()
    return np.allclose(found, wanted, atol=1e-5)


def test_a_module_in_training_mode_is_captured_in_evaluation_mode_and_gets_its_modes_back(captured, onnx_run, wanted):
    module = net().train()
    module.body[2].eval()
    module.head.requires_grad_(False)
    modes = {n: m.training for n, m in module.named_modules()}
    grads = {n: p.requires_grad for n, p in module.named_parameters()}
    statistics = {n: b.clone() for n, b in module.named_buffers()}
    model = captured(module, SHAPES)
    assert {n: m.training for n, m in module.named_modules()} == modes
    assert modes[""] is True
    assert modes["body.2"] is False
    assert {n: p.requires_grad for n, p in module.named_parameters()} == grads
    assert all(torch.equal(b, statistics[n]) for n, b in module.named_buffers())
    assert same(model, onnx_run, wanted)


def test_the_modes_come_back_after_a_refusal_too(captured):
    module = net().train()
    with pytest.raises(ShapeMismatch):
        captured(module, {"x": ("batch", 5)})
    assert all(m.training for m in module.modules())


def test_wrappers_of_parallel_training_are_taken_off(captured, onnx_run, wanted):
    model = captured(nn.DataParallel(net()), SHAPES)
    assert model.origin.name == "Net"
    assert same(model, onnx_run, wanted)


def test_a_distributed_wrapper_is_taken_off(captured, onnx_run, wanted, tmp_path):
    store = torch.distributed.FileStore(str(tmp_path / "store"), 1)
    torch.distributed.init_process_group("gloo", store=store, rank=0, world_size=1)
    try:
        model = captured(nn.parallel.DistributedDataParallel(net()), SHAPES)
        assert same(model, onnx_run, wanted)
    finally:
        torch.distributed.destroy_process_group()


@pytest.mark.parametrize("name", ["mutated_buffer", "mutated_attribute"])
def test_a_module_that_is_refused_for_its_state_is_left_as_it_was(captured, name):
    module = BAITED[name].factory()
    before = {k: v.clone() for k, v in {**dict(module.named_buffers()), **vars(module)}.items() if torch.is_tensor(v)}
    with pytest.raises(StateMutated):
        captured(module, SHAPES)
    after = {**dict(module.named_buffers()), **vars(module)}
    assert before
    assert all(torch.equal(after[k], v) for k, v in before.items())


def test_sizes_for_capture_keep_the_common_divisor_of_a_range(captured):
    sides = {"input": ("batch", 3, "height", "width")}
    range_ = (32, 64, 128)
    model = captured(
        nn.Sequential(nn.AvgPool2d(32), nn.Upsample(scale_factor=32)), sides, dims={"height": range_, "width": range_}
    )
    height, width = model.origin.sizes["height"], model.origin.sizes["width"]
    assert height != width
    assert (height % 32, width % 32) == (0, 0)
    assert all(evaluate(d, {"height": 96, "width": 32}) in (96, 32) for d in model.signature.outputs[0].shape[2:])


def test_an_fx_graph_module_is_captured(captured, onnx_run, wanted):
    model = captured(torch.fx.symbolic_trace(net()), SHAPES)
    assert model.origin.kind == "torch.fx GraphModule"
    assert same(model, onnx_run, wanted)


def test_a_part_of_a_module_is_captured(captured, onnx_run):
    module = net()
    model = captured(module, {"input": ("batch", 4)}, submodule="body.0")
    with torch.no_grad():
        assert same(model, onnx_run, module.body[0](X).numpy(), "input")


def test_a_part_that_is_not_there_is_refused(captured):
    with pytest.raises(UnknownName, match=r"body\.9") as caught:
        captured(net(), SHAPES, submodule="body.9")
    assert "body" in caught.value.remedy


@pytest.mark.parametrize("target", [3, object(), {"a": 1}, np.zeros(3)], ids=["int", "object", "dict", "np"])
def test_what_is_no_model_is_refused(captured, target):
    with pytest.raises(NotAModel):
        captured(target)


def test_a_tensor_is_no_model(captured):
    with pytest.raises(NotAModel):
        captured(torch.zeros(3), SHAPES)


# --- ways and opsets ---------------------------------------------------------------------------------------------


@pytest.mark.parametrize("via", ["export", "script", "trace"])
def test_the_way_that_was_asked_is_the_way_that_was_taken(captured, onnx_run, wanted, via):
    model = captured(net(), SHAPES, via=via)
    assert [rung.name for rung in model.origin.rungs] == [via]
    assert model.signature.outputs[0].shape == ("batch", 3)
    assert same(model, onnx_run, wanted)


def test_an_unknown_way_is_refused(captured):
    with pytest.raises(BadOption, match="dynamo") as caught:
        captured(net(), SHAPES, via="dynamo")
    assert "export, script, trace" in caught.value.remedy


@pytest.mark.parametrize("opset", range(13, 25))
def test_the_opset_that_was_asked_is_made(captured, onnx_run, wanted, opset):
    model = captured(net(), SHAPES, opset=opset)
    assert model.opset == opset
    assert same(model, onnx_run, wanted)


def test_an_opset_out_of_reach_is_refused(captured):
    with pytest.raises(Refused, match="99"):
        captured(nn.ReLU(), {"input": ("batch", 4)}, opset=99)


def test_an_opset_that_one_way_cannot_make_is_refused_and_never_another(captured):
    with pytest.raises(OpsetNotHonoured, match="24") as caught:
        captured(net(), SHAPES, opset=24, via="script")
    assert caught.value.exit_code == 1


# --- names, shapes, ranges, samples ------------------------------------------------------------------------------


def test_an_input_without_a_shape_is_named(captured):
    with pytest.raises(ShapeMissing, match="`x`") as caught:
        captured(net())
    assert "--shape x=" in caught.value.remedy


def test_an_unknown_input_is_refused_with_the_known_ones(captured):
    with pytest.raises(UnknownName, match="`y`") as caught:
        captured(net(), {"x": ("batch", 4), "y": (2,)})
    assert "`x`" in caught.value.remedy


def test_a_range_for_an_unknown_dimension_is_refused_with_what_to_write(captured):
    with pytest.raises(UnknownName, match="`seq`") as caught:
        captured(net(), SHAPES, {"seq": (1, 2, 3)})
    assert "--shape x=seq" in caught.value.remedy


def test_a_range_that_is_not_ordered_is_refused(captured):
    with pytest.raises(BadDimRange, match="8:4:2"):
        captured(net(), SHAPES, {"batch": (8, 4, 2)})


@pytest.mark.parametrize(
    "shape", [("batch", 5), ("batch",), ("batch", 4, 1, 1, 1), TensorSpec("x", "int64", ("batch", 4))]
)
def test_a_shape_or_type_that_the_module_rejects_is_refused_with_its_own_words(captured, shape):
    with pytest.raises(ShapeMismatch, match="rejects these inputs") as caught:
        captured(net(), {"x": shape})
    assert caught.value.where
    assert "test_torch_module.py" in caught.value.where


def test_the_values_of_a_file_fix_the_shape(captured, tmp_path, onnx_run, wanted):
    np.save(tmp_path / "x.npy", X.numpy())
    model = captured(net(), inputs={"x": str(tmp_path / "x.npy")})
    assert model.signature.inputs == (TensorSpec("x", "float32", (5, 4)),)
    assert same(model, onnx_run, wanted)


def test_a_shape_beside_the_file_keeps_its_dimensions_dynamic(captured, tmp_path, onnx_run, wanted):
    np.save(tmp_path / "x.npy", X.numpy()[:3])
    model = captured(net(), SHAPES, {"batch": (1, 3, 8)}, {"x": str(tmp_path / "x.npy")})
    assert model.signature.inputs[0].shape == ("batch", 4)
    assert model.origin.sizes == {"batch": 3}
    assert same(model, onnx_run, wanted)


@pytest.mark.parametrize(
    ("array", "shape"),
    [
        (np.zeros((3, 5), np.float32), ("batch", 4)),
        (np.zeros((3, 4, 1), np.float32), ("batch", 4)),
        (np.zeros((3, 4), np.float64), TensorSpec("x", "float32", ("batch", 4))),
    ],
    ids=["size", "rank", "dtype"],
)
def test_a_file_that_does_not_fit_its_shape_is_refused(captured, tmp_path, array, shape):
    np.save(tmp_path / "x.npy", array)
    with pytest.raises(ShapeMismatch, match=r"x\.npy"):
        captured(net(), {"x": shape}, None, {"x": str(tmp_path / "x.npy")})


@pytest.mark.parametrize("kind", ["missing", "text", "pickle", "npz", "empty"])
def test_a_file_that_is_no_array_is_refused(captured, tmp_path, kind):
    path = tmp_path / "x.npy"
    if kind == "text":
        path.write_text("1 2 3")
    elif kind == "empty":
        path.write_bytes(b"")
    elif kind == "pickle":
        np.save(path, np.array([{"a": 1}], object), allow_pickle=True)
    elif kind == "npz":
        with path.open("wb") as file:
            np.savez(file, x=X.numpy())
    with pytest.raises(BadSample, match=r"x\.npy"):
        captured(net(), inputs={"x": str(path)})


def test_two_dimensions_that_must_be_equal_are_not_two(captured):
    class Sum(nn.Module):
        def forward(self, a: Tensor, b: Tensor) -> Tensor:
            return a.reshape(-1) + b.reshape(-1)

    with pytest.raises((FrozenDimension, ShapeMismatch)):
        captured(Sum(), {"a": ("m", 2), "b": ("n", 2)}, {"m": (1, 3, 9), "n": (1, 3, 9)})


# --- Python numbers ----------------------------------------------------------------------------------------------


class Scaled(nn.Module):
    def forward(self, x: Tensor, k: float = 2.0, n: int = 1) -> Tensor:
        return x * k + n


def test_a_default_that_was_not_given_stays_and_is_said(captured, onnx_run):
    model = captured(Scaled(), SHAPES)
    assert {f.message.split("`")[1] for f in model.origin.findings} == {"k", "n"}
    np.testing.assert_allclose(onnx_run(model, x=X)["output"], X * 2 + 1, atol=1e-6)


def test_a_number_that_was_given_is_an_input(captured, onnx_run):
    model = captured(Scaled(), SHAPES, inputs={"k": 0.5, "n": 3})
    assert [t.name for t in model.signature.inputs] == ["x", "k", "n"]
    for k, n in ((0.5, 3), (-4.0, 0)):
        np.testing.assert_allclose(onnx_run(model, x=X, k=np.float64(k), n=np.int64(n))["output"], X * k + n, atol=1e-5)


def test_a_number_that_would_be_baked_in_is_refused(captured):
    with pytest.raises(FrozenScalar, match="`k`"):
        captured(Scaled(), SHAPES, inputs={"k": 0.5}, via="export")


# --- state, sizes, results ---------------------------------------------------------------------------------------


def test_a_list_that_grows_is_state(captured):
    class Remembers(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.calls: list[int] = []

        def forward(self, x: Tensor) -> Tensor:
            self.calls.append(1)
            return x * 2

    with pytest.raises(StateMutated, match="`calls`") as caught:
        captured(Remembers(), SHAPES)
    assert "test_torch_module.py" in caught.value.where


@pytest.mark.parametrize("condition", ["x.shape[0] == 4", "x.shape[0] % 2 == 0", "x.shape[0] > 4", "x.shape[0] != 3"])
def test_a_branch_on_a_size_is_kept_or_refused(captured, onnx_run, condition, tmp_path, monkeypatch):
    (tmp_path / "sized.py").write_text(
        "from torch import Tensor, nn\n\n\nclass Sized(nn.Module):\n    def forward(self, x: Tensor) -> Tensor:\n"
        f"        if {condition}:\n            return x * 2.0\n        return x + 1.0\n"
    )
    monkeypatch.syspath_prepend(tmp_path)
    monkeypatch.delitem(__import__("sys").modules, "sized", raising=False)
    module = __import__("sized").Sized()
    with pytest.raises(ShapeDependentBranch) as caught:
        captured(module, SHAPES, via="export")
    assert "sized.py:6" in caught.value.where
    model = captured(module, SHAPES)
    for batch in range(1, 9):
        x = X[:1].repeat(batch, 1)
        np.testing.assert_allclose(onnx_run(model, x=x)["output"], module(x), atol=1e-6)


class Results(nn.Module):
    def forward(self, x: Tensor) -> dict[str, Tensor | None]:
        y = x * 2
        return {"x": y, "mul": y + 1, "same": y, "input": x, "none": None}


def test_outputs_named_like_inputs_or_nodes_or_each_other_are_told_apart(captured, onnx_run):
    model = captured(Results(), SHAPES)
    assert [t.name for t in model.signature.outputs] == ["x_out", "mul", "same", "input"]
    found = onnx_run(model, x=X)
    for name, want in (("x_out", X * 2), ("mul", X * 2 + 1), ("same", X * 2), ("input", X)):
        np.testing.assert_allclose(found[name], want, atol=1e-6)


def test_an_expression_that_is_not_understood_is_not_replaced_by_a_guess(captured):
    class Padded(nn.Module):
        def forward(self, x: Tensor) -> Tensor:
            return nn.functional.pad(x, (0, (-x.shape[1]) % 4))

    [output] = captured(Padded(), {"x": ("batch", "n")}).signature.outputs
    assert output.shape[0] == "batch"
    assert output.shape[1] != "n"
