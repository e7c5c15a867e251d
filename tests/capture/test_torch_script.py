"""TorchScript: archives without their Python class, functions, branches, loops, dicts and tuples; and tracing."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from fixtures.torch_models import EXAMPLES, lstm_tagger
from graphkit.capture.torch_script_lines import line_of_operator
from graphkit.errors import BadOption, OpsetNotHonoured, ShapeMissing, StateMutated, UnknownName
from graphkit.model import provenance
from graphkit.shapes import TensorSpec

pytestmark = pytest.mark.filterwarnings("ignore::DeprecationWarning", "ignore::FutureWarning")

SOURCE = """
import sys
import torch
from torch import Tensor, nn

class Gate(nn.Module):
    def __init__(self):
        super().__init__()
        self.lin = nn.Linear(4, 4)

    def forward(self, x: Tensor, steps: int) -> dict[str, Tensor]:
        if x.sum() > 0:
            y = self.lin(x)
        else:
            y = x - 1.0
        for _ in range(steps):
            y = torch.tanh(y) * 2.0
        return {"last": y, "mean": y.mean(dim=0)}

class Pair(nn.Module):
    def __init__(self):
        super().__init__()
        self.gate = Gate()

    def forward(self, x: Tensor, ids: Tensor) -> tuple[Tensor, tuple[Tensor, Tensor]]:
        return x * 2.0, (self.gate(x, 2)["last"], x[ids])

class Counter(nn.Module):
    def __init__(self):
        super().__init__()
        self.seen = torch.zeros(1)
        self.body = nn.Linear(4, 4)

    def forward(self, x: Tensor) -> Tensor:
        self.seen = self.seen + 1.0
        return self.body(x) + self.seen

torch.manual_seed(0)
for name, module in (("gate", Gate()), ("pair", Pair()), ("counter", Counter())):
    torch.jit.script(module.eval()).save(sys.argv[1] + "/" + name + ".pt")
