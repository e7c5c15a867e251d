"""`reduce`: what is left fails as the whole did, and nothing of it can be left out."""

from __future__ import annotations

import json
import shlex
import shutil
import subprocess
import sys
from importlib.util import find_spec
from pathlib import Path

import numpy as np
import onnx
import pytest
from hypothesis import given
from hypothesis import strategies as st
from onnx import TensorProto, helper, numpy_helper, parser

import graphkit as gk
from fixtures import miscompiles
from fixtures.towers import NODES_PER_BLOCK, tower
from graphkit.errors import BadOption, BadSample, CannotWrite, FileMissing, ShapeMismatch
from graphkit.model import SourceLine, load, set_provenance
from graphkit.reduction import ReduceRequest, reduce
from graphkit.shapes import DimRange, Sample
from graphkit.shrink.failure import normalised, of_exit
from graphkit.shrink.graph import Graph
from graphkit.shrink.minimise import bisect_ends, ddmin

X = np.random.default_rng(7).standard_normal((2, 8, 16)).astype(np.float32)
ONCE = ReduceRequest(sets=({"x": X},))
BLOCKS = 20


@pytest.fixture(scope="module")
def good(tmp_path_factory) -> Path:
    path = tmp_path_factory.mktemp("towers") / "good.onnx"
    onnx.save(tower(BLOCKS), path)
    return path


def write(path: Path, text: str, **weights: np.ndarray) -> Path:
    proto = parser.parse_model(f'<ir_version: 10, opset_import: ["" : 20]>\n{text}')
    proto.graph.initializer.extend(numpy_helper.from_array(np.asarray(w), n) for n, w in weights.items())
    onnx.save(proto, path)
    return path


def saved(proto: onnx.ModelProto, path: Path) -> Path:
    onnx.save(proto, path)
    return path


def after(kind: str, **attributes: object):
    """A node of another operator behind a block, through which the values pass unchanged in shape."""
    return lambda op, h, p: op(kind, [h], f"{p}{kind.lower()}", **attributes)


def shell(script: str) -> str:
    """A check in a few milliseconds; grep finds an operator's name in the file."""
    return f"sh -c {shlex.quote(script)} {{model}}"


def run_readme(folder: Path) -> subprocess.CompletedProcess[str]:
    """What the README's command does where there is nothing but the folder."""
    text = (folder / "README.md").read_text()
    command = text.partition("```sh\n")[2].partition("\n```")[0]
    path = f"{Path(sys.executable).parent}:/usr/bin:/bin"
    return subprocess.run(
        ["sh", "-c", command], cwd=folder, capture_output=True, text=True, check=False, env={"PATH": path}
    )


# --- parity ------------------------------------------------------------------------------------------------------

FAULTS = (miscompiles.softmax_axis, miscompiles.weight_transposed, miscompiles.residual_doubled)


@pytest.mark.slow
@pytest.mark.parametrize("plant", FAULTS, ids=lambda f: f.__name__)
def test_a_planted_fault_is_all_that_is_left(plant, good, tmp_path):
    broken = onnx.load(good)
    wrong = plant(broken.graph).name
    found = reduce(
        saved(broken, tmp_path / "bad.onnx"), output=tmp_path / "out", until="parity", against=good, request=ONCE
    )
    assert (found.status, found.same, found.nodes_before) == ("reduced", "values differ", BLOCKS * NODES_PER_BLOCK + 1)
    assert wrong in {n.name for n in found.nodes}
    assert len(found.nodes) <= 3
    assert found.trials < 40
    assert run_readme(tmp_path / "out").returncode == 1


@pytest.mark.slow
def test_both_sub_models_and_several_sets_of_inputs_are_written(good, tmp_path):
    broken = tower(2)
    wrong = miscompiles.softmax_axis(broken.graph).name
    onnx.save(tower(2), tmp_path / "right.onnx")
    found = reduce(
        saved(broken, tmp_path / "bad.onnx"), output=tmp_path / "out", until="parity", against=tmp_path / "right.onnx"
    )
    assert [n.name for n in found.nodes] == [wrong]
    assert found.samples == 3
    assert [str(s) for s in found.inputs] == ["block1.scores: float32[batch, 8, 8]"]
    ours, theirs = (onnx.load(tmp_path / "out" / f"{n}.onnx") for n in ("model", "other"))
    assert [len(m.graph.node) for m in (ours, theirs)] == [1, 1]
    assert {p.shape[0] for p in (np.load(tmp_path / f"out/inputs/{i}/block1.scores.npy") for i in range(3))} > {1}
    said = run_readme(tmp_path / "out")
    assert (said.returncode, said.stdout.startswith("FAILS:\ninputs/0: block1.softmax: ")) == (1, True)
    shutil.copy(tmp_path / "out/other.onnx", tmp_path / "out/model.onnx")
    assert run_readme(tmp_path / "out").returncode == 0


