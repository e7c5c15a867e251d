"""From shapes and sample files to the arguments of a PyTorch module, and back from inputs by name.

An input is named by its parameter, and inside a dict or list by its path: `d.mask`, `states.0`.
"""

from __future__ import annotations

import inspect
import math
import zlib
from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

from graphkit.capture.example_values import check_fits, lists, load_array, place
from graphkit.capture.request import Arrays, CaptureRequest, check_dims
from graphkit.errors import BadSample, ShapeMismatch, ShapeMissing, UnknownName
from graphkit.shapes import DimRange, TensorSpec, evaluate, symbols_of

if TYPE_CHECKING:
    import numpy as np

ParamKind = Literal["tensor", "int", "float", "bool", "unknown"]


@dataclass(frozen=True, slots=True)
class Param:
    """A parameter of `forward`."""

    name: str
    kind: ParamKind
    required: bool
    default: Any = None
    nested: bool = False


@dataclass(frozen=True, slots=True)
class Leaf:
    """One tensor or scalar among the arguments.

    Attributes:
        param: The parameter it belongs to.
        path: Keys inside that parameter, () for the parameter itself.
        spec: Name, dtype and symbolic shape; shape () and a Python type as dtype for a scalar.
        value: The value that the user gave, if any.
        scalar: Whether `forward` takes a Python number here.
    """

    param: str
    path: tuple[str, ...]
    spec: TensorSpec
    value: Any = None
    scalar: bool = False

    @property
    def name(self) -> str:
        return self.spec.name


def params_of(module: Any) -> tuple[Param, ...]:
    """Parameters of a module's `forward`, from its schema (TorchScript) or its Python signature."""
    schema = getattr(module, "schema", None) or getattr(getattr(module, "forward", None), "schema", None)
    if schema is not None and hasattr(schema, "arguments"):
        of_module = getattr(module, "schema", None) is None  # then the first argument is the module, whatever its name
        return tuple(_from_schema(a) for a in schema.arguments[1 if of_module else 0 :])
    parameters = inspect.signature(module.forward).parameters.values()
    return tuple(_from_signature(p) for p in parameters if p.kind not in (p.VAR_POSITIONAL, p.VAR_KEYWORD))


def leaves_for(module: Any, request: CaptureRequest) -> tuple[Leaf, ...]:
    """What the request says of each input of `module`, in the order of its parameters.

    Raises:
        ShapeMissing: a required input has neither shape nor sample. `UnknownName`: a name fits no parameter.
        BadSample, ShapeMismatch: a sample file is unreadable, or does not fit its `--shape`.
    """
    params = params_of(module)
    by_name = {p.name: p for p in params}
    leaves: dict[str, Leaf] = {}
    for spec in request.shapes:
        param, path = _find(spec.name, by_name, "--shape")
        leaves[spec.name] = Leaf(param.name, path, spec)
    for sample in request.samples:
        param, path = _find(sample.name, by_name, "--input")
        leaves[sample.name] = _with_sample(leaves.get(sample.name), param, path, sample.name, sample.value)
    given = {leaf.param for leaf in leaves.values()}
    missing = [p for p in params if p.required and p.name not in given]
    if missing:
        raise _missing(missing, params)
    specs = tuple(leaf.spec for leaf in leaves.values())
    check_dims(request.dims, specs)
    order = {p.name: i for i, p in enumerate(params)}
    return tuple(_with_dtype(x) for x in sorted(leaves.values(), key=lambda leaf: order[leaf.param]))


def example_sizes(leaves: tuple[Leaf, ...], dims: tuple[DimRange, ...], request_point: int = 0) -> dict[str, int]:
    """A size for every symbol: different symbols get different sizes, so that capture cannot take one for another.

    Sizes of 0 and 1 are avoided where the range allows: torch.export treats them as constants. Point 0 is used for
    capture; points 1 and 2 are other sizes, to see which dimensions of the outputs move.
    """
    ranges = {d.symbol: d for d in dims}
    fixed = _sizes_of_samples(leaves)
    leading = {leaf.spec.shape[0] for leaf in leaves if leaf.spec.shape}
    sizes: dict[str, int] = dict(fixed)
    for symbol in symbols_of(leaf.spec for leaf in leaves):
        if symbol in fixed:
            continue
        wanted = _candidates(ranges.get(symbol), leading=symbol in leading, point=request_point)
        taken = set(sizes.values())
        sizes[symbol] = next((c for c in wanted if c not in taken), wanted[0])
    return sizes


