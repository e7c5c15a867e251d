"""Makes candidates of parts of a model, has them checked, and keeps the smallest one that fails."""

from __future__ import annotations

import contextlib
import shutil
import tempfile
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from graphkit import events, isolate
from graphkit.errors import GraphkitError
from graphkit.model import Model
from graphkit.shrink.cut import Feed, TensorType, cut, feed_for
from graphkit.shrink.graph import Graph, Region, names_in
from graphkit.shrink.inline import conditions
from graphkit.shrink.question import Question
from graphkit.shrink.recorder import Recorder
from graphkit.shrink.trial import Trial

if TYPE_CHECKING:
    from graphkit.shrink.trial import Arrays

_CHILD = "graphkit.shrink.shrink_child"
_CHECK_TIMEOUT = 120.0


class Laboratory:
    """Candidates of one model.

    Args:
        model: The whole model, whose nodes are in topological order.
        samples: Sets of its inputs on which it fails; () where there are none.
        question: What is asked of its parts.
        other: What the model is compared with, under the same names.

    Attributes:
        graph: The model's.
        uncut: Tensors at which it cannot be cut.
        best: The smallest candidate that failed, None before there is one; `region` is what it is made of.
    """

    def __init__(self, model: Model, samples: Sequence[Arrays], question: Question, other: Model | None = None) -> None:
        self.graph = Graph(model)
        self.best: Trial | None = None
        self.region = self.graph.whole
        self._model, self._other, self._question = model, other, question
        self._other_graph = Graph(other) if other is not None else None
        self._folder, self._count = question.folder, len(samples)
        source = (other, self._other_graph) if other is not None and self._other_graph is not None else None
        self._recorder = Recorder(*(source or (model, self.graph)), samples, question.folder)
        self._symbols, self._names = model.signature.symbols, names_in(model)
        file = save(model, question.folder)
        self._valid = invalidity(file) is None
        shutil.rmtree(file.parent)
        self._types = self._known_types()
        self.uncut = frozenset(n for n in self.graph.makers if n not in self._types)
        self._tried: dict[Region, bool] = {}

    def fails(self, region: Region) -> bool:
        """Whether a part fails, for the same reason as the whole, on every sample.

        A part that cannot be made, that ONNX's checker refuses, or whose inputs are not known, does not.

        Raises:
            BudgetSpent
        """
        if region not in self._tried:
            self._tried[region] = self._failing(region)
        return self._tried[region]

    def known_conditions(self) -> dict[int, bool]:
        """Position of each If of the model whose condition is the same on all samples, and that value."""
        found = {}
        for position, name in conditions(self._model).items():
            weight = self._model.ir.graph.initializers.get(name)
            constant = weight.const_value if weight is not None else None
            values = [constant.numpy()] if constant is not None else self._recorder.values([name]).get(name, [])
            if len({bool(v.reshape(-1)[0]) for v in values}) == 1:
                found[position] = bool(values[0].reshape(-1)[0])
        return found

    def _failing(self, region: Region) -> bool:
        trial = self._trial(region) if region.nodes and region.outputs else None
        if trial is None:
            return False
        self._question.budget.spend()
        if not self._question.judge(trial):
            _discard(trial)
            return False
        if self.best is None or len(region.nodes) <= len(self.region.nodes):
            if self.best is not None:
                _discard(self.best)
            self.best, self.region = trial, region
        done, total = self._question.budget.spent, self._question.budget.trials
        events.emit("progress", phase=f"{len(self.region.nodes)} nodes fail", done=done, total=total)
        return True

    def _trial(self, region: Region) -> Trial | None:
        needed = self.graph.needed(region)
        values = self._recorder.values(needed)
        inner = [n for n in needed if n in self.graph.makers]
        feeds = {n: feed_for(self._types.get(n), values.get(n, ()), self._symbols, n) for n in inner}
        given = {n: f for n, f in feeds.items() if f is not None}
        if len(given) < len(feeds):
            return None
        fed = [n for n in needed if n not in given or given[n].constant is None]
        samples = tuple({n: values[n][i] for n in fed} for i in range(self._count) if all(n in values for n in fed))
        if self._question.check.needs_values and not samples:
            return None
        other = self._other_part(region, given)
        if self._other is not None and other is None:
            return None
        made = cut(self._model, self.graph, region, given, self._types)
        return self._saved(made, other, samples)

    def _saved(self, model: Model, other: Model | None, samples: Sequence[Arrays]) -> Trial | None:
        paths = [save(m, self._folder) for m in (model, other) if m is not None]
        if self._valid and any(invalidity(path) is not None for path in paths):
            return None
        other_path = paths[1] if other is not None else None
        return Trial(model, paths[0], tuple(samples), self._names, other, other_path)

    def _other_part(self, region: Region, feeds: Mapping[str, Feed]) -> Model | None:
        """What the other model has between the same tensors; None where it reads more."""
        if self._other is None or self._other_graph is None:
            return None
        graph, needed = self._other_graph, set(self.graph.needed(region))
        nodes = graph.before(region.outputs, within=range(len(graph.nodes)), stop=needed)
        theirs = Region(nodes, graph.ordered(region.outputs))
        reads = graph.needed(theirs)
        if not set(reads) <= needed:
            return None
        return cut(self._other, graph, theirs, {n: feeds[n] for n in reads if n in feeds}, self._types)

    def _known_types(self) -> dict[str, TensorType]:
        types = inferred_types(self._model, self._folder)
        if self._other is not None and self._other_graph is not None:
            theirs = inferred_types(self._other, self._folder)
            common = [n for n in self.graph.makers if n in self._other_graph.makers and n in types and n in theirs]
            return {n: types[n] for n in common if types[n].dtype == theirs[n].dtype}
        unknown = [n for n in self.graph.makers if n not in types]
        return {**self._recorder.types(unknown), **types}


def _discard(trial: Trial) -> None:
    """Remove its files: a large model would fill the disk with its candidates."""
    for path in (trial.path, trial.other_path):
        if path is not None:
            shutil.rmtree(path.parent, ignore_errors=True)


def save(model: Model, folder: Path) -> Path:
    """A model as the only file of a new folder."""
    return model.save(Path(tempfile.mkdtemp(dir=folder), "model.onnx"), durable=False)[0]


def invalidity(path: Path) -> str | None:
    """Why a file is no valid ONNX model; None where it is."""
    try:
        why: str | None = _child().call(f"{_CHILD}:check", timeout=_CHECK_TIMEOUT, path=str(path))
    except GraphkitError as error:
        return error.message
    return why


def inferred_types(model: Model, folder: Path) -> dict[str, TensorType]:
    """Types of tensors by ONNX shape inference, and as the file itself declares them."""
    import onnx_ir as ir

    path = save(model, folder)
    found: list[list[Any]] = []
    with contextlib.suppress(GraphkitError):  # a tensor of unknown type stays where it is: nothing is cut there
        found = _child().call(f"{_CHILD}:tensor_types", timeout=_CHECK_TIMEOUT, path=str(path))
    shutil.rmtree(path.parent)
    return {n: TensorType(ir.DataType(kind), None if dims is None else tuple(dims)) for n, kind, dims in found}


def _child() -> isolate.Worker:
    return isolate.worker("ONNX checker", preload=("onnx", _CHILD), without=isolate.FRAMEWORKS)
