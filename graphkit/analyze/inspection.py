"""What a model file is, for every kind of file that graphkit knows, told without running or loading it."""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple

from graphkit.analyze.modules import is_parameter
from graphkit.errors import BadOption, FileMissing, UnknownFormat
from graphkit.shapes import TensorSpec
from graphkit.view.dtypes import BY_NAME

if TYPE_CHECKING:
    from graphkit.analyze.summary import GraphSummary

_HEAD = 1024


class Stored(NamedTuple):
    """A tensor that a file holds. `nbytes` is None for elements whose width is not known."""

    name: str
    dtype: str
    dims: tuple[int, ...]

    @property
    def elements(self) -> int:
        return math.prod(self.dims)

    @property
    def nbytes(self) -> int | None:
        known = BY_NAME.get(self.dtype)
        return -(-self.elements * known.bits // 8) if known is not None and known.bits else None


class Weights(NamedTuple):
    """What a file's weights come to.

    Attributes:
        parameters: Elements of all but int64, int32, bool and string: shapes, indices and texts are no parameters.
        nbytes: Bytes of all of them, packed.
        by_dtype: Dtype -> number of tensors, elements, bytes.
        external: Files beside the model that hold some of them -> whether they are there.
    """

    parameters: int
    nbytes: int
    by_dtype: Mapping[str, tuple[int, int, int]]
    external: Mapping[str, bool]


class EngineLayer(NamedTuple):
    """A kernel or layer of an engine; `nodes` are the ONNX nodes that it computes, `sources` their lines."""

    name: str
    kind: str
    dtype: str | None
    nodes: tuple[str, ...]
    sources: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class Inspection:
    """What is known of a model file. None means that the format, or this file, does not say.

    Attributes:
        file: Its name.
        kind: `ONNX`, `TorchScript archive`, ...
        size: Bytes of the file, or of all files of a folder.
        facts: Versions, producer, origin: name and value, in order.
        inputs, outputs: The signature.
        operators: How many of each, the most frequent first.
        weights: What the weights come to.
        stored: The weights one by one; not for ONNX, whose are in `graph.view`.
        notes: What limits the answer.
        graph: For ONNX files: cost, memory and structure.
        engine_layers: For engines: what they run, as far as they say it.
    """

    file: str
    kind: str
    size: int
    facts: tuple[tuple[str, str], ...] = ()
    inputs: tuple[TensorSpec, ...] | None = None
    outputs: tuple[TensorSpec, ...] | None = None
    operators: tuple[tuple[str, int], ...] | None = None
    weights: Weights | None = None
    stored: tuple[Stored, ...] = ()
    notes: tuple[str, ...] = ()
    graph: GraphSummary | None = None
    engine_layers: tuple[EngineLayer, ...] | None = None


def inspect(path: Path | str, dims: Mapping[str, int] | None = None) -> Inspection:
    """Look at a model file: ONNX, TorchScript, .pt2, pickle, safetensors, SavedModel, .keras, .h5, GraphDef, TFLite or
    a TensorRT engine. Nothing of it is executed, and no weight is read.

    Args:
        path: The file, or the folder of a SavedModel.
        dims: Sizes for symbolic dimensions of an ONNX file, at which figures are evaluated.

    Raises:
        FileMissing, UnknownFormat, CorruptFile, UnsafePath: as the file is.
        UnknownName: the model has no dimension of that name. `BadOption`: the file is no ONNX file, and has none.
    """
    path = Path(path)
    head = _head(path)
    if head[:1] != b"\x08":
        found = _of_other_kinds(path, head)
        if found is not None:
            if dims:
                raise BadOption(f"{path.name} is a {found.kind}: sizes of dimensions are set for ONNX files only")
            return found
    from graphkit.analyze.onnx_file import look_at

    return look_at(path, dims or {})


def totals(stored: Iterable[Stored], external: Mapping[str, bool] | None = None) -> Weights:
    """What tensors come to."""
    by_dtype: dict[str, tuple[int, int, int]] = {}
    for each in stored:
        count, elements, nbytes = by_dtype.get(each.dtype, (0, 0, 0))
        by_dtype[each.dtype] = count + 1, elements + each.elements, nbytes + (each.nbytes or 0)
    return weighed(by_dtype, external or {})


def weighed(by_dtype: Mapping[str, tuple[int, int, int]], external: Mapping[str, bool]) -> Weights:
    """`Weights` from its table, the largest dtype first."""
    ranked = dict(sorted(by_dtype.items(), key=lambda row: (-row[1][2], row[0])))
    parameters = sum(elements for dtype, (_, elements, _) in ranked.items() if is_parameter(dtype))
    return Weights(parameters, sum(row[2] for row in ranked.values()), ranked, external)


def _head(path: Path) -> bytes:
    """The first bytes of a file; b"" for a folder."""
    if path.is_dir():
        return b""
    if path.exists() and not path.is_file():
        raise FileMissing(f"cannot read {path}: it is not a plain file")
    try:
        with path.open("rb") as file:
            head = file.read(_HEAD)
    except FileNotFoundError:
        raise FileMissing(f"no such file: {path}") from None
    except OSError as error:
        raise FileMissing(f"cannot read {path}: {error.strerror}") from error
    if not head:
        raise UnknownFormat(f"{path.name} is empty", remedy="copy or save the file again")
    return head


def _of_other_kinds(path: Path, head: bytes) -> Inspection | None:
    """The inspection of a file that is not ONNX; None if it may be ONNX."""
    from graphkit.analyze import tensorflow_files, torch_files

    if head[:4] in (b"vtrt", b"ftrt"):
        from graphkit.analyze.engine_file import look_at

        return look_at(path)
    if head[4:8] == b"TFL3":
        from graphkit.analyze.tflite_file import look_at as look_at_tflite

        return look_at_tflite(path)
    found = tensorflow_files.look_at(path, head) or (torch_files.look_at(path, head) if head else None)
    if found is not None:
        return found
    if not head:
        raise UnknownFormat(
            f"{path} is a folder, and no SavedModel: it holds no saved_model.pb", remedy="name a file, or a SavedModel"
        )
    _refuse_by_sight(path, head)
    return None


_ONNX = {1: 0, 2: 2, 3: 2, 4: 2, 5: 0, 6: 2, 7: 2, 8: 2, 14: 2, 20: 2, 25: 2}
"""Fields of a ModelProto that may come first, and their wire types."""


def _refuse_by_sight(path: Path, head: bytes) -> None:
    """Raise `UnknownFormat` for what only has a model's name."""
    start = head.lstrip()[:64].lower()
    said = None
    if start.startswith((b"<!doctype", b"<html", b"<?xml")):
        said = "a web page", "the download failed: fetch the file itself"
    elif start.startswith(b"version https://git-lfs"):
        said = "a Git LFS pointer", "git lfs pull"
    elif head.startswith(b"\x1f\x8b"):
        said = "gzip-compressed", "gunzip it first"
    elif all(b in b"\t\n\r" or 32 <= b < 127 for b in head):
        said = "text", "name a model file"
    if said is not None:
        raise UnknownFormat(f"{path.name} is {said[0]}, not a model", remedy=said[1])
    if _ONNX.get(head[0] >> 3) != head[0] & 7:
        raise UnknownFormat(
            f"{path.name} is no model file that graphkit reads (it begins with {head[:8].hex(' ')})",
            remedy="ONNX, TorchScript, .pt2, a pickled module or state_dict, .safetensors, SavedModel, .keras, .h5, "
            "GraphDef, .tflite, or a TensorRT engine",
        )
