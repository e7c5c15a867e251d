"""`locate` with an engine: the graph is built again with marked tensors. A builder that runs ONNX Runtime stands for
TensorRT where there is no GPU."""

from __future__ import annotations

import json
import struct
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
import onnx
import onnx_ir as ir
import pytest
from onnx import numpy_helper, parser

import graphkit as gk
from graphkit.engine import builder, sidecar
from graphkit.engine.builder import BuildRequest, Engine
from graphkit.engine.profiles import make_profile
from graphkit.errors import (
    BadOption,
    BuildFailed,
    CorruptFile,
    ExtraMissing,
    FileMissing,
    GpuRequired,
    Lacking,
    TargetUnsupported,
    UntrustedSource,
)
from graphkit.location import locate
from graphkit.model import SourceLine, file_sha256, load, set_provenance
from graphkit.parity import chunks
from graphkit.parity.divergence import Location
from graphkit.parity.runners import OrtRunner
from graphkit.report.location import to_json, to_text

pytestmark = pytest.mark.filterwarnings("ignore::DeprecationWarning", "ignore::FutureWarning")

W, V = (np.random.default_rng(7).standard_normal((4, 4), dtype=np.float32) for _ in range(2))
TEXT = """g (float[batch, 4] x) => (float[batch, 4] y) {
    [n0] a = MatMul (x, w)
    [n1] b = Tanh (a)
    [n2] c = MatMul (b, v)
    [n3] d = Sigmoid (c)
    [n4] e = Mul (c, d)
    [n5] f = Add (e, b)
    [n6] y = MatMul (f, w)
}"""

Compile = Callable[[ir.Model, frozenset[str]], None]
"""Changes the graph as a wrong build would, which has these outputs."""


def scaled(name: str) -> Callable[[ir.Model], None]:
    """Makes the tensor `name` twice as large."""

    def change(graph: ir.Model) -> None:
        value = next(v for n in graph.graph for v in n.outputs if v.name == name)
        users = [(u.node, u.idx) for u in value.uses()]
        double = ir.node("Add", [value, value])
        graph.graph.insert_after(value.producer(), double)
        for node, index in users:
            node.replace_input_with(index, double.outputs[0])
        graph.graph.outputs[:] = [double.outputs[0] if v is value else v for v in graph.graph.outputs]
        value.name, double.outputs[0].name = f"{name}_half", name

    return change


def wrong_node(name: str) -> Compile:
    return lambda graph, _: scaled(name)(graph)


def wrong_fusion(*inside: str, makes: str) -> Compile:
    """`makes` is wrong unless one of the tensors inside the fusion is an output."""
    return lambda graph, outputs: None if outputs & {*inside} else scaled(makes)(graph)


@dataclass
class FakeBuilder:
    """ONNX Runtime in the place of TensorRT-RTX, with a fault in what it builds."""

    compile: Compile
    name: str = "rtx"
    requests: list[BuildRequest] = field(default_factory=list)
    models: dict[Path, object] = field(default_factory=dict)

    def available(self) -> Lacking | None:
        return None

    def warm_up(self) -> None: ...

    def identity(self) -> dict[str, object]:
        return {"library": "tensorrt-rtx", "version": "1.7.1.116"}

    def check(self, request: BuildRequest) -> None: ...

    def build(self, request: BuildRequest, output: Path, *, durable: bool = True) -> Engine:
        self.requests.append(request)
        graph = ir.from_proto(request.model.to_proto())
        self.compile(graph, frozenset(v.name for v in graph.graph.outputs))
        self.models[output] = gk.Model(graph, request.model.origin)
        header = bytearray(128)
        header[:4] = b"vtrt"
        struct.pack_into("<Q", header, 16, len(header))
        header[24:28], header[32] = bytes((1, 7, 1, 116)), 4  # for 8.6
        output.write_bytes(header)
        return Engine(
            output, "tensorrt-rtx", "1.7.1.116", ("8.6",), len(header), file_sha256(output),
            file_sha256(request.file) if request.file else "", 7, 0.0, request.tf32,
            make_profile(request.model.signature, request.ranges),
        )  # fmt: skip

    def run(self, engine: Engine, inputs):
        with OrtRunner(self.models[engine.path], optimize=False) as runner:
            return runner.run(inputs)


