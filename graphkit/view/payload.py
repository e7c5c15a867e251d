"""Values of a tensor: from the typed fields of a TensorProto to raw bytes, and from raw bytes to an array."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from graphkit.errors import CorruptFile
from graphkit.view import wire
from graphkit.view.dtypes import DType

if TYPE_CHECKING:
    import numpy as np

FIELDS = {"float_data": 4, "int32_data": 5, "string_data": 6, "int64_data": 7, "double_data": 10, "uint64_data": 11}
"""Typed field -> its number in TensorProto."""

_WIDTH = {"float_data": 4, "double_data": 8}
"""Bytes of an entry of the fields that have a fixed width; the others hold varints."""


def raw_bytes(message: bytes, dtype: DType, size: int, name: str) -> bytes:
    """What `raw_data` would hold, from the typed field of a TensorProto message.

    Entries may be packed, or each have its own tag. Below 8 bits an entry of `int32_data` holds a whole byte, but for
    6 bits a single element (onnx.proto, `int32_data`). A string is its length, 8 bytes, and its content.

    Raises:
        CorruptFile: there are more or fewer values than `size`, or the message is damaged.
    """
    try:
        entries = _entries(message, dtype.field)
        if dtype.field == "string_data":
            raw, count = _strings(entries), len(entries)
        elif dtype.field in _WIDTH:
            raw = b"".join(entries)
            count = len(raw) * 8 // dtype.bits if len(raw) * 8 % dtype.bits == 0 else -1
        else:
            raw, count = _narrowed(_varints(b"".join(entries)), dtype, size)
    except (wire.WireError, IndexError) as error:
        raise CorruptFile(f"weight `{name}` is damaged: {error}", remedy="export the model again") from error
    if count != size:
        raise CorruptFile(f"weight `{name}` has {count} values instead of {size}", remedy="export the model again")
    return raw


def as_array(dtype: DType, dims: tuple[int, ...], raw: bytes, name: str) -> Any:
    """A numpy array, not writable, of raw bytes that have the right length. Raises: `CorruptFile`."""
    import numpy as np

    if dtype.name == "string":
        texts = np.empty(dims, dtype=object)
        texts.reshape(-1)[:] = _split(raw)
        return texts
    size = 1
    for dim in dims:
        size *= dim
    data = np.frombuffer(raw, dtype=np.uint8)
    if dtype.bits < 8:
        data = _unpacked(data, dtype.bits, size, signed=dtype.name.startswith("int"))
    try:
        array = data.view(_numpy_dtype(dtype)).reshape(dims)
    except ValueError as error:  # a rank above numpy's 64, or an empty shape beyond its index type
        raise CorruptFile(f"weight `{name}`: {error}") from error
    array.flags.writeable = False
    return array


def _entries(message: bytes, field: str) -> list[bytes]:
    """The content of every occurrence of a field, packed or not, in order."""
    number, kind = FIELDS[field], {4: wire.I32, 8: wire.I64}.get(_WIDTH.get(field, 0), wire.VARINT)
    found = []
    position, end = 0, len(message)
    while position < end:
        tag, start, stop, _ = wire.field(message, position, end)
        if tag >> 3 == number:
            if tag & 7 not in (wire.LEN, kind):
                raise wire.WireError(f"field {number} has wire type {tag & 7}", position)
            found.append(message[start:stop])
        position = stop
    return found


def _varints(packed: bytes) -> np.ndarray[Any, Any]:
    """uint64 values of a run of varints, at about 20 ns each."""
    import numpy as np

    data = np.frombuffer(packed, dtype=np.uint8)
    ends = np.flatnonzero(data < 0x80)
    if not data.size:
        return np.zeros(0, dtype=np.uint64)
    if not ends.size or ends[-1] != data.size - 1:
        raise wire.WireError("the last number is cut off", len(packed))
    starts = np.concatenate(([0], ends[:-1] + 1))
    lengths = ends - starts + 1
    if lengths.max() > 10:
        raise wire.WireError("a number of more than 10 bytes", int(starts[lengths.argmax()]))
    shifts = (np.arange(data.size) - np.repeat(starts, lengths)).astype(np.uint64) * np.uint64(7)
    bits = (data & 0x7F).astype(np.uint64) << shifts
    return np.bitwise_or.reduceat(bits, starts)


def _narrowed(values: np.ndarray[Any, Any], dtype: DType, size: int) -> tuple[bytes, int]:
    """Raw bytes of entries, and how many elements they are: in two's complement the low bits are the value."""
    import numpy as np

    if dtype.bits == 6:
        bits = np.unpackbits(values.astype(np.uint8)[:, None], axis=1, bitorder="little")[:, :6]
        return np.packbits(bits, bitorder="little").tobytes(), len(values)
    if dtype.bits < 8:
        per_byte = 8 // dtype.bits
        raw = bytearray(values.astype(np.uint8).tobytes())
        if len(raw) == -(-size // per_byte):
            if size % per_byte:
                raw[-1] &= 0xFF >> (8 - size % per_byte * dtype.bits)
            return bytes(raw), size
        return bytes(raw), len(raw) * per_byte
    return values.astype(f"<u{dtype.bits // 8}").tobytes(), len(values)


def _strings(entries: list[bytes]) -> bytes:
    return b"".join(len(entry).to_bytes(8, "little") + entry for entry in entries)


def _split(raw: bytes) -> list[bytes]:
    found, position = [], 0
    while position < len(raw):
        stop = position + 8 + int.from_bytes(raw[position : position + 8], "little")
        found.append(raw[position + 8 : stop])
        position = stop
    return found


def _unpacked(data: np.ndarray[Any, Any], bits: int, size: int, *, signed: bool) -> np.ndarray[Any, Any]:
    """One element a byte; ml_dtypes keeps signed ones sign-extended."""
    import numpy as np

    spread = np.unpackbits(data, bitorder="little")[: size * bits].reshape(size, bits)
    values = np.packbits(spread, axis=1, bitorder="little").reshape(size)
    if signed:
        values = np.where(values >> (bits - 1), values | np.uint8(0xFF << bits & 0xFF), values)
    return values.astype(np.uint8)


def _numpy_dtype(dtype: DType) -> Any:
    import numpy as np

    if hasattr(np, dtype.numpy) or dtype.numpy == "bool":
        return np.dtype(dtype.numpy).newbyteorder("<")
    import ml_dtypes

    return np.dtype(getattr(ml_dtypes, dtype.numpy))
