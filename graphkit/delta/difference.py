"""`diff`: from two models to a `Delta`."""

from __future__ import annotations

from collections import Counter
from collections.abc import Collection, Iterator, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from graphkit.delta import signature
from graphkit.delta.canonical import Canon, canonical
from graphkit.delta.changes import changes
from graphkit.delta.hunks import hunks
from graphkit.delta.labels import Labels
from graphkit.delta.matching import Ends, match
from graphkit.delta.pairing import Pairing
from graphkit.delta.result import Delta, FactChange, GraphDelta, Hunk, WeightChange
from graphkit.delta.scopes import Scope
from graphkit.delta.weights import compare, compare_quantised, relate, weights_of
from graphkit.errors import BadOption
from graphkit.view import FunctionView, GraphView, ModelView, of, read
from graphkit.view.reader import collector_paused

if TYPE_CHECKING:
    from graphkit.capture.request import CaptureRequest
    from graphkit.model import Model

Keys = tuple[Mapping[str, str], Mapping[str, str]]

IGNORABLE = ("names", "doc", "order", "constants", "opset")


def diff(
    a: Any,
    b: Any,
    *,
    ignore: Collection[str] = (),
    weights: bool = True,
    capture: CaptureRequest | None = None,
) -> Delta:
    """How two models differ, whatever their inner values are called and in whatever order their nodes stand.

    Args:
        a, b: Each an ONNX file, a `Model` or `ModelView`, or anything that `convert` takes, which is captured first.
            Of an engine it is the ONNX file beside it, which it was built from: its own layers show on a GPU only.
        ignore: What does not count: `names` of inputs, outputs and symbols, `doc` (producer, metadata), `order` of
            inputs and outputs, `constants` (values of weights), `opset`.
        weights: Whether changed weights are read and measured; if not, only that they changed is said.
        capture: How to capture what is not ONNX: shapes of inputs, trust.

    Raises:
        GraphkitError: a file is missing or damaged, a graph has a cycle, or a source cannot be captured.

    Example:
        >>> delta = diff("before.onnx", "after.onnx")
        >>> delta.empty
        False
    """
    if unknown := sorted(set(ignore) - set(IGNORABLE)):
        raise BadOption(f"cannot ignore {', '.join(unknown)!r}", remedy=f"one of {', '.join(IGNORABLE)}")
    left, right = view_of(a, capture), view_of(b, capture)
    with collector_paused():
        return _Difference(left, right, frozenset(ignore), weights).all()


def view_of(model: Model | ModelView | Path | str | Any, request: CaptureRequest | None = None) -> ModelView:
    """The view of an ONNX file or a model; anything else is captured.

    Raises:
        GraphkitError: as `view.read`, or as capturing it does.
    """
    from graphkit.model import Model

    if isinstance(model, ModelView):
        return model
    if isinstance(model, Model):
        return of(model)
    from graphkit.capture.registry import recognise
    from graphkit.capture.request import CaptureRequest
    from graphkit.engine.plan import is_engine
    from graphkit.engine.sidecar import graph_of

    if isinstance(model, str | Path) and is_engine(Path(model)):
        return read(graph_of(Path(model)))
    if isinstance(model, str | Path) and _is_onnx(Path(model)):
        return read(model)
    request = request or CaptureRequest()
    return of(recognise(model, request).capture(request))


def _is_onnx(path: Path) -> bool:
    """Whether a path is to be read as ONNX: by name, since a damaged file has to be called a damaged ONNX file."""
    if path.suffix.lower() == ".onnx":
        return True
    if not path.is_file():
        return False
    from graphkit.capture.onnx_file import OnnxSource
    from graphkit.capture.registry import recognise
    from graphkit.capture.request import CaptureRequest

    return isinstance(recognise(path, CaptureRequest()), OnnxSource)


