"""One weight of a graph: what it is and where its bytes lie. They are read when they are asked for."""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Any

from graphkit.errors import CorruptFile, FileMissing
from graphkit.view.dtypes import BY_NAME, DType
from graphkit.view.sources import BytesSource, ExternalSource, Source


@dataclass(frozen=True, slots=True)
class WeightView:
    """A dense tensor: an initializer, an attribute's value, or a part of a sparse one.

    Attributes:
        name: Its name in the file, "" for most attributes.
        dtype: `float32`, `int4`, ...; `dtype 99` for a number that ONNX does not know.
        dims: Its shape.
        storage: What holds the values: `raw`, `external`, `memory`, or the typed field (`float_data`, ...).
        offset, length: Of the values in the file (raw, external); for a typed field, those of the whole TensorProto
            message that holds it. An external weight that does not state a length ends where its shape says.
        location: The external file, relative to the model's folder; None where the model's own file holds the values.
        source: The file, or the memory, that the offset is in.
    """

    name: str
    dtype: str
    dims: tuple[int, ...]
    storage: str
    offset: int
    length: int
    location: str | None
    source: Source = field(repr=False, compare=False)

    @property
    def size(self) -> int:
        """Number of elements."""
        return math.prod(self.dims)

    @property
    def nbytes(self) -> int:
        """Bytes of the values, packed; of a string tensor, those of the message that holds it."""
        known = BY_NAME.get(self.dtype)
        if known is None or not known.bits:
            return self.length
        return -(-self.size * known.bits // 8)

    @property
    def missing(self) -> bool:
        """Whether it is in an external file that is not there."""
        if not isinstance(self.source, ExternalSource):
            return False
        try:
            self.source.size()
        except FileMissing:
            return True
        except (CorruptFile, OSError):
            return False
        return False

    def read(self) -> Any:
        """The values: a numpy array of shape `dims`, of ml_dtypes' types for bfloat16 and below; strings are objects
        of type bytes.

        Raises:
            FileMissing, UnsafePath: the external file is not there, or lies outside the model's folder.
            CorruptFile: there are fewer or more values than `dims` says, or the dtype is unknown.
        """
        from graphkit.view import payload

        return payload.as_array(self.known_dtype(), self.dims, b"".join(self.pieces()), self.name)

    def pieces(self) -> Iterator[bytes]:
        """The values as ONNX's raw bytes (little-endian, packed, padding zero), however the file stores them; strings
        as length and content. Raw and external ones come in pieces of a megabyte.

        Raises:
            FileMissing, UnsafePath, CorruptFile: as `read`.
        """
        dtype = self.known_dtype()
        if self.storage not in ("raw", "external", "memory"):
            from graphkit.view import payload

            message = b"".join(self.source.pieces(self.offset, self.length))
            yield payload.raw_bytes(message, dtype, self.size, self.name)
            return
        if not dtype.bits:
            raise CorruptFile(f"weight `{self.name}` holds strings as {self.storage} bytes, which ONNX forbids")
        if self.length != self.nbytes:
            raise CorruptFile(
                f"{self.dtype}{list(self.dims)} weight `{self.name}` has {self.length} bytes, not {self.nbytes}",
                remedy="export the model again",
            )
        padding = 8 * self.length - self.size * dtype.bits
        seen = 0
        for piece in self.source.pieces(self.offset, self.length):
            seen += len(piece)
            if padding and seen == self.length:
                yield piece[:-1] + bytes([piece[-1] & (0xFF >> padding)])
            else:
                yield piece

    def digest(self) -> str:
        """sha256 of dtype, dims and `pieces()`: equal for equal values, whatever the storage. Reads a megabyte at a
        time.

        Raises:
            FileMissing, UnsafePath, CorruptFile: as `read`.
        """
        import hashlib

        state = hashlib.sha256(f"{self.dtype}{self.dims}:".encode())
        known = BY_NAME.get(self.dtype)
        if self.storage == "raw" and isinstance(self.source, BytesSource) and known is not None and known.bits >= 8:
            held = self.source.data  # ten thousand small ones are compared in a diff: no generators for them
            if self.length == self.nbytes == len(held) and self.offset == self.source.base:
                state.update(held)
                return state.hexdigest()
        for piece in self.pieces():
            state.update(piece)
        return state.hexdigest()

    def known_dtype(self) -> DType:
        """Its dtype. Raises: `CorruptFile` for one that ONNX does not know."""
        known = BY_NAME.get(self.dtype)
        if known is None:
            raise CorruptFile(f"weight `{self.name}` has an element type that ONNX does not know: {self.dtype}")
        return known


@dataclass(frozen=True, slots=True)
class SparseView:
    """A sparse tensor in COO form.

    Attributes:
        values: The non-zero values, [count]; its name is that of the sparse tensor.
        indices: int64, [count] of the flattened tensor, or [count, rank].
        dims: Shape of the dense tensor.
    """

    values: WeightView
    indices: WeightView
    dims: tuple[int, ...]

    @property
    def name(self) -> str:
        return self.values.name

    @property
    def dtype(self) -> str:
        return self.values.dtype

    @property
    def size(self) -> int:
        """Number of elements of the dense tensor."""
        return math.prod(self.dims)

    @property
    def nbytes(self) -> int:
        """Bytes that are stored."""
        return self.values.nbytes + self.indices.nbytes

    @property
    def missing(self) -> bool:
        return self.values.missing or self.indices.missing

    def digest(self) -> str:
        """sha256 of the dense shape, the values and the indices as they are stored. Raises: as `WeightView.digest`."""
        import hashlib

        text = f"sparse{self.dims}:{self.values.digest()}:{self.indices.digest()}"
        return hashlib.sha256(text.encode()).hexdigest()
