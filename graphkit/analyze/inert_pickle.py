"""The tensors that a PyTorch pickle names, found without importing or calling anything of it.

`find_class` is asked for every global, and gives a stand-in that only remembers its arguments; so the pickle's program
runs on stand-ins. Source: "Restricting Globals" in Python's documentation of pickle.
"""

from __future__ import annotations

import io
import pickle
from collections import OrderedDict
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

from graphkit.errors import CorruptFile
from graphkit.view.dtypes import BY_NAME

_STORAGES = {
    "FloatStorage": "float32", "DoubleStorage": "float64", "HalfStorage": "float16", "BFloat16Storage": "bfloat16",
    "LongStorage": "int64", "IntStorage": "int32", "ShortStorage": "int16", "CharStorage": "int8",
    "ByteStorage": "uint8", "BoolStorage": "bool", "ComplexFloatStorage": "complex64",
    "ComplexDoubleStorage": "complex128", "QInt8Storage": "int8", "QUInt8Storage": "uint8", "QInt32Storage": "int32",
}  # fmt: skip

MOST_TENSORS = 200_000


@dataclass(frozen=True, slots=True)
class Storage:
    """Bytes that tensors share: their dtype, and their name in the file."""

    dtype: str
    key: str


@dataclass(frozen=True, slots=True)
class StoredTensor:
    """A tensor as its pickle describes it."""

    dtype: str
    dims: tuple[int, ...]
    storage: str


class Stand:
    """A stand-in for an object: what made it, with what arguments, and the state that it was given."""

    origin = ""

    def __init__(self, *arguments: Any, **named: Any) -> None:
        self.arguments = arguments
        self.named = named
        self.state: Any = None
        self.items: list[Any] = []

    def __new__(cls, *_arguments: Any, **_named: Any) -> Any:
        self = super().__new__(cls)
        self.arguments, self.named, self.state, self.items = _arguments, _named, None, []
        return self

    def __setstate__(self, state: Any) -> None:
        self.state = state

    def __setitem__(self, key: Any, value: Any) -> None:
        self.items.append((key, value))

    def append(self, value: Any) -> None:
        self.items.append(value)

    def extend(self, values: Any) -> None:
        self.items.extend(values)


class _Inert(pickle.Unpickler):
    def __init__(self, stream: io.BytesIO) -> None:
        super().__init__(stream)
        self.storages: dict[str, str] = {}

    def find_class(self, module: str, name: str) -> Any:
        if (module, name) == ("collections", "OrderedDict"):
            return OrderedDict
        if module in ("torch._utils", "torch") and name.startswith("_rebuild_"):
            return _Rebuild
        if name in _STORAGES and module in ("torch", "torch.storage"):
            return type(name, (Stand,), {"origin": _STORAGES[name]})
        return type(str(name), (Stand,), {"origin": f"{module}.{name}"})

    def persistent_load(self, pid: Any) -> Any:
        if not isinstance(pid, tuple) or len(pid) < 3:
            return Stand(pid)
        if pid[0] == "module":  # a legacy file names a class together with its source
            return pid[1]
        if pid[0] != "storage":
            return Stand(pid)
        dtype = getattr(pid[1], "origin", "")
        storage = Storage(dtype if dtype in _STORAGES.values() else "unknown", str(pid[2]))
        self.storages[storage.key] = storage.dtype
        return storage


class _Rebuild(Stand):
    """torch._utils._rebuild_tensor_v2(storage, offset, size, stride, ...), and _rebuild_parameter(tensor, ...)."""

    origin = "torch tensor"


def tensors_in(data: bytes, *, legacy: bool = False) -> tuple[tuple[str, StoredTensor], ...]:
    """Dotted name and description of every tensor in a pickle: of a state_dict, a checkpoint, or a module.

    Args:
        data: The pickle; of a legacy file, the whole of it.
        legacy: Whether the format is that of PyTorch before 1.6: magic number, version, system, content.

    Raises:
        CorruptFile: damaged, or a pickle that does more than describe objects.
    """
    stream = io.BytesIO(data)
    content = None
    try:
        for _ in range(4 if legacy else 1):
            machine = _Inert(stream)
            content = machine.load()
        if legacy:
            _check_storages(data, stream, machine.storages)
    except CorruptFile:
        raise
    except (RecursionError, MemoryError) as error:
        raise CorruptFile(f"the pickle in the file is too deep: {type(error).__name__}") from error
    except Exception as error:  # whatever the bytes make the machine do to the stand-ins
        raise CorruptFile(
            f"the pickle in the file is damaged: {error}", remedy="copy or save the file again"
        ) from error
    return tuple(_walk(content))


def _check_storages(data: bytes, stream: io.BytesIO, dtypes: dict[str, str]) -> None:
    """See that a legacy file holds all its storages: a list of their keys, then a count and the elements of each."""
    keys = _Inert(stream).load()
    at = stream.tell()
    for key in keys:
        known = BY_NAME.get(dtypes.get(str(key), ""))
        if known is None:
            return
        at += 8 + int.from_bytes(data[at : at + 8], "little") * known.bits // 8
        if at > len(data):
            raise CorruptFile(f"the file ends at byte {len(data)}, its tensors later", remedy="copy or save it again")


def _walk(content: Any) -> Iterator[tuple[str, StoredTensor]]:
    pending: list[tuple[str, Any]] = [("", content)]
    seen: set[int] = set()
    count = 0
    while pending:
        path, value = pending.pop()
        tensor = _tensor(value)
        if tensor is not None:
            count += 1
            if count > MOST_TENSORS:
                raise CorruptFile(f"the file holds more than {MOST_TENSORS} tensors")
            yield path, tensor
            continue
        if isinstance(value, str | bytes | int | float | None) or id(value) in seen:
            continue
        seen.add(id(value))
        children = [(f"{path}.{name}" if path and name else path or name, child) for name, child in _children(value)]
        pending.extend(reversed(children))


_TRANSPARENT = frozenset(("_parameters", "_buffers", "_modules"))


def _children(value: Any) -> Iterator[tuple[str, Any]]:
    if isinstance(value, dict):
        for key, child in value.items():
            yield ("" if key in _TRANSPARENT else str(key)), child
    elif isinstance(value, list | tuple):
        for at, child in enumerate(value):
            yield str(at), child
    elif isinstance(value, Stand):
        for at, child in enumerate(value.items):
            yield (str(child[0]), child[1]) if isinstance(child, tuple) and len(child) == 2 else (str(at), child)
        if value.state is not None:
            yield "", value.state


def _tensor(value: Any) -> StoredTensor | None:
    while isinstance(value, _Rebuild) and value.arguments and isinstance(value.arguments[0], _Rebuild):
        value = value.arguments[0]  # a parameter around its data
    if not isinstance(value, _Rebuild) or len(value.arguments) < 3 or not isinstance(value.arguments[0], Storage):
        return None
    size = value.arguments[2]
    if not isinstance(size, tuple) or not all(isinstance(dim, int) and dim >= 0 for dim in size):
        return None
    return StoredTensor(value.arguments[0].dtype, size, value.arguments[0].key)
