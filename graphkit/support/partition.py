"""The parts of a model that a target takes, each as a model of its own.

A node's stage is the number of times that a path to it goes from what is taken to what is not, or back; nodes of one
stage that touch make a part. No path leaves a part and comes back to it, so that the parts can run one after another.
One pass over the graph.
"""

from __future__ import annotations

import functools
import tempfile
from collections.abc import Collection, Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from graphkit import isolate
from graphkit.errors import GraphkitError
from graphkit.support.result import Partition
from graphkit.support.scene import Scene

if TYPE_CHECKING:
    from graphkit.model import Model
    from graphkit.shrink.cut import TensorType
    from graphkit.shrink.graph import Graph, Region


def cut_out(model: Model, scene: Scene, refused: Collection[int], folder: Path) -> tuple[Partition, ...]:
    """Write each part that is taken to `folder` as `part-0.onnx`, ..., and have it checked.

    Args:
        model: The model.
        scene: Its types.
        refused: Positions in its main graph of the nodes that the target does not take.
        folder: Where to write; made if it is missing.

    Raises:
        CannotWrite: the folder cannot be written.
    """
    from graphkit import atomic
    from graphkit.shrink.graph import Graph

    graph = Graph(model)
    parts = list(_parts(graph, scene, refused))
    types = _Types(scene, model)
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError:
        atomic.check_writable(folder / "part-0.onnx")  # says what is wrong with the folder
        raise
    return tuple(_written(model, graph, types, part, folder / f"part-{i}.onnx") for i, part in enumerate(parts))


def _parts(graph: Graph, scene: Scene, refused: Collection[int]) -> Iterator[Region]:
    constant = {i for i, node in enumerate(graph.nodes) if _is_constant(scene, i)}
    again = constant | (_sizes(graph, scene, constant) - set(refused))
    stages = _stages(graph, refused, constant)
    leader = list(range(len(graph.nodes)))

    def find(i: int) -> int:
        while leader[i] != i:
            leader[i] = leader[leader[i]]
            i = leader[i]
        return i

    for i, maker in _edges(graph, constant):
        if stages[i] == stages[maker]:
            leader[find(i)] = find(maker)
    members: dict[int, set[int]] = {}
    for i in range(len(graph.nodes)):
        if i not in constant and not stages[i] % 2:
            members.setdefault(find(i), set()).add(i)
    for nodes in sorted(members.values(), key=min):
        read = [name for i in nodes for name in graph.reads[i]]
        yield graph.part(graph.whole, nodes | graph.before(read, within=again))


def _sizes(graph: Graph, scene: Scene, constant: Collection[int]) -> set[int]:
    """Nodes that compute integers from sizes alone: a part that needs one computes it again, for an engine takes no
    shape as an input."""
    found: set[int] = set()
    for i, node in enumerate(graph.nodes):
        makers = [graph.makers.get(name) for name in graph.reads[i] if name not in graph.weights]
        whole = scene.tensor(scene.graph, scene.graph.makes[i][0]).dtype in ("int64", "int32", "bool")
        if node.op_type in ("Shape", "Size") or (
            whole and makers and all(maker in found or maker in constant for maker in makers)
        ):
            found.add(i)
    return found


def _is_constant(scene: Scene, index: int) -> bool:
    made = [v for v in scene.graph.makes[index] if v]
    return bool(made) and all(scene.is_constant(scene.graph, v) for v in made)


def _stages(graph: Graph, refused: Collection[int], constant: Collection[int]) -> list[int]:
    """Of each node: even where it is taken, odd where it is not."""
    stages = [0] * len(graph.nodes)
    for i in range(len(graph.nodes)):
        before = [stages[graph.makers[n]] for n in graph.reads[i] if n in graph.makers]
        latest = max(before, default=0)
        wanted = int(i in refused and i not in constant)
        stages[i] = latest if latest % 2 == wanted else latest + 1
    return stages


def _edges(graph: Graph, constant: Collection[int]) -> Iterator[tuple[int, int]]:
    for i, names in enumerate(graph.reads):
        for name in names:
            maker = graph.makers.get(name)
            if maker is not None and maker not in constant and i not in constant:
                yield i, maker


class _Types:
    """Types of tensors of the main graph: graphkit's own, and where those say too little, those of onnx's inference,
    which knows rare operators."""

    def __init__(self, scene: Scene, model: Model) -> None:
        self._scene = scene
        self._model = model

    def __call__(self, name: str) -> TensorType | None:
        known = type_of(self._scene, name)
        if known is not None and known.dims is not None:
            return known
        return self._inferred.get(name, known)

    @functools.cached_property
    def _inferred(self) -> dict[str, TensorType]:
        import onnx_ir as ir

        from graphkit.shrink.cut import TensorType

        with tempfile.TemporaryDirectory(prefix="graphkit-") as folder:
            path = self._model.save(Path(folder, "model.onnx"), durable=False)[0]
            rows = _child().call("graphkit.shrink.shrink_child:tensor_types", timeout=120.0, path=str(path))
        return {name: TensorType(ir.DataType(code), _dims(name, dims)) for name, code, dims in rows if dims is not None}


def _written(model: Model, graph: Graph, type_in: _Types, region: Region, path: Path) -> Partition:
    from graphkit.shrink.cut import Feed, cut

    needed = graph.needed(region)
    types = {name: type_in(name) for name in (*needed, *region.outputs)}
    inner = [name for name in needed if name in graph.makers]
    unknown = next((name for name in (*inner, *region.outputs) if _is_vague(types[name])), None)
    if unknown is not None:
        problem = f"the type of `{unknown}` is not known, so that it can be neither input nor output"
        return Partition(None, len(region.nodes), needed, region.outputs, problem)
    known = {name: kind for name, kind in types.items() if kind is not None}
    part = cut(model, graph, region, {name: Feed(known[name]) for name in inner}, known)
    part.save(path, durable=False)
    return Partition(path.name, len(region.nodes), needed, region.outputs, _problem(path))


def _is_vague(known: TensorType | None) -> bool:
    return known is None or known.dims is None


def type_of(scene: Scene, name: str) -> TensorType | None:
    """Type of a tensor of the main graph; None where its dtype is unknown."""
    import onnx_ir as ir

    from graphkit.shrink.cut import TensorType

    tensor = scene.named(name)
    if tensor.dtype is None:
        return None
    dtype = {"float32": "FLOAT", "float64": "DOUBLE"}.get(tensor.dtype, tensor.dtype.upper())
    return TensorType(ir.DataType[dtype], None if tensor.shape is None else _dims(name, tensor.shape))


def _dims(name: str, sizes: Sequence[object]) -> tuple[int | str, ...]:
    word = "".join(c if c.isalnum() else "_" for c in name)
    return tuple(s if isinstance(s, int) else _symbol(s, f"t{word}_dim{axis}") for axis, s in enumerate(sizes))


def _symbol(size: object, otherwise: str) -> str:
    """A dimension's name where it is one; a product of names is a dimension of its own in a part."""
    text = str(size)
    return text if size is not None and text.replace(".", "_").isidentifier() else otherwise


def _problem(path: Path) -> str | None:
    """What onnx.checker or ONNX Runtime have against a file."""
    from graphkit.support import ort

    try:
        said: str | None = _child().call("graphkit.shrink.shrink_child:check", timeout=120.0, path=str(path))
    except GraphkitError as error:
        said = error.message
    return f"onnx.checker: {said}" if said else ort.load(path)


def _child() -> isolate.Worker:
    return isolate.worker("ONNX checker", preload=("onnx", "graphkit.shrink.shrink_child"), without=isolate.FRAMEWORKS)
