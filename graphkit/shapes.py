"""Names, dtypes, shapes and dimension ranges: the vocabulary that every room shares.

A dimension is an int, a symbol (`batch`), an expression over symbols (`2*seq + 1`), or None where nothing is known.
"""

from __future__ import annotations

import ast
import math
import re
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from graphkit.errors import BadDimRange, BadOption

Dim = int | str | None
Shape = tuple[Dim, ...]

DTYPES = (
    "float32", "float64", "float16", "bfloat16", "int8", "int16", "int32", "int64",
    "uint8", "uint16", "uint32", "uint64", "bool", "string", "complex64", "complex128",
)  # fmt: skip

_SYMBOL = re.compile(r"^[A-Za-z_][A-Za-z0-9_.]*$")


@dataclass(frozen=True, slots=True)
class TensorSpec:
    """A named tensor: what an input or output looks like.

    Attributes:
        name: The tensor's name.
        dtype: One of `DTYPES`, or None where the source does not say.
        shape: One entry per dimension (see the module's docstring), or None where the rank is unknown.
    """

    name: str
    dtype: str | None = None
    shape: Shape | None = None

    def __str__(self) -> str:
        dims = "?" if self.shape is None else ", ".join("?" if d is None else str(d) for d in self.shape)
        return f"{self.name}: {self.dtype or 'unknown'}[{dims}]"

    def to_json(self) -> dict[str, object]:
        return {
            "name": self.name,
            "dtype": self.dtype,
            "shape": None if self.shape is None else list(self.shape),
        }

    @classmethod
    def from_json(cls, data: Mapping[str, Any]) -> TensorSpec:
        """The inverse of `to_json`. Raises: KeyError, TypeError, ValueError: it is of another form."""
        name, dtype, shape = data["name"], data["dtype"], data["shape"]
        dims = () if shape is None else tuple(shape)
        sound = all(d is None or (isinstance(d, (int, str)) and not isinstance(d, bool)) for d in dims)
        if not (isinstance(name, str) and isinstance(dtype, (str, type(None))) and sound):
            raise ValueError(f"{name!r}: {dtype!r}{dims!r} is no tensor")
        return cls(name, dtype, None if shape is None else dims)


@dataclass(frozen=True, slots=True)
class Signature:
    """The inputs and outputs of a model, in order."""

    inputs: tuple[TensorSpec, ...]
    outputs: tuple[TensorSpec, ...]

    @property
    def symbols(self) -> tuple[str, ...]:
        """Symbols of the inputs, in order of first appearance."""
        return symbols_of(self.inputs)

    def to_json(self) -> dict[str, object]:
        return {"inputs": [t.to_json() for t in self.inputs], "outputs": [t.to_json() for t in self.outputs]}


@dataclass(frozen=True, slots=True)
class DimRange:
    """The sizes a symbol may take, and the one to optimise for.

    Raises:
        BadDimRange: unless 1 <= min <= opt <= max.
    """

    symbol: str
    min: int
    opt: int
    max: int

    def __post_init__(self) -> None:
        if not 1 <= self.min <= self.opt <= self.max:
            raise BadDimRange(
                f"dimension `{self.symbol}` has the range {self.min}:{self.opt}:{self.max}",
                remedy=f"--dim {self.symbol}=MIN:OPT:MAX with 1 <= MIN <= OPT <= MAX",
            )

    def __str__(self) -> str:
        return f"{self.symbol}={self.min}:{self.opt}:{self.max}"


@dataclass(frozen=True, slots=True)
class Sample:
    """A value that the user gives for one input: the path of a `.npy` file, or a Python scalar."""

    name: str
    value: Path | int | float | bool


def symbols_of(specs: Iterable[TensorSpec]) -> tuple[str, ...]:
    """Plain symbols in the shapes of `specs`, in order of first appearance."""
    seen: dict[str, None] = {}
    for spec in specs:
        for dim in spec.shape or ():
            if isinstance(dim, str):
                for symbol in free_symbols(dim):
                    seen.setdefault(symbol)
    return tuple(seen)


def free_symbols(dim: str) -> tuple[str, ...]:
    """Symbols in a dimension expression; an expression that is not understood counts as one symbol."""
    if _SYMBOL.match(dim):
        return (dim,)
    try:
        tree = ast.parse(dim, mode="eval")
    except SyntaxError:
        return (dim,)
    calls = {id(n.func) for n in ast.walk(tree) if isinstance(n, ast.Call)}
    names = [n.id for n in ast.walk(tree) if isinstance(n, ast.Name) and id(n) not in calls]
    return tuple(dict.fromkeys(names))


def evaluate(dim: Dim, sizes: Mapping[str, int]) -> int | None:
    """The value of a dimension where the symbols have `sizes`; None where it cannot be known.

    Understands `+ - * / // % **`, parentheses, and `max`, `min`, `floor`, `FloorDiv`, `Mod`: the forms that
    torch.export and onnx-ir print.
    """
    if dim is None or isinstance(dim, int):
        return dim
    if dim in sizes:
        return sizes[dim]
    try:
        return int(_eval(ast.parse(dim, mode="eval").body, sizes))
    except (SyntaxError, KeyError, ZeroDivisionError, _NotUnderstood):
        return None


