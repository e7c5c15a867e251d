"""PyTorch's files, without PyTorch: TorchScript, pickles, safetensors; `.pt2` is in `torch_program`."""

from __future__ import annotations

import json
import re
import zipfile
from collections import Counter
from pathlib import Path
from typing import Any

from graphkit.analyze.inert_pickle import StoredTensor, tensors_in
from graphkit.analyze.inspection import Inspection, Stored, totals
from graphkit.capture import torch_archive
from graphkit.capture.torch_archive import Archive, read_member
from graphkit.errors import CorruptFile
from graphkit.shapes import TensorSpec

_AGAIN = "copy or save it again"
_LARGEST_HEADER = 100_000_000
"""Bytes of a safetensors header, as the library limits it."""

_KINDS = {
    "torchscript": "TorchScript archive",
    "pt2": "exported program (.pt2)",
    "old export": "exported program of PyTorch before 2.6",
    "pickle": "PyTorch pickle",
    "pickle legacy": "PyTorch pickle (before 1.6)",
    "tar": "PyTorch tar (before 0.1.10)",
    "package": "torch.package",
    "safetensors": "safetensors",
}


def look_at(path: Path, head: bytes) -> Inspection | None:
    """What a PyTorch file is; None if it is none. Raises: `CorruptFile`, `UnknownFormat`."""
    archive = torch_archive.recognise(path, head)
    if archive is None:
        return None
    if archive.kind == "pt2":
        from graphkit.analyze.torch_program import look_at as look_at_program

        return look_at_program(archive)
    if archive.kind == "safetensors":
        return _safetensors(path)
    if archive.kind == "torchscript":
        return _torchscript(archive)
    if archive.kind in ("pickle", "pickle legacy"):
        return _pickle(archive)
    note = "this format is recognised only; save the model again with torch.save, torch.jit.save or torch.export.save"
    return Inspection(path.name, _KINDS[archive.kind], path.stat().st_size, notes=(note,))


def _safetensors(path: Path) -> Inspection:
    """The header: 8 bytes of length, then JSON (https://huggingface.co/docs/safetensors)."""
    size = path.stat().st_size
    with path.open("rb") as file:
        length = int.from_bytes(file.read(8), "little")
        if length > min(size - 8, _LARGEST_HEADER):
            raise CorruptFile(f"{path.name}: its header is said to have {length} bytes", remedy=_AGAIN)
        text = file.read(length)
    try:
        header: dict[str, Any] = json.loads(text)
        metadata = header.pop("__metadata__", {})
        stored = []
        end = 0
        for name, each in header.items():
            stored.append(Stored(name, _dtype(each["dtype"]), tuple(int(dim) for dim in each["shape"])))
            end = max(end, int(each["data_offsets"][1]))
        facts = tuple((str(key), str(value)[:200]) for key, value in metadata.items())
    except (ValueError, KeyError, TypeError, AttributeError, IndexError, RecursionError) as error:
        raise CorruptFile(f"{path.name} is a damaged safetensors file: {error!r}", remedy=_AGAIN) from error
    if end != size - 8 - length:
        raise CorruptFile(
            f"{path.name} holds {size - 8 - length} bytes of tensors, but its header says {end}", remedy=_AGAIN
        )
    return Inspection(
        path.name, "safetensors", size, facts, weights=totals(stored), stored=tuple(stored), notes=_NO_GRAPH
    )


_NO_GRAPH = ("weights only: which operators use them is in the code that builds the model",)

_SAFETENSORS = {
    "F64": "float64", "F32": "float32", "F16": "float16", "BF16": "bfloat16", "I64": "int64", "I32": "int32",
    "I16": "int16", "I8": "int8", "U64": "uint64", "U32": "uint32", "U16": "uint16", "U8": "uint8", "BOOL": "bool",
    "F8_E4M3": "float8e4m3fn", "F8_E5M2": "float8e5m2", "C64": "complex64", "F8_E8M0": "float8e8m0", "F4": "float4e2m1",
}  # fmt: skip


def _dtype(name: str) -> str:
    return _SAFETENSORS.get(name, str(name))


# --- pickles -----------------------------------------------------------------------------------------------------


_PLAIN = re.compile(r"(torch\._utils|torch\.storage|collections|builtins)\.\w+$|torch\.(_C\.)?\w+$")
"""What weights are made of; `torch.nn...` is code."""


