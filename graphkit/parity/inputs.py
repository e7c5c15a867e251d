"""Values for the inputs of a model that mean something to it: indices fit their table, masks are masks.

The same seed and the same name give the same values, whatever other inputs there are.
"""

from __future__ import annotations

import zlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

from graphkit.errors import BadSample, ShapeMismatch, ShapeMissing, UnknownName
from graphkit.parity.roles import Limit, Roles, find_roles
from graphkit.parity.sizes import SizePoint, choose_sizes
from graphkit.shapes import TensorSpec, evaluate, free_symbols

if TYPE_CHECKING:
    import numpy as np

    from graphkit.model import Model

__all__ = ["InputPlan", "SizePoint", "choose_sizes", "fixed_sizes", "make_inputs", "plan_inputs", "plan_specs"]

Kind = Literal["normal", "complex", "index", "count", "integer", "image", "mask", "bool", "string"]

_SMALL = 8
"""Integers of which nothing is known lie in [0, 8)."""


@dataclass(frozen=True, slots=True)
class InputPlan:
    """How the values of one input are made.

    Attributes:
        spec: The input.
        kind: The law its values follow.
        how: The same for people: ``integers in [0, 30522) (Gather of `embeddings.weight`)``.
        low, high: Bounds of integers, the upper one excluded, before `limits`.
        limits: What bounds them further, where a size may be symbolic.
        ones_are_padding: A mask whose ones mark what is to be ignored.
    """

    spec: TensorSpec
    kind: Kind
    how: str
    low: int = 0
    high: int | None = None
    limits: tuple[Limit, ...] = ()
    ones_are_padding: bool = False

    def bounds(self, sizes: Mapping[str, int]) -> tuple[int, int]:
        """Least value and first value that is too large, where the symbols have `sizes`."""
        low = max([self.low, *(limit.low for limit in self.limits)])
        highs = [limit.high(sizes) for limit in self.limits] + ([self.high] if self.high is not None else [])
        high = min(highs, default=_SMALL)
        return (low, high) if low < high else (max(high - 1, 0), max(high, 1))


def plan_inputs(model: Model) -> tuple[InputPlan, ...]:
    """One plan per input, read from what the graph does with it.

    Raises:
        BadSample: an input is no tensor (a sequence, an optional).
    """
    import onnx_ir as ir

    roles = find_roles(model.ir)
    for value in model.ir.graph.inputs:
        if value.type is not None and not isinstance(value.type, ir.TensorType):
            raise BadSample(
                f"input `{value.name}` is no tensor but {value.type}: no values can be made for it",
                remedy="convert the part of the model whose inputs are tensors",
            )
    return tuple(_plan(spec, roles[spec.name]) for spec in model.signature.inputs)


def plan_specs(specs: Sequence[TensorSpec]) -> tuple[InputPlan, ...]:
    """One plan per input where there is no graph to read: by name and dtype alone."""
    return tuple(_plan(spec, Roles()) for spec in specs)


def make_inputs(
    plans: Sequence[InputPlan],
    sizes: Mapping[str, int],
    seed: int,
    given: Mapping[str, Any] | None = None,
) -> dict[str, np.ndarray[Any, Any]]:
    """One array per plan.

    Args:
        sizes: Value of each symbolic dimension; the shapes of `given` arrays win over it, for every input.
        given: The user's own values: arrays, paths of `.npy` files, or Python scalars.

    Raises:
        UnknownName: `given` names no input.
        BadSample: a given value cannot be read, its dtype does not fit, or a string input has none.
        ShapeMismatch: a given value's shape does not fit.
        ShapeMissing: a dimension has no size.
    """
    values = read_given(plans, given or {})
    sizes = {**sizes, **_bind(plans, values)}
    made: dict[str, np.ndarray[Any, Any]] = {}
    for plan in plans:
        name = plan.spec.name
        if name in values:
            _check_shape(plan.spec, values[name].shape, sizes)
        made[name] = values[name] if name in values else _generate(plan, sizes, seed)
    return made


def fixed_sizes(plans: Sequence[InputPlan], given: Mapping[str, Any]) -> dict[str, int]:
    """Sizes of symbolic dimensions that the shapes of given values fix.

    Raises: as `make_inputs`.
    """
    return _bind(plans, read_given(plans, given))


# --- planning ----------------------------------------------------------------------------------------------------


