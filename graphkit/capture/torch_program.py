"""ExportedPrograms: their inputs, example values and dimension ranges are in them already."""

from __future__ import annotations

import sys
from collections.abc import Callable, Mapping
from typing import Any

from graphkit.capture.request import CaptureRequest, check_dims
from graphkit.capture.torch_example import Leaf
from graphkit.errors import BadDimRange, CaptureFailed, FrozenDimension, ShapeMismatch, UnknownName
from graphkit.shapes import DimRange, Shape, TensorSpec, free_symbols


def is_program(target: Any) -> bool:
    """Whether `target` is a torch.export ExportedProgram."""
    import torch

    return isinstance(target, torch.export.ExportedProgram)


class ProgramModule:
    """A program as something to call with its inputs by name."""

    def __init__(self, program: Any) -> None:
        self.graph_module = program.module()
        self._spec = program.call_spec.in_spec
        self._inputs = _inputs(program)
        self.run: Callable[[list[Any]], Any] = self._run

    def __call__(self, **named: Any) -> Any:
        return self.run([named[name] if isinstance(value, tuple) else value for name, value in self._inputs])

    def _run(self, flat: list[Any]) -> Any:
        """Run it on its inputs in the order of the graph's placeholders."""
        from torch.utils import _pytree as pytree

        args, kwargs = pytree.tree_unflatten(flat, self._spec)
        return self.graph_module(*args, **kwargs)


def leaves_and_dims(program: Any, request: CaptureRequest) -> tuple[tuple[Leaf, ...], tuple[DimRange, ...]]:
    """The program's inputs with their dimensions named, and the range of each.

    torch.export saves a dimension called `batch` as `s77`. A leading dimension is `batch` again, others are named
    after input and axis, unless `--shape` names them. Ranges are the program's own where `--dim` gives none.

    Raises:
        FrozenDimension, ShapeMismatch, UnknownName: `--shape` or `--input` asks for what the program does not have.
    """
    specs = _tensor_shapes(program)
    asked = {s.name: s for s in request.shapes}
    unknown = next((n for n in (*asked, *(s.name for s in request.samples)) if n not in specs), None)
    if unknown is not None:
        raise UnknownName(f"the program has no input called `{unknown}`", remedy=f"its inputs: {', '.join(specs)}")
    names = _symbol_names(specs, asked)
    leaves = tuple(
        Leaf(name, (), TensorSpec(name, dtype, tuple(_renamed(d, names) for d in shape)))
        for name, (dtype, shape) in specs.items()
    )
    check_dims(request.dims, tuple(leaf.spec for leaf in leaves))
    _check_ranges(program, names, request.dims)
    given = {d.symbol for d in request.dims}
    sizes = _example_sizes(program, names)
    own = [_own_range(program, symbol, name, sizes) for symbol, name in names.items() if name not in given]
    return leaves, (*request.dims, *(r for r in own if r is not None))


def symbols_of(program: Any, leaves: tuple[Leaf, ...]) -> dict[str, str]:
    """torch's symbol -> the name it was given in `leaves`."""
    found: dict[str, str] = {}
    for leaf, (_, shape) in zip(leaves, _tensor_shapes(program).values(), strict=True):
        for old, new in zip(shape, leaf.spec.shape or (), strict=True):
            if isinstance(old, str) and isinstance(new, str) and free_symbols(old) == (old,):
                found[old] = new
    return found


def example_values(program: Any, leaves: tuple[Leaf, ...]) -> dict[str, Any] | None:
    """The example inputs that the program was saved with; None where it was saved without."""
    import torch
    from torch.utils import _pytree as pytree

    if program.example_inputs is None:
        return None
    flat, _ = pytree.tree_flatten(program.example_inputs)
    tensors = [v for v in flat if isinstance(v, torch.Tensor)]
    return dict(zip((leaf.name for leaf in leaves), tensors, strict=True))


def sizes_of(leaves: tuple[Leaf, ...], values: Mapping[str, Any]) -> dict[str, int]:
    """The size of every symbol in these values."""
    sizes: dict[str, int] = {}
    for leaf in (x for x in leaves if not x.scalar):
        for dim, size in zip(leaf.spec.shape or (), values[leaf.name].shape, strict=True):
            if isinstance(dim, str) and free_symbols(dim) == (dim,):
                sizes[dim] = int(size)
    return sizes


# --- inside ------------------------------------------------------------------------------------------------------


def _inputs(program: Any) -> list[tuple[str, Any]]:
    """Flat user inputs: name, and a (dtype, shape) pair for a tensor, else the constant it was exported with."""
    import torch

    names = _names(program)
    placeholders = {n.name: n for n in program.graph.nodes if n.op == "placeholder"}
    found: list[tuple[str, Any]] = []
    user = [s.arg for s in program.graph_signature.input_specs if s.kind.name == "USER_INPUT"]
    if len(user) != len(names):
        raise CaptureFailed(f"the program has {len(user)} inputs but a structure for {len(names)}")
    for name, argument in zip(names, user, strict=True):
        value = placeholders[argument.name].meta.get("val") if argument.name in placeholders else None
        if isinstance(value, torch.Tensor):
            dims: Shape = tuple(int(d) if str(d).isdecimal() else str(d) for d in value.shape)
            found.append((name, (str(value.dtype).removeprefix("torch."), dims)))
        else:
            found.append((name, getattr(argument, "value", None)))
    return found