class _Difference:
    def __init__(self, a: ModelView, b: ModelView, ignore: frozenset[str], measured: bool) -> None:
        self.a, self.b, self.ignore, self.measured = a, b, ignore, measured
        self.labels = Labels(a, b, contents="constants" not in ignore)
        self.graphs: list[GraphDelta] = []
        self.approximate = False

    def all(self) -> Delta:
        left = canonical(self.a, self.a.graph, self.a.opsets, self.labels)
        right = canonical(self.b, self.b.graph, self.b.opsets, self.labels)
        self.graph("", left, right, *signature.couple(left, right))
        self.functions()
        return Delta(
            a=self.a.name,
            b=self.b.name,
            facts=tuple(_facts(self.a, self.b, self.ignore)),
            signature=tuple(signature.ports(self.a.graph, self.b.graph, self.ignore)),
            graphs=(self.graphs[0], *(graph for graph in self.graphs[1:] if not graph.empty)),
            approximate=self.approximate,
            unread=tuple(self.labels.unread),
        )

    def graph(
        self,
        path: str,
        a: Canon,
        b: Canon,
        inputs: signature.Couples,
        outputs: signature.Couples,
        outer: Keys = ({}, {}),
        depth: int = 0,
    ) -> None:
        """Compare two graphs, and then those inside matched nodes."""
        ends: Ends = signature.ends(self.labels, inputs, outputs, a, b)
        pairing = match(a, b, self.labels, ends)
        self.approximate |= pairing.approximate
        found = changes(pairing, self.labels, outputs)
        self.graphs.append(
            GraphDelta(
                path=path,
                a=a.graph,
                b=b.graph,
                sizes=(len(a), len(b)),
                pairs=tuple((a.nodes[i], b.nodes[pairing.to_b[i]]) for i in pairing.lines[0] if pairing.to_b[i] >= 0),
                hunks=tuple(self._hunk(pairing, *hunk) for hunk in hunks(pairing)),
                changes=tuple(found.nodes),
                rewires=tuple(found.rewires),
                weights=tuple(self._weights(pairing, found)),
                weights_equal=found.equal,
            )
        )
        scope = Scope(self.labels, pairing, outer, depth)
        for i in pairing.lines[0]:
            if any(attribute.kind in ("GRAPH", "GRAPHS") for attribute in a.graph.attributes[a.nodes[i]]):
                self._inside(path, scope, i)

    def _hunk(self, pairing: Pairing, removed: list[int], added: list[int]) -> Hunk:
        kinds: Counter[str] = Counter()
        if removed and added:
            gone, new = weights_of(pairing.a, removed), weights_of(pairing.b, added)
            kinds = relate(self.labels, gone, new, measured=self.measured)
        nodes = tuple(pairing.a.nodes[i] for i in removed), tuple(pairing.b.nodes[j] for j in added)
        return Hunk(*nodes, tuple(sorted(kinds.items())))

    def _weights(self, pairing: Pairing, found: Any) -> Iterator[WeightChange]:
        for weight, other, node, slot in found.weights:
            yield compare(self.labels, weight, other, node, slot, measured=self.measured)
        for side, plain, dequantize, node, slot in found.quantised:
            graph = pairing.a if side else pairing.b
            change = compare_quantised(self.labels, plain, graph, dequantize, bool(side), node, slot)
            if change is not None:
                yield change

    def _inside(self, path: str, scope: Scope, i: int) -> None:
        """Compare the subgraphs of two matched nodes, where they are not the same."""
        pairing = scope.pairing
        j = pairing.to_b[i]
        if j < 0:
            return
        mine = _bodies(pairing.a, i)
        others = _bodies(pairing.b, j)
        for name, body in mine.items():
            if name in others:
                where = f"{path}{pairing.a.op(i)} {pairing.a.nodes[i]} {name}"
                self._body(where, scope, body, others[name])
        for name in sorted(mine.keys() ^ others.keys()):
            where = f"{path}{pairing.a.op(i)} {pairing.a.nodes[i]} {name}"
            self.graphs.append(_alone(where, mine.get(name), others.get(name)))

    def _body(self, path: str, scope: Scope, a: GraphView, b: GraphView) -> None:
        left, right = scope.keys(a.captured(), b.captured())
        if self.labels.body(self.a, a, left) == self.labels.body(self.b, b, right):
            return
        mine = canonical(self.a, a, scope.pairing.a.opsets, self.labels)
        theirs = canonical(self.b, b, scope.pairing.b.opsets, self.labels)
        inputs, outputs = signature.couple_by_position(mine, theirs)
        values = {right[theirs.graph.values[value]]: value for value in theirs.outer()}
        for value in mine.outer():
            other = values.get(left[mine.graph.values[value]])
            if other is not None:
                inputs.append((value, other))
        self.graph(f"{path} / ", mine, theirs, inputs, outputs, (left, right), scope.depth + 1)

    def functions(self) -> None:
        """Compare functions of one name; those without a partner are found again by their bodies."""
        mine, theirs = ({f.key: f for f in view.functions} for view in (self.a, self.b))
        for key, function in mine.items():
            other = theirs.get(key)
            if other is not None and self._body_of(self.a, function) != self._body_of(self.b, other):
                left = canonical(self.a, function.body, function.opsets, self.labels)
                right = canonical(self.b, other.body, other.opsets, self.labels)
                path = f"function {function.domain}:{function.name} / "
                self.graph(path, left, right, *signature.couple_by_position(left, right))
        gone = {self._body_of(self.a, f): f for key, f in mine.items() if key not in theirs}
        new = {self._body_of(self.b, f): f for key, f in theirs.items() if key not in mine}
        for body in [body for body in gone if body not in new]:
            self.graphs.append(_alone(f"function {gone[body].domain}:{gone[body].name}", gone[body].body, None))
        for body in [body for body in new if body not in gone]:
            self.graphs.append(_alone(f"function {new[body].domain}:{new[body].name}", None, new[body].body))

    def _body_of(self, view: ModelView, function: FunctionView) -> str:
        return self.labels.body(view, function, {})


