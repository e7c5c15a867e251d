"""Peak memory by hand, precision, repeated blocks, module trees, paths, and statistics of weights."""

import math

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper, numpy_helper

from benchmarks.made_models import transformer
from graphkit import view
from graphkit.analyze.blocks import repeated
from graphkit.analyze.cost import cost_of
from graphkit.analyze.find import find
from graphkit.analyze.inference import infer
from graphkit.analyze.memory import memory_of
from graphkit.analyze.modules import tree
from graphkit.analyze.precision import precision_of
from graphkit.analyze.weight_stats import stats_of
from graphkit.errors import BadOption
from graphkit.view.order import topological
from tests.analyze.graphs import model, seen

# --- memory ------------------------------------------------------------------------------------------------------


def test_peak_memory_is_that_computed_by_hand(tmp_path):
    """x: 40 B. At `b` are live: x (needed by d), a (80 B), b (160 B): 280 B. At `c`: x, b and c (20 B): 220 B."""
    text = """g (float[n,10] x, float[10,20] w, float[20,40] v, float[40,5] u, float[10,5] t) => (y)
    { a = MatMul(x, w) b = MatMul(a, v) c = MatMul(b, u) d = MatMul(x, t) y = Add(c, d) }"""
    made = model(text)
    for weight, shape in (("w", (10, 20)), ("v", (20, 40)), ("u", (40, 5)), ("t", (10, 5))):
        made.graph.initializer.append(numpy_helper.from_array(np.zeros(shape, np.float32), weight))
    table = infer(seen(made, tmp_path))
    found = memory_of(table, {"n": 3})
    assert (found.peak, table.graph.ops[found.node], found.node) == (3 * 280, "MatMul", 1)
    assert str(found.live) == "280*n"
    assert found.by_node == (3 * 120, 3 * 280, 3 * 220, 3 * 80, 3 * 60)


def test_a_reshape_shares_its_inputs_memory_and_outputs_live_to_the_end(tmp_path):
    text = """g (float[4] x) => (a, c) <int64[2] s = {2, 2}> { a = Relu(x) b = Reshape(a, s) c = Neg(b) }"""
    found = memory_of(infer(seen(model(text), tmp_path)), {})
    assert found.by_node == (32, 16, 32)


def test_values_of_unknown_size_are_counted_and_the_peak_is_a_lower_bound(tmp_path):
    found = memory_of(infer(seen(model("g (float[4] x) => (y) { a = NonZero(x) y = Neg(a) }"), tmp_path)), {})
    assert (found.unknown, found.peak) == (2, 16)


def test_what_a_branch_captures_lives_until_the_branch(tmp_path):
    text = """g (float[8] x, bool c) => (y) { a = Neg(x) b = Relu(x) y = If (c) <
        then_branch = t () => (float[8] d) { d = Add(a, b) },
        else_branch = e () => (float[8] f) { f = Identity(b) }> }"""
    found = memory_of(infer(seen(model(text), tmp_path)), {})
    assert found.by_node[1] == 1 + 3 * 32  # c, x, a and b
    assert found.by_node[2] == 1 + 3 * 32 + 32  # c, a, b, y, and what the branch makes


# --- precision ---------------------------------------------------------------------------------------------------


def test_precision_is_told_by_share_of_macs(tmp_path):
    ones, halves = ",".join(["1"] * 64), ",".join(["0.5"] * 8)
    text = f"""g (float[1,8] x, float[8,8] w) => (y)
    <float s = {{0.5}}, int8 z = {{0}}, int8[8,8] q = {{{ones}}}, float[8] t = {{{halves}}}>
    {{ a = QuantizeLinear(x, s, z) b = DequantizeLinear(a, s, z) c = DequantizeLinear<axis=0>(q, t) k = Transpose(c)
      d = MatMul(b, k) e = MatMul(d, c) y = MatMul(e, w) }}"""
    table = infer(seen(model(text), tmp_path))
    found = precision_of(cost_of(table), table)
    assert found.macs == {"int8 Q/DQ": 64, "int8 weights": 64, "float32": 64}
    assert (found.quantize, found.dequantize, found.per_channel) == (1, 2, (1, 1))


# --- blocks ------------------------------------------------------------------------------------------------------


def test_repeated_blocks_are_found(tmp_path):
    transformer(tmp_path / "t.onnx", nodes=14 * 24)
    graph = view.read(tmp_path / "t.onnx").graph
    (block,) = repeated(graph, topological(graph))
    assert (block.count, len(block.nodes)) == (24, 14)
    assert dict(block.operators)["MatMul"] == 6


def test_blocks_that_are_wired_otherwise_are_no_repetition(tmp_path):
    """Twice the same operators in the same order; once the second is wired otherwise inside."""
    one = "a1 = Relu(x) a2 = Neg(a1) a3 = Abs(a1) a4 = Add(a2, a3) a5 = Exp(a4) a6 = Sin(a5)"
    same = "b1 = Relu(a6) b2 = Neg(b1) b3 = Abs(b1) b4 = Add(b2, b3) b5 = Exp(b4) b6 = Sin(b5)"
    other = same.replace("Abs(b1)", "Abs(b2)")
    for second, count in ((same, 1), (other, 0)):
        graph = seen(model(f"g (float[n] x) => (b6) {{ {one} {second} }}"), tmp_path).graph
        assert len(repeated(graph, topological(graph))) == count


# --- modules and paths -------------------------------------------------------------------------------------------


