"""Reads an ONNX file straight from its bytes, through a mapping: the cost follows the graph, not the weights.

A field's tag is nearly always one byte and its length one or two: the three loops that see every field of a graph read
these in place, and leave the rest, errors included, to `wire.field` (calling it each time took twice as long).

No library parses the file: onnx.load copies all of it (2.0 GB resident for 1 GB of weights), and its protobuf accepts
what is not ONNX. Source of the field numbers: onnx.proto of onnx 1.23.
"""

from __future__ import annotations

import mmap
import os
from array import array
from collections import defaultdict
from collections.abc import Iterable
from pathlib import Path

from graphkit.errors import CorruptFile, FileMissing
from graphkit.view import fields, wire
from graphkit.view.collector import collector_paused as collector_paused
from graphkit.view.fields import MAX_NESTING, Context
from graphkit.view.sources import FileSource, stamp_of
from graphkit.view.views import AttributeView, FunctionView, GraphView, ModelView, TypeView
from graphkit.view.weights import SparseView, WeightView
from graphkit.view.wire import LEN, VARINT, WireError

SHORT = 256
"""An attribute of at most this many bytes is read once, however many nodes have it."""


def read(path: Path | str) -> ModelView:
    """The view of an `.onnx` file.

    Nothing of the file stays open or mapped. External data is not looked for: `WeightView.missing` does that.

    Raises:
        FileMissing: there is no such file.
        CorruptFile: it is not ONNX, is cut off or damaged, or nests deeper than `fields.MAX_NESTING` graphs.
    """
    path = Path(path)
    if path.exists() and not path.is_file():  # opening a pipe would wait for a writer
        raise FileMissing(f"cannot read {path}: it is not a plain file")
    try:
        with path.open("rb") as file:
            source = FileSource(path, stamp_of(os.fstat(file.fileno())))
            if source.stamp[2] == 0:
                raise CorruptFile(f"{path.name} is empty", remedy="copy or export it again")
            with mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ) as buffer:
                return parse(Context(buffer, source, path.parent, read_graph), path.name, source.stamp[2])
    except FileNotFoundError:
        raise FileMissing(f"no such file: {path}") from None
    except OSError as error:
        raise FileMissing(f"cannot read {path}: {error.strerror}") from error


def parse(context: Context, name: str, size: int) -> ModelView:
    """The view of a ModelProto of `size` bytes in `context.buffer`. Raises: `CorruptFile`."""
    try:
        with collector_paused():
            return _model(context, name, size)
    except WireError as error:
        where = ".".join(error.path)
        raise CorruptFile(
            f"{name} is not a valid ONNX file: {error.what} (byte {error.position})",
            where=where or None,
            remedy=_remedy(context),
        ) from None
    except IndexError:
        raise CorruptFile(
            f"{name} is not a valid ONNX file: it ends at byte {size}, in the middle of a field",
            remedy=_remedy(context),
        ) from None


def _remedy(context: Context) -> str:
    head = context.buffer[:64].lstrip()
    if head.startswith(b"version https://git-lfs"):
        return "it is a Git LFS pointer: git lfs pull"
    if head.startswith(b"<"):
        return "it is a web page: download the file itself"
    return "copy or export it again"


# --- ModelProto and FunctionProto --------------------------------------------------------------------------------

_BYTES, _NUMBER = frozenset((LEN,)), frozenset((VARINT,))
_MODEL = {**dict.fromkeys((2, 3, 4, 6, 7, 8, 14, 20, 25, 26), _BYTES), 1: _NUMBER, 5: _NUMBER}
_FUNCTION = dict.fromkeys((1, 4, 5, 6, 7, 8, 9, 10, 11, 12, 13, 14), _BYTES)
_OPSET = {1: _BYTES, 2: _NUMBER}


def _model(context: Context, name: str, size: int) -> ModelView:
    buffer = context.buffer
    found = wire.collect(buffer, 0, size, _MODEL)
    graphs = found.get(7, [])
    if len(graphs) != 1:
        raise WireError("it holds no graph" if not graphs else "it holds two graphs", 0)
    try:
        graph = read_graph(context, graphs[0][1], graphs[0][2], 0)
    except WireError as error:
        raise error.within("graph") from None
    functions = []
    for index, (_, start, stop, _) in enumerate(found.get(25, [])):
        try:
            functions.append(_function(context, start, stop))
        except WireError as error:
            raise error.within(f"functions[{index}]") from None
    return ModelView(
        name=name,
        ir_version=wire.integer(found, 1),
        opsets=_opsets(context, found.get(8, [])),
        producer=(wire.string(buffer, found, 2), wire.string(buffer, found, 3)),
        domain=wire.string(buffer, found, 4),
        version=wire.integer(found, 5),
        graph=graph,
        functions=tuple(functions),
        metadata=fields.entries(buffer[start:stop] for _, start, stop, _ in found.get(14, [])),
        trainings=len(found.get(20, [])),
    )


def _opsets(context: Context, spans: list[wire.Occurrence]) -> dict[str, int]:
    versions = {}
    for _, start, stop, _ in spans:
        found = wire.collect(context.buffer, start, stop, _OPSET)
        versions[domain_of(wire.string(context.buffer, found, 1))] = wire.integer(found, 2)
    return versions


