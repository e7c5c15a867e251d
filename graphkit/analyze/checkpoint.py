"""Names, dtypes and shapes in the index of a TensorFlow checkpoint, `variables.index`.

The index is a table as LevelDB writes it (https://github.com/google/leveldb/blob/main/doc/table_format.md), not
compressed, of BundleEntryProto messages (tensorflow/core/protobuf/tensor_bundle.proto).
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

from graphkit.analyze.inspection import Stored
from graphkit.view import wire
from graphkit.view.wire import LEN, VARINT

_MAGIC = bytes.fromhex("57fb808b247547db")
_FOOTER = 48
_SUFFIX = "/.ATTRIBUTES/VARIABLE_VALUE"
_NO_WEIGHTS = ("optimizer/", "keras_api/", "save_counter", "_CHECKPOINTABLE_OBJECT_GRAPH")
_LARGEST = 1 << 30


def tensors(path: Path) -> tuple[tuple[Stored, ...], str | None]:
    """The variables of a checkpoint, those of optimisers left out; and why they are unknown, if they are."""
    if not path.is_file():
        return (), None if not path.parent.is_dir() else "variables.index is missing"
    if path.stat().st_size > _LARGEST:
        return (), "variables.index is larger than any model's"
    data = path.read_bytes()
    if len(data) < _FOOTER or data[-8:] != _MAGIC:
        return (), "variables.index is damaged"
    try:
        found = tuple(_entries(data))
    except (wire.WireError, IndexError, UnicodeDecodeError, ValueError) as error:
        return (), f"variables.index is damaged: {error}"
    return _once(found), None


def _once(found: tuple[Stored, ...]) -> tuple[Stored, ...]:
    """Without the second copy of each variable that `Model.export` of Keras 3 saves, as `_all_variables/N`."""
    copies = [each for each in found if each.name.startswith("_all_variables/")]
    others = [each for each in found if not each.name.startswith("_all_variables/")]
    same = sorted((each.dtype, each.dims) for each in copies) == sorted((each.dtype, each.dims) for each in others)
    return tuple(others) if same else found


def _entries(data: bytes) -> Iterator[Stored]:
    from graphkit.analyze.tensorflow_files import dtype_of, shape_of

    _, at = wire.varint(data, len(data) - _FOOTER)  # the handle of the metaindex comes first
    _, at = wire.varint(data, at)
    for _, handle in _block(data, at):
        for key, span in _block(data, handle[0]):
            name = key.decode()
            if not name or any(part in name for part in _NO_WEIGHTS) or "/.OPTIMIZER_SLOT/" in name:
                continue
            entry = wire.collect(data, *span, {1: frozenset((VARINT,)), 2: frozenset((LEN,))})
            shape = shape_of(data, *entry[2][-1][1:3]) if 2 in entry else ()
            dims = tuple(size for size in shape or () if isinstance(size, int))
            yield Stored(name.removesuffix(_SUFFIX), dtype_of(wire.integer(entry, 1)) or "unknown", dims)


def _block(data: bytes, handle: int) -> Iterator[tuple[bytes, tuple[int, int]]]:
    """Keys of a block, and where their values lie. A key shares its beginning with the one before."""
    start, at = wire.varint(data, handle)
    size, _ = wire.varint(data, at)
    stop = start + size
    if stop + 5 > len(data) or size < 4:
        raise ValueError("a block ends behind the file")
    if data[stop] != 0:
        raise ValueError("it is compressed")
    stop -= 4 + 4 * int.from_bytes(data[stop - 4 : stop], "little")
    at, key = start, b""
    while at < stop:
        shared, at = wire.varint(data, at)
        own, at = wire.varint(data, at)
        length, at = wire.varint(data, at)
        if shared > len(key) or at + own + length > stop:
            raise ValueError("an entry ends behind its block")
        key = key[:shared] + data[at : at + own]
        at += own
        yield key, (at, at + length)
        at += length
