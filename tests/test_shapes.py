"""Shapes, ranges and samples: what the command line spells, and the arithmetic of dimensions."""

from pathlib import Path

import pytest
from hypothesis import assume, given
from hypothesis import strategies as st

from graphkit.errors import BadDimRange, BadOption
from graphkit.shapes import (
    DTYPES,
    DimRange,
    Sample,
    Signature,
    TensorSpec,
    evaluate,
    free_symbols,
    parse_dim,
    parse_sample,
    parse_shape,
    symbols_of,
)

symbols = st.from_regex(r"[A-Za-z_][A-Za-z0-9_]{0,8}", fullmatch=True)
names = st.from_regex(r"[A-Za-z_][A-Za-z0-9_.]{0,10}", fullmatch=True)
sizes = st.integers(1, 1_000_000)
shapes = st.lists(st.one_of(sizes, symbols), max_size=5).map(tuple)


@given(names, shapes, st.one_of(st.none(), st.sampled_from(DTYPES)))
def test_a_spelled_shape_is_read_back(name, shape, dtype):
    text = f"{name}={','.join(map(str, shape))}" + (f":{dtype}" if dtype else "")
    assert parse_shape(text) == TensorSpec(name, dtype, shape)


@given(symbols, st.tuples(sizes, sizes, sizes).map(sorted))
def test_a_spelled_range_is_read_back(symbol, bounds):
    low, opt, high = bounds
    wanted = DimRange(symbol, low, opt, high)
    assert parse_dim(str(wanted)) == wanted
    assert parse_dim(f"{symbol}={low}") == DimRange(symbol, low, low, low)


@given(names, st.one_of(st.integers(), st.booleans(), st.floats(allow_nan=False)))
def test_a_spelled_number_is_read_back_with_its_type(name, value):
    found = parse_sample(f"{name}={value}")
    assert found == Sample(name, value)
    assert type(found.value) is type(value)


def test_anything_else_is_a_file():
    assert parse_sample("x=in/x.npy") == Sample("x", Path("in/x.npy"))
    assert parse_sample("x=a=b.npy") == Sample("x", Path("a=b.npy"))


def test_an_empty_shape_is_a_scalar():
    assert parse_shape("sr=") == TensorSpec("sr", None, ())
    assert parse_shape("sr=:int64") == TensorSpec("sr", "int64", ())


@pytest.mark.parametrize(
    "text", ["x", "=3", "x=0,3", "x=-1,3", "x=1.5", "x=a b", "x=3,,4", "x=3,", "x=3:float31", "x=3:", "x=2*seq"]
)
def test_a_malformed_shape_is_refused_with_its_text(text):
    with pytest.raises(BadOption) as caught:
        parse_shape(text)
    assert repr(text) in caught.value.message
    assert caught.value.remedy


@pytest.mark.parametrize(
    "text", ["batch", "batch=", "=1:2:3", "batch=1:2", "batch=1:2:3:4", "batch=a", "batch=-1:2:3", "2b=1:2:3", "b=1.5"]
)
def test_a_malformed_range_is_refused_with_its_text(text):
    with pytest.raises(BadDimRange) as caught:
        parse_dim(text)
    assert repr(text) in caught.value.message


@pytest.mark.parametrize("bounds", [(0, 1, 2), (4, 3, 8), (1, 9, 8), (5, 5, 4)])
def test_a_range_that_is_not_ordered_is_refused_with_its_numbers(bounds):
    with pytest.raises(BadDimRange) as caught:
        DimRange("batch", *bounds)
    assert ":".join(map(str, bounds)) in caught.value.message
    assert "MIN <= OPT <= MAX" in caught.value.remedy


@pytest.mark.parametrize("text", ["x", "=3", "x="])
def test_a_malformed_sample_is_refused(text):
    with pytest.raises(BadOption):
        parse_sample(text)


# --- arithmetic --------------------------------------------------------------------------------------------------

expressions = st.recursive(
    st.one_of(st.integers(0, 50).map(str), st.sampled_from(["a", "b"])),
    lambda inner: st.one_of(
        st.tuples(inner, st.sampled_from(["+", "-", "*", "//", "%"]), inner).map(lambda t: f"({t[0]} {t[1]} {t[2]})"),
        st.tuples(st.sampled_from(["max", "min"]), inner, inner).map(lambda t: f"{t[0]}({t[1]}, {t[2]})"),
        inner.map(lambda e: f"-{e}"),
    ),
    max_leaves=8,
)


@given(expressions, st.integers(1, 40), st.integers(1, 40))
def test_evaluate_is_pythons_arithmetic(expression, a, b):
    try:
        wanted = eval(expression, {"__builtins__": {}, "max": max, "min": min}, {"a": a, "b": b})
    except ZeroDivisionError:
        assert evaluate(expression, {"a": a, "b": b}) is None
        return
    assume(abs(wanted) < 2**50)
    assert evaluate(expression, {"a": a, "b": b}) == wanted


@given(st.integers(1, 500), st.integers(1, 500))
def test_the_spellings_of_sympy_are_understood(a, b):
    known = {"a": a, "b": b}
    assert evaluate("FloorDiv(a, b)", known) == evaluate("floor(a/b)", known) == evaluate("a//b", known) == a // b
    assert evaluate("Mod(a, b)", known) == a % b
    assert evaluate("Max(a, b)", known) == max(a, b)
    assert evaluate("Min(a, b)", known) == min(a, b)
    assert evaluate("a**2", known) == a * a


@pytest.mark.parametrize(
    "dim", [None, "c", "a + c", "a.b", "f(a)", "a +", "a ** 99", "__import__('os')", "a if a else b"]
)
def test_what_cannot_be_known_is_none(dim):
    assert evaluate(dim, {"a": 3, "b": 4}) is None


@given(st.integers(0, 10_000))
def test_a_number_is_itself_and_a_symbol_its_size(size):
    assert evaluate(size, {}) == size
    assert evaluate("some.symbol", {"some.symbol": size}) == size


def test_a_symbol_that_looks_like_an_expression_is_looked_up_first():
    assert evaluate("a + 1", {"a + 1": 7, "a": 1}) == 7


def test_free_symbols_leave_functions_out():
    assert free_symbols("Max(1, 2*a + floor(b/2))") == ("a", "b")
    assert free_symbols("unk__14") == ("unk__14",)
    assert free_symbols("?!") == ("?!",)


def test_symbols_come_in_the_order_of_the_inputs():
    first = TensorSpec("x", None, ("seq", "batch", 3))
    second = TensorSpec("y", None, ("batch", "2*heads", None))
    assert symbols_of([first, second, TensorSpec("z")]) == ("seq", "batch", "heads")
    assert Signature((first, second), ()).symbols == ("seq", "batch", "heads")


def test_a_spec_prints_what_it_knows():
    assert str(TensorSpec("x", "float32", ("batch", 3, None))) == "x: float32[batch, 3, ?]"
    assert str(TensorSpec("x")) == "x: unknown[?]"