def domain_of(text: str) -> str:
    """A domain, with one spelling for ONNX's own."""
    return "" if text == "ai.onnx" else text


def _function(context: Context, position: int, end: int) -> FunctionView:
    buffer = context.buffer
    found = wire.collect(buffer, position, end, _FUNCTION)
    draft = _Draft(wire.string(buffer, found, 1))
    for _, start, stop, _ in found.get(4, []):
        draft.inputs.append(draft.ids[buffer[start:stop]])
    for index, (_, start, stop, _) in enumerate(found.get(7, [])):
        _node_within(context, draft, start, stop, 0, index)
    for _, start, stop, _ in found.get(12, []):
        _value_info(context, draft, start, stop)
    for _, start, stop, _ in found.get(5, []):
        draft.outputs.append(draft.ids[buffer[start:stop]])
    draft.pairs.extend(buffer[start:stop] for _, start, stop, _ in found.get(14, []))
    return FunctionView(
        domain=domain_of(wire.string(buffer, found, 10)),
        name=draft.name,
        overload=wire.string(buffer, found, 13),
        attributes=tuple(wire.text(buffer, start, stop) for _, start, stop, _ in found.get(6, [])),
        defaults=tuple(fields.attribute(context, start, stop, 0) for _, start, stop, _ in found.get(11, [])),
        opsets=_opsets(context, found.get(9, [])),
        body=draft.view(position),
    )


# --- GraphProto --------------------------------------------------------------------------------------------------


class _Draft:
    """A graph while its messages come in; `ids` gives every new name the next number."""

    __slots__ = (
        "attributes", "domains", "ids", "initializers", "inputs", "makes", "metadata", "name", "names", "ops",
        "outputs", "overloads", "pairs", "reads", "sparse", "types",
    )  # fmt: skip

    def __init__(self, name: str = "") -> None:
        self.name = name
        self.ids: defaultdict[bytes, int] = defaultdict()
        self.ids.default_factory = self.ids.__len__
        self.ids[b""] = 0
        self.inputs: list[int] = []
        self.outputs: list[int] = []
        self.types: dict[int, TypeView] = {}
        self.initializers: list[WeightView] = []
        self.sparse: list[SparseView] = []
        self.ops: list[str] = []
        self.domains: list[str] = []
        self.names: list[bytes] = []
        self.reads: list[tuple[int, ...]] = []
        self.makes: list[tuple[int, ...]] = []
        self.attributes: list[tuple[AttributeView, ...]] = []
        self.overloads: dict[int, str] = {}
        self.metadata: dict[int, tuple[bytes, ...]] = {}
        self.pairs: list[bytes] = []

    def view(self, position: int) -> GraphView:
        """The graph as it stands; `position` is where it starts, for errors."""
        weights: dict[int, WeightView | SparseView] = {self.ids[w.name.encode()]: w for w in self.initializers}
        weights.update((self.ids[w.name.encode()], w) for w in self.sparse)
        if len(weights) < len(self.initializers) + len(self.sparse):
            raise WireError("two weights of one graph have the same name", position)
        producers = array("i", [-1]) * len(self.ids)
        for node in range(len(self.makes) - 1, -1, -1):
            for value in self.makes[node]:
                if value:
                    producers[value] = node
        return GraphView(
            name=self.name,
            values=_texts(self.ids, position),
            inputs=tuple(self.inputs),
            outputs=tuple(self.outputs),
            types=self.types,
            initializers=weights,
            ops=tuple(self.ops),
            domains=tuple(self.domains),
            names=_texts(self.names, position),
            reads=tuple(self.reads),
            makes=tuple(self.makes),
            attributes=tuple(self.attributes),
            overloads=self.overloads,
            producers=producers,
            metadata=fields.entries(self.pairs),
            node_metadata=self.metadata,
        )


def _texts(names: Iterable[bytes], position: int) -> tuple[str, ...]:
    try:
        return tuple([str(name, "utf-8") for name in names])
    except UnicodeDecodeError as error:
        raise WireError(f"a name that is not UTF-8: {error.object!r:.80}", position) from None


_GRAPH = frozenset((1, 2, 5, 10, 11, 12, 13, 14, 15, 16))