"""


@pytest.fixture(scope="module")
def archives(tmp_path_factory) -> Path:
    """`gate.pt`, `pair.pt`, `counter.pt`, saved by a program whose classes are not importable here."""
    folder = tmp_path_factory.mktemp("archives")
    program = folder / "gone.py"
    program.write_text(SOURCE)
    subprocess.run([sys.executable, "-W", "ignore", str(program), str(folder)], check=True)
    program.unlink()
    return folder


def probes() -> list[Tensor]:
    generator = torch.Generator().manual_seed(3)
    return [torch.randn(b, 4, generator=generator).abs() * sign for b in (1, 2, 5) for sign in (1.0, -1.0)]


def load(path: Path) -> torch.jit.ScriptModule:
    return torch.jit.load(path)


def test_branches_loops_dicts_and_integers_of_an_archive_are_kept(archives, captured, onnx_run):
    model = captured(archives / "gate.pt", {"x": ("batch", 4)}, {"batch": (1, 2, 8)}, {"steps": 3})
    assert [t.name for t in model.signature.inputs] == ["x", "steps"]
    assert model.signature.inputs[1].dtype == "int64"
    assert {t.name: t.shape for t in model.signature.outputs} == {"last": ("batch", 4), "mean": (4,)}
    assert {"If", "Loop"} <= {n.op_type for n in model.ir.graph.all_nodes()}
    module = load(archives / "gate.pt")
    for x in probes():
        for steps in (0, 1, 3, 7):
            found = onnx_run(model, x=x, steps=np.int64(steps))
            for name, want in module(x, steps).items():
                np.testing.assert_allclose(found[name], want.detach(), atol=1e-5, rtol=1e-5)


def test_nested_tuples_and_index_inputs_of_an_archive_are_kept(archives, captured, onnx_run):
    from graphkit.shapes import TensorSpec

    shapes = {"x": ("batch", 4), "ids": TensorSpec("ids", "int64", ("picked",))}
    model = captured(archives / "pair.pt", shapes)
    assert [t.name for t in model.signature.outputs] == ["output_0", "output_1.0", "output_1.1"]
    assert [t.shape for t in model.signature.outputs] == [("batch", 4), ("batch", 4), ("picked", 4)]
    module = load(archives / "pair.pt")
    for x in probes():
        ids = torch.zeros(3, dtype=torch.int64)
        first, (second, third) = module(x, ids)
        for have, want in zip(onnx_run(model, x=x, ids=ids).values(), (first, second, third), strict=True):
            np.testing.assert_allclose(have, want.detach(), atol=1e-5, rtol=1e-5)


def test_the_nodes_of_an_archive_know_the_lines_of_the_program_that_is_gone(archives, captured):
    model = captured(archives / "gate.pt", {"x": ("batch", 4)}, inputs={"steps": 3})
    lines = {(line.file, line.line) for n in model.ir.graph.all_nodes() for line in provenance(n)}
    wanted = SOURCE.splitlines().index("            y = torch.tanh(y) * 2.0") + 1
    assert any(str(file).endswith("gone.py") and line == wanted for file, line in lines), lines


def test_an_archive_that_keeps_state_is_refused_with_the_attribute_its_line_and_a_way_out(archives, captured):
    with pytest.raises(StateMutated) as caught:
        captured(archives / "counter.pt", {"x": ("batch", 4)})
    wanted = SOURCE.splitlines().index("        self.seen = self.seen + 1.0") + 1
    assert "`seen`" in caught.value.message
    assert f"gone.py:{wanted}" in caught.value.where
    assert "--submodule body" in caught.value.remedy
    assert caught.value.data["state"] == ["seen"]


def test_the_part_that_keeps_no_state_is_converted(archives, captured, onnx_run):
    model = captured(archives / "counter.pt", {"input": ("batch", 4)}, submodule="body")
    body = load(archives / "counter.pt").body
    for x in probes():
        np.testing.assert_allclose(onnx_run(model, input=x)["output"], body(x).detach(), atol=1e-6)


def test_a_part_that_does_not_exist_is_refused_with_those_that_do(archives, captured):
    with pytest.raises(UnknownName, match="gait") as caught:
        captured(archives / "pair.pt", {"x": ("batch", 4)}, submodule="gait")
    assert "gate" in caught.value.remedy


def test_a_missing_shape_names_the_input_and_what_to_write(archives, captured):
    with pytest.raises(ShapeMissing, match="`steps`") as caught:
        captured(archives / "gate.pt", {"x": ("batch", 4)})
    assert "--input steps=" in caught.value.remedy


@pytest.mark.parametrize("way", ["script", "trace"])
def test_saved_torchscript_of_an_ordinary_model_computes_the_same(way, tmp_path, captured, onnx_run):
    example = EXAMPLES["residual_cnn"]
    module, inputs = example.factory(), example.sample()
    made = torch.jit.script(module) if way == "script" else torch.jit.trace(module, example_kwarg_inputs=inputs)
    made.save(tmp_path / "m.pt")
    model = captured(tmp_path / "m.pt", example.shapes, example.dims)
    assert model.signature.outputs[0].shape == ("batch", 10)
    assert model.origin.kind == "TorchScript archive"
    assert len(model.origin.sha256) == 64
    for batch in (1, 8):
        x = example.sample(seed=batch, batch=batch)["input"]
        np.testing.assert_allclose(onnx_run(model, input=x)["output"], module(x).detach(), atol=2e-5, rtol=1e-4)


def test_a_script_function_is_converted(captured, onnx_run):
    @torch.jit.script
    def clipped(x: Tensor, bound: float) -> Tensor:
        if x.max() > bound:
            return torch.clamp(x, max=bound)
        return x * 2.0

    model = captured(clipped, {"x": ("batch", 4)}, inputs={"bound": 0.5})
    assert [t.name for t in model.signature.inputs] == ["x", "bound"]
    for x in probes():
        for bound in (0.1, 50.0):
            found = onnx_run(model, x=x, bound=np.float64(bound))
            np.testing.assert_allclose(found["output"], clipped(x, bound), atol=1e-6)


def test_torchscript_cannot_be_exported_as_python(archives, captured):
    with pytest.raises(BadOption, match="--via export"):
        captured(archives / "gate.pt", {"x": ("b", 4)}, inputs={"steps": 3}, via="export")


# --- tracing -----------------------------------------------------------------------------------------------------


class Branches(nn.Module):
    def forward(self, x: Tensor) -> Tensor:
        if x.sum() > 0:
            x = x + 1.0
        if x.mean() > 5:
            x = x * 2.0
        return x


def lines_of(cls: type, *codes: str) -> list[int]:
    text = Path(__file__).read_text(encoding="utf-8").splitlines()
    start = text.index(f"class {cls.__name__}(nn.Module):")
    return [next(n for n, t in enumerate(text[start:], start + 1) if t.strip() == code) for code in codes]


def test_tracing_reports_every_branch_that_it_froze(captured):
    model = captured(Branches(), {"x": ("batch", 4)}, via="trace")
    found = [f for f in model.origin.findings if f.code == "traced"]
    wanted = lines_of(Branches, "if x.sum() > 0:", "if x.mean() > 5:")
    assert len(found) == 2
    for finding, line in zip(sorted(found, key=lambda f: str(f.where)), wanted, strict=True):
        assert str(finding.where).endswith(f"test_torch_script.py:{line}")
    assert [rung.name for rung in model.origin.rungs] == ["trace"]


def test_without_being_asked_nothing_is_traced(captured, onnx_run):
    model = captured(Branches(), {"x": ("batch", 4)})
    assert [rung.name for rung in model.origin.rungs] == ["export", "script"]
    assert "GK104" in model.origin.rungs[0].failure
    for x in probes():
        np.testing.assert_allclose(onnx_run(model, x=x)["output"], Branches()(x), atol=1e-6)


def test_an_opset_that_the_scripted_way_does_not_reach_is_refused(archives, captured):
    with pytest.raises(OpsetNotHonoured, match="24"):
        captured(archives / "gate.pt", {"x": ("batch", 4)}, inputs={"steps": 3}, opset=24)


def test_the_first_argument_of_a_scripted_module_is_the_module_whatever_its_name(captured, onnx_run):
    class Odd(torch.nn.Module):
        def forward(this, x):
            return x * 2

    model = captured(torch.jit.script(Odd()), {"x": ("batch", 3)})
    assert [t.name for t in model.signature.inputs] == ["x"]


@pytest.mark.filterwarnings("ignore::UserWarning")  # torch's own, on scripting its TransformerEncoder
def test_the_line_of_an_operator_is_found_though_nobody_else_holds_the_inlined_graph(archives):
    """torch makes `inlined_graph` anew at each access, and its nodes are invalid once it is gone."""
    wanted = SOURCE.splitlines().index("            y = torch.tanh(y) * 2.0") + 1
    assert line_of_operator(load(archives / "gate.pt"), "aten::tanh").endswith(f"gone.py:{wanted}")
    module = torch.jit.script(EXAMPLES["transformer_encoder"].factory().eval())
    assert line_of_operator(module, "aten::layer_norm").startswith("torch/nn/functional.py:")
    assert line_of_operator(module, "aten::no_such_operator") is None


def test_a_second_module_of_the_same_class_keeps_its_lines(captured):
    shapes = {"features": TensorSpec("features", "float32", ("batch", "sequence", 12))}
    dims = {"batch": (1, 4, 8), "sequence": (2, 12, 48)}
    first, second = (captured(lstm_tagger(), shapes, dims) for _ in range(2))
    lines = [[provenance(node) for node in model.ir.graph if node.op_type == "LSTM"] for model in (first, second)]
    assert lines[0] == lines[1]
    assert "fixtures/torch_models.py" in str(lines[1][0][0])
