"""Which nodes of the ONNX graph an engine's kernels came of: from TensorRT-RTX's text, or TensorRT's own report.

TensorRT-RTX writes its program as text into the engine, with the ONNX layers of each kernel. That is documented
nowhere: it was read off engines of the releases in `KNOWN`, and is a best effort. TensorRT says the same through
`IEngineInspector`, in JSON whose keys changed between releases 10 and 11; both forms are read.
"""

from __future__ import annotations

import mmap
import re
from collections.abc import Iterator, Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

KNOWN = ("1.4", "1.5", "1.6", "1.7")
"""Releases of TensorRT-RTX whose engines were looked into."""

_MARK = b'layers="[ONNX Layer: '
_LONGEST = 1 << 16
_TABLE = 1 << 23
_LAYER = re.compile(r"\[ONNX Layer: ([^\]]*)\]")
_TENSOR = re.compile(rb'\btensor=\{[^\n]*? name="([^"\n]+)"[^\n]*? type=(\w+) \}')
_DTYPES = {
    "half": "float16", "float": "float32", "bf16": "bfloat16", "fp16": "float16", "fp32": "float32",
    "fp8": "float8e4m3fn", "int64": "int64", "int32": "int32", "int8": "int8", "int4": "int4", "bool": "bool",
}  # fmt: skip


@dataclass(frozen=True, slots=True)
class Kernel:
    """A kernel or layer of an engine.

    Attributes:
        name: What the engine calls it.
        kind: Of its operation, in the library's words.
        nodes: Names of the ONNX nodes that it computes.
        dtype: Of its first output; None where that is not told.
    """

    name: str
    kind: str
    nodes: tuple[str, ...]
    dtype: str | None = None

    def to_json(self) -> dict[str, Any]:
        return {**asdict(self), "nodes": list(self.nodes)}

    @classmethod
    def from_json(cls, data: Mapping[str, Any]) -> Kernel:
        """The inverse of `to_json`. Raises: KeyError, TypeError: it is of another form."""
        return cls(str(data["name"]), str(data["kind"]), tuple(map(str, data["nodes"])), data["dtype"])


def in_engine(path: Path, version: str) -> tuple[Kernel, ...] | None:
    """The kernels that a TensorRT-RTX engine names, in the order of its program, each once.

    Args:
        version: Release that wrote it. None comes back for one that is not in `KNOWN`.

    The file is searched, never loaded: damage leads to fewer kernels, not to an error.
    """
    if ".".join(version.split(".")[:2]) not in KNOWN:
        return None
    with path.open("rb") as file, mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ) as data:
        return tuple(dict.fromkeys(_kernels(data)))


def _kernels(data: mmap.mmap) -> Iterator[Kernel]:
    at = data.find(_MARK)
    dtypes = dict(_TENSOR.findall(data[max(0, at - _TABLE) : at])) if at >= 0 else {}
    while at >= 0:
        start = data.rfind(b"\n", max(0, at - _LONGEST), at) + 1
        end = data.find(b'"', at + len(_MARK), at + _LONGEST)
        line = data[start:end] if start and end >= 0 else b""
        head = re.match(rb'\s*(\w+)=\{ name=(?:"([^"]*)"|(\S+))', line)
        if head is not None:
            made = re.search(rb'\boutput(?:_args)?=\{ ?"([^"]*)"', line)
            dtype = dtypes.get(made[1]) if made is not None else None
            yield Kernel(
                _text(head[2] or head[3] or b""),
                _text(head[1]),
                _nodes(_text(line[at - start :])),
                _dtype(_text(dtype)) if dtype is not None else None,
            )
        at = data.find(_MARK, at + len(_MARK))


def _text(data: bytes) -> str:
    return data.decode("utf-8", "replace")


def _nodes(text: str) -> tuple[str, ...]:
    return tuple(dict.fromkeys(_LAYER.findall(text)))


def _dtype(said: str) -> str:
    return _DTYPES.get(said.lower(), said.lower())


# --- what TensorRT's inspector says ------------------------------------------------------------------------------


def of_inspector(report: Mapping[str, Any]) -> tuple[Kernel, ...]:
    """The layers of `IEngineInspector.get_engine_information(JSON)`.

    A layer is an object, or a name alone in an engine without detailed layers. Where TensorRT 10 says
    `"Format/Datatype": "Row major linear FP16"`, 11 has a key for each.
    """
    return tuple(_layer(each) for each in report.get("Layers", ()))


def _layer(said: Any) -> Kernel:
    if not isinstance(said, Mapping):
        return Kernel(str(said), "", ())
    outputs = said.get("Outputs") or [{}]
    first = outputs[0] if isinstance(outputs[0], Mapping) else {}
    words = str(first.get("DataType") or first.get("Datatype") or first.get("Format/Datatype") or "").split()
    # "Row major linear FP16 format": the dtype is the last word that is one
    dtype = next((_dtype(word) for word in reversed(words) if word.lower() in _DTYPES), None)
    name, metadata = str(said.get("Name", "")), str(said.get("Metadata", ""))
    return Kernel(name, str(said.get("LayerType", "")), _nodes(metadata), dtype)