def _pickle(archive: Archive) -> Inspection:
    legacy = archive.kind == "pickle legacy"
    data = archive.path.read_bytes() if not archive.root else read_member(archive, "data.pkl")
    found = tensors_in(data, legacy=legacy)
    names = archive.globals.names if archive.globals is not None else frozenset()
    classes = sorted(
        n for n in names if not n.startswith(("torch._utils.", "collections.", "torch.storage.", "builtins."))
    )
    plain = [n for n in classes if re.fullmatch(r"torch\.(\w+Storage|_C\.\w+|\w+)", n)]
    strange = [n for n in classes if n not in plain]
    facts = [("names", ", ".join(strange[:6]) + (f" and {len(strange) - 6} more" if len(strange) > 6 else ""))] * bool(
        strange
    )
    kind = _KINDS[archive.kind]
    notes = ("nothing was unpickled: loading it would import the names above",) if strange else _NO_GRAPH
    stored = _stored(found)
    return Inspection(
        archive.path.name,
        kind,
        archive.path.stat().st_size,
        tuple(facts),
        weights=totals(stored),
        stored=stored,
        notes=notes,
    )


def _stored(found: tuple[tuple[str, StoredTensor], ...]) -> tuple[Stored, ...]:
    """Tensors with the same bytes and shape under several names count once."""
    known: dict[tuple[str, tuple[int, ...]], Stored] = {}
    for name, tensor in found:
        known.setdefault((tensor.storage, tensor.dims), Stored(name, tensor.dtype, tensor.dims))
    return tuple(known.values())


# --- TorchScript -------------------------------------------------------------------------------------------------

_CALL = re.compile(r"\b(?:torch|ops\.\w+)\.(\w+)\(")
_NO_OPERATIONS = frozenset(
    ("annotate", "unchecked_cast", "len", "warn", "format", "append", "__isnot__", "__is__", "__not__")
)
_FORWARD = re.compile(r"def forward\(self[^,)]*,?\s*([^)]*)\)\s*->\s*([^:]+):", re.DOTALL)
_LARGEST_CODE = 64 << 20


def _torchscript(archive: Archive) -> Inspection:
    """Tensors from its pickle, operators from its code: a function counts once, however often it is called."""
    data = read_member(archive, "data.pkl")
    stored = _stored(tensors_in(data))
    code = _code(archive)
    calls = Counter(name for text in code.values() for name in _CALL.findall(text) if name not in _NO_OPERATIONS)
    operators = tuple(sorted(calls.items(), key=lambda row: (-row[1], row[0])))
    inputs, outputs = _signature(data, code)
    facts = [("format version", read_member(archive, "version").decode("ascii", "replace").strip())]
    notes = ("operators as the code has them: a method counts once, however often it is called", _NO_SHAPES)
    path = archive.path
    return Inspection(
        path.name, _KINDS["torchscript"], path.stat().st_size, tuple(facts), inputs, outputs, operators,
        totals(stored), stored, notes,
    )  # fmt: skip


_NO_SHAPES = "TorchScript keeps no shapes: cost and memory are those of its ONNX (graphkit convert)"


def _code(archive: Archive) -> dict[str, str]:
    found = {}
    with zipfile.ZipFile(archive.path) as file:
        for info in file.infolist():
            name = info.filename.removeprefix(archive.root)
            if name.startswith("code/") and name.endswith(".py"):
                if info.file_size > _LARGEST_CODE:
                    raise CorruptFile(f"{archive.path.name}: {name} is larger than any model's code", remedy=_AGAIN)
                found[name] = read_member(archive, name).decode("utf-8", "replace")
    return found


def _signature(
    data: bytes, code: dict[str, str]
) -> tuple[tuple[TensorSpec, ...] | None, tuple[TensorSpec, ...] | None]:
    """Arguments and result of the forward method of the model's own class, which the pickle names first."""
    first = re.search(rb"c(__torch__[^\n]*)\n(\w+)\n", data)
    if first is None:
        return None, None
    text = code.get(f"code/{first[1].decode().replace('.', '/')}.py", "")
    start = re.search(rf"^class {first[2].decode()}\(Module\):", text, re.MULTILINE)
    method = _FORWARD.search(text, start.end()) if start is not None else None
    if method is None:
        return None, None
    inputs = [part.partition(":") for part in re.split(r",\s*(?=\w+:)", method[1].strip().rstrip(",")) if part.strip()]
    given = tuple(TensorSpec(name.strip(), None, None) for name, _, _ in inputs)
    count = method[2].count("Tensor") if method[2].strip().startswith("Tuple") else 1
    return given, tuple(TensorSpec(f"output_{i}" if count > 1 else "output", None, None) for i in range(count))