def test_what_a_whole_computes_with_and_without_optimisations(good, tmp_path):
    found = reduce(good, output=tmp_path / "out", until="parity", request=ONCE)
    assert (found.status, found.folder) == ("passes", None)
    assert found.reason == "nothing to reduce: the check passes on the whole model"
    assert not (tmp_path / "out").exists()


def test_a_model_that_is_random_is_not_reduced(tmp_path):
    path = write(tmp_path / "m.onnx", "g (float[4] x) => (float[4] y) { r = RandomNormalLike (x)  y = Add (x, r) }")
    right = write(tmp_path / "r.onnx", "g (float[4] x) => (float[4] y) { r = RandomNormalLike (x)  y = Sub (x, r) }")
    found = reduce(path, output=tmp_path / "out", until="parity", against=right)
    assert (found.status, "something else each time" in found.reason) == ("flaky", True)


def test_nodes_without_a_namesake_stay_with_their_neighbours(tmp_path):
    right = write(tmp_path / "r.onnx", "g (float[4] x) => (float[4] y) { a = Neg (x)  b = Gelu (a)  y = Tanh (b) }")
    wrong = write(
        tmp_path / "w.onnx",
        "g (float[4] x) => (float[4] y) { a = Neg (x)  s = Sigmoid (a)  b = Mul (a, s)  y = Tanh (b) }",
    )
    found = reduce(wrong, output=tmp_path / "out", until="parity", against=right)
    assert [n.op for n in found.nodes] == ["Sigmoid", "Mul"]


def test_models_with_other_inputs_cannot_be_compared(good, tmp_path):
    other = write(tmp_path / "o.onnx", "g (float[4] z) => (float[4] y) { y = Neg (z) }")
    with pytest.raises(ShapeMismatch, match="different inputs"):
        reduce(good, output=tmp_path / "out", until="parity", against=other)


@pytest.mark.slow
@pytest.mark.parametrize("until", ["ort", "parity"])
def test_a_bug_of_an_optimiser_keeps_the_nodes_that_it_needs_together(until, tmp_path):
    """ONNX Runtime removes the Cast, fuses Div and Mul, and cannot load what it has made (its issue 32413)."""
    text = """g (float[n, 4] x) => (float[n, 4] y) {
        a = Neg (x)  b = Exp (a)  c = Cast <to = 1> (b)  d = Abs (c)  e = Cast <to = 1> (a)
        r = Div (one, d)  m = Mul (r, e)  f = Tanh (m)  y = Sin (f) }"""
    model = write(tmp_path / "m.onnx", text, one=np.ones(1, np.float32))
    found = reduce(model, output=tmp_path / "out", until=until)
    assert (found.status, [n.op for n in found.nodes]) == ("reduced", ["Cast", "Div", "Mul"])
    assert ("GK109" in found.same, found.samples) == (True, 3)
    assert run_readme(tmp_path / "out").returncode == 1


# --- a command ---------------------------------------------------------------------------------------------------


def test_a_crash_of_the_command_is_a_failure(tmp_path):
    model = saved(tower(BLOCKS, {11: after("Erf")}), tmp_path / "m.onnx")
    crash = shell('grep -q Erf "$0" && kill -SEGV $$; exit 0')
    found = reduce(model, output=tmp_path / "out", check=crash, request=ONCE)
    assert [n.op for n in found.nodes] == ["Erf"]
    assert found.same == "signal SIGSEGV"
    assert found.trials < 40
    assert run_readme(tmp_path / "out").returncode in (-11, 139)  # dash hands on what bash replaces by 128 + 11


