"""A `.tflite` file as plain values, each checked, before any native code sees it.

The schema: https://github.com/tensorflow/tensorflow/blob/v2.21.0/tensorflow/compiler/mlir/lite/schema/schema.fbs
"""

from __future__ import annotations

import math
import mmap
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from graphkit.capture.tflite_flatbuffer import FlatBuffer, Table
from graphkit.errors import CorruptFile

IDENTIFIER = b"TFL3"

CUSTOM = 32
_SEE_BUILTIN_CODE = 127
_SUBGRAPHS_OF = {16: (0,), 92: (0, 1), 93: (0, 1), 103: (0,)}
"""Type of an operator's options -> fields that number a subgraph: Call, If (then, else), While (condition, body),
CallOnce."""

_DTYPES = (
    "float32", "float16", "int32", "uint8", "int64", "string", "bool", "int16", "complex64", "int8", "float64",
    "complex128", "uint64", "resource", "variant", "uint32", "uint16", "int4", "bfloat16", "int2", "uint4",
)  # fmt: skip
_BITS = {
    "float32": 32, "float16": 16, "int32": 32, "uint8": 8, "int64": 64, "bool": 8, "int16": 16, "complex64": 64,
    "int8": 8, "float64": 64, "complex128": 128, "uint64": 64, "uint32": 32, "uint16": 16, "int4": 4, "bfloat16": 16,
    "int2": 2, "uint4": 4,
}  # fmt: skip

_MOST_ELEMENTS = 1 << 33


@dataclass(frozen=True, slots=True)
class Tensor:
    """A tensor of a subgraph.

    Attributes:
        name: As in the file; neither present nor unique by necessity.
        dtype: Name as in numpy; `string`, `resource` and `variant` too.
        shape: With -1 where the size is free.
        constant: Whether the file holds its values.
        variable: Whether it keeps its values between runs.
        scales: How it is quantised: one scale, one per index of a dimension, or none.
    """

    name: str
    dtype: str
    shape: tuple[int, ...]
    constant: bool
    variable: bool
    scales: tuple[float, ...]


@dataclass(frozen=True, slots=True)
class Operator:
    """An operator.

    Attributes:
        code: Its number in the schema.
        custom: The name of a custom operator, else empty.
        inputs, outputs: Tensors of its subgraph by index, -1 for one left out.
        subgraphs: Bodies that it runs, by index.
    """

    code: int
    custom: str
    inputs: tuple[int, ...]
    outputs: tuple[int, ...]
    subgraphs: tuple[int, ...]


@dataclass(frozen=True, slots=True)
class Subgraph:
    """A graph; the first one of a file is the model, the others are bodies of its branches and loops, or signatures."""

    tensors: tuple[Tensor, ...]
    inputs: tuple[int, ...]
    outputs: tuple[int, ...]
    operators: tuple[Operator, ...]


@dataclass(frozen=True, slots=True)
class SignatureDef:
    """A named entry: public names of the inputs and outputs of one subgraph."""

    key: str
    subgraph: int
    inputs: tuple[tuple[str, int], ...]
    outputs: tuple[tuple[str, int], ...]


@dataclass(frozen=True, slots=True)
class TFLiteFile:
    """What a `.tflite` file holds, without the weights."""

    subgraphs: tuple[Subgraph, ...]
    signatures: tuple[SignatureDef, ...]


def read(path: Path) -> TFLiteFile:
    """Read a `.tflite` file; weights are not read, but their sizes are checked.

    Raises:
        CorruptFile: it is truncated or damaged, or it refers to what is not there.
    """
    with path.open("rb") as file:
        if file.read(8)[4:] != IDENTIFIER:
            raise CorruptFile(f"{path.name} is no TFLite file: bytes 4 to 8 are not TFL3")
        with mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ) as data:
            return _model(FlatBuffer(data, path.name))


