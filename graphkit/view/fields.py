"""Reads the small messages of onnx.proto: tensors without their values, attributes, types, key-value pairs.

Source of the field numbers: onnx.proto of onnx 1.23. A field that a message does not know is passed over; one of its
own with the wrong wire type is an error; of a field that occurs twice where once is right, the last counts, as in
protobuf, but two messages, which protobuf would merge, are an error.
"""

from __future__ import annotations

import struct
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeAlias

from graphkit.view import wire
from graphkit.view.dtypes import BY_NAME, name_of
from graphkit.view.sources import BytesSource, ExternalSource, Source
from graphkit.view.views import AttributeView, TypeView
from graphkit.view.weights import SparseView, WeightView
from graphkit.view.wire import I32, LEN, VARINT, Buffer, Occurrence, WireError, collect, integer, string

if TYPE_CHECKING:
    from graphkit.view.views import GraphView

MAX_NESTING = 40
"""Graphs within graphs. Protobuf's own limit of 100 messages is reached before, at 33."""

MAX_TYPE_NESTING = 64
"""Types within types, as in a sequence of optional tensors. Protobuf's limit is reached before."""

MAX_RANK = 1024
"""Of a weight; numpy's limit is 64, and sizes are multiplied with one another."""

HELD = 128
"""A tensor of this many bytes is kept: shapes, axes and scalars are what an analysis asks for first."""


External: TypeAlias = Callable[[str, str, tuple[int, ...], list[tuple[str, str]]], WeightView]


class Context:
    """What the readers of one file share.

    Attributes:
        buffer: The file, or a serialised message.
        source: Where weights in the file are read from later.
        folder: Where external data lies.
        graph: Reader of a GraphProto: start, end, depth.
        types, attributes, words: What was read before, by its bytes: a graph has few of them that differ.
        external: Makes the view of an external weight from its name, dtype, dims and what the file states of it.
    """

    __slots__ = ("attributes", "buffer", "external", "folder", "graph", "source", "types", "words")

    def __init__(
        self, buffer: Buffer, source: Source, folder: Path, graph: Callable[[Context, int, int, int], GraphView]
    ) -> None:
        self.buffer = buffer
        self.source = source
        self.folder = folder
        self.graph = graph
        self.types: dict[bytes, TypeView] = {}
        self.attributes: dict[bytes, AttributeView] = {}
        self.words: dict[bytes, str] = {b"": ""}
        self.external: External = lambda *weight: _external(folder, *weight)


# --- TensorProto -------------------------------------------------------------------------------------------------

_DATA = {4: "float_data", 5: "int32_data", 6: "string_data", 7: "int64_data", 10: "double_data", 11: "uint64_data"}
_TENSOR = frozenset((1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12, 13, 14, 16))
_TENSOR_TAGS = frozenset(
    (
        0x08,
        0x0A,
        0x10,
        0x1A,
        0x22,
        0x25,
        0x28,
        0x2A,
        0x32,
        0x38,
        0x3A,
        0x42,
        0x4A,
        0x51,
        0x52,
        0x58,
        0x5A,
        0x62,
        0x6A,
        0x70,
        0x82,
    )
)


def tensor(context: Context, position: int, end: int) -> WeightView:
    """A TensorProto: its values are passed over by their length."""
    buffer, begin = context.buffer, position
    dims: list[int] = []
    code = raw_start = raw_stop = placed = 0
    raw, name, typed = False, "", ""
    external: list[bytes] = []
    while position < end:
        tag, value = buffer[position], buffer[position + 1]
        start = stop = position + 2
        if tag & 7 == LEN:
            stop += value
        if value > 0x7F or tag > 0x7F or (tag & 7 != LEN and tag & 7 != VARINT) or stop > end:
            tag, start, stop, value = wire.field(buffer, position, end)
        if tag == 0x08:
            dims.append(wire.signed(value))
        elif tag == 0x10:
            code = value
        elif tag == 0x42:
            name = wire.text(buffer, start, stop)
        elif tag == 0x4A:
            raw, raw_start, raw_stop = True, start, stop
        elif tag not in _TENSOR_TAGS:
            wire.unknown(tag, _TENSOR, position)
        elif tag == 0x0A:
            dims.extend(_packed(buffer, start, stop))
        elif tag == 0x6A:
            external.append(buffer[start:stop])
        elif tag == 0x70:
            placed = value
        elif tag >> 3 in _DATA:
            typed = _DATA[tag >> 3]
        position = stop
    dtype, shape = name_of(code), _sizes(dims, name, begin)
    if placed == 1:
        return context.external(name, dtype, shape, [_pair(pair) for pair in external])
    if raw:
        return _inside(context, name, dtype, shape, "raw", raw_start, raw_stop)
    known = BY_NAME.get(dtype)
    return _inside(context, name, dtype, shape, known.field if known else typed, begin, end)