def _plan(spec: TensorSpec, roles: Roles) -> InputPlan:
    dtype = spec.dtype or "float32"
    limits = (*roles.limits, *roles.counts)
    low = 1 if roles.counts or roles.divides else 0
    named_mask = _named_mask(spec.name)
    if dtype == "string":
        return InputPlan(spec, "string", "strings cannot be made up: a sample is needed")
    if dtype == "bool":
        return _mask(spec) if named_mask else InputPlan(spec, "bool", _how_bool(spec))
    if limits and not dtype.startswith("complex"):
        plan = InputPlan(spec, "count" if roles.counts else "index", "", low, None, limits)
        return InputPlan(spec, plan.kind, _how_limits(plan), low, None, limits)
    if named_mask or (roles.masks and (roles.only_masks or "int" in dtype) and not roles.divides):
        return _mask(spec)
    if dtype.startswith("complex"):
        return InputPlan(spec, "complex", "N(0, 1) + i N(0, 1)")
    if "int" not in dtype:
        return InputPlan(spec, "normal", "N(0, 1)")
    if dtype == "uint8" and len(spec.shape or ()) >= 3:
        return InputPlan(spec, "image", "integers in [0, 256), as in images", low, 256)
    if dtype == "int8" and low == 0:
        return InputPlan(spec, "integer", "integers in [-128, 128), as in quantised tensors", -128, 128)
    return InputPlan(spec, "integer", f"integers in [{low}, {_SMALL})", low, _SMALL)


def _named_mask(name: str) -> bool:
    words = "".join(c if c.isalpha() else " " for c in name.lower()).split()
    return any(w in ("mask", "masks") or w.endswith("mask") for w in words)


def _mask(spec: TensorSpec) -> InputPlan:
    padding = any(word in spec.name.lower() for word in ("padding", "pad_mask", "ignore"))
    order = "zeros, then ones" if padding else "ones, then zeros"
    how = f"a 0/1 mask: {order}, in every row at least one {0 if padding else 1}"
    return InputPlan(spec, "mask", how, 0, 2, ones_are_padding=padding)


def _how_bool(spec: TensorSpec) -> str:
    return "true and false in turn" if spec.shape == () else "true or false, evenly"


def _how_limits(plan: InputPlan) -> str:
    low = max([plan.low, *(limit.low for limit in plan.limits)])
    known = [limit.high({}) for limit in plan.limits if isinstance(limit.size, int)]
    open_sizes = [str(limit.size) for limit in plan.limits if isinstance(limit.size, str)]
    bounds = list(dict.fromkeys([*([str(max(min(known), 1))] if known else []), *open_sizes]))
    by = ", ".join(dict.fromkeys(limit.by for limit in plan.limits))
    if any(limit.size is None for limit in plan.limits):
        return f"zeros: the size of what it indexes is not known ({by})"
    top = bounds[0] if len(bounds) == 1 else f"min({', '.join(bounds)})"
    return f"integers in [{low}, {top}) ({by})"


# --- the user's values -------------------------------------------------------------------------------------------


def read_given(plans: Sequence[InputPlan], given: Mapping[str, Any]) -> dict[str, np.ndarray[Any, Any]]:
    """The user's own values as arrays: of arrays, paths of `.npy` files, or Python scalars.

    Raises:
        UnknownName: `given` names no input.
        BadSample: a value cannot be read, or its dtype does not fit.
        ShapeMismatch: a scalar stands for more than one element.
    """
    specs = {plan.spec.name: plan.spec for plan in plans}
    for name in given:
        if name not in specs:
            raise UnknownName(f"there is no input `{name}`", remedy=f"the inputs are: {', '.join(specs) or 'none'}")
    return {name: _read(specs[name], value) for name, value in given.items()}


def _read(spec: TensorSpec, value: Any) -> np.ndarray[Any, Any]:
    import numpy as np

    wanted = _numpy_dtype(spec)
    if isinstance(value, str | Path):
        value = _load(spec.name, Path(value))
    if not isinstance(value, np.ndarray | np.generic):
        return _from_scalar(spec, value, wanted)
    array = np.asarray(value)
    if array.dtype.kind == wanted.kind == "V" and array.dtype.itemsize == wanted.itemsize:
        array = array.view(wanted)  # .npy stores bfloat16 and 8-bit floats as bytes without a type
    if array.dtype != wanted and not (wanted.kind == "O" and array.dtype.kind == "U"):
        raise BadSample(
            f"the sample for `{spec.name}` is {array.dtype}, the model takes {spec.dtype}",
            remedy=f"save it as {spec.dtype}: np.save(file, array.astype({str(wanted)!r}))",
        )
    return array


def _load(name: str, path: Path) -> np.ndarray[Any, Any]:
    import numpy as np

    try:
        loaded = np.load(path, allow_pickle=False)
    except (OSError, ValueError, EOFError) as error:
        why = "there is no such file" if isinstance(error, FileNotFoundError) else str(error).splitlines()[0]
        raise BadSample(
            f"the sample for `{name}` cannot be read from {path}: {why}", remedy="a .npy file written by np.save"
        ) from error
    if not isinstance(loaded, np.ndarray):
        loaded.close()
        raise BadSample(
            f"the sample for `{name}`, {path}, is an archive of arrays", remedy="one .npy file for each input"
        )
    return loaded