@pytest.fixture
def built(tmp_path, monkeypatch):
    """`engine, fake = built(fault)`: what convert writes, of a graph with two source lines."""

    def make(compile: Compile, text: str = TEXT, tf32: bool = False) -> tuple[Path, FakeBuilder]:
        file, path = tmp_path / "m.engine.onnx", tmp_path / "m.engine"
        proto = parser.parse_model(f'<ir_version: 10, opset_import: ["" : 20]>\n{text}')
        proto.graph.initializer.extend(numpy_helper.from_array(w, n) for n, w in (("w", W), ("v", V)))
        onnx.save(proto, file)
        model = load(file)
        for node in model.ir.graph:
            if node.name in ("n3", "n4"):
                set_provenance(node, [SourceLine("act", "net.py", 40 + int(node.name[1]), "forward")])
        model.save(file)
        fake = FakeBuilder(compile)
        request = BuildRequest(load(file), (gk.DimRange("batch", 2, 3, 5),), ("8.6",), tf32, file)
        sidecar.write(fake.build(request, path), request)
        fake.requests.clear()
        monkeypatch.setattr(builder, "visible_gpus", lambda: ("8.6",))
        monkeypatch.setattr(builder, "choose", lambda _=None: fake)
        return path, fake

    return make


def test_a_node_that_the_engine_computes_wrongly_is_named_with_its_line(built):
    engine, _ = built(wrong_node("d"), tf32=True)
    location = locate(f"{engine}.onnx", engine)
    assert (location.status, location.divergence.node, location.divergence.tensor) == ("located", "n3", "d")
    assert [str(line) for line in location.source] == ["net.py:43 in forward (module `act`)"]
    assert [(t.tensor, t.error < 1) for t in location.inputs] == [("c", True)]
    assert location.candidate == "m.engine: tensorrt-rtx 1.7.1.116 (cuda, TF32)"
    assert location.fused == ()
    assert any("keeps TensorRT from fusing across them" in note for note in location.notes)
    assert any("--no-tf32" in note for note in location.notes)
    assert set(location.sizes) == {"batch"}
    assert 2 <= location.sizes["batch"] <= 5


def test_the_marked_graph_is_built_with_the_options_of_the_engine(built):
    engine, fake = built(wrong_node("d"))
    locate(f"{engine}.onnx", engine)
    for request in fake.requests:
        assert (request.tf32, request.compute_capabilities) == (False, ("8.6",))
        assert request.dims == (gk.DimRange("batch", 2, 3, 5),)
        assert "y" in {v.name for v in request.model.ir.graph.outputs}
    assert not list(Path(engine).parent.glob("*.tmp"))


def test_a_fault_of_a_fusion_that_vanishes_when_tensors_are_marked_is_said_and_narrowed_down(built):
    engine, fake = built(wrong_fusion("d", makes="e"))
    location = locate(f"{engine}.onnx", engine)
    assert location.status == "located"
    assert location.fused == ("Sigmoid 'n3'", "Mul 'n4'")
    assert "vanishes when tensors are marked: it arises in a fusion between `c` and `e`" in location.reason
    assert "with `d` marked `y` is right" in location.reason
    assert [line.line for line in location.source] == [43, 44]
    text = to_text(location).plain
    assert text.startswith("first divergence: in a fusion that ends in 'e'")
    assert "fused:  Sigmoid 'n3', Mul 'n4'" in text
    assert json.loads(to_json(location))["fused"] == ["Sigmoid 'n3'", "Mul 'n4'"]
    assert len(fake.requests) <= 8


def test_a_fault_that_any_mark_hides_is_narrowed_to_the_whole_graph_and_no_further(built):
    engine, _ = built(wrong_fusion(*"abcdef", makes="y"))
    location = locate(f"{engine}.onnx", engine)
    assert "between the inputs and `y`" in location.reason
    assert len(location.fused) == 7


def test_a_fault_that_only_several_marks_hide_is_said_too(built):
    def together(graph, outputs):
        if len(outputs) < 3:
            scaled("f")(graph)

    location = locate(*(lambda engine: (f"{engine}.onnx", engine))(built(together)[0]))
    assert "no single mark makes it vanish, several do" in location.reason
    assert location.fused == ("Add 'n5'",)


def test_a_normalisation_behind_the_fault_does_not_hide_it(built):
    """A residual stream: the wrong `c` is normalised, so that what follows is right, and added again at the end."""
    tail = "\n".join(f"[t{i}] f{i + 1} = Tanh (f{i})" for i in range(9))
    text = f"""g (float[batch, 4] x) => (float[batch, 4] y) {{
        [n0] a = MatMul (x, w)  [n1] b = Tanh (a)  [n2] c = Mul (a, b)
        [n3] s = ReduceMax (c)  [n4] d = Div (c, s)  [n5] f0 = MatMul (d, v)
        {tail}
        [last] y = Add (c, f9) }}"""
    engine, _ = built(wrong_fusion("b", makes="c"), text)
    location = locate(f"{engine}.onnx", engine)
    assert location.divergence.tensor == "c"
    assert location.fused == ("Tanh 'n1'", "Mul 'n2'")
    assert "between `a` and `c`" in location.reason


