"""The one object that flows from capture to engine: an ONNX graph, and where it came from.

`Model` owns an `onnx_ir.Model`: weights stay where they are (inline bytes, or memory-mapped external data) until
somebody asks for one. Protobuf is made only at the edges, for ONNX Runtime, onnxsim and TensorRT.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterable, Iterator
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from graphkit import atomic
from graphkit.errors import CorruptFile, FileMissing, UnsafePath
from graphkit.shapes import DimRange, Signature, TensorSpec
from graphkit.traversal import graphs_of, nodes_of

if TYPE_CHECKING:
    import onnx
    import onnx_ir
    import onnx_ir as ir

INLINE_LIMIT = 1_500_000_000
"""Bytes of weights above which they go to a file of their own: protobuf ends at 2 GiB, and tools copy on the way."""

_ALWAYS_INLINE = 128
"""Bytes of a weight that stays in the graph: shape inference reads small ones, and ONNX Runtime 1.32 does not load a
Reshape whose shape lies in a file."""

_ORIGIN_KEY = "graphkit.origin"
_DIMS_KEY = "graphkit.dims"
_TOGETHER = "put the weights, as a plain file, into the model's folder"
_SOURCE_KEY = "graphkit.source"


@dataclass(frozen=True, slots=True)
class SourceLine:
    """A place in the user's own code.

    Attributes:
        module: Path of the module inside the model (`encoder.layers.0.linear1`), "" for the model itself.
        file: File name as the user knows it: relative to the working directory, or package and file.
        line: Line number, from 1.
        function: `forward`, `Gate.forward`.
    """

    module: str = ""
    file: str | None = None
    line: int | None = None
    function: str | None = None

    def __str__(self) -> str:
        parts = []
        if self.file:
            parts.append(f"{self.file}:{self.line}")
        if self.function:
            parts.append(f"in {self.function}")
        if self.module:
            parts.append(f"(module `{self.module}`)" if parts else f"module `{self.module}`")
        return " ".join(parts)


@dataclass(frozen=True, slots=True)
class Finding:
    """Something a user should know about a capture or a build that did not stop it."""

    code: str
    message: str
    where: str | None = None
    remedy: str | None = None

    def __str__(self) -> str:
        return self.message + (f" at {self.where}" if self.where else "")

    def to_json(self) -> dict[str, Any]:
        return asdict(self)


@dataclass(frozen=True, slots=True)
class Rung:
    """One way of capturing that was tried: its name, and why it was left (None where it succeeded)."""

    name: str
    failure: str | None = None


@dataclass(frozen=True, slots=True)
class Origin:
    """What a model came from.

    Attributes:
        kind: `torch module`, `torchscript archive`, `onnx file`, ...
        name: File name or `package.module:callable`; never an absolute path, which would differ between machines.
        sha256: Digest of the source file, None for a Python object.
        versions: Versions of the framework and exporter.
        rungs: The ways of capturing that were tried, the last one being the one that made this model.
        findings: What capture noticed.
        steps: What was done to the graph since, in order: `onnxsim 0.8.1`.
        sizes: Size of each symbolic dimension in the run that was captured.
    """

    kind: str
    name: str = ""
    sha256: str | None = None
    versions: dict[str, str] = field(default_factory=dict)
    rungs: tuple[Rung, ...] = ()
    findings: tuple[Finding, ...] = ()
    steps: tuple[str, ...] = ()
    sizes: dict[str, int] = field(default_factory=dict)

    def to_json(self) -> dict[str, Any]:
        return json.loads(json.dumps(asdict(self)))  # type: ignore[no-any-return]

    @classmethod
    def from_json(cls, data: dict[str, Any]) -> Origin:
        return cls(
            kind=data["kind"],
            name=data["name"],
            sha256=data["sha256"],
            versions=dict(data["versions"]),
            rungs=tuple(Rung(**r) for r in data["rungs"]),
            findings=tuple(Finding(**f) for f in data["findings"]),
            steps=tuple(data["steps"]),
            sizes=dict(data["sizes"]),
        )


@dataclass(frozen=True, slots=True)
class Model:
    """An ONNX graph with its origin and the ranges its dimensions may take.

    Attributes:
        ir: The graph. Treat it as a value: a stage that changes a graph makes a new one.
        origin: What it came from.
        dims: Declared ranges of symbolic dimensions; a symbol without one is unbounded.
    """

    ir: onnx_ir.Model
    origin: Origin
    dims: tuple[DimRange, ...] = ()

    @property
    def signature(self) -> Signature:
        """Inputs (without initializers) and outputs, with dtypes and symbolic shapes."""
        initializers = self.ir.graph.initializers
        inputs = (v for v in self.ir.graph.inputs if v.name not in initializers)
        return Signature(tuple(map(_spec, inputs)), tuple(map(_spec, self.ir.graph.outputs)))

    @property
    def opset(self) -> int:
        """Version of the default ONNX operator set."""
        return self.ir.opset_imports.get("", 0)

    @property
    def node_count(self) -> int:
        """Number of nodes, those of subgraphs and functions included."""
        graphs = [self.ir.graph, *(f.graph for f in self.ir.functions.values())]
        return sum(1 for graph in graphs for _ in nodes_of(graph))

    @property
    def weight_bytes(self) -> int:
        """Bytes of all initializers, subgraphs included; reads none of them."""
        return sum(t.nbytes for t in _weights(self.ir))

    def with_step(self, step: str, graph: onnx_ir.Model) -> Model:
        """This model with another graph, and one more step in its origin."""
        return replace(self, ir=graph, origin=replace(self.origin, steps=(*self.origin.steps, step)))

    def save(self, path: Path | str, *, durable: bool = True) -> list[Path]:
        """Write the model, whole or not at all; returns the files written, the `.onnx` first.

        Args:
            path: The `.onnx` file.
            durable: Whether the file must survive a crash; a temporary one need not, and is written faster.

        Weights go inline below `INLINE_LIMIT`, and above into one file beside the model, named after its content.
        The `.onnx` is replaced last, so that a killed run never pairs an old graph with new weights.

        Raises:
            CannotWrite: the folder is missing or read-only.
        """
        from graphkit.view.reader import collector_paused

        path = Path(path)
        if self.weight_bytes < INLINE_LIMIT:
            with collector_paused():
                data = self.to_proto().SerializeToString(deterministic=True)
            if durable:
                atomic.write_bytes(path, data)
            else:
                path.write_bytes(data)
            return [path]
        return _save_external(self, path, durable=durable)

    def to_proto(self) -> onnx.ModelProto:
        """The model as protobuf with every weight inline, metadata included. Copies the weights."""
        import onnx_ir as ir

        graph = self.ir
        if any(isinstance(t, ir.ExternalTensor) for t in _weights(graph)):
            graph = ir.external_data.load_to_model(graph.clone())
        return self._serialise(graph)

    def _serialise(self, graph: onnx_ir.Model) -> onnx.ModelProto:
        import onnx_ir as ir

        proto = ir.to_proto(graph)
        _write_metadata(proto, self)
        return proto


def load(path: Path | str) -> Model:
    """Read an `.onnx` file: one that graphkit wrote comes back with its origin and ranges.

    Weights in external files are mapped, not read.

    Raises:
        FileMissing, CorruptFile: there is no such file, or it is not ONNX.
        UnsafePath: external data lies outside the model's folder, or behind a link.
    """
    import onnx
    import onnx_ir as ir
    from google.protobuf.message import DecodeError

    path = Path(path)
    if not path.is_file():
        raise FileMissing(f"no such file: {path}")
    try:
        graph = ir.from_proto(onnx.load(path, load_external_data=False))
    except (DecodeError, ir.serde.SerdeError, ValueError, UnicodeDecodeError) as error:
        raise CorruptFile(
            f"{path.name} is not a valid ONNX file: {_first_line(error)}", remedy="copy or export it again"
        ) from error
    _find_external_data(graph, path.parent)
    metadata = graph.metadata_props
    origin_text = metadata.pop(_ORIGIN_KEY, None)
    dims_text = metadata.pop(_DIMS_KEY, None)
    origin = (
        Origin.from_json(json.loads(origin_text))
        if origin_text
        else Origin("onnx file", path.name, file_sha256(path), _producer(graph))
    )
    dims = tuple(DimRange(s, *r) for s, r in json.loads(dims_text).items()) if dims_text else ()
    return Model(graph, origin, dims)


def _find_external_data(graph: ir.Model, folder: Path) -> None:
    """Look for external data in `folder`, and refuse what is not a plain file inside.

    Raises:
        UnsafePath: an absolute path, `..`, a link, a hard link or a special file.
        FileMissing: the file is not there, or is shorter than the tensors in it.
    """
    import onnx_ir as ir

    sizes: dict[str, int] = {}
    for tensor in _weights(graph):
        if not isinstance(tensor, ir.ExternalTensor):
            continue
        tensor.base_dir = folder
        location = str(tensor.location)
        if location not in sizes:
            sizes[location] = size_inside(location, folder, str(tensor.name))
        end = (tensor.offset or 0) + (tensor.length if tensor.length is not None else tensor.nbytes)
        if end > sizes[location]:
            raise CorruptFile(
                f"{location} holds {sizes[location]} bytes, but weight `{tensor.name}` ends at byte {end}",
                remedy="copy the weights file again: it was cut off",
            )


def size_inside(location: str, folder: Path, tensor: str) -> int:
    """Bytes of an external weights file; raises `UnsafePath` or `FileMissing` unless it is a plain file in `folder`."""
    parts = Path(location).parts
    if "\0" in location or Path(location).is_absolute() or ".." in parts or not parts:
        raise UnsafePath(f"weight `{tensor}` lies outside the model's folder: {location!r}", remedy=_TOGETHER)
    target = folder.joinpath(location)
    for step in (target, *target.parents):
        if step == folder:
            break
        if step.is_symlink():
            raise UnsafePath(f"weight `{tensor}` lies behind a link: {location!r}", remedy=_TOGETHER)
    if not target.exists():
        raise FileMissing(f"the weights file {location!r} is missing", remedy="put it beside the .onnx file")
    status = target.stat()
    if not target.is_file() or status.st_nlink > 1:
        raise UnsafePath(f"weight `{tensor}` lies in a special or linked file: {location!r}", remedy=_TOGETHER)
    return status.st_size


def provenance(node: ir.Node) -> tuple[SourceLine, ...]:
    """Where in the user's code a node comes from; a fused node has the union of what it replaced."""
    text = node.metadata_props.get(_SOURCE_KEY)
    return tuple(SourceLine(*entry) for entry in json.loads(text)) if text else ()