def _model(buffer: FlatBuffer) -> TFLiteFile:
    root = buffer.root()
    version = root.scalar(0, "I")
    if version != 3:
        raise buffer.corrupt(f"its schema has version {version}, TFLite's is 3")
    codes = [_operator_code(t) for t in root.tables(1, "operator code")]
    sizes = [_buffer_size(t) for t in root.tables(4, "buffer")]
    tables = root.tables(2, "subgraph")
    if not tables:
        raise buffer.corrupt("it holds no graph")
    subgraphs = tuple(_subgraph(t, codes, sizes, len(tables)) for t in tables)
    signatures = tuple(_signature(t, subgraphs) for t in root.tables(7, "signature"))
    return TFLiteFile(subgraphs, signatures)


def _operator_code(table: Table) -> tuple[int, str]:
    """The old field is a byte; where that is too small, it says so."""
    old, new = table.scalar(0, "b"), table.scalar(3, "i")
    code = new if old == _SEE_BUILTIN_CODE else max(old, new)
    if code < 0:
        raise table.buffer.corrupt(f"{table.what} is {code}")
    return code, table.text(1) if code == CUSTOM else ""


def _buffer_size(table: Table) -> int:
    """Bytes of a buffer; above 2 GB they stand behind the FlatBuffer, where offset and size say."""
    offset, size = table.scalar(1, "Q"), table.scalar(2, "Q")
    if offset > 1:  # 0 and 1 stand for none
        if offset + size > len(table.buffer.data):
            raise table.buffer.corrupt(f"{table.what} ends behind the file")
        return size
    return table.extent_of(0)


def _subgraph(table: Table, codes: list[tuple[int, str]], sizes: list[int], count: int) -> Subgraph:
    tensors = tuple(_tensor(t, sizes) for t in table.tables(0, f"tensor in {table.what},"))
    inputs, outputs = table.numbers(1, "i"), table.numbers(2, "i")
    _check_indices(table, inputs, len(tensors), 0)
    _check_indices(table, outputs, len(tensors), 0)
    operators = tuple(_operator(t, codes, len(tensors), count) for t in table.tables(3, f"operator in {table.what},"))
    subgraph = Subgraph(tensors, inputs, outputs, operators)
    _check_order(table, subgraph)
    return subgraph