def _inside(
    context: Context, name: str, dtype: str, dims: tuple[int, ...], storage: str, start: int, stop: int
) -> WeightView:
    few = stop - start <= HELD
    source = BytesSource(context.buffer[start:stop], start) if few else context.source
    return WeightView(name, dtype, dims, storage, start, stop - start, None, source)


def _external(folder: Path, name: str, dtype: str, dims: tuple[int, ...], stated: list[tuple[str, str]]) -> WeightView:
    said = dict(stated)
    location = said.get("location", "")
    problem = None
    if len(said) < len(stated):
        problem = "its external data is stated twice"
    elif not location:
        problem = "its external data has no location"
    numbers = {}
    for key in ("offset", "length"):
        text = said.get(key, "0")
        if not (text.isascii() and text.isdigit() and len(text) < 20):
            problem, text = f"the {key} of its external data is {text!r}", "0"
        numbers[key] = int(text)
    source = ExternalSource(folder, location, name, problem)
    view = WeightView(name, dtype, dims, "external", numbers["offset"], numbers["length"], location, source)
    if "length" in said:
        return view
    return WeightView(name, dtype, dims, "external", numbers["offset"], view.nbytes, location, source)


_SPARSE = {1: frozenset((LEN,)), 2: frozenset((LEN,)), 3: frozenset((VARINT, LEN))}


def sparse(context: Context, position: int, end: int) -> SparseView:
    """A SparseTensorProto."""
    found = collect(context.buffer, position, end, _SPARSE)
    parts = []
    for number in (1, 2):
        if len(found.get(number, ())) != 1:
            raise WireError("a sparse tensor without values or indices, or with two", position)
        _, start, stop, _ = found[number][0]
        parts.append(tensor(context, start, stop))
    dims = _integers(context.buffer, found.get(3, ()))
    return SparseView(parts[0], parts[1], _sizes(dims, parts[0].name, position))


def _sizes(dims: list[int], name: str, position: int) -> tuple[int, ...]:
    if len(dims) > MAX_RANK:
        raise WireError(f"weight `{name}` has a rank of {len(dims)}: at most {MAX_RANK} are read", position)
    if dims and min(dims) < 0:
        raise WireError(f"weight `{name}` has a negative size: {dims}", position)
    return tuple(dims)


# --- AttributeProto ----------------------------------------------------------------------------------------------

_KINDS = {
    1: ("FLOAT", 2),
    2: ("INT", 3),
    3: ("STRING", 4),
    4: ("TENSOR", 5),
    5: ("GRAPH", 6),
    6: ("FLOATS", 7),
    7: ("INTS", 8),
    8: ("STRINGS", 9),
    9: ("TENSORS", 10),
    10: ("GRAPHS", 11),
    11: ("SPARSE_TENSOR", 22),
    12: ("SPARSE_TENSORS", 23),
    13: ("TYPE_PROTO", 14),
    14: ("TYPE_PROTOS", 15),
}
"""Number of a type -> its name, and the field that holds the value."""

_BYTES = frozenset((LEN,))
_ATTRIBUTE = {
    **dict.fromkeys((1, 4, 5, 6, 9, 10, 11, 13, 14, 15, 21, 22, 23), _BYTES),
    2: frozenset((I32,)),
    3: frozenset((VARINT,)),
    7: frozenset((I32, LEN)),
    8: frozenset((VARINT, LEN)),
    20: frozenset((VARINT,)),
}


def attribute(context: Context, position: int, end: int, depth: int) -> AttributeView:
    """An AttributeProto; one that states no type, as before IR version 2, has that of the field it fills."""
    buffer = context.buffer
    found = collect(buffer, position, end, _ATTRIBUTE)
    name = string(buffer, found, 1)
    code = integer(found, 20)
    if code == 0:
        code = next((c for c, (_, number) in _KINDS.items() if number in found), 0)
    if code not in _KINDS:
        raise WireError(f"attribute `{name}` has the type {code}, which ONNX does not know", position)
    kind, number = _KINDS[code]
    reference = string(buffer, found, 21)
    if reference:
        return AttributeView(name, kind, None, reference)
    spans = found.get(number, [])
    try:
        return AttributeView(name, kind, _value(context, kind, spans, position, depth))
    except WireError as error:
        raise error.within(f"attribute `{name}`") from None


def _value(context: Context, kind: str, spans: list[Occurrence], position: int, depth: int) -> Any:
    buffer = context.buffer
    if kind == "FLOAT":
        return struct.unpack("<f", buffer[spans[-1][1] : spans[-1][2]])[0] if spans else 0.0
    if kind == "INT":
        return wire.signed(spans[-1][3]) if spans else 0
    if kind == "STRING":
        return buffer[spans[-1][1] : spans[-1][2]] if spans else b""
    if kind == "FLOATS":
        return tuple(x for span in spans for x in _floats(buffer, span))
    if kind == "INTS":
        return tuple(_integers(buffer, spans))
    if kind == "STRINGS":
        return tuple(buffer[start:stop] for _, start, stop, _ in spans)
    read = _message_reader(context, kind.removesuffix("S"), depth)
    if kind.endswith("S"):
        return tuple(read(start, stop) for _, start, stop, _ in spans)
    if len(spans) != 1:
        raise WireError(f"{len(spans)} values of type {kind} instead of one", position)
    return read(spans[0][1], spans[0][2])