def set_provenance(node: ir.Node, lines: Iterable[SourceLine]) -> None:
    """Record where a node comes from, in the node's own metadata, so that it survives on disk."""
    unique = list(dict.fromkeys(lines))
    if unique:
        entries = [[e.module, e.file, e.line, e.function] for e in unique]
        node.metadata_props[_SOURCE_KEY] = json.dumps(entries, separators=(",", ":"))
    else:
        node.metadata_props.pop(_SOURCE_KEY, None)


def file_sha256(path: Path) -> str:
    """Digest of a file, read in pieces."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


# --- protobuf at the edges ---------------------------------------------------------------------------------------


def _spec(value: ir.Value) -> TensorSpec:
    import onnx_ir as ir

    dtype = _dtype_name(value.dtype) if value.dtype is not None else None
    if value.shape is None:
        return TensorSpec(value.name or "", dtype, None)
    dims = tuple(d if isinstance(d, int) else (d.value if isinstance(d, ir.SymbolicDim) else None) for d in value.shape)
    return TensorSpec(value.name or "", dtype, dims)


_DTYPE_NAMES = {"FLOAT": "float32", "DOUBLE": "float64"}


def _dtype_name(dtype: ir.DataType) -> str:
    return _DTYPE_NAMES.get(dtype.name, dtype.name.lower())


def _weights(graph: ir.Model) -> Iterator[ir.TensorProtocol]:
    """Every tensor that a model stores: initializers and attribute values, in subgraphs and functions too."""
    import onnx_ir as ir

    outer = [graph.graph, *(f.graph for f in graph.functions.values())]
    for each in (g for o in outer for g in graphs_of(o)):
        for value in each.initializers.values():
            if value.const_value is not None:
                yield value.const_value
    one, many = ir.AttributeType.TENSOR, ir.AttributeType.TENSORS
    for node in (n for o in outer for n in nodes_of(o)):
        for attribute in node.attributes.data.values():
            kind = attribute.type
            if kind == one and attribute.value is not None:
                yield attribute.value
            elif kind == many:
                yield from attribute.value


def _write_metadata(proto: onnx.ModelProto, model: Model) -> None:
    values = {_ORIGIN_KEY: json.dumps(model.origin.to_json(), sort_keys=True)}
    if model.dims:
        values[_DIMS_KEY] = json.dumps({d.symbol: [d.min, d.opt, d.max] for d in model.dims})
    kept = [p for p in proto.metadata_props if p.key not in values]
    del proto.metadata_props[:]
    proto.metadata_props.extend(kept)
    for key, value in values.items():
        proto.metadata_props.add(key=key, value=value)


def _save_external(model: Model, path: Path, *, durable: bool) -> list[Path]:
    from graphkit import weights_file

    graph = model.ir.clone()
    data_path = weights_file.unload(graph, path, more_than=_ALWAYS_INLINE, durable=durable)
    atomic.write_bytes(path, model._serialise(graph).SerializeToString(deterministic=True), durable=durable)
    return [path, data_path]


def _producer(graph: ir.Model) -> dict[str, str]:
    return {graph.producer_name: graph.producer_version or ""} if graph.producer_name else {}


def _first_line(error: BaseException) -> str:
    return (str(error).strip().splitlines() or [type(error).__name__])[0]