def _names(program: Any) -> list[str]:
    """Names of the flat inputs: parameter, then path."""
    from torch.utils import _pytree as pytree

    spec = program.call_spec.in_spec
    args, kwargs = pytree.tree_unflatten(list(range(spec.num_leaves)), spec)
    parameters = list(getattr(program.module_call_graph[0].signature, "forward_arg_names", None) or ())
    named = dict(zip(parameters or [f"arg{i}" for i in range(len(args))], args, strict=False)) | dict(kwargs)
    leaves, _ = pytree.tree_flatten_with_path(named)
    by_position = {
        position: ".".join(str(getattr(k, "key", getattr(k, "idx", getattr(k, "name", k)))) for k in path)
        for path, position in leaves
    }
    return [by_position[i] for i in range(spec.num_leaves)]


def _tensor_shapes(program: Any) -> dict[str, tuple[str, Shape]]:
    return {name: value for name, value in _inputs(program) if isinstance(value, tuple)}


def _symbol_names(specs: Mapping[str, tuple[str, Shape]], asked: Mapping[str, TensorSpec]) -> dict[str, str]:
    names: dict[str, str] = {}
    for name, spec in asked.items():
        dtype, shape = specs[name]
        wanted = spec.shape or ()
        if len(wanted) != len(shape) or (spec.dtype is not None and spec.dtype != dtype):
            raise ShapeMismatch(f"--shape says {spec}, but the program has {TensorSpec(name, dtype, shape)}")
        for axis, (want, have) in enumerate(zip(wanted, shape, strict=True)):
            if isinstance(want, str) and isinstance(have, int):
                raise FrozenDimension(
                    f"dimension `{want}` of input `{name}` (axis {axis}) is the constant {have} in this program",
                    where=f"input `{name}`",
                    remedy=f"export it again with a dynamic dimension there, or ask for {have}",
                )
            if isinstance(want, int) and want != have:
                raise ShapeMismatch(
                    f"--shape says {spec}, but the program has {TensorSpec(name, dtype, shape)}",
                    remedy=f"a name for a dynamic dimension, its size with --dim NAME={want}"
                    if isinstance(have, str)
                    else "ask for the size it has",
                )
            if isinstance(want, str) and isinstance(have, str):
                names.setdefault(have, want)
    for name, (_, shape) in specs.items():
        for axis, dim in enumerate(shape):
            if isinstance(dim, str) and free_symbols(dim) == (dim,) and dim not in names:
                free = "batch" if axis == 0 and "batch" not in names.values() else f"{name}_dim{axis}".replace(".", "_")
                names[dim] = free
    return names


def _renamed(dim: object, names: Mapping[str, str]) -> int | str:
    if isinstance(dim, int):
        return dim
    text = str(dim)
    for symbol in sorted(free_symbols(text), key=len, reverse=True):
        text = text.replace(symbol, names.get(symbol, symbol))
    return text


def _example_sizes(program: Any, names: Mapping[str, str]) -> dict[str, int]:
    from torch.utils import _pytree as pytree

    if program.example_inputs is None:
        return {}
    flat, _ = pytree.tree_flatten(program.example_inputs)
    tensors = [v for v in flat if hasattr(v, "shape")]
    sizes: dict[str, int] = {}
    for tensor, (_, shape) in zip(tensors, _tensor_shapes(program).values(), strict=True):
        for dim, size in zip(shape, tensor.shape, strict=True):
            if isinstance(dim, str) and dim in names:
                sizes[names[dim]] = int(size)
    return sizes


def _own_range(program: Any, symbol: str, name: str, sizes: Mapping[str, int]) -> DimRange | None:
    """The range in the program, if it ends; a lower bound of 2 is torch.export's convention for 1."""
    for each, interval in program.range_constraints.items():
        if str(each) == symbol:
            low, high = _finite(interval.lower, 1), _finite(interval.upper, sys.maxsize)
            if high == sys.maxsize:
                return None
            low = 1 if low <= 2 else low
            return DimRange(name, low, min(max(sizes.get(name, low), low), high), high)
    return None


def _check_ranges(program: Any, names: Mapping[str, str], dims: tuple[DimRange, ...]) -> None:
    asked = {d.symbol: d for d in dims}
    for symbol, interval in program.range_constraints.items():
        want = asked.get(names.get(str(symbol), ""))
        low, high = _finite(interval.lower, 1), _finite(interval.upper, sys.maxsize)
        if want is not None and (want.max > high or want.min < low > 2):
            raise BadDimRange(
                f"--dim {want}: the program was exported for {want.symbol} from {low if low > 2 else 1} to {high}",
                remedy="a range inside that one; or export the program again",
            )


def _finite(value: Any, infinite: int) -> int:
    try:
        return int(value)
    except (TypeError, ValueError, OverflowError, AttributeError):
        return infinite
