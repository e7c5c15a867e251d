"""TensorFlow's and Keras' files, without TensorFlow: SavedModel, frozen GraphDef, `.keras`, Keras `.h5`.

Source of the field numbers: graph.proto, node_def.proto, attr_value.proto, meta_graph.proto, saved_model.proto and
types.proto of TensorFlow 2.21.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator
from pathlib import Path

from graphkit.analyze.inspection import Inspection, Stored, totals
from graphkit.capture import tf_file
from graphkit.errors import CorruptFile
from graphkit.shapes import Dim, Shape, TensorSpec
from graphkit.view import wire
from graphkit.view.wire import LEN, VARINT

_AGAIN = "copy or save it again"
_BYTES, _NUMBER = frozenset((LEN,)), frozenset((VARINT,))
_DTYPES = (
    "", "float32", "float64", "int32", "uint8", "int16", "int8", "string", "complex64", "int64", "bool", "int8",
    "uint8", "int32", "bfloat16", "int16", "uint16", "uint16", "complex128", "float16", "resource", "variant", "uint32",
    "uint64",
)  # fmt: skip
_NO_COST = ("cost and memory are those of its ONNX (graphkit convert)",)


def look_at(path: Path, head: bytes) -> Inspection | None:
    """What a file or folder of TensorFlow's is; None if it is none. Raises: `CorruptFile`, `FileMissing`,
    `UnknownFormat`."""
    kind = tf_file.kind_of_folder(path) if path.is_dir() else tf_file.kind_of_file(path, head)
    if kind in ("keras", "keras_h5"):
        from graphkit.analyze.keras_file import look_at as look_at_keras

        return look_at_keras(path, zipped=kind == "keras")
    try:
        if kind == "graph_def":
            return _graph_def(path)
        if kind == "saved_model":
            return _saved_model(path)
    except (wire.WireError, IndexError) as error:
        raise CorruptFile(
            f"{path.name} is damaged: {error or 'it ends in the middle of a field'}", remedy=_AGAIN
        ) from None
    return None


# --- GraphDef ----------------------------------------------------------------------------------------------------

_GRAPH = {1: _BYTES, 2: _BYTES}
_LIBRARY = {1: _BYTES}
_FUNCTION = {3: _BYTES}
_NODE = dict.fromkeys((1, 2, 3, 5), _BYTES)
_ENTRY = {1: _BYTES, 2: _BYTES}
_ATTRIBUTE = {6: _NUMBER, 7: _BYTES, 8: _BYTES}
_TENSOR = {1: _NUMBER, 2: _BYTES}
_NO_OUTPUT = frozenset(("Assert", "NoOp", "Print", "PrintV2", "Const", "Placeholder", "PlaceholderWithDefault"))


def _graph_def(path: Path) -> Inspection:
    data = path.read_bytes()
    nodes = list(_nodes(data, 0, len(data)))
    read = {reference.lstrip("^").partition(":")[0] for _, _, inputs, _ in nodes for reference in inputs}
    inputs = []
    stored = []
    for name, op, _, attributes in nodes:
        if op == "Placeholder":
            inputs.append(TensorSpec(name, *_type_and_shape(data, attributes)))
        if op == "Const" and "value" in attributes:
            stored.append(_constant(data, name, attributes["value"]))
    outputs = tuple(TensorSpec(name) for name, op, _, _ in nodes if name not in read and op not in _NO_OUTPUT)
    ranked = _ranked(Counter(op for _, op, _, _ in nodes) + _library(data, 0, len(data)))
    notes = ("outputs: the nodes that nothing reads", *_NO_COST)
    return Inspection(
        path.name,
        "frozen GraphDef",
        len(data),
        (),
        tuple(inputs),
        outputs,
        ranked,
        totals(stored),
        tuple(stored),
        notes,
    )


_Attributes = dict[str, tuple[int, int]]


def _nodes(data: bytes, start: int, stop: int, fields: int = 1) -> Iterator[tuple[str, str, list[str], _Attributes]]:
    """Name, operator, inputs and attributes of every NodeDef in a field of a message."""
    for _, first, last, _ in wire.collect(data, start, stop, {fields: _BYTES}).get(fields, ()):
        found = wire.collect(data, first, last, _NODE)
        inputs = [wire.text(data, a, b) for _, a, b, _ in found.get(3, ())]
        attributes = {}
        for _, a, b, _ in found.get(5, ()):
            pair = wire.collect(data, a, b, _ENTRY)
            if 2 in pair:
                attributes[wire.string(data, pair, 1)] = pair[2][-1][1:3]
        op = wire.string(data, found, 2)
        if not op:
            raise wire.WireError("a node without an operation", first)
        yield wire.string(data, found, 1), op, inputs, attributes


def _library(data: bytes, start: int, stop: int) -> Counter[str]:
    """Operators in the bodies of a graph's functions, each counted once."""
    found: Counter[str] = Counter()
    for _, a, b, _ in wire.collect(data, start, stop, _GRAPH).get(2, ()):
        for _, first, last, _ in wire.collect(data, a, b, _LIBRARY).get(1, ()):
            found.update(op for _, op, _, _ in _nodes(data, first, last, 3))
    return found


def _type_and_shape(data: bytes, attributes: _Attributes) -> tuple[str | None, Shape | None]:
    dtype: str | None = None
    shape: Shape | None = None
    if "dtype" in attributes:
        found = wire.collect(data, *attributes["dtype"], _ATTRIBUTE)
        dtype = dtype_of(wire.integer(found, 6))
    if "shape" in attributes:
        found = wire.collect(data, *attributes["shape"], _ATTRIBUTE)
        shape = shape_of(data, *found[7][-1][1:3]) if 7 in found else None
    return dtype, shape


