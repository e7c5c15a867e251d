"""From what a TensorFlow callee declares, and what the request says, to its inputs; and sample values for them."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

from graphkit.capture.example_values import check_fits, lists, load_array, place
from graphkit.capture.request import CaptureRequest, check_dims
from graphkit.capture.tf_callee import Callee, Param, Slot
from graphkit.capture.torch_example import Leaf
from graphkit.errors import ShapeMismatch, ShapeMissing, UnknownName
from graphkit.shapes import Dim, Sample, TensorSpec


def leaves_for(callee: Callee, request: CaptureRequest) -> tuple[Leaf, ...]:
    """The inputs of a callee: what it declares, narrowed by the request, and what the request adds.

    Dimensions that nobody names are named: the leading one of every input `batch`, the others `<input>_<axis>`.

    Raises:
        ShapeMissing: an input has neither shape nor sample. `UnknownName`: the request names an input that is none.
        ShapeMismatch, BadSample: a shape or sample does not fit what is declared.
    """
    given = {s.name: s for s in request.shapes}
    leaves = {d.name: Leaf(d.name, (), _narrowed(d, given.pop(d.name, None), callee)) for d in callee.declared}
    for spec in given.values():
        leaves[spec.name] = _added(spec.name, callee, spec, "--shape")
    for sample in request.samples:
        leaf = leaves.get(sample.name) or _added(sample.name, callee, TensorSpec(sample.name), "--input")
        leaves[sample.name] = _with_sample(leaf, sample)
    _check_complete(leaves, callee)
    order = [d.name for d in callee.declared] + [p.name for p in callee.params]
    ordered = sorted(leaves.values(), key=lambda leaf: order.index(leaf.param))
    named = _name_dims(tuple(_with_dtype(leaf) for leaf in ordered))
    check_dims(request.dims, tuple(leaf.spec for leaf in named))
    return named


def invoke(callee: Callee, leaves: tuple[Leaf, ...], values: Mapping[str, Any]) -> Any:
    """Call it with the tensors in `values`, by input name; what is missing there keeps the leaf's own value."""
    import tensorflow as tf

    def fill(item: Any) -> Any:
        return values[item.name] if isinstance(item, Slot) else item

    args, kwargs = tf.nest.map_structure(fill, (callee.args, dict(callee.kwargs)))
    declared = {d.name for d in callee.declared}
    more: dict[str, Any] = {}
    for leaf in leaves:
        if leaf.name not in declared:
            place(more, (leaf.param, *leaf.path), values[leaf.name])
    return callee.function(*args, **kwargs, **{k: lists(v) for k, v in more.items()})


def _narrowed(declared: TensorSpec, given: TensorSpec | None, callee: Callee) -> TensorSpec:
    """The declared shape with the user's sizes and symbols where the source leaves them free."""
    if given is None:
        return declared
    if not callee.firm:
        return replace(given, dtype=given.dtype or declared.dtype)
    if given.dtype is not None and given.dtype != declared.dtype:
        raise ShapeMismatch(
            f"--shape {declared.name}: the model takes {declared.dtype}, not {given.dtype}",
            remedy=f"leave out :{given.dtype}",
        )
    if given.shape is None or declared.shape is None:
        return replace(declared, shape=given.shape if declared.shape is None else declared.shape)
    fits = len(given.shape) == len(declared.shape) and all(
        d is None or isinstance(g, str) or g == d for g, d in zip(given.shape, declared.shape, strict=True)
    )
    fixed = fits and any(isinstance(g, str) and d is not None for g, d in zip(given.shape, declared.shape, strict=True))
    if not fits or fixed:
        raise ShapeMismatch(
            f"--shape {given} does not fit the model, which takes {declared}",
            remedy="only a dimension shown as ? can be named or sized" if None in declared.shape else "leave it out",
        )
    return replace(declared, shape=given.shape)


def _added(name: str, callee: Callee, spec: TensorSpec, flag: str) -> Leaf:
    """A tensor that only the request knows: a parameter, or a key inside one (`d.mask`, `states.0`)."""
    param, *path = name.split(".")
    if param not in {p.name for p in callee.params}:
        known = [d.name for d in callee.declared] + [p.name for p in callee.params]
        raise UnknownName(
            f"{flag} {name}: the model has no input called `{name}`",
            remedy=f"its inputs are {', '.join(f'`{k}`' for k in known)}" if known else "it takes no inputs",
        )
    return Leaf(param, tuple(path), spec)


def _with_sample(leaf: Leaf, sample: Sample) -> Leaf:
    import numpy as np

    if isinstance(sample.value, Path):
        array = load_array(sample.name, sample.value)
    else:
        dtype = leaf.spec.dtype or {bool: "bool", int: "int32", float: "float32"}[type(sample.value)]
        array = np.full(tuple(d if isinstance(d, int) else 1 for d in leaf.spec.shape or ()), sample.value, dtype)
    found = TensorSpec(leaf.name, str(array.dtype), tuple(array.shape))
    if leaf.spec.shape is None:
        return replace(leaf, spec=found, value=array)
    if isinstance(sample.value, Path):
        check_fits(leaf.spec, found, sample.value)
    return replace(leaf, spec=replace(leaf.spec, dtype=leaf.spec.dtype or found.dtype), value=array)


def _check_complete(leaves: Mapping[str, Leaf], callee: Callee) -> None:
    given = {leaf.param for leaf in leaves.values()}
    missing = [p for p in callee.params if p.required and p.name not in given]
    unknown = [leaf for leaf in leaves.values() if leaf.spec.shape is None]
    if not missing and not unknown:
        return
    names = [*(p.name for p in missing), *(leaf.name for leaf in unknown)]
    raise ShapeMissing(
        f"no shape is known for input {', '.join(f'`{n}`' for n in names)}",
        details=(f"the model's inputs: {', '.join(_described(p) for p in callee.params)}",) if callee.params else (),
        remedy=" ".join(f"--shape {n}=batch,..." for n in names)
        + "   (numbers and names of dynamic dimensions; add :int64 for indices)",
        data={"missing": names},
    )


def _described(param: Param) -> str:
    return param.name + ("" if param.required else " (optional)")


def _with_dtype(leaf: Leaf) -> Leaf:
    if leaf.spec.dtype is not None:
        return leaf
    return replace(leaf, spec=replace(leaf.spec, dtype="float32"))


def _name_dims(leaves: tuple[Leaf, ...]) -> tuple[Leaf, ...]:
    """One symbol for all leading dimensions without a name: the one the user gave to another input's, else `batch`."""
    leading = next((leaf.spec.shape[0] for leaf in leaves if leaf.spec.shape and type(leaf.spec.shape[0]) is str), None)
    batch = leading or "batch"

    def named(leaf: Leaf) -> Leaf:
        def symbol(axis: int, dim: Dim) -> Dim:
            if dim is not None:
                return dim
            return batch if axis == 0 else f"{_as_symbol(leaf.name)}_{axis}"

        shape = tuple(symbol(axis, dim) for axis, dim in enumerate(leaf.spec.shape or ()))
        return replace(leaf, spec=replace(leaf.spec, shape=shape))

    return tuple(named(leaf) for leaf in leaves)


def _as_symbol(name: str) -> str:
    text = re.sub(r"\W", "_", name)
    return text if not text[:1].isdigit() else f"_{text}"