def test_the_reason_is_kept_where_a_model_has_two_faults(tmp_path):
    model = saved(tower(BLOCKS, {3: after("Sin"), 15: after("Erf")}), tmp_path / "m.onnx")
    script = """
        grep -q Erf "$0" && { echo "$0: line 12: no kernel for Erf" >&2; exit 3; }
        grep -q Sin "$0" && { echo "$0: line 99: no kernel for Sin" >&2; exit 3; }
        exit 0"""
    found = reduce(model, output=tmp_path / "out", check=shell(script), request=ONCE)
    assert [n.op for n in found.nodes] == ["Erf"]
    assert found.same == "exit status 3: PATH: line N: no kernel for Erf"


@pytest.mark.slow
def test_a_failure_that_needs_two_nodes_keeps_both(tmp_path):
    model = saved(tower(5, {1: after("Sin"), 3: after("Erf")}), tmp_path / "m.onnx")
    both = shell('grep -q Erf "$0" && grep -q Sin "$0" && exit 9; exit 0')
    found = reduce(model, output=tmp_path / "out", check=both, request=ONCE)
    assert [n.op for n in found.nodes] == ["Sin", "Erf"]
    onnx.checker.check_model(onnx.load(tmp_path / "out/model.onnx"))


@pytest.mark.slow
def test_a_command_gets_the_values_that_the_tensors_had(tmp_path):
    model = write(
        tmp_path / "m.onnx",
        "g (float[n, 4] x) => (float[n, 4] y) { a = Exp (x)  b = Neg (a)  c = Abs (b)  y = Sqrt (c) }",
    )
    script = tmp_path / "check.py"
    script.write_text(
        "import sys, pathlib, numpy, onnxruntime\n"
        "s = onnxruntime.InferenceSession(sys.argv[1])\n"
        "i = {p.stem: numpy.load(p) for p in pathlib.Path(sys.argv[2]).glob('*.npy')}\n"
        "o = dict(zip([v.name for v in s.get_outputs()], s.run(None, i)))\n"
        "neg = b'Neg' in pathlib.Path(sys.argv[1]).read_bytes()\n"
        "if neg and any(abs(v).max() > 4 for v in o.values()): sys.exit('too large')\n"
    )
    values = np.array([[0, 1, 2, 3]], np.float32)
    request = ReduceRequest(samples=(Sample("x", tmp_path / "x.npy"),))
    np.save(tmp_path / "x.npy", values)
    command = f"{sys.executable} {script} {{model}} {{inputs}}"
    found = reduce(model, output=tmp_path / "out", check=command, request=request)
    assert [n.op for n in found.nodes] == ["Neg"]
    np.testing.assert_allclose(np.load(tmp_path / "out/inputs/0/a.npy"), np.exp(values), rtol=1e-6)
    assert str(tmp_path) not in (tmp_path / "out/README.md").read_text() + (tmp_path / "out/failure.json").read_text()
    assert run_readme(tmp_path / "out").returncode == 1


def test_a_command_that_does_not_end_fails_as_timeout(tmp_path):
    model = saved(tower(2, {0: after("Erf")}), tmp_path / "m.onnx")
    request = ReduceRequest(sets=({"x": X},), timeout=0.5)
    hang = shell('grep -q Erf "$0" && sleep 60; exit 0')
    found = reduce(model, output=tmp_path / "out", check=hang, request=request)
    assert ([n.op for n in found.nodes], found.same) == (["Erf"], "timeout")


def test_a_failure_that_comes_and_goes_is_not_reduced(good, tmp_path):
    turn = tmp_path / "turn"
    check = shell(f"if [ -e {turn} ]; then rm {turn}; exit 0; else touch {turn}; exit 1; fi")
    found = reduce(good, output=tmp_path / "out", check=check, request=ONCE)
    assert found.status == "flaky"
    assert found.reason.endswith("first exit status 1; then, on the same inputs, it passes")
    assert not (tmp_path / "out").exists()


def test_a_spent_budget_leaves_what_fails_and_says_so(tmp_path):
    model = saved(tower(BLOCKS, {11: after("Erf")}), tmp_path / "m.onnx")
    request = ReduceRequest(sets=({"x": X},), trials=3)
    found = reduce(model, output=tmp_path / "out", check=shell('! grep -q Erf "$0"'), request=request)
    left = len(onnx.load(tmp_path / "out/model.onnx").graph.node)
    assert (found.status, found.trials, found.nodes_after) == ("stopped", 3, left)
    assert found.reason.startswith(f"stopped at {left} of {BLOCKS * NODES_PER_BLOCK + 2} nodes, not minimal")
    assert 1 < left < 200
    assert run_readme(tmp_path / "out").returncode == 1