def _constant(data: bytes, name: str, span: tuple[int, int]) -> Stored:
    found = wire.collect(data, *span, _ATTRIBUTE)
    if 8 not in found:
        raise wire.WireError(f"the constant `{name}` has no value", span[0])
    tensor = wire.collect(data, *found[8][-1][1:3], _TENSOR)
    shape = shape_of(data, *tensor[2][-1][1:3]) if 2 in tensor else ()
    dims = tuple(size for size in shape or () if isinstance(size, int))
    return Stored(name, dtype_of(wire.integer(tensor, 1)) or "unknown", dims)


def dtype_of(code: int) -> str | None:
    """The name of TensorFlow's `DataType` number."""
    return (_DTYPES[code % 100] or None) if 0 < code % 100 < len(_DTYPES) else None  # above 100: by reference


def shape_of(data: bytes, start: int, stop: int) -> Shape | None:
    """A TensorShapeProto; -1 is a size that is not known."""
    found = wire.collect(data, start, stop, {2: _BYTES, 3: _NUMBER})
    if wire.integer(found, 3):
        return None
    dims: list[Dim] = []
    for _, a, b, _ in found.get(2, ()):
        size = wire.integer(wire.collect(data, a, b, {1: _NUMBER}), 1)
        dims.append(None if size < 0 else size)
    return tuple(dims)


def _ranked(operators: Counter[str]) -> tuple[tuple[str, int], ...]:
    return tuple(sorted(operators.items(), key=lambda row: (-row[1], row[0])))


# --- SavedModel --------------------------------------------------------------------------------------------------

_META = dict.fromkeys((1, 2, 5), _BYTES)
_INFO = dict.fromkeys((4, 5), _BYTES)
_SIGNATURE = dict.fromkeys((1, 2), _BYTES)
_TENSOR_INFO = {1: _BYTES, 2: _NUMBER, 3: _BYTES}


def _saved_model(path: Path) -> Inspection:
    from graphkit.analyze import checkpoint

    versions = tf_file.versions_in(path)
    folder = path if (path / "saved_model.pb").is_file() else versions[-1]
    data = (folder / "saved_model.pb").read_bytes()
    metas = [span[1:3] for span in wire.collect(data, 0, len(data), {1: _NUMBER, 2: _BYTES}).get(2, ())]
    if not metas:
        raise CorruptFile(f"saved_model.pb in {folder.name} holds no graph", remedy=_AGAIN)
    tags = [_tags(data, *meta) for meta in metas]
    chosen = next((at for at, (names, _) in enumerate(tags) if "serve" in names), 0)
    found = wire.collect(data, *metas[chosen], _META)
    graph = found[2][-1][1:3] if 2 in found else (0, 0)
    operators = Counter(op for _, op, _, _ in _nodes(data, *graph)) + _library(data, *graph)
    signatures = dict(_signature(data, a, b) for _, a, b, _ in found.get(5, ()))
    shown = [name for name in signatures if not name.startswith("__saved_model")]
    main = "serving_default" if "serving_default" in shown else shown[0] if shown else None
    facts = [("TensorFlow", tags[chosen][1] or "unknown"), ("tags", ", ".join(tags[chosen][0]))]
    facts += [("version", folder.name)] * bool(versions and folder != path)
    facts += [("signatures", ", ".join(shown) or "none")]
    inputs, outputs = signatures[main] if main is not None else (None, None)
    stored, problem = checkpoint.tensors(folder / "variables" / "variables.index")
    notes = [f"weights: {problem}"] * (problem is not None)
    notes.append("operators of the whole graph, those that save and restore it included")
    size = sum(file.stat().st_size for file in folder.rglob("*") if file.is_file())
    return Inspection(
        path.name, "SavedModel", size, tuple(facts), inputs, outputs, _ranked(operators),
        totals(stored) if problem is None else None, stored, (*notes, *_NO_COST),
    )  # fmt: skip


def _tags(data: bytes, start: int, stop: int) -> tuple[list[str], str]:
    meta = wire.collect(data, start, stop, _META)
    if 1 not in meta:
        return [], ""
    info = wire.collect(data, *meta[1][-1][1:3], _INFO)
    return [wire.text(data, a, b) for _, a, b, _ in info.get(4, ())], wire.string(data, info, 5)


_Sides = tuple[tuple[TensorSpec, ...], tuple[TensorSpec, ...]]


def _signature(data: bytes, start: int, stop: int) -> tuple[str, _Sides]:
    pair = wire.collect(data, start, stop, _ENTRY)
    content = wire.collect(data, *pair[2][-1][1:3], _SIGNATURE) if 2 in pair else {}
    sides = []
    for number in (1, 2):
        specs = []
        for _, a, b, _ in content.get(number, ()):
            entry = wire.collect(data, a, b, _ENTRY)
            info = wire.collect(data, *entry[2][-1][1:3], _TENSOR_INFO) if 2 in entry else {}
            shape = shape_of(data, *info[3][-1][1:3]) if 3 in info else None
            specs.append(TensorSpec(wire.string(data, entry, 1), dtype_of(wire.integer(info, 2)), shape))
        sides.append(tuple(sorted(specs, key=lambda spec: spec.name)))
    return wire.string(data, pair, 1), (sides[0], sides[1])