def values_for(leaves: tuple[Leaf, ...], sizes: Mapping[str, int], seed: int) -> dict[str, Any]:
    """A value per leaf: the user's, or a seeded one. Floats are N(0, 1); integers are 0 or 1, which every table
    holds, because what they index is known only once the graph is."""
    return {leaf.name: leaf.value if leaf.value is not None else _sample(leaf, sizes, seed) for leaf in leaves}


def arguments(leaves: tuple[Leaf, ...], values: Mapping[str, Any]) -> dict[str, Any]:
    """Keyword arguments of `forward`: tensors, Python numbers, and the dicts and lists that hold them."""
    import torch

    arguments: dict[str, Any] = {}
    for leaf in leaves:
        value = values[leaf.name]
        if leaf.scalar:
            value = value.item() if hasattr(value, "item") else value
        elif not isinstance(value, torch.Tensor):
            value = _tensor(value, leaf.spec.dtype)
        place(arguments, (leaf.param, *leaf.path), value)
    return {name: lists(value) for name, value in arguments.items()}


def from_inputs(leaves: tuple[Leaf, ...], inputs: Arrays) -> dict[str, Any]:
    """Keyword arguments of `forward` from arrays named as in the captured model.

    Inputs that the captured model does not have keep the value they were captured with.
    """
    return arguments(leaves, {leaf.name: inputs.get(leaf.name, leaf.value) for leaf in leaves})


# --- parameters --------------------------------------------------------------------------------------------------

_SCHEMA_KINDS: dict[str, ParamKind] = {"Tensor": "tensor", "int": "int", "float": "float", "bool": "bool"}


def _from_schema(argument: Any) -> Param:
    text = str(argument.type)
    required = not argument.has_default_value()
    kind = _SCHEMA_KINDS.get(text, "unknown")
    default = None if required else argument.default_value
    return Param(argument.name, kind, required, default, nested=text.startswith(("Dict", "List", "Tuple", "(")))


def _from_signature(parameter: inspect.Parameter) -> Param:
    names: dict[Any, ParamKind] = {
        int: "int",
        float: "float",
        bool: "bool",
        "int": "int",
        "float": "float",
        "bool": "bool",
    }
    kind = names.get(parameter.annotation, "unknown")
    if getattr(parameter.annotation, "__name__", "") == "Tensor":
        kind = "tensor"
    required = parameter.default is parameter.empty
    nested = str(parameter.annotation).startswith(("dict", "typing.Dict", "typing.Mapping", "collections.abc.Mapping"))
    return Param(parameter.name, kind, required, None if required else parameter.default, nested)


def _find(name: str, params: Mapping[str, Param], flag: str) -> tuple[Param, tuple[str, ...]]:
    first, *rest = name.split(".")
    keyed = [p for p in params.values() if p.nested]
    if first not in params and len(keyed) == 1:  # the keys of a model's only dict are names enough
        return keyed[0], (first, *rest)
    if first not in params:
        raise UnknownName(
            f"{flag} {name}: the model has no input called `{first}`",
            remedy=f"its inputs are {', '.join(f'`{p}`' for p in params)}" if params else "it takes no inputs",
        )
    return params[first], tuple(rest)


def _missing(missing: list[Param], params: tuple[Param, ...]) -> ShapeMissing:
    def flag(p: Param) -> str:
        if p.kind in ("int", "float", "bool"):
            return f"--input {p.name}={'true' if p.kind == 'bool' else 16}"
        if p.nested:
            return f"--shape {p.name}.KEY=batch,..."
        return f"--shape {p.name}=batch,3,224,224"

    listed = ", ".join(f"`{p.name}`" for p in missing)
    return ShapeMissing(
        f"no shape is known for input {listed}",
        details=(f"the model's inputs: {', '.join(p.name + ('' if p.required else ' (optional)') for p in params)}",),
        remedy=" ".join(flag(p) for p in missing) + "   (a name is a dynamic dimension; add :int64 for indices)",
        data={"missing": [p.name for p in missing]},
    )


# --- samples -----------------------------------------------------------------------------------------------------