@pytest.mark.parametrize(
    ("options", "said"),
    [
        ({"check": "no-such-program {model}"}, "no program 'no-such-program'"),
        ({"check": "python check.py"}, "does not say where the model goes"),
        ({"check": "python 'check.py {model}"}, "No closing quotation"),
        ({}, "either a command or --until"),
        ({"check": "true {model}", "until": "ort"}, "either a command or --until"),
        ({"until": "ort", "against": "x.onnx"}, "--against is for --until parity"),
        ({"until": "tomorrow"}, "there is no such check"),
    ],
)
def test_a_bad_request_is_refused(options, said, good, tmp_path):
    with pytest.raises(BadOption, match=said):
        reduce(good, output=tmp_path / "out", **options)


def test_a_folder_that_is_there_is_left_alone(good, tmp_path):
    (tmp_path / "mine").write_text("mine")
    with pytest.raises(CannotWrite, match="exists"):
        reduce(good, output=tmp_path, check="false {model}")
    with pytest.raises(CannotWrite, match="parent folder"):
        reduce(good, output=tmp_path / "no" / "out", check="false {model}")
    assert [p.name for p in tmp_path.iterdir()] == ["mine"]


def test_files_that_are_not_there_or_do_not_fit(good, tmp_path):
    with pytest.raises(FileMissing):
        reduce(tmp_path / "none.onnx", output=tmp_path / "out", check="false {model}")
    with pytest.raises(BadSample, match="a set of inputs has z"):
        reduce(good, output=tmp_path / "out", until="ort", request=ReduceRequest(sets=({"z": X},)))


# --- ONNX Runtime, TensorRT-RTX ----------------------------------------------------------------------------------


@pytest.mark.slow
def test_until_ort_finds_the_node_that_cannot_run(tmp_path):
    def gather(op, h: str, p: str) -> str:
        index = op("Cast", [op("ReduceMax", [h], f"{p}max", keepdims=0)], f"{p}index", to=TensorProto.INT64)
        far = op("Add", [index, op("Constant", [], f"{p}far", value_int=1000)], f"{p}off")
        return op("Add", [h, op("Gather", [h, far], f"{p}gather", axis=0)], f"{p}sum")

    model = saved(tower(BLOCKS, {9: gather}), tmp_path / "m.onnx")
    found = reduce(model, output=tmp_path / "out", until="ort", request=ONCE)
    assert [n.op for n in found.nodes] == ["Gather"]
    assert "out of data bounds" in found.failure
    assert run_readme(tmp_path / "out").returncode == 1


@pytest.mark.slow
def test_a_crash_of_onnx_runtime_is_a_failure(tmp_path):
    """INT_MIN / -1 ends the process with SIGFPE."""
    text = """g (int64[4] x) => (int64[4] y) {
        a = Abs (x)  b = Neg (a)  c = Min (b, least)  d = Div (c, minus)  e = Abs (d)  y = Neg (e) }"""
    weights = {"least": np.full(4, -(2**63)), "minus": np.full(4, -1)}
    model = write(tmp_path / "m.onnx", text, **weights)
    request = ReduceRequest(sets=({"x": np.arange(4)},))
    found = reduce(model, output=tmp_path / "out", until="ort", request=request)
    assert ([n.op for n in found.nodes], found.same) == (["Div"], "GK401: signal SIGFPE")
    assert run_readme(tmp_path / "out").returncode in (-8, 136)


@pytest.mark.slow
@pytest.mark.skipif(find_spec("tensorrt_rtx") is None, reason="TensorRT-RTX is not installed")
def test_until_build_finds_the_operator_that_the_engine_lacks(tmp_path):
    def det(op, h: str, p: str) -> str:
        square = op("MatMul", [h, op("Transpose", [h], f"{p}t", perm=[0, 2, 1])], f"{p}square")
        shape = op("Constant", [], f"{p}shape", value_ints=[-1, 1, 1])
        return op("Add", [h, op("Reshape", [op("Det", [square], f"{p}det"), shape], f"{p}r")], f"{p}sum")

    model = saved(tower(10, {6: det}), tmp_path / "m.onnx")
    request = ReduceRequest(dims=(DimRange("batch", 1, 2, 4),))
    found = reduce(model, output=tmp_path / "out", until="build", request=request)
    assert [n.op for n in found.nodes] == ["Det"]
    assert found.same.startswith("GK110: Det: ")
    assert [str(s) for s in found.inputs] == ["block6.square: float32[batch, 8, 8]"]
    said = run_readme(tmp_path / "out")
    assert (said.returncode, "Det" in said.stdout + said.stderr) == (1, True)