def _bodies(graph: Canon, node: int) -> dict[str, GraphView]:
    """Subgraphs of a node by attribute; those of a list by attribute and position."""
    found: dict[str, GraphView] = {}
    for name, body in graph.graph.subgraphs(graph.nodes[node]):
        found[name if name not in found else f"{name}[{len(found)}]"] = body
    return found


def _alone(path: str, a: GraphView | None, b: GraphView | None) -> GraphDelta:
    sizes = (len(a) if a is not None else 0, len(b) if b is not None else 0)
    return GraphDelta(path=path, a=a, b=b, sizes=sizes, pairs=())


def _facts(a: ModelView, b: ModelView, ignore: frozenset[str]) -> Iterator[FactChange]:
    if "opset" not in ignore:
        for domain in sorted(a.opsets.keys() | b.opsets.keys()):
            before, after = a.opsets.get(domain), b.opsets.get(domain)
            if before != after:
                yield FactChange(f"opset {domain or 'ai.onnx'}", _or_none(before), _or_none(after))
        if a.ir_version != b.ir_version:
            yield FactChange("IR version", str(a.ir_version), str(b.ir_version))
    if "doc" in ignore:
        return
    if a.producer != b.producer:
        yield FactChange("producer", " ".join(a.producer).strip(), " ".join(b.producer).strip())
    if (a.domain, a.version) != (b.domain, b.version):
        yield FactChange("model version", f"{a.domain} {a.version}".strip(), f"{b.domain} {b.version}".strip())
    for key in sorted(a.metadata.keys() | b.metadata.keys()):
        if a.metadata.get(key) != b.metadata.get(key) and not key.startswith("graphkit."):
            yield FactChange(f"metadata {key}", a.metadata.get(key), b.metadata.get(key))


def _or_none(value: int | None) -> str | None:
    return None if value is None else str(value)