def _message_reader(context: Context, kind: str, depth: int) -> Callable[[int, int], Any]:
    if kind == "TENSOR":
        return lambda start, stop: tensor(context, start, stop)
    if kind == "SPARSE_TENSOR":
        return lambda start, stop: sparse(context, start, stop)
    if kind == "TYPE_PROTO":
        return lambda start, stop: type_of(context, start, stop)
    return lambda start, stop: context.graph(context, start, stop, depth + 1)


def _floats(buffer: Buffer, span: Occurrence) -> tuple[float, ...]:
    _, start, stop, _ = span
    if (stop - start) % 4:
        raise WireError(f"{stop - start} bytes of packed floats", start)
    return struct.unpack(f"<{(stop - start) // 4}f", buffer[start:stop])


def _integers(buffer: Buffer, spans: Iterable[Occurrence]) -> list[int]:
    values = []
    for kind, start, stop, value in spans:
        if kind == VARINT:
            values.append(wire.signed(value))
        else:
            values.extend(_packed(buffer, start, stop))
    return values


def _packed(buffer: Buffer, position: int, end: int) -> list[int]:
    values = []
    while position < end:
        value, position = wire.varint(buffer, position)
        values.append(wire.signed(value))
    if position != end:
        raise WireError("a packed number runs over its field", position)
    return values


# --- TypeProto and StringStringEntryProto ------------------------------------------------------------------------

_TYPES = {1: "tensor", 4: "sequence", 5: "map", 7: "opaque", 8: "sparse_tensor", 9: "optional"}
_TYPE = {**dict.fromkeys(_TYPES, _BYTES), 6: _BYTES}
_TENSOR_TYPE = {1: frozenset((VARINT,)), 2: _BYTES}
_HOLDER = {1: _BYTES}
_MAP = {1: frozenset((VARINT,)), 2: _BYTES}
_SHAPE = {1: _BYTES}
_DIM = {1: frozenset((VARINT,)), 2: _BYTES, 3: _BYTES}


def type_of(context: Context, position: int, end: int, depth: int = 0) -> TypeView:
    """A TypeProto; types with the same bytes are one object."""
    buffer = context.buffer
    key = buffer[position:end]
    known = context.types.get(key)
    if known is None:
        if depth > MAX_TYPE_NESTING:
            raise WireError(f"types are nested deeper than {MAX_TYPE_NESTING}", position)
        known = context.types[key] = _type(context, position, end, depth)
    return known


def _type(context: Context, position: int, end: int, depth: int) -> TypeView:
    buffer = context.buffer
    found = collect(buffer, position, end, _TYPE)
    stated = [number for number in found if number in _TYPES]
    if not stated:
        return TypeView()
    if len(stated) > 1 or len(found[stated[0]]) > 1:
        raise WireError("a type that is stated twice", position)
    kind = _TYPES[stated[0]]
    _, start, stop, _ = found[stated[0]][0]
    if kind == "opaque":
        return TypeView(kind)
    if kind in ("tensor", "sparse_tensor"):
        inner = collect(buffer, start, stop, _TENSOR_TYPE)
        return TypeView(kind, name_of(integer(inner, 1)), _shape(buffer, inner.get(2)))
    inner = collect(buffer, start, stop, _MAP if kind == "map" else _HOLDER)
    spans = inner.get(2 if kind == "map" else 1)
    element = type_of(context, spans[-1][1], spans[-1][2], depth + 1) if spans else None
    return TypeView(kind, name_of(integer(inner, 1)) if kind == "map" else None, None, element)


def _shape(buffer: Buffer, spans: list[Occurrence] | None) -> tuple[int | str | None, ...] | None:
    if not spans:
        return None
    dims: list[int | str | None] = []
    for _, start, stop, _ in spans:
        for _, first, last, _ in collect(buffer, start, stop, _SHAPE).get(1, ()):
            found = collect(buffer, first, last, _DIM)
            if 1 in found:
                dims.append(integer(found, 1))
            else:
                dims.append(string(buffer, found, 2) or None)
    return tuple(dims)


_PAIR = {1: _BYTES, 2: _BYTES}


def _pair(entry: bytes) -> tuple[str, str]:
    found = collect(entry, 0, len(entry), _PAIR)
    return string(entry, found, 1), string(entry, found, 2)


def entries(pairs: Iterable[bytes]) -> dict[str, str]:
    """A list of StringStringEntryProto as a mapping; of two with one key, the last counts."""
    return dict(_pair(pair) for pair in pairs)