# --- what is written ---------------------------------------------------------------------------------------------


def test_an_anonymised_model_fails_alike_and_tells_nothing(tmp_path):
    right, wrong = tower(3), tower(3)
    miscompiles.weight_off(wrong.graph)
    found = reduce(
        saved(wrong, tmp_path / "secret.onnx"), output=tmp_path / "out", until="parity",
        against=saved(right, tmp_path / "right.onnx"), request=ReduceRequest(sets=({"x": X},), anonymize=True),
    )  # fmt: skip
    assert (found.status, found.anonymized, [n.op for n in found.nodes]) == ("reduced", True, ["MatMul"])
    written = b"".join(p.read_bytes() for p in (tmp_path / "out").rglob("*") if p.is_file())
    weights = [t.raw_data for m in (right, wrong) for t in m.graph.initializer]
    assert all(w[i : i + 16] not in written for w in weights for i in range(0, len(w), 16))
    names = {t for n in right.graph.node for t in (n.name, *n.output)} | {t.name for t in right.graph.initializer}
    assert not [n for n in names - {"y"} if n.encode() in written]
    assert not [word for word in (b"secret", b"right.onnx") if word in written]
    assert b"batch" not in (tmp_path / "out/model.onnx").read_bytes()
    assert run_readme(tmp_path / "out").returncode == 1


def test_anonymised_weights_have_the_statistics_of_the_real_ones(tmp_path):
    rng = np.random.default_rng(1)
    w = (rng.gamma(2.0, 3.0, (64, 64)) - 1).astype(np.float32)
    table = rng.integers(3, 90, (40, 4))
    text = "g (float[64, 64] x) => (float[64, 64] y, int64[40, 4] i) { y = MatMul (x, w)  i = Abs (table) }"
    model = write(tmp_path / "m.onnx", text, w=w, table=table)
    check = shell('grep -q MatMul "$0" && grep -q Abs "$0" && exit 1; exit 0')
    reduce(model, output=tmp_path / "out", check=check, request=ReduceRequest(anonymize=True))
    made = {t.data_type: numpy_helper.to_array(t) for t in onnx.load(tmp_path / "out/model.onnx").graph.initializer}
    floats, integers = made[TensorProto.FLOAT], made[TensorProto.INT64]
    assert not np.array_equal(floats, w)
    assert floats.mean() == pytest.approx(w.mean(), rel=0.1)
    assert floats.std() == pytest.approx(w.std(), rel=0.2)
    assert (floats.min(), floats.max()) == (w.min(), w.max())
    assert not np.array_equal(integers, table)
    assert integers.min() >= table.min()
    assert integers.max() <= table.max()


def test_neutral_names_do_not_collide_with_those_that_look_like_them(tmp_path):
    text = """g (float[4] input_1, float[4] input_0) => (float[4] output_0) {
        tensor_0 = Sub (input_1, input_0)  output_0 = Erf (tensor_0) }"""
    model = write(tmp_path / "m.onnx", text)
    check = shell('grep -q Sub "$0" && grep -q Erf "$0" && exit 1; exit 0')
    reduce(model, output=tmp_path / "out", check=check, request=ReduceRequest(anonymize=True))
    graph = onnx.load(tmp_path / "out/model.onnx").graph
    onnx.checker.check_model(onnx.load(tmp_path / "out/model.onnx"), full_check=True)
    assert [v.name for v in graph.input] == list(graph.node[0].input) == ["input_0", "input_1"]


def test_a_failure_that_needs_the_real_weights_is_not_written_anonymously(tmp_path):
    model = saved(tower(2), tmp_path / "m.onnx")
    check = shell('grep -q block1.gelu "$0" && exit 1; exit 0')
    found = reduce(model, output=tmp_path / "out", check=check, request=ReduceRequest(anonymize=True))
    assert (found.status, found.nodes_after) == ("not anonymous", 1)
    assert not (tmp_path / "out").exists()