def _with_sample(leaf: Leaf | None, param: Param, path: tuple[str, ...], name: str, value: Any) -> Leaf:
    if not isinstance(value, Path):
        if param.kind == "tensor" or (leaf is not None and leaf.spec.dtype is not None):
            return _scalar_tensor(leaf, param, path, name, value)
        if param.kind == "int" and not isinstance(value, int):
            raise BadSample(f"--input {name}={value}: the model takes an int there", remedy=f"--input {name}=16")
        spec = TensorSpec(name, type(value).__name__, ())
        return Leaf(param.name, path, spec, float(value) if param.kind == "float" else value, scalar=True)
    array = load_array(name, value)
    spec = TensorSpec(name, str(array.dtype), tuple(array.shape))
    if leaf is not None and leaf.spec.shape is not None:
        check_fits(leaf.spec, spec, value)
        spec = replace(spec, shape=leaf.spec.shape, dtype=leaf.spec.dtype or spec.dtype)
    return Leaf(param.name, path, spec, array)


def _scalar_tensor(leaf: Leaf | None, param: Param, path: tuple[str, ...], name: str, value: Any) -> Leaf:
    import numpy as np

    default = {bool: "bool", int: "int64", float: "float32"}[type(value)]
    dtype = (leaf.spec.dtype if leaf else None) or default
    shape = tuple(d if isinstance(d, int) else 1 for d in (leaf.spec.shape if leaf and leaf.spec.shape else ()))
    return Leaf(param.name, path, TensorSpec(name, dtype, shape), np.full(shape, value, dtype))


def _sizes_of_samples(leaves: tuple[Leaf, ...]) -> dict[str, int]:
    sizes: dict[str, int] = {}
    for leaf in leaves:
        if leaf.value is None or leaf.scalar:
            continue
        for dim, size in zip(leaf.spec.shape or (), leaf.value.shape, strict=True):
            if isinstance(dim, str) and sizes.setdefault(dim, size) != size:
                raise ShapeMismatch(f"the sample files give dimension `{dim}` both {sizes[dim]} and {size}")
    return sizes


def _with_dtype(leaf: Leaf) -> Leaf:
    if leaf.spec.dtype is not None:
        return leaf
    return replace(leaf, spec=replace(leaf.spec, dtype="float32"))


def _candidates(bounds: DimRange | None, *, leading: bool, point: int) -> list[int]:
    if bounds is None:
        base = [[2, 3, 5, 7, 11], [3, 5, 2, 7, 13], [1, 4, 6, 8, 9]] if leading else _INNER
        return base[point]
    low, opt, high = bounds.min, bounds.opt, bounds.max
    divisor = math.gcd(low, opt, high)
    step = divisor if divisor >= 8 else 1  # a range of 32:64:128 may be that of a network that needs multiples of 32
    near = [opt + k * step for k in (1, -1, 2, -2, 3, -3, 4, -4)]
    order = [[opt, *near, high, low], [high, *near, low, opt], [low, opt, *near, high]][point]
    return [c for c in order if low <= c <= high and (c > 1 or high == 1 or point > 0)] or [high]


# Without a range an inner dimension is an image side or a sequence length: multiples of 32 pass most networks.
_INNER = [[64, 96, 128, 160, 192], [96, 128, 160, 192, 224], [128, 64, 192, 96, 256]]


def _sample(leaf: Leaf, sizes: Mapping[str, int], seed: int) -> np.ndarray[Any, Any]:
    import numpy as np

    shape = tuple(evaluate(d, sizes) or 1 for d in leaf.spec.shape or ())
    random = np.random.default_rng([seed, zlib.crc32(leaf.name.encode())])
    dtype = leaf.spec.dtype or "float32"
    if dtype == "bool":
        return np.ones(shape, bool)
    if dtype.startswith(("int", "uint")):
        return random.integers(0, 2, shape).astype(dtype)
    values = random.standard_normal(shape).astype(np.float32)
    return values if dtype == "bfloat16" else values.astype(dtype)


def _tensor(value: Any, dtype: str | None) -> Any:
    import numpy as np
    import torch

    array = np.array(value)
    if array.dtype.name == "bfloat16":  # of ml_dtypes, which torch does not know
        return torch.from_numpy(array.view(np.int16)).view(torch.bfloat16)
    tensor = torch.from_numpy(array)
    return tensor.to(torch.bfloat16) if dtype == "bfloat16" else tensor