def test_a_fault_in_the_last_node_is_located_there(built):
    engine, _ = built(wrong_node("y"))
    location = locate(f"{engine}.onnx", engine)
    assert (location.divergence.node, location.fused) == ("n6", ())


def test_an_engine_that_computes_what_its_graph_does_is_equal_and_is_not_built_again(built):
    engine, fake = built(lambda *_: None)
    location = locate(f"{engine}.onnx", engine)
    assert (location.status, len(location.shapes) > 1, fake.requests) == ("equal", True, [])
    assert location.notes[0].startswith("m.engine.onnx is equal to m.engine.onnx: onnxruntime")


def test_a_fault_that_is_in_the_graph_already_is_found_there_without_the_engine(built, tmp_path):
    engine, fake = built(lambda *_: None)
    proto = onnx.load(f"{engine}.onnx")
    next(n for n in proto.graph.node if n.name == "n3").op_type = "Sin"
    onnx.save(proto, tmp_path / "reference.onnx")
    location = locate(tmp_path / "reference.onnx", engine)
    assert (location.divergence.node, location.reference_op, fake.requests) == ("n3", "Sin", [])
    assert location.candidate.startswith("m.engine.onnx: onnxruntime")
    assert location.notes[-1] == "m.engine was built from m.engine.onnx, and not looked into itself"


@pytest.mark.slow
def test_a_module_is_compared_with_the_engine_through_its_graph(built):
    torch = pytest.importorskip("torch")

    class Net(torch.nn.Module):
        def forward(self, x: torch.Tensor) -> torch.Tensor:
            w, v = torch.tensor(W), torch.tensor(V)
            b = torch.tanh(x @ w)
            c = b @ v
            return (c * torch.sigmoid(c) + b) @ w

    engine, _ = built(wrong_node("d"))
    location: Location = locate(Net().eval(), engine)
    assert location.divergence.node == "n3"
    assert any(note.startswith("m.engine.onnx is equal to Net, captured") for note in location.notes)


def test_a_long_graph_is_built_a_few_times_only_and_in_chunks(built, monkeypatch):
    monkeypatch.setattr(chunks, "TENSORS_AT_ONCE", 40)
    count = 300
    lines = [f"[n{i}] t{i + 1} = {'Sin' if i % 2 else 'Neg'} (t{i})" for i in range(1, count)]
    first, last = "[n0] t1 = MatMul (x, w)", f"[last] y = Add (t{count}, x)"
    text = "g (float[batch, 4] x) => (float[batch, 4] y) {" + "\n".join([first, *lines, last]) + "}"
    engine, fake = built(wrong_node("t201"), text)
    location = locate(f"{engine}.onnx", engine)
    assert location.divergence.tensor == "t201"
    marks = [len(r.model.ir.graph.outputs) - 1 for r in fake.requests]
    assert max(marks) <= 40
    assert len(marks) < 8


# --- what is refused ---------------------------------------------------------------------------------------------


def test_without_a_gpu_nothing_is_built(built, monkeypatch):
    engine, fake = built(wrong_node("d"))
    monkeypatch.setattr(builder, "visible_gpus", lambda: ())
    with pytest.raises(GpuRequired, match="no CUDA device is visible here") as caught:
        locate(f"{engine}.onnx", engine)
    assert (caught.value.exit_code, "m.engine.onnx" in caught.value.remedy, fake.requests) == (3, True, [])


def test_without_the_library_of_the_engine_it_is_said_what_is_missing(built, monkeypatch):
    engine, _ = built(wrong_node("d"))

    def lacking(_=None):
        raise ExtraMissing("the Python package `tensorrt_rtx` is not installed")

    monkeypatch.setattr(builder, "choose", lacking)
    with pytest.raises(ExtraMissing, match="cannot be run here: the Python package `tensorrt_rtx`"):
        locate(f"{engine}.onnx", engine)


def test_an_engine_without_its_graph_or_beside_another_one_is_refused(built):
    engine, _ = built(wrong_node("d"))
    graph = Path(f"{engine}.onnx")
    proto = onnx.load(graph)
    proto.graph.node[0].name = "other"
    onnx.save(proto, graph)
    with pytest.raises(CorruptFile, match=r"m\.engine\.onnx is not the graph that m\.engine was built from"):
        locate(graph, engine)
    reference = graph.rename(graph.with_name("reference.onnx"))
    with pytest.raises(FileMissing, match=r"m\.engine\.onnx, which was written with m\.engine"):
        locate(reference, engine)