def test_the_users_lines_are_named(tmp_path):
    model = load(saved(tower(2, {0: after("Erf")}), tmp_path / "m.onnx"))
    for node in model.ir.graph:
        set_provenance(node, [SourceLine("head", "net.py", 41, "Head.forward")])
    found = reduce(model, output=tmp_path / "out", check=shell('! grep -q Erf "$0"'), request=ONCE)
    assert [str(line) for line in found.nodes[0].source] == ["net.py:41 in Head.forward (module `head`)"]
    assert "| Erf | node.block0.erf | net.py:41 in Head.forward" in (tmp_path / "out/README.md").read_text()


def test_a_shape_that_was_computed_becomes_a_constant_and_other_inputs_keep_their_values(tmp_path):
    text = """g (float[2, 6] x) => (float[3, 4] y) {
        s = Shape (x)  d = Constant <value_ints = [3, 4]> ()  e = Max (d, s)  f = Min (e, d)
        t = Neg (x)  r = Reshape (t, f)  y = Erf (r) }"""
    found = reduce(write(tmp_path / "m.onnx", text), output=tmp_path / "out", check=shell('! grep -q Reshape "$0"'))
    graph = onnx.load(tmp_path / "out/model.onnx").graph
    assert [str(s) for s in found.inputs] == ["t: float32[2, 6]"]
    assert [numpy_helper.to_array(t).tolist() for t in graph.initializer] == [[3, 4]]


BRANCHES = """g (float[4] x, bool c) => (float[4] y) {
    a = Neg (x)  b = Exp (a)
    d = If (c) <then_branch = g1 () => (float[4] p) { o = Sin (b)  m = Erf (o)  p = Neg (m) },
                else_branch = g2 () => (float[4] q) { q = Abs (a) }>
    y = Tanh (d) }"""


def test_an_if_is_reduced_inside_the_branch_that_it_takes(tmp_path):
    request = ReduceRequest(samples=(Sample("c", True),))
    check = shell('! grep -q Erf "$0"')
    found = reduce(write(tmp_path / "m.onnx", BRANCHES), output=tmp_path / "out", check=check, request=request)
    assert [n.op for n in found.nodes] == ["Erf"]
    assert found.notes == ("If `d` was replaced by its then branch, which it takes",)
    assert run_readme(tmp_path / "out").returncode == 1


def test_an_if_that_takes_both_is_kept_with_all_that_its_branches_read(tmp_path):
    found = reduce(write(tmp_path / "m.onnx", BRANCHES), output=tmp_path / "out", check=shell('! grep -q Erf "$0"'))
    assert [n.op for n in found.nodes] == ["If"]
    assert {s.name for s in found.inputs} == {"c", "a", "b"}
    onnx.checker.check_model(onnx.load(tmp_path / "out/model.onnx"), full_check=True)


def test_names_that_are_no_file_names(tmp_path):
    text = "g (float[4] x) => (float[4] y) { a = Neg (x)  y = Erf (a) }"
    proto = parser.parse_model(f'<ir_version: 10, opset_import: ["" : 20]>\n{text}')
    proto.graph.node[0].output[0] = proto.graph.node[1].input[0] = "/../net/out:0 ü"
    check = shell('! grep -q Erf "$0"')
    found = reduce(saved(proto, tmp_path / "m.onnx"), output=tmp_path / "out", check=check)
    assert found.inputs[0].name == "/../net/out:0 ü"
    assert [p.name for p in (tmp_path / "out/inputs/0").iterdir()] == ["%2F..%2Fnet%2Fout%3A0 %C3%BC.npy"]


def test_a_name_longer_than_a_file_name_may_be(tmp_path):
    text = f"g (float[4] x) => (float[4] y) {{ {'a' * 300} = Neg (x)  y = Erf ({'a' * 300}) }}"
    found = reduce(write(tmp_path / "m.onnx", text), output=tmp_path / "out", check=shell('! grep -q Erf "$0"'))
    assert found.inputs[0].name == "a" * 300
    assert [len(p.name) for p in (tmp_path / "out/inputs/0").iterdir()] == [213]


