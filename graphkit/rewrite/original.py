"""The model that is rewritten: where fresh copies of it come from, and what is said of it."""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING

from graphkit import __version__
from graphkit.capture import onnx_file
from graphkit.capture.request import CaptureRequest
from graphkit.errors import BadOption, CorruptFile
from graphkit.model import Model
from graphkit.rewrite.passes import Options, rewrite
from graphkit.rewrite.rule import Changes
from graphkit.traversal import bodies_of, nodes_of
from graphkit.view.reader import collector_paused

if TYPE_CHECKING:
    import onnx_ir as ir

    from graphkit.view import ModelView


_OPENING = {"if-constant", "loop-unroll"}
"""Rules that bring the nodes of a body into the graph around it."""

_MOST_ROUNDS = 8


@dataclass(slots=True)
class Original:
    """A file, which is read anew for each rewriting but the first, or a model in memory, which is copied.

    Attributes:
        source: The file or the model.
        request: How a file is read.
        onnxsim: Whether onnxsim goes first.
        reference: What the result has to be compared with.
        opset: Operator set of the model that is rewritten.
        counts: Its nodes by operator.
    """

    source: Model | Path | str
    request: CaptureRequest
    onnxsim: bool = False
    reference: Model | Path = field(init=False)
    opset: int = field(init=False)
    counts: dict[str, int] = field(init=False)
    _file: Path | None = field(init=False, default=None)
    _model: Model = field(init=False)
    _given_away: bool = field(init=False, default=False)
    _view: ModelView | None = field(init=False, default=None)

    def __post_init__(self) -> None:
        if isinstance(self.source, Model):
            self._model = self.source
        else:
            self._file = Path(self.source)
            self._model = onnx_file.read(self._file, self.request)
        self.reference = self._file or self._model
        if self.onnxsim:
            simpler = _simplified(self._model)
            if simpler is not self._model:
                self._file, self._model = None, simpler
        self.opset, self.counts = self._model.opset, counts(self._model.ir)

    @property
    def model(self) -> Model:
        """The model as it was given, after onnxsim where that was asked for."""
        if self._given_away and self._file is not None:
            self._model, self._given_away = onnx_file.read(self._file, self.request), False
        return self._model

    def rewritten(self, options: Options) -> tuple[Changes, ir.Model]:
        """A fresh copy of the graph, rewritten, and what was done to it.

        Raises:
            CorruptFile: a node is not what its operator is defined as; and as `rewrite`.
        """
        from graphkit import view

        with collector_paused():
            if self._view is None:
                self._view = view.read(self._file) if self._file is not None else view.of(self._model)
            graph = self.model.ir.clone() if self._file is None else self.model.ir
            self._given_away = self._file is not None  # reading again is cheaper than a copy, and often not needed
            try:
                return self._again(rewrite(graph, self._view, options), graph, options), graph
            except (AttributeError, IndexError, KeyError, TypeError, ValueError) as error:
                # Rules trust that a node is what its operator is defined as; checking first would cost every model.
                wrong = _invalid(self.model.ir)
                if wrong is None:
                    raise
                raise CorruptFile(wrong, remedy="graphkit check MODEL says what else is wrong with it") from error

    def _again(self, changes: Changes, graph: ir.Model, options: Options) -> Changes:
        """Rewrite again where bodies came out into the graph: the sizes of what follows them were not known before."""
        from graphkit import view

        latest = changes
        for _ in range(_MOST_ROUNDS):
            if not _OPENING & latest.by_rule().keys():
                break
            latest = rewrite(graph, view.of(self.with_graph(graph, changes)), options)
            changes = Changes((*changes.done, *latest.done), latest.missed)
        return changes

    def with_graph(self, graph: ir.Model, changes: Changes) -> Model:
        """A rewritten graph as a model of the same origin."""
        rules = changes.by_rule()
        return self._model.with_step(f"graphkit {__version__}: {len(rules)} rules" if rules else "graphkit", graph)


def counts(graph: ir.Model) -> dict[str, int]:
    """Nodes by operator, Constant aside: it is a weight with another spelling."""
    counted = Counter(n.op_type if not n.domain else f"{n.domain}::{n.op_type}" for n in nodes_of(graph.graph))
    counted.pop("Constant", None)
    return dict(sorted(counted.items()))


def _simplified(model: Model) -> Model:
    """The model after onnxsim; the same object where onnxsim does not make it smaller.

    Raises:
        BadOption: it is too large for onnxsim. OptimizationFailed, NativeCrash: onnxsim failed.
    """
    from graphkit.rewrite import simplify

    reason = simplify.why_not(model)
    if reason is not None:
        raise BadOption(reason, remedy="leave --onnxsim out")
    simpler = simplify.simplify(model)
    return simpler if sum(counts(simpler.ir).values()) < sum(counts(model.ir).values()) else model


def _invalid(model: ir.Model) -> str | None:
    """What the first node that is not as its operator is defined lacks, by ONNX's checker."""
    import onnx.checker
    import onnx_ir as ir

    context = onnx.checker.C.CheckerContext()
    context.ir_version = model.ir_version
    context.opset_imports = dict(model.opset_imports)
    for node in nodes_of(model.graph):
        if bodies_of(node):
            continue
        try:
            onnx.checker.check_node(ir.to_proto(node), context)
        except onnx.checker.ValidationError as error:
            return f"node `{node.name}` ({node.op_type}) is invalid: {str(error).strip().splitlines()[0]}"
    return None