def test_an_engine_without_its_description_is_not_run(built):
    engine, _ = built(wrong_node("d"))
    sidecar.path_for(engine).unlink()
    with pytest.raises(UntrustedSource, match=r"m\.engine\.json does not vouch for it"):
        locate(f"{engine}.onnx", engine)


def test_a_tensor_that_the_target_takes_for_no_output_is_passed_over(built):
    def choosy(graph, outputs):
        if "c" in outputs:
            raise TargetUnsupported("TensorRT-RTX cannot take the model: `c`")
        scaled("d")(graph)

    engine, _ = built(choosy)
    location = locate(f"{engine}.onnx", engine)
    assert (location.divergence.tensor, [t.tensor for t in location.inputs]) == ("d", ["b"])
    assert location.between == ("MatMul 'n2'",)
    assert location.notes[-1] == "not looked at, since the target takes them for no output: `c`"


def test_a_target_that_refuses_every_mark_is_believed(built):
    def refusing(graph, outputs):
        if len(outputs) > 1:
            raise BuildFailed("TensorRT-RTX cannot build the engine")
        scaled("y")(graph)

    lines = "\n".join(f"t{i + 1} = Sin (t{i})" for i in range(20))
    text = f"g (float[batch, 4] x) => (float[batch, 4] y) {{ t0 = MatMul (x, w)\n{lines}\ny = Add (t20, x) }}"
    engine, _ = built(refusing, text)
    with pytest.raises(BuildFailed):
        locate(f"{engine}.onnx", engine)


def test_an_engine_is_no_reference(built):
    engine, _ = built(wrong_node("d"))
    with pytest.raises(BadOption, match="the reference"):
        locate(engine, f"{engine}.onnx")


# --- the real thing ----------------------------------------------------------------------------------------------


def converted(folder: Path) -> tuple[Path, Path]:
    """An ONNX file, and the engine that `convert` makes of it."""
    proto = parser.parse_model(f'<ir_version: 10, opset_import: ["" : 20]>\n{TEXT}')
    proto.graph.initializer.extend(numpy_helper.from_array(w, n) for n, w in (("w", W), ("v", V)))
    onnx.save(proto, folder / "m.onnx")
    gk.convert(folder / "m.onnx", to="trt", output=folder / "m.engine", dims={"batch": (2, 3, 5)}, tf32=False)
    return folder / "m.onnx", folder / "m.engine"


def test_what_convert_writes_is_built_again_with_marks_by_the_real_builder(tmp_path, monkeypatch):
    """All but the execution, which needs a GPU: ONNX Runtime stands for that, with the fault of a fusion."""
    pytest.importorskip("tensorrt_rtx")
    from graphkit.engine.rtx import RtxBuilder

    monkeypatch.setattr(builder, "visible_gpus", lambda: ())
    reference, engine = converted(tmp_path)
    real, models, made = RtxBuilder.build, {engine: load(f"{engine}.onnx")}, []

    def build(self, request, output, *, durable=True):
        made.append(real(self, request, output, durable=durable))
        models[output] = request.model
        return made[-1]

    def run(_, built, inputs):
        with OrtRunner(models[built.path], optimize=False) as runner:
            found = runner.run(inputs)
        return found if len(found) > 1 else {"y": found["y"] * 2}

    monkeypatch.setattr(builder, "visible_gpus", lambda: ("8.6",))
    monkeypatch.setattr(RtxBuilder, "build", build)
    monkeypatch.setattr(RtxBuilder, "run", run)
    location = locate(reference, engine)
    assert location.candidate.startswith("m.engine: tensorrt-rtx ")
    assert "it arises in a fusion between the inputs and `y`" in location.reason
    assert (location.fused[0], location.fused[-1]) == ("MatMul 'n0'", "MatMul 'n6'")
    described = json.loads(sidecar.path_for(engine).read_text())
    for each in made:
        assert (list(each.targets), each.tf32) == (described["targets"], described["tf32"])
        assert [each.profile.to_json()] == described["profiles"]
        assert set(each.precision["outputs"]) > {"y"}


@pytest.mark.gpu
def test_an_engine_is_located_in_on_a_gpu(tmp_path, monkeypatch):
    """An engine that is right, and one whose output is wrong while no tensor is marked."""
    if not builder.visible_gpus():
        pytest.skip("no CUDA device")
    try:
        backend = builder.choose()
    except Lacking as error:
        pytest.skip(error.message)
    reference, engine = converted(tmp_path)
    assert locate(reference, engine).status == "equal"
    honest = type(backend).run

    def faulty(self, built, inputs):
        found = honest(self, built, inputs)
        return found if len(found) > 1 else {"y": found["y"] * 2}

    monkeypatch.setattr(type(backend), "run", faulty)
    assert "vanishes when tensors are marked" in locate(reference, engine).reason