def test_what_onnx_runtime_cannot_run_is_reduced_without_values(tmp_path):
    graph = helper.make_graph(
        [
            helper.make_node("Mystery", ["x"], ["a"], "m", domain="acme"),
            helper.make_node("Neg", ["a"], ["b"]),
            helper.make_node("Erf", ["b"], ["y"]),
        ],
        "g",
        [helper.make_tensor_value_info("x", TensorProto.FLOAT, [4])],
        [helper.make_tensor_value_info("y", TensorProto.FLOAT, [4])],
        value_info=[helper.make_tensor_value_info(n, TensorProto.FLOAT, [4]) for n in "ab"],
    )
    imports = [helper.make_opsetid("", 20), helper.make_opsetid("acme", 1)]
    model = saved(helper.make_model(graph, opset_imports=imports, ir_version=10), tmp_path / "m.onnx")
    found = reduce(model, output=tmp_path / "a", check=shell('! grep -q Erf "$0"'))
    assert ([n.op for n in found.nodes], found.samples) == (["Erf"], 0)
    assert "No inputs are given" in (tmp_path / "a/README.md").read_text()
    found = reduce(model, output=tmp_path / "b", until="ort")
    assert ([n.op for n in found.nodes], found.samples) == (["acme.Mystery"], 3)


def test_the_answer_is_strict_json_and_the_same_each_time(tmp_path):
    model = saved(tower(2, {0: after("Erf")}), tmp_path / "m.onnx")
    texts = []
    for name in "ab":
        reduce(model, output=tmp_path / name, check=shell('! grep -q Erf "$0"'))
        texts.append((tmp_path / name / "failure.json").read_text())
        json.loads(texts[-1], parse_constant=pytest.fail)
    assert texts[0] == texts[1]
    assert (tmp_path / "a/model.onnx").read_bytes() == (tmp_path / "b/model.onnx").read_bytes()


# --- the algorithm -----------------------------------------------------------------------------------------------


@given(st.integers(1, 60).flatmap(lambda n: st.tuples(st.just(n), st.sets(st.integers(0, n - 1), min_size=1))))
def test_ddmin_finds_exactly_what_is_needed(case):
    size, needed = case
    found = ddmin(range(size), lambda part: needed <= set(part))
    assert set(found) == needed


@given(st.integers(1, 24), st.randoms(use_true_random=False))
def test_what_ddmin_finds_fails_and_is_1_minimal_whatever_the_law(size, random):
    verdicts = {tuple(range(size)): True}

    def fails(part):
        return verdicts.setdefault(tuple(part), random.random() < 0.4)

    found = tuple(ddmin(range(size), fails))
    assert verdicts[found]
    smaller = [found[:i] + found[i + 1 :] for i in range(len(found))]
    assert len(found) == 1 or not any(verdicts[part] for part in smaller)


@given(st.integers(1, 3000), st.data())
def test_bisection_finds_one_cause_in_logarithmic_time(size, data):
    cause = data.draw(st.integers(0, size - 1))
    trials = []

    def fails(part):
        trials.append(part)
        return cause in part

    assert list(bisect_ends(range(size), fails)) == [cause]
    assert len(trials) <= 2 * size.bit_length()


def test_failures_are_the_same_without_names_numbers_and_paths():
    ours = normalised("/tmp/a/model.onnx:12: node block3.mul gives 1.5e-3 for 'x' at 0xff12", {"block3.mul"})
    theirs = normalised("/var/b/c.onnx:7: node t_1 gives 88 for 'yy' at 0x10", {"t_1"})
    assert ours == theirs == "PATH:N: node NAME gives N for '...' at N"
    assert normalised("no UINT8 here") != normalised("no UINT16 here")
    assert of_exit(1, "Traceback\nValueError: x").reason != of_exit(2, "Traceback\nValueError: x").reason
    assert of_exit(-11, "one thing").reason == of_exit(-11, "another").reason == "signal SIGSEGV"


def test_a_part_reads_and_gives_what_crosses_its_border(good):
    graph = Graph(load(good))
    middle = graph.part(graph.whole, range(NODES_PER_BLOCK, 2 * NODES_PER_BLOCK))
    assert graph.needed(middle) == ("block0.out",)
    assert middle.outputs == ("block1.out",)
    assert len(graph.units(graph.whole.nodes, uncut=())) == len(graph.nodes)
    assert len(graph.units(middle.nodes, uncut=("block1.q", "block1.scores"))) == NODES_PER_BLOCK - 2


def test_it_is_part_of_the_public_api():
    assert gk.reduce is reduce
