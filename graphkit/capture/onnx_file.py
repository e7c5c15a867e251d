"""An `.onnx` file as a Source: checked before anything native sees it, then taken as it is."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from graphkit import marks
from graphkit.capture.options import NONE, refuse_others
from graphkit.capture.request import CaptureRequest, Source, check_dims
from graphkit.capture.torch_names import learn_provenance
from graphkit.errors import (
    CorruptFile,
    FrozenDimension,
    OpsetNotHonoured,
    ShapeMismatch,
    UnknownName,
)
from graphkit.model import Model, load
from graphkit.shapes import Dim, TensorSpec, free_symbols
from graphkit.traversal import nodes_of

if TYPE_CHECKING:
    import onnx_ir as ir

_MAX_EXPANDED_NODES = 1_000_000  # of model-local functions: 31 nested ones reach 2^30 nodes from a 2 kB file


def read(path: Path | str, request: CaptureRequest | None = None) -> Model:
    """The model in an ONNX file, checked, with a name for every free dimension of its inputs, and within the standard:
    marks for TensorRT (`graphkit.marks`) are taken off.

    Args:
        path: The file.
        request: Shapes and ranges of its inputs, where they are to be others than the file's own.

    Raises: as `graphkit.model.load`, and `CorruptFile` where the graph is none; as `Source.capture` for the request.
    """
    model = OnnxSource(Path(path)).capture(request or CaptureRequest())
    marks.take_off(model.ir)
    return model


def recognise(path: Path, head: bytes, request: CaptureRequest) -> Source | None:
    """The source for a file whose first bytes may be a ModelProto: field 1 (`ir_version`) or another known field.

    The wire format has no magic number; the rest of the file decides whether it is one.
    """
    del request
    fields = {1: 0, 2: 2, 3: 2, 4: 2, 5: 0, 6: 2, 7: 2, 8: 2, 14: 2, 20: 2, 25: 2}
    return OnnxSource(path) if fields.get(head[0] >> 3) == head[0] & 7 else None


class OnnxSource:
    """An ONNX file."""

    def __init__(self, path: Path) -> None:
        self.name = path.name
        self.options = NONE
        self._path = path

    def capture(self, request: CaptureRequest) -> Model:
        """Load and check the file; see `Source.capture`."""
        refuse_others(request, self.options, f"{self.name}, an ONNX graph")
        model = load(self._path)
        _check(model.ir, self.name)
        _sort(model.ir, self.name)
        learn_provenance(model.ir)
        if request.opset is not None and model.opset != request.opset:
            raise OpsetNotHonoured(
                f"{self.name} is at opset {model.opset}; opset {request.opset} was asked for",
                remedy="export the model again at that opset",
            )
        model = replace(model, ir=_named(model, request), dims=request.dims or model.dims)
        check_dims(model.dims, model.signature.inputs)
        return model


def _check(model: ir.Model, name: str) -> None:
    if not list(model.graph.outputs) or not model.opset_imports:
        raise CorruptFile(f"{name} holds no ONNX graph: it has no outputs or no opset", remedy="export it again")
    if not 3 <= (model.ir_version or 0) <= 100:
        raise CorruptFile(f"{name} has IR version {model.ir_version}, which no ONNX release has")
    _check_functions(model, name)
    for node in nodes_of(model.graph):
        for value in node.inputs:
            if value is not None and value.producer() is None and value.graph is None:
                raise CorruptFile(
                    f"{name}: node `{node.name or node.op_type}` reads `{value.name}`, which nothing makes",
                    remedy="export it again; a weight that is stored as a sparse initializer has to become a dense one",
                )


def _sort(model: ir.Model, name: str) -> None:
    """Nodes behind those that they read from, as the specification wants them; some exporters leave that to others."""
    seen: set[ir.Node] = set()
    for node in model.graph:
        makers = (value.producer() for value in node.inputs if value is not None)
        if any(maker is not None and maker.graph is model.graph and maker not in seen for maker in makers):
            break
        seen.add(node)
    else:
        return
    try:
        model.graph.sort()
    except ValueError as error:
        raise CorruptFile(f"{name} has a cycle: a node reads its own result", remedy="export it again") from error


def _check_functions(model: ir.Model, name: str) -> None:
    """Model-local functions must not call themselves, nor expand to more nodes than any real model has."""
    sizes: dict[Any, int] = {}
    pending: set[Any] = set()

    def size(key: Any) -> int:
        if key in pending:
            raise CorruptFile(f"{name}: function `{key[1]}` calls itself", remedy="export the model again")
        if key not in sizes:
            pending.add(key)
            sizes[key] = sum(_node_size(n, size, model) for n in model.functions[key].all_nodes())
            pending.discard(key)
        return sizes[key]

    total = sum(_node_size(n, size, model) for n in nodes_of(model.graph)) if model.functions else 0
    if total > _MAX_EXPANDED_NODES and model.functions:
        raise CorruptFile(f"{name}: its functions expand to {total:.3g} nodes; the limit is {_MAX_EXPANDED_NODES:,}")


def _node_size(node: ir.Node, size: Any, model: ir.Model) -> int:
    key = node.op_identifier()
    return int(size(key)) if key in model.functions else 1


def _named(model: Model, request: CaptureRequest) -> ir.Model:
    """The graph with its input dimensions named as asked; unnamed free ones by position.

    Raises:
        UnknownName, ShapeMismatch, FrozenDimension
    """
    import onnx_ir as ir

    asked = {s.name: s for s in request.shapes}
    known = {t.name: t for t in model.signature.inputs}
    unknown = next((n for n in (*asked, *(s.name for s in request.samples)) if n not in known), None)
    if unknown is not None:
        raise UnknownName(f"the model has no input called `{unknown}`", remedy=f"its inputs: {', '.join(known)}")
    graph = model.ir  # just read: nobody else has it
    renamed: dict[str, str | int] = {}
    for value in graph.graph.inputs:
        if value.name in known:
            wanted = tuple(_wanted(known[value.name], asked.get(value.name)))
            for old, new in zip(known[value.name].shape or (), wanted, strict=False):
                if isinstance(old, str) and _is_symbol(old) and new is not None:
                    renamed[old] = new
            if wanted or known[value.name].shape is not None:
                value.shape = ir.Shape(wanted)
    for value in graph.graph.outputs:
        if value.shape is not None:
            value.shape = ir.Shape([_output_dim(d, renamed) for d in value.shape])
    return graph


def _output_dim(dim: Any, renamed: dict[str, str | int]) -> Dim:
    value = _free_or_fixed(dim if isinstance(dim, int) else dim.value)
    return renamed.get(value, value) if isinstance(value, str) else value


def _free_or_fixed(dim: Dim) -> Dim:
    """Some exporters write a free dimension as -1 (Paddle) or as `?`: neither says that two of them are equal."""
    return None if (isinstance(dim, int) and dim < 0) or (isinstance(dim, str) and not _is_symbol(dim)) else dim


def _is_symbol(dim: str) -> bool:
    return all(s.isidentifier() for s in free_symbols(dim))


def _wanted(have: TensorSpec, want: TensorSpec | None) -> Iterator[Dim]:
    if want is not None and want.dtype is not None and want.dtype != have.dtype:
        raise ShapeMismatch(f"--shape says {want}, but the model has {have}", remedy=f"the dtype is {have.dtype}")
    if have.shape is None:
        yield from want.shape or () if want is not None else ()
        return
    if want is not None and len(want.shape or ()) != len(have.shape):
        raise ShapeMismatch(
            f"--shape says {want}, but the model has {have}", remedy=f"give {len(have.shape)} dimensions"
        )
    for axis, dim in enumerate(map(_free_or_fixed, have.shape)):
        asked = (want.shape or ())[axis] if want is not None else None
        if isinstance(dim, int):
            if isinstance(asked, str):
                raise FrozenDimension(
                    f"dimension `{asked}` of input `{have.name}` (axis {axis}) is the constant {dim} in this graph",
                    where=f"input `{have.name}`",
                    remedy=f"export it again with a dynamic dimension there, or ask for {dim}",
                )
            if asked is not None and asked != dim:
                raise ShapeMismatch(f"--shape says {want}, but the model has {have}")
            yield dim
        else:
            yield asked if asked is not None else (dim or ("batch" if axis == 0 else f"{have.name}_dim{axis}"))