def _from_scalar(spec: TensorSpec, value: Any, dtype: np.dtype[Any]) -> np.ndarray[Any, Any]:
    import numpy as np

    if any(d != 1 for d in spec.shape or ()):
        raise ShapeMismatch(
            f"the sample for `{spec.name}` is the single value {value!r}, the model takes {spec}",
            remedy=f"--input {spec.name}=FILE.npy with an array of that shape",
        )
    try:
        array = np.full((1,) * len(spec.shape or ()), value).astype(dtype)
        if dtype.kind not in "iub" or array.item() == value:
            return array
    except (ValueError, TypeError, OverflowError):
        pass  # refused below, like a value that the dtype cannot hold
    raise BadSample(
        f"the sample for `{spec.name}` is {value!r}, which is no {spec.dtype}",
        remedy=f"--input {spec.name}=VALUE with a value that {spec.dtype} can hold",
    )


def _bind(plans: Sequence[InputPlan], values: Mapping[str, np.ndarray[Any, Any]]) -> dict[str, int]:
    fixed: dict[str, int] = {}
    source: dict[str, str] = {}
    for plan in plans:
        spec = plan.spec
        if spec.name not in values or spec.shape is None or len(spec.shape) != values[spec.name].ndim:
            continue
        for dim, size in zip(spec.shape, values[spec.name].shape, strict=True):
            if not isinstance(dim, str):
                continue
            symbol, found = _solve(dim, int(size))
            if symbol is None or found is None:
                continue
            if fixed.setdefault(symbol, found) != found:
                raise ShapeMismatch(
                    f"the sample for `{source[symbol]}` has {symbol}={fixed[symbol]}, that for `{spec.name}` {found}",
                    remedy=f"samples with one and the same `{symbol}`",
                )
            source.setdefault(symbol, spec.name)
    return fixed


def _solve(dim: str, size: int) -> tuple[str | None, int | None]:
    """The symbol of a dimension and its value; (None, None) where several symbols or none stand in it."""
    symbols = free_symbols(dim)
    if len(symbols) != 1:
        return None, None
    if dim == symbols[0]:
        return dim, size
    return symbols[0], next((n for n in range(1, size + 65) if evaluate(dim, {symbols[0]: n}) == size), None)


def _check_shape(spec: TensorSpec, shape: tuple[int, ...], sizes: Mapping[str, int]) -> None:
    if spec.shape is None:
        return
    wanted = tuple(evaluate(d, sizes) for d in spec.shape)
    if len(wanted) != len(shape) or any(w not in (None, n) for w, n in zip(wanted, shape, strict=True)):
        raise ShapeMismatch(
            f"the sample for `{spec.name}` has the shape {list(shape)}, the model takes {spec}",
            remedy="a sample of that shape",
        )


# --- making values -----------------------------------------------------------------------------------------------


def _generate(plan: InputPlan, sizes: Mapping[str, int], seed: int) -> np.ndarray[Any, Any]:
    import numpy as np

    spec, shape = plan.spec, _concrete(plan.spec, sizes)
    rng = np.random.default_rng([seed, zlib.crc32(spec.name.encode())])
    match plan.kind:
        case "string":
            raise BadSample(f"no values can be made up for the string input `{spec.name}`", remedy=_sample(spec))
        case "normal":
            values: Any = rng.standard_normal(shape, dtype=np.float32)
        case "complex":
            values = rng.standard_normal(shape) + 1j * rng.standard_normal(shape)
        case "mask":
            values = _mask_values(rng, shape, plan)
        case "bool":
            # A lone flag selects a branch: three draws in a row must see both.
            values = rng.random(shape) < 0.5 if shape else np.asarray((seed + zlib.crc32(spec.name.encode())) % 2)
        case _:
            low, high = plan.bounds(sizes)
            values = rng.integers(low, high, shape)
    return np.asarray(values).astype(_numpy_dtype(spec))


def _mask_values(rng: np.random.Generator, shape: tuple[int, ...], plan: InputPlan) -> np.ndarray[Any, Any]:
    import numpy as np

    length = shape[-1] if shape else 1
    # What true means in a bool mask is not known, so both ends keep one: a row with nothing left is all NaN.
    longest = max(length - 1, 1) if plan.spec.dtype == "bool" else length
    kept = rng.integers(1, longest + 1, (*shape[:-1], 1)) if shape else np.asarray(1)
    ones = np.arange(length) < kept if shape else np.asarray(True)
    return ~ones if plan.ones_are_padding else ones


def _concrete(spec: TensorSpec, sizes: Mapping[str, int]) -> tuple[int, ...]:
    dims = [evaluate(d, sizes) for d in spec.shape] if spec.shape is not None else [None]
    if None in dims:
        raise ShapeMissing(f"the shape of input `{spec.name}` is not known: {spec}", remedy=_sample(spec))
    return tuple(d for d in dims if d is not None)


def _sample(spec: TensorSpec) -> str:
    return f"--shape {spec.name}=DIMS, or --input {spec.name}=FILE.npy"


def _numpy_dtype(spec: TensorSpec) -> np.dtype[Any]:
    import onnx_ir as ir

    name = {"float32": "FLOAT", "float64": "DOUBLE"}.get(spec.dtype or "float32", (spec.dtype or "float32").upper())
    return ir.DataType[name].numpy()
