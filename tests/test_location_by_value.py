"""`locate` where names tell nothing: tensors are matched by their values, also a framework's own with a graph's."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import onnx
import pytest
import torch
from onnx import numpy_helper, parser
from torch import Tensor, nn

import graphkit as gk
from fixtures.miscompiles import MISCOMPILES
from fixtures.torch_models import EXAMPLES
from graphkit.capture.request import CaptureRequest
from graphkit.capture.torch_module import TorchSource
from graphkit.errors import CaptureFailed
from graphkit.location import locate
from graphkit.parity.divergence import Location
from graphkit.report.location import to_text
from graphkit.request import as_ranges
from graphkit.shapes import DimRange, TensorSpec

pytestmark = pytest.mark.filterwarnings("ignore::DeprecationWarning", "ignore::FutureWarning", "ignore::UserWarning")


def write(path: Path, text: str, **weights: np.ndarray) -> Path:
    proto = parser.parse_model(f'<ir_version: 10, opset_import: ["" : 20]>\n{text}')
    proto.graph.initializer.extend(numpy_helper.from_array(np.asarray(w), n) for n, w in weights.items())
    onnx.save(proto, path)
    return path


def renamed(proto: onnx.ModelProto) -> onnx.ModelProto:
    """Every tensor under a number, inputs and outputs too; nodes keep their names."""
    new: dict[str, str] = {"": ""}

    def walk(graph: onnx.GraphProto) -> None:
        del graph.value_info[:]
        for value in (*graph.initializer, *graph.input, *graph.output):
            value.name = new.setdefault(value.name, f"t{len(new)}")
        for node in graph.node:
            for names in (node.input, node.output):
                names[:] = [new.setdefault(name, f"t{len(new)}") for name in names]
            for attribute in node.attribute:
                walk(attribute.g) if attribute.HasField("g") else None

    walk(proto.graph)
    return proto


RNG = np.random.default_rng(5)
W, V = (RNG.standard_normal((4, 4), dtype=np.float32) for _ in range(2))
TEXT = """g (float[n, 4] x) => (float[n, 4] y) {
    a = MatMul (x, w)
    b = Tanh (a)
    c = MatMul (b, v)
    y = Add (c, x)
}"""


@pytest.fixture
def pair(tmp_path):
    """`TEXT` and another graph whose tensors have other names."""

    def make(candidate: str, **weights) -> Location:
        first = write(tmp_path / "reference.onnx", TEXT, w=W, v=V)
        second = write(tmp_path / "candidate.onnx", candidate, **weights)
        return locate(first, second)

    return make


OTHER = """g (float[n, 4] in) => (float[n, 4] out) {{
    p = MatMul (in, k)
    q = {op} (p)
    r = MatMul (q, l)
    out = Add (r, in)
}}"""


# --- graphs ------------------------------------------------------------------------------------------------------


def test_renamed_graphs_are_equal_and_the_pairing_of_inputs_and_outputs_is_said(pair):
    location = pair(OTHER.format(op="Tanh"), k=W, l=V)
    assert location.status == "equal"
    assert location.notes == ("inputs matched by position: `in` as `x`", "outputs matched by position: `out` as `y`")


def test_the_first_tensor_without_an_equal_is_the_divergence(pair):
    location = pair(OTHER.format(op="Tanh"), k=W, l=V * np.float32(1.01))
    assert (location.matched_by, location.divergence.op, location.divergence.tensor) == ("value", "MatMul", "r")
    assert location.divergence.l2 == pytest.approx(0.01, rel=0.01)
    assert [(t.tensor, t.error) for t in location.inputs] == [("q", 0.0)]
    assert [(w.name, w.note) for w in location.weights] == [("l", "`v` in the reference")]
    assert "compared   by value (the names tell nothing): 2 of 4" in to_text(location).plain
    assert json.loads(json.dumps(location.to_json(), allow_nan=False))["matched_by"] == "value"


def test_another_operator_is_found_with_the_one_that_it_stands_for(pair):
    location = pair(OTHER.format(op="Sin"), k=W, l=V)
    assert (location.divergence.op, location.reference_op) == ("Sin", "Tanh")


def test_steps_that_only_one_side_takes_are_no_divergence(pair):
    """The candidate computes Tanh from Exp: those have no equal, what follows has."""
    text = """g (float[n, 4] in) => (float[n, 4] out) {
        p = MatMul (in, k)
        p1 = Exp (p)  p2 = Neg (p)  p3 = Exp (p2)
        p4 = Sub (p1, p3)  p5 = Add (p1, p3)  q = Div (p4, p5)
        r = MatMul (q, l)
        out = Sub (r, in)
    }"""
    location = pair(text, k=W, l=V)
    assert (location.divergence.op, location.divergence.node) == ("Sub", "")
    assert [t.tensor for t in location.inputs] == ["r"]


def test_channels_last_is_matched_with_channels_first(tmp_path):
    kernel = RNG.standard_normal((3, 2, 3, 3), dtype=np.float32)
    first = """g (float[n, 2, 5, 6] x) => (float[n, 3, 3, 4] y) { a = Conv (x, k)  b = Tanh (a)  y = Mul (b, b) }"""
    second = """g (float[n, 2, 5, 6] x) => (float[n, 3, 3, 4] y) {
        p = Conv (x, k)  q = Transpose <perm = [0, 2, 3, 1]> (p)  r = Tanh (q)  s = Mul (r, r)  t = Neg (s)
        y = Transpose <perm = [0, 3, 1, 2]> (t) }"""
    location = locate(write(tmp_path / "a.onnx", first, k=kernel), write(tmp_path / "b.onnx", second, k=kernel))
    assert location.divergence.tensor == "t"
    assert [t.tensor for t in location.inputs] == ["s"] or [t.tensor for t in location.inputs] == ["r"]
    assert "channels first" in location.notes[0]


def test_constant_tensors_are_not_matched(tmp_path):
    """Zeros on both sides are no evidence that they come from the same place."""
    text = "g (float[n, 4] x) => (float[n, 4] y) {{ {a} = Mul (x, zero)  {b} = {op} ({a})  y = Add ({b}, x) }}"
    zero = np.float32(0)
    location = locate(
        write(tmp_path / "a.onnx", text.format(a="a", b="b", op="Cos"), zero=zero),
        write(tmp_path / "b.onnx", text.format(a="p", b="q", op="Sin"), zero=zero),
    )
    assert (location.divergence.tensor, location.counts.common) == ("y", 0)


@pytest.mark.slow
def test_planted_faults_are_named_after_every_tensor_was_renamed(tmp_path):
    chosen = [m for m in MISCOMPILES if m.fixture == "residual_cnn"]
    assert len(chosen) >= 5
    reference = exported("residual_cnn", tmp_path / "reference.onnx")
    for fault in chosen:
        broken, wrong = fault.inject(onnx.load(reference))
        made = {o for n in broken.graph.node if n.name == wrong for o in n.output}
        nodes = {wrong, *(n.name for n in broken.graph.node if made & set(n.input))}
        onnx.save(renamed(broken), tmp_path / "renamed.onnx")
        location = locate(reference, tmp_path / "renamed.onnx")
        assert location.matched_by == "value"
        assert location.divergence.node in nodes, fault.name


@pytest.mark.slow
def test_torchs_two_exporters_are_compared_by_value(tmp_path):
    """Other names, other decompositions: the fault is found, and the good conversion is equal."""
    reference = exported("unet", tmp_path / "export.onnx")
    other = exported("unet", tmp_path / "script.onnx", via="script")
    assert locate(reference, other).status == "equal"
    proto = onnx.load(other)
    convolutions = [n for n in proto.graph.node if n.op_type == "Conv"]
    wrong = convolutions[len(convolutions) // 2]
    weight = next(t for t in proto.graph.initializer if t.name == wrong.input[1])
    weight.CopyFrom(numpy_helper.from_array(numpy_helper.to_array(weight) * np.float32(2), weight.name))
    onnx.save(proto, tmp_path / "wrong.onnx")
    location = locate(reference, tmp_path / "wrong.onnx")
    assert location.matched_by == "value"
    assert location.divergence.node == wrong.name
    assert location.source


def exported(name: str, path: Path, via: str | None = None) -> Path:
    example = EXAMPLES[name]
    shapes = tuple(TensorSpec(n, "int64" if n in example.below else None, s) for n, s in example.shapes.items())
    request = CaptureRequest(shapes=shapes, dims=as_ranges(example.dims), via=via)
    gk.capture_model(example.factory(), request).save(path, durable=False)
    return path


# --- a framework's own values ------------------------------------------------------------------------------------


class Part(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.mix = nn.Linear(4, 4)

    def forward(self, x: Tensor) -> Tensor:
        return torch.tanh(self.mix(x))


class Whole(nn.Module):
    """Cannot be captured: a branch on a value, in code that TorchScript does not compile."""

    def __init__(self) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.first, self.second = Part(), Part()

    def forward(self, x: Tensor) -> Tensor:
        h = self.first(x)
        scale = {False: 1.0, True: 2.0}[max((float(v) for v in [h.sum()]), default=0.0) > 1e6]
        h = self.second(h) * scale
        return h + x


def as_graph(module: Whole, path: Path, activation: str = "Tanh") -> Path:
    text = f"""g (float[batch, 4] x) => (float[batch, 4] output) {{
        [one] a = Gemm <transB = 1> (x, w1, b1)  [two] b = Tanh (a)
        [three] c = Gemm <transB = 1> (b, w2, b2)  [four] d = {activation} (c)
        [five] output = Add (d, x) }}"""
    parts = module.first.mix, module.second.mix
    arrays = {
        f"{n}{i}": t.detach().numpy() for i, p in enumerate(parts, 1) for n, t in (("w", p.weight), ("b", p.bias))
    }
    return write(path, text, **arrays)


REQUEST = CaptureRequest(shapes=(TensorSpec("x", None, ("batch", 4)),), dims=(DimRange("batch", 1, 2, 5),))


@pytest.mark.slow
def test_a_module_that_cannot_be_captured_is_looked_into_and_the_users_line_is_named(tmp_path):
    module = Whole().eval()
    assert locate(module, as_graph(module, tmp_path / "good.onnx"), REQUEST).status == "equal"
    location = locate(module, as_graph(module, tmp_path / "bad.onnx", "Sin"), REQUEST)
    assert (location.status, location.divergence.node, location.reference_op) == ("located", "four", "aten.tanh")
    line = location.source[0]
    assert (line.module, Path(line.file).name, line.function) == ("second", "test_location_by_value.py", "Part.forward")
    assert "torch.tanh(self.mix(x))" in Path(__file__).read_text().splitlines()[line.line - 1]
    assert location.reference.startswith("Whole: torch ")
    assert "cannot be captured" in location.notes[0]
    assert f"{line.file}:{line.line} in Part.forward (module `second`)" in to_text(location).plain


def test_a_tape_holds_every_operation_with_its_module_line_and_values(tmp_path):
    source = TorchSource(Whole().eval())
    source.prepare(REQUEST)
    x = RNG.standard_normal((3, 4), dtype=np.float32)
    tape = source.tap({"x": x}, tmp_path)
    module = source._module
    tanh = [t for t in tape.taps if t.op == "aten.tanh"]
    assert [t.source.module for t in tanh] == ["first", "second"]
    (entry,) = tanh[0].files
    assert np.array_equal(np.load(entry["file"]), module.first(torch.from_numpy(x)).detach().numpy())
    assert tape.outputs == {"output": tape.taps[-1].makes[0]}
    assert tape.inputs == ("x",)
    assert "x" in tape.taps[-1].reads
    assert type(tape).from_json(json.loads(json.dumps(tape.to_json()))) == tape


def test_an_exported_program_is_recorded_with_the_lines_of_its_nodes(tmp_path):
    program = torch.export.export(Part(), (torch.ones(2, 4),))
    source = TorchSource(program)
    source.prepare(CaptureRequest())
    tape = source.tap({"x": np.ones((2, 4), np.float32)}, tmp_path)
    (tanh,) = [t for t in tape.taps if t.op == "aten.tanh"]
    assert (Path(tanh.source.file).name, tanh.source.function) == ("test_location_by_value.py", "Part.forward")
    assert np.load(tanh.files[0]["file"]).shape == (2, 4)
    assert np.array_equal(source.run({"x": np.ones((2, 4), np.float32)})["output"], np.load(tanh.files[0]["file"]))


def test_scripted_code_is_recorded_too(tmp_path):
    source = TorchSource(torch.jit.script(Part().eval()))
    source.prepare(CaptureRequest(shapes=(TensorSpec("x", None, (2, 4)),)))
    tape = source.tap({"x": np.ones((2, 4), np.float32)}, tmp_path)
    assert [t.op for t in tape.taps][-1] == "aten.tanh"


def test_what_neither_capture_nor_taps_can_do_is_refused_with_the_cause(monkeypatch, tmp_path):
    monkeypatch.setattr(TorchSource, "tap", lambda *_: None)
    module = Whole().eval()
    with pytest.raises((CaptureFailed, gk.GraphkitError)):
        locate(module, as_graph(module, tmp_path / "bad.onnx", "Sin"), REQUEST)