class _NotUnderstood(Exception):
    pass


_CALLS: dict[str, Callable[..., float]] = {
    "max": max,
    "Max": max,
    "min": min,
    "Min": min,
    "floor": lambda a: a // 1,
    "FloorDiv": lambda a, b: a // b,
    "Mod": lambda a, b: a % b,
    "PythonMod": lambda a, b: a % b,
    "IntTrueDiv": lambda a, b: a / b,
    "CeilToInt": math.ceil,
    "FloorToInt": math.floor,
    "TruncToInt": math.trunc,
    "ToFloat": float,
}


def _eval(node: ast.expr, sizes: Mapping[str, int]) -> float:
    match node:
        case ast.Constant(value=int(value) | float(value)):
            return value
        case ast.Name(id=name):
            return sizes[name]
        case ast.UnaryOp(op=ast.USub(), operand=operand):
            return -_eval(operand, sizes)
        case ast.Call(func=ast.Name(id=name), args=args) if name in _CALLS:
            return _CALLS[name](*(_eval(a, sizes) for a in args))
        case ast.BinOp(left=left, op=op, right=right):
            a, b = _eval(left, sizes), _eval(right, sizes)
            match op:
                case ast.Add():
                    return a + b
                case ast.Sub():
                    return a - b
                case ast.Mult():
                    return a * b
                case ast.FloorDiv():
                    return a // b
                case ast.Mod():
                    return a % b
                case ast.Div():
                    return a / b
                case ast.Pow():
                    if abs(b) > 8:
                        raise _NotUnderstood
                    return float(a**b)
    raise _NotUnderstood


# --- the command line's spelling ---------------------------------------------------------------------------------


def parse_shape(text: str) -> TensorSpec:
    """`x=batch,3,224,224:float32` as a TensorSpec; `x=` is a scalar.

    Raises:
        BadOption: the text is malformed, a number is negative, or the dtype is unknown.
    """
    name, eq, rest = text.partition("=")
    if not eq or not name:
        raise BadOption(f"--shape {text!r} is not name=dims", remedy="--shape x=batch,3,224,224[:float32]")
    dims_text, colon, dtype = rest.partition(":")
    if colon and dtype not in DTYPES:
        raise BadOption(f"--shape {text!r}: unknown dtype {dtype!r}", remedy=f"one of {', '.join(DTYPES)}")
    dims = [d.strip() for d in dims_text.split(",")] if dims_text.strip() else []
    return TensorSpec(name, dtype or None, tuple(_parse_dim(d, text) for d in dims))


def _parse_dim(dim: str, text: str) -> int | str:
    if dim.isdecimal() and int(dim) > 0:
        return int(dim)
    if _SYMBOL.match(dim):
        return dim
    raise BadOption(
        f"--shape {text!r}: {dim!r} is neither a positive number nor a name",
        remedy="a number for a static dimension, a name such as `batch` for a dynamic one",
    )


def parse_dim(text: str) -> DimRange:
    """`batch=1:4:8` (min:opt:max), or `batch=4` for a single size.

    Raises:
        BadDimRange: the text is malformed or the range is empty.
    """
    symbol, eq, rest = text.partition("=")
    parts = rest.split(":")
    if not eq or not _SYMBOL.match(symbol) or len(parts) not in (1, 3) or not all(p.isdecimal() for p in parts):
        raise BadDimRange(f"--dim {text!r} is not name=min:opt:max", remedy="--dim batch=1:4:8")
    sizes = [int(p) for p in parts]
    low, opt, high = sizes if len(sizes) == 3 else sizes * 3
    return DimRange(symbol, low, opt, high)


def parse_sizes(text: str) -> dict[str, int]:
    """`batch=8` or `batch=8,seq=128`: one size for each symbol.

    Raises:
        BadOption: the text is malformed, or names a symbol twice.
    """
    sizes: dict[str, int] = {}
    for part in text.split(","):
        symbol, eq, number = part.strip().partition("=")
        if not eq or not _SYMBOL.match(symbol) or not number.isdecimal() or int(number) < 1 or symbol in sizes:
            raise BadOption(f"--at {text!r} is not name=size[,name=size]", remedy="--at batch=8,seq=128")
        sizes[symbol] = int(number)
    return sizes


def parse_sample(text: str) -> Sample:
    """`x=file.npy`, or a scalar such as `sr=16000`, `scale=0.5`, `flag=true`.

    Raises:
        BadOption: the text is malformed.
    """
    name, eq, value = text.partition("=")
    if not eq or not name or not value:
        raise BadOption(f"--input {text!r} is not name=value", remedy="--input x=file.npy or --input sr=16000")
    if value.lower() in ("true", "false"):
        return Sample(name, value.lower() == "true")
    for number in (int, float):
        try:
            return Sample(name, number(value))
        except ValueError:
            continue
    return Sample(name, Path(value))