def _tensor(table: Table, sizes: list[int]) -> Tensor:
    shape, signature = table.numbers(0, "i"), table.numbers(7, "i")
    kind, position, name = table.scalar(1, "b"), table.scalar(2, "I"), table.text(3)
    told = f"{table.what} `{name}`"
    if not 0 <= kind < len(_DTYPES):
        raise table.buffer.corrupt(f"{told} has a type of number {kind}")
    if position >= len(sizes):
        raise table.buffer.corrupt(f"{told} refers to buffer {position} of {len(sizes)}")
    if min(shape, default=0) < 0 or min(signature, default=0) < -1 or math.prod(shape) > _MOST_ELEMENTS:
        raise table.buffer.corrupt(f"{told} has the shape {list(signature or shape)}")
    if signature and len(signature) != len(shape):
        raise table.buffer.corrupt(f"{told} has the shapes {list(shape)} and {list(signature)}")
    dtype, size = _DTYPES[kind], sizes[position]
    dense = table.table(6, "a sparsity") is None and dtype in _BITS
    if size and dense and size != -(-math.prod(shape) * _BITS[dtype] // 8):
        raise table.buffer.corrupt(f"{told} is {dtype}{list(shape)} and has {size} bytes")
    scales = _scales(table, told, shape)
    return Tensor(name, dtype, signature or shape, size > 0, bool(table.scalar(5, "b")), scales)


def _scales(table: Table, told: str, shape: tuple[int, ...]) -> tuple[float, ...]:
    quantisation = table.table(4, f"the quantisation of {told}")
    if quantisation is None:
        return ()
    scales, zeros = quantisation.numbers(2, "f"), quantisation.numbers(3, "q")
    axis = quantisation.scalar(6, "i")
    if not all(math.isfinite(s) and s >= 0 for s in scales):
        raise table.buffer.corrupt(f"{told} has a scale that is negative or not finite")
    along = shape[axis] if 0 <= axis < len(shape) else None
    if len(scales) > 1 and (len(scales) != along or len(zeros) not in (0, 1, len(scales))):
        raise table.buffer.corrupt(f"{told} of shape {list(shape)} has {len(scales)} scales along dimension {axis}")
    return scales


def _operator(table: Table, codes: list[tuple[int, str]], tensors: int, subgraphs: int) -> Operator:
    index = table.scalar(0, "I")
    if index >= len(codes):
        raise table.buffer.corrupt(f"{table.what} refers to operator code {index} of {len(codes)}")
    inputs, outputs = table.numbers(1, "i"), table.numbers(2, "i")
    _check_indices(table, inputs, tensors, -1)
    _check_indices(table, outputs, tensors, -1)
    options = table.table(4, f"the options of {table.what}")
    fields = _SUBGRAPHS_OF.get(table.scalar(3, "B"), ())
    bodies = tuple(options.scalar(field, "i") for field in fields) if options is not None else ()
    if not all(0 < body < subgraphs for body in bodies):
        raise table.buffer.corrupt(f"{table.what} refers to a subgraph that is not there")
    table.extent_of(5)
    return Operator(*codes[index], inputs, outputs, bodies)


def _signature(table: Table, subgraphs: tuple[Subgraph, ...]) -> SignatureDef:
    index = table.scalar(4, "I")
    if index >= len(subgraphs):
        raise table.buffer.corrupt(f"{table.what} refers to subgraph {index} of {len(subgraphs)}")
    graph = subgraphs[index]
    inputs, outputs = (tuple(_named(t) for t in table.tables(f, f"name in {table.what},")) for f in (0, 1))
    for named, own in ((inputs, graph.inputs), (outputs, graph.outputs)):
        names = [n for n, _ in named]
        if {i for _, i in named} != set(own) or len(set(names)) != len(names) or not all(names):
            raise table.buffer.corrupt(f"the names in {table.what} are not those of its subgraph")
    return SignatureDef(table.text(2), index, inputs, outputs)


def _named(table: Table) -> tuple[str, int]:
    return table.text(0), table.scalar(1, "I")


def _check_indices(table: Table, indices: tuple[int, ...], count: int, least: int) -> None:
    wrong = next((i for i in indices if not least <= i < count), None)
    if wrong is not None:
        raise table.buffer.corrupt(f"{table.what} refers to tensor {wrong} of {count}")


def _check_order(table: Table, subgraph: Subgraph) -> None:
    """Operators run in their order, so each may read only what is there by then."""
    known = {i for i, t in enumerate(subgraph.tensors) if t.constant or t.variable} | {-1, *subgraph.inputs}
    for position, operator in enumerate(subgraph.operators):
        early = next((i for i in operator.inputs if i not in known and not _is_empty(subgraph.tensors[i])), None)
        if early is not None:
            raise table.buffer.corrupt(
                f"operator {position} in {table.what} reads tensor {early}, which nothing has made"
            )
        known.update(operator.outputs)
    unmade = next((i for i in subgraph.outputs if i not in known and not _is_empty(subgraph.tensors[i])), None)
    if unmade is not None:
        raise table.buffer.corrupt(f"{table.what} returns tensor {unmade}, which nothing has made")


def _is_empty(tensor: Tensor) -> bool:
    """A constant without elements has no bytes either."""
    return 0 in tensor.shape


def public_names(file: TFLiteFile, signature: SignatureDef | None) -> Iterator[str]:
    """Names of the inputs, then of the outputs, of the signature's subgraph, in its own order."""
    graph = file.subgraphs[signature.subgraph if signature else 0]
    for indices, named in ((graph.inputs, signature.inputs if signature else ()),
                           (graph.outputs, signature.outputs if signature else ())):  # fmt: skip
        names = {index: name for name, index in named}
        for index in indices:
            yield names.get(index) or graph.tensors[index].name or f"tensor_{index}"