def test_the_tree_adds_up(tmp_path):
    transformer(tmp_path / "t.onnx", nodes=28)
    table = infer(view.read(tmp_path / "t.onnx"))
    root, source = tree(table, cost_of(table))
    layers = root.parts["model"].parts
    assert (source, list(layers)) == ("names", ["layers.0", "layers.1"])
    assert root.nodes == 28 == sum(part.nodes for part in layers.values())
    assert str(root.macs) == str(cost_of(table).macs)
    assert root.parameters == sum(w.size for w in table.graph.initializers.values())


def test_pytorchs_own_metadata_gives_the_modules(tmp_path):
    made = model("g (float[n] x) => (y) { a = Relu(x) y = Neg(a) }")
    for node, scopes in zip(made.graph.node, (["", "head", "head.act", "relu"], ["", "neg"]), strict=True):
        node.metadata_props.add(key="pkg.torch.onnx.name_scopes", value=repr(scopes))
    table = infer(seen(made, tmp_path))
    root, source = tree(table, cost_of(table))
    assert source == "torch"
    assert root.parts["head"].parts["act"].nodes == 1
    assert root.nodes == 2


PATHS = """g (float[n,8] x, float[8,8] w) => (y, z)
    { a = MatMul(x, w) b = Add(a, x) c = Gelu(b) y = Neg(b) d = MatMul(c, w) z = Abs(d) }"""


@pytest.mark.parametrize(
    ("pattern", "paths"),
    [
        ("MatMul > Add > Gelu", [(0, 1, 2)]),
        ("matmul -> add", [(0, 1)]),
        ("MatMul > * > Gelu|Neg", [(0, 1, 2), (0, 1, 3)]),
        ("MatMul > ** > Abs", [(0, 5), (4, 5)]),
        ("MatMul > ** > MatMul", [(0, 4)]),
        ("*Mul", [(0,), (4,)]),
        ("Softmax > *", []),
    ],
)
def test_paths_are_found_by_pattern(pattern, paths, tmp_path):
    found, complete = find(seen(model(PATHS), tmp_path), pattern)
    assert [match.nodes for match in found] == paths
    assert complete


@pytest.mark.parametrize("pattern", ["", "MatMul >", "> Add", "** > Add", "Add > **", "Mat(Mul", ">".join(["*"] * 40)])
def test_a_malformed_pattern_is_refused(pattern, tmp_path):
    with pytest.raises(BadOption, match=r"pattern|begins or ends"):
        find(seen(model(PATHS), tmp_path), pattern)


def test_exponentially_many_ways_are_no_hang(tmp_path):
    """200 diamonds: 2^200 ways from the first node to the last."""
    lines = ["v0 = MatMul(x, w)"]
    for at in range(200):
        lines.append(f"l{at} = Relu(v{at}) r{at} = Neg(v{at}) v{at + 1} = Add(l{at}, r{at})")
    text = f"g (float[8,8] x, float[8,8] w) => (y) {{ {' '.join(lines)} y = Softmax(v200) }}"
    looked_at = seen(model(text), tmp_path)
    found, complete = find(looked_at, "MatMul > ** > Softmax")
    assert ([match.nodes for match in found], complete) == ([(0, 601)], True)
    assert find(looked_at, "MatMul > ** > Gelu") == ((), True)
    assert find(looked_at, " > ".join(["*"] * 30))[1] is False


# --- weights -----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("dtype", ["float32", "float64", "float16", "int8", "uint8", "int64", "bool"])
def test_statistics_are_those_of_numpy(dtype, tmp_path):
    """2.5 MB, so that a weight comes in several pieces."""
    random = np.random.default_rng(0)
    values = random.normal(0, 20, 2_500_000 // np.dtype(dtype).itemsize).astype(dtype)
    (weight,) = saved(numpy_helper.from_array(values, "w"), tmp_path).weights()
    found = stats_of(weight)
    exact = values.astype(np.float64)
    assert (found.minimum, found.maximum) == (exact.min(), exact.max())
    assert math.isclose(found.mean, exact.mean(), rel_tol=1e-9, abs_tol=1e-12)
    assert math.isclose(found.deviation, exact.std(), rel_tol=1e-9)
    assert found.zeros == np.count_nonzero(exact == 0)


def test_nan_and_infinite_elements_are_counted_apart(tmp_path):
    values = np.float32([0, np.nan, np.inf, -np.inf, 2, 4])
    (weight,) = saved(numpy_helper.from_array(values, "w"), tmp_path).weights()
    found = stats_of(weight)
    assert (found.nan, found.infinite, found.zeros, found.elements) == (1, 2, 1, 6)
    assert (found.minimum, found.maximum, found.mean) == (0, 4, 2)


def test_packed_and_strange_types_have_statistics_too(tmp_path):
    for code, expected in ((TensorProto.INT4, [-8, 7, 3]), (TensorProto.BFLOAT16, [1.5, -2, 0])):
        (weight,) = saved(helper.make_tensor("w", code, [3], expected), tmp_path).weights()
        found = stats_of(weight)
        assert (found.minimum, found.maximum) == (min(expected), max(expected))
    (text,) = saved(helper.make_tensor("w", TensorProto.STRING, [1], [b"a"]), tmp_path).weights()
    assert stats_of(text) is None
    (empty,) = saved(helper.make_tensor("w", TensorProto.FLOAT, [0], []), tmp_path).weights()
    assert stats_of(empty).mean is None


def saved(tensor, folder):
    graph = helper.make_graph([], "g", [], [], [tensor])
    path = folder / "w.onnx"
    path.write_bytes(onnx.helper.make_model(graph).SerializeToString())
    return view.read(path)
