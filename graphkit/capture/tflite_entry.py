"""Which graph of a TFLite file is converted, and what its inputs and outputs are called."""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

from graphkit.capture.request import CaptureRequest
from graphkit.capture.tflite_schema import SignatureDef, TFLiteFile, public_names
from graphkit.errors import BadOption, FrozenDimension, ShapeMismatch, UnknownName
from graphkit.shapes import Dim, TensorSpec


@dataclass(frozen=True, slots=True)
class Entry:
    """What of a file is converted.

    Attributes:
        key: Name of the signature; None for a file without one.
        subgraph: Its graph.
        inputs, outputs: By their public names, in the graph's own order.
        renamed: Public name of an output -> its name in the signature, where that is an input's name too.
    """

    key: str | None
    subgraph: int
    inputs: tuple[TensorSpec, ...]
    outputs: tuple[TensorSpec, ...]
    renamed: dict[str, str]


def entry_of(file: TFLiteFile, request: CaptureRequest, name: str) -> Entry:
    """The signature that is asked for, or the only one; without signatures the first graph.

    A free dimension is called `batch` where it leads and `<input>_<axis>` elsewhere, unless `request.shapes` says.

    Raises:
        UnknownName: there is no such signature, or no such input.
        BadOption: the file has several signatures and none is asked for.
        FrozenDimension, ShapeMismatch: the request's shapes do not fit.
    """
    signature = _signature(file, request.signature, name)
    index = signature.subgraph if signature else 0
    graph = file.subgraphs[index]
    names = list(public_names(file, signature))
    taken, outputs = _unique(names[: len(graph.inputs)], ()), names[len(graph.inputs) :]
    public = _unique([f"{n}_out" if n in taken else n for n in outputs], taken)
    asked = {spec.name: spec for spec in request.shapes}
    unknown = next((n for n in (*asked, *(s.name for s in request.samples)) if n not in taken), None)
    if unknown is not None:
        raise UnknownName(f"the model has no input called `{unknown}`", remedy=f"its inputs: {', '.join(taken)}")
    inputs = []
    for own, position in zip(taken, graph.inputs, strict=True):
        tensor = graph.tensors[position]
        inputs.append(_named(TensorSpec(own, tensor.dtype, _free(tensor.shape)), asked.get(own)))
    return Entry(
        signature.key if signature else None,
        index,
        tuple(inputs),
        tuple(
            TensorSpec(n, graph.tensors[i].dtype, _free(graph.tensors[i].shape))
            for n, i in zip(public, graph.outputs, strict=True)
        ),
        {new: old for new, old in zip(public, outputs, strict=True) if new != old},
    )


def _unique(names: Sequence[str], taken: Sequence[str]) -> list[str]:
    """The names, the second of two that are equal with a number: without a signature a file may repeat them."""
    made: list[str] = []
    for name in names:
        candidate, number = name, 1
        while candidate in made or candidate in taken:
            candidate, number = f"{name}_{number}", number + 1
        made.append(candidate)
    return made


def _signature(file: TFLiteFile, asked: str | None, name: str) -> SignatureDef | None:
    known = [s.key for s in file.signatures]
    if asked is not None:
        found = next((s for s in file.signatures if s.key == asked), None)
        if found is None:
            has = f"its signatures: {', '.join(known)}" if known else "it has none: leave --signature out"
            raise UnknownName(f"--signature {asked}: {name} has no such signature", remedy=has)
        return found
    if len(known) > 1:
        raise BadOption(
            f"{name} has {len(known)} signatures: {', '.join(known)}",
            remedy=f"say which one to convert: --signature {known[0]}",
            data={"signatures": known},
        )
    return file.signatures[0] if known else None


def _free(shape: tuple[int, ...]) -> tuple[Dim, ...]:
    return tuple(None if d < 0 else d for d in shape)


def _named(have: TensorSpec, want: TensorSpec | None) -> TensorSpec:
    if want is not None and want.dtype is not None and want.dtype != have.dtype:
        raise ShapeMismatch(f"--shape says {want}, but the model has {have}", remedy=f"the dtype is {have.dtype}")
    if want is not None and len(want.shape or ()) != len(have.shape or ()):
        raise ShapeMismatch(
            f"--shape says {want}, but the model has {have}", remedy=f"give {len(have.shape or ())} dimensions"
        )
    return TensorSpec(have.name, have.dtype, tuple(_dims(have, want)))


def _dims(have: TensorSpec, want: TensorSpec | None) -> Iterator[Dim]:
    for axis, dim in enumerate(have.shape or ()):
        asked = (want.shape or ())[axis] if want is not None else None
        if dim is None:
            yield asked if asked is not None else ("batch" if axis == 0 else _symbol(have.name, axis))
            continue
        if isinstance(asked, str):
            raise FrozenDimension(
                f"dimension `{asked}` of input `{have.name}` (axis {axis}) is the constant {dim} in this file",
                where=f"input `{have.name}`",
                remedy=f"convert the original model to TFLite with a free dimension there, or ask for {dim}",
            )
        if asked is not None and asked != dim:
            raise ShapeMismatch(f"--shape says {want}, but the model has {have}", remedy=f"ask for {dim}")
        yield dim


def _symbol(name: str, axis: int) -> str:
    """A symbol that --shape and --dim can spell."""
    plain = re.sub(r"\W", "_", name)
    return f"{plain}_{axis}" if plain[:1].isalpha() else f"_{plain}_{axis}"