def read_graph(context: Context, position: int, end: int, depth: int) -> GraphView:
    """A GraphProto. Raises: `WireError`, `IndexError`."""
    if depth > MAX_NESTING:
        raise WireError(f"graphs are nested deeper than {MAX_NESTING}", position)
    buffer, begin = context.buffer, position
    draft = _Draft()
    inputs, outputs = draft.inputs, draft.outputs
    while position < end:
        tag, size, start = buffer[position], buffer[position + 1], position + 2
        if size > 0x7F:
            size += (buffer[start] << 7) - 0x80
            start += 1
        stop = start + size
        if size > 0x3FFF or tag > 0x7F or tag & 7 != LEN or stop > end:
            tag, start, stop, _ = wire.field(buffer, position, end)
        if tag == 0x0A:
            _node_within(context, draft, start, stop, depth, len(draft.ops))
        elif tag == 0x2A:
            draft.initializers.append(_weight(context, start, stop, len(draft.initializers)))
        elif tag == 0x6A:
            _value_info(context, draft, start, stop)
        elif tag == 0x5A:
            inputs.append(_value_info(context, draft, start, stop))
        elif tag == 0x62:
            outputs.append(_value_info(context, draft, start, stop))
        elif tag == 0x12:
            draft.name = wire.text(buffer, start, stop)
        elif tag == 0x7A:
            draft.sparse.append(fields.sparse(context, start, stop))
        elif tag == 0x82:
            draft.pairs.append(buffer[start:stop])
        elif tag not in (0x52, 0x72):  # documentation, quantisation annotations
            wire.unknown(tag, _GRAPH, position)
        position = stop
    return draft.view(begin)


def _weight(context: Context, start: int, stop: int, index: int) -> WeightView:
    try:
        return fields.tensor(context, start, stop)
    except WireError as error:
        raise error.within(f"initializer[{index}]") from None


_VALUE_INFO = frozenset((1, 2, 3, 4))


def _value_info(context: Context, draft: _Draft, position: int, end: int) -> int:
    """Take a ValueInfoProto's type into the draft; the id of its value."""
    buffer = context.buffer
    name, first, last = b"", 0, -1
    while position < end:
        tag, size, start = buffer[position], buffer[position + 1], position + 2
        if size > 0x7F:
            size += (buffer[start] << 7) - 0x80
            start += 1
        stop = start + size
        if size > 0x3FFF or tag > 0x7F or tag & 7 != LEN or stop > end:
            tag, start, stop, _ = wire.field(buffer, position, end)
        if tag == 0x0A:
            name = buffer[start:stop]
        elif tag == 0x12:
            first, last = start, stop
        elif tag not in (0x1A, 0x22):
            wire.unknown(tag, _VALUE_INFO, position)
        position = stop
    value = draft.ids[name]
    if last >= 0:
        known = context.types.get(buffer[first:last])
        draft.types[value] = known if known is not None else fields.type_of(context, first, last)
    return value


# --- NodeProto ---------------------------------------------------------------------------------------------------

_NODE = frozenset((1, 2, 3, 4, 5, 6, 7, 8, 9, 10))


def _node_within(context: Context, draft: _Draft, start: int, stop: int, depth: int, index: int) -> None:
    try:
        _node(context, draft, start, stop, depth)
    except WireError as error:
        raise error.within(f"node[{index}]") from None


def _node(context: Context, draft: _Draft, position: int, end: int, depth: int) -> None:
    """Take a NodeProto into the draft. The reader spends its time here."""
    buffer, ids = context.buffer, draft.ids
    reads: list[int] = []
    makes: list[int] = []
    attributes: list[AttributeView] = []
    metadata: list[bytes] = []
    name = op = domain = overload = b""
    while position < end:
        tag, size, start = buffer[position], buffer[position + 1], position + 2
        if size > 0x7F:
            size += (buffer[start] << 7) - 0x80
            start += 1
        stop = start + size
        if size > 0x3FFF or tag > 0x7F or tag & 7 != LEN or stop > end:
            tag, start, stop, _ = wire.field(buffer, position, end)
        if tag == 0x0A:
            reads.append(ids[buffer[start:stop]])
        elif tag == 0x12:
            makes.append(ids[buffer[start:stop]])
        elif tag == 0x1A:
            name = buffer[start:stop]
        elif tag == 0x22:
            op = buffer[start:stop]
        elif tag == 0x2A:
            attributes.append(_attribute(context, start, stop, depth))
        elif tag == 0x4A:
            metadata.append(buffer[start:stop])
        elif tag == 0x3A:
            domain = buffer[start:stop]
        elif tag == 0x42:
            overload = buffer[start:stop]
        elif tag not in (0x32, 0x52):  # documentation, device configurations
            wire.unknown(tag, _NODE, position)
        position = stop
    if overload:
        draft.overloads[len(draft.ops)] = _word(context, overload, position)
    if metadata:
        draft.metadata[len(draft.ops)] = tuple(metadata)
    draft.ops.append(_word(context, op, position))
    draft.domains.append(domain_of(_word(context, domain, position)) if domain else "")
    draft.names.append(name)
    draft.reads.append(tuple(reads))
    draft.makes.append(tuple(makes))
    draft.attributes.append(tuple(attributes))


def _attribute(context: Context, start: int, stop: int, depth: int) -> AttributeView:
    if stop - start > SHORT:
        return fields.attribute(context, start, stop, depth)
    key = context.buffer[start:stop]
    known = context.attributes.get(key)
    if known is None:
        known = context.attributes[key] = fields.attribute(context, start, stop, depth)
    return known


def _word(context: Context, text: bytes, position: int) -> str:
    """The name of an operator or a domain: a graph has few that differ."""
    known = context.words.get(text)
    if known is None:
        try:
            known = context.words[text] = str(text, "utf-8")
        except UnicodeDecodeError:
            raise WireError(f"a name that is not UTF-8: {text!r:.80}", position) from None
    return known
