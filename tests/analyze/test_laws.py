"""What holds for every graph: a symbolic cost is the cost at each size, and polynomials are what they say."""

import tempfile
from pathlib import Path

import onnx
from hypothesis import given, settings
from hypothesis import strategies as st

from graphkit.analyze.cost import cost_of
from graphkit.analyze.inference import infer
from graphkit.analyze.memory import memory_of
from graphkit.analyze.polynomial import Poly, evaluate, floor, parse, product, substitute, symbol, text
from tests.analyze.graphs import model, seen

SIZES = st.fixed_dictionaries({"n": st.integers(1, 9), "h": st.integers(24, 60), "w": st.integers(24, 60)})


@st.composite
def networks(draw):
    """A graph of convolutions, pools, reshapes and products over x [n, 2, h, w]."""
    lines, weights, channels, x = [], [], 2, "x"
    for at in range(draw(st.integers(1, 4))):
        kind = draw(st.sampled_from(("conv", "pool", "pad", "up", "relu")))
        y = f"v{at}"
        if kind == "conv":
            made, size, stride = draw(st.integers(1, 4)), draw(st.sampled_from((1, 3))), draw(st.integers(1, 2))
            weights.append(f"float[{made},{channels},{size},{size}] w{at}")
            lines.append(f"{y} = Conv<strides=[{stride},{stride}]>({x}, w{at})")
            channels = made
        elif kind == "pool":
            ceil = draw(st.integers(0, 1))
            lines.append(f"{y} = MaxPool<kernel_shape=[2,2], strides=[2,2], ceil_mode={ceil}>({x})")
        elif kind == "pad":
            lines.append(f"p{at} = Constant<value_ints=[0,0,1,0,0,0,0,2]>() {y} = Pad({x}, p{at})")
        elif kind == "up":
            lines.append(f"{y} = ConvTranspose<strides=[2,2]>({x}, u{at})")
            weights.append(f"float[{channels},3,2,2] u{at}")
            channels = 3
        else:
            lines.append(f"{y} = Relu({x})")
        x = y
    weights.append(f"float[{channels},5] last")
    lines.append(f"t = Transpose<perm=[0,2,3,1]>({x}) m = MatMul(t, last) s = Constant<value_ints=[0,-1,5]>()")
    lines.append("f = Reshape(m, s) g = Transpose<perm=[0,2,1]>(f) y = MatMul(f, g)")
    return f"g (float[n,2,h,w] x, {', '.join(weights)}) => (y) {{ {' '.join(lines)} }}"


@given(networks(), SIZES)
@settings(max_examples=60, deadline=None)
def test_a_symbolic_cost_at_a_size_is_the_cost_of_the_graph_of_that_size(graph, sizes):
    made = model(graph)
    fixed = onnx.ModelProto.FromString(made.SerializeToString())
    for dim, name in zip(fixed.graph.input[0].type.tensor_type.shape.dim, ("n", None, "h", "w"), strict=True):
        if name:
            dim.dim_value = sizes[name]
    with tempfile.TemporaryDirectory() as folder:
        symbolic = infer(seen(made, Path(folder)))
        exact = infer(seen(fixed, Path(folder)))
    ours, theirs = cost_of(symbolic), cost_of(exact)
    assert evaluate(ours.macs, sizes) == theirs.macs > 0
    assert evaluate(ours.elementwise, sizes) == theirs.elementwise
    assert memory_of(symbolic, sizes).peak == memory_of(exact, {}).peak > 0
    assert evaluate(memory_of(symbolic, sizes).live, sizes) == memory_of(exact, {}).peak


@given(networks(), SIZES)
@settings(max_examples=30, deadline=None)
def test_shapes_are_those_of_onnx(graph, sizes):
    """At fixed sizes, against onnx's own inference."""
    made = model(graph)
    for dim, name in zip(made.graph.input[0].type.tensor_type.shape.dim, ("n", None, "h", "w"), strict=True):
        if name:
            dim.dim_value = sizes[name]
    inferred = onnx.shape_inference.infer_shapes(made, data_prop=True)
    with tempfile.TemporaryDirectory() as folder:
        table = infer(seen(made, Path(folder)))
    ours = {table.graph.values[v]: tensor.shape for v, tensor in enumerate(table.tensors)}
    compared = 0
    for info in (*inferred.graph.value_info, *inferred.graph.output):
        dims = info.type.tensor_type.shape.dim
        if dims and all(dim.HasField("dim_value") for dim in dims):
            assert ours[info.name] == tuple(dim.dim_value for dim in dims)
            compared += 1
    assert compared > 2


polynomials = st.recursive(
    st.integers(-5, 5) | st.sampled_from("abc").map(symbol),
    lambda inner: st.tuples(inner, inner, st.sampled_from("+-*")).map(
        lambda row: {"+": row[0] + row[1], "-": row[0] - row[1], "*": row[0] * row[1]}[row[2]]
    ),
    max_leaves=6,
)
points = st.fixed_dictionaries({name: st.integers(0, 7) for name in "abc"})


@given(polynomials, polynomials, points)
def test_polynomials_compute_as_numbers_do(p, q, at):
    value = {name: evaluate(size, at) for name, size in (("p", p), ("q", q))}
    assert evaluate(p + q, at) == value["p"] + value["q"]
    assert evaluate(p * q, at) == value["p"] * value["q"]
    assert evaluate(p - q, at) == value["p"] - value["q"]
    assert p - p == 0
    assert p + q == q + p
    if value["q"]:
        assert evaluate(floor(p, q), at) == value["p"] // value["q"]
    assert substitute(p, at) == value["p"]


@given(polynomials, st.integers(1, 4), st.integers(-3, 3), st.integers(1, 4), points)
def test_quotients_of_quotients_compute_as_numbers_do(p, d, r, e, at):
    value = evaluate(p, at)
    assert evaluate(floor(floor(p, d) + r, e), at) == (value // d + r) // e


def test_equal_quotients_look_equal():
    h = symbol("h")
    assert floor(floor(h, 2), 2) == floor(h, 4)
    assert floor(h * 2 + 3, 2) == h + 1
    assert floor(floor(h - 1, 2) * 2 + 1, 2) == floor(h + 1, 2) - 1


@given(polynomials)
def test_a_polynomial_is_read_again_as_it_is_written(p):
    assert parse(str(p).replace("^", "**")) == p


def test_an_exact_quotient_is_a_polynomial():
    batch, heads = symbol("batch"), symbol("heads")
    assert floor(product((8, batch, heads)), product((2, heads))) == batch * 4
    assert isinstance(floor(batch, 3), Poly)
    assert str(parse("2*seq + 1")) == "2*seq + 1"
    assert str(parse("a weird name")) == "a weird name"


def test_sizes_are_shown_short():
    from graphkit.analyze.polynomial import short

    assert text(symbol("batch") * 38_797_312, short) == "38.8M*batch"
    assert [short(n) for n in (0, 999, 1000, 1_814_073_344, 10**12)] == ["0", "999", "1.00k", "1.81G", "1.00T"]
