"""Finds where an engine parts from its own graph: the graph is built again with inner tensors among its outputs.

Marking a tensor keeps TensorRT from fusing across it, which changes what is computed. So what the marks show is held
against the engine without them: a difference that is gone once tensors are marked arises in a fusion, and single marks
narrow that down.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import TYPE_CHECKING, Any, Literal

from graphkit.errors import BuildFailed, TargetUnsupported
from graphkit.model import provenance
from graphkit.parity.common_tensors import CommonTensors, reads_of
from graphkit.parity.divergence import Counts, Location, TensorError
from graphkit.parity.localize import (
    WHOLE,
    Trial,
    at_trial,
    described,
    explains,
    first_unexplained,
    in_order,
    label_of,
    narrow,
)
from graphkit.parity.runners import ort_worker
from graphkit.parity.taps import Taps

if TYPE_CHECKING:
    import numpy as np
    import onnx_ir as ir

    from graphkit.model import Model

    Arrays = Mapping[str, np.ndarray[Any, Any]]

RunMarked = Callable[[Mapping[str, str], "Arrays"], "Arrays"]
"""(tensors to mark with their dtypes, inputs) -> those tensors and the graph's own outputs, by name. Without marks it
runs the engine that is looked into."""

_CHILD = "graphkit.parity.locate_child"
_ROUNDS = 4
_MOST_REFUSED = 8  # tensors that the target takes for no output, before its refusal is taken to be about something else


def localize_marked(model: Model, run: RunMarked, trials: Sequence[Trial], labels: tuple[str, str]) -> Location:
    """Hold an engine against its graph under ONNX Runtime, the optimisations of that off.

    Args:
        model: The graph that the engine was built from.
        trials: Tried in turn until the outputs differ.
        labels: What to call the graph and the engine.

    Raises:
        InvalidExport, BadSample, ParityFailed: the graph cannot be loaded or run. And what `run` raises.
    """
    with MarkedTaps(model, run) as taps:
        blank = Location("not comparable", "", *labels, counts=Counts(common=len(taps.tensors.names)))
        for position, trial in enumerate(trials):
            taps.feed(trial.inputs, trial.sizes)
            taps.measure(taps.outputs)
            here, bad = at_trial(blank, trials, position, taps.errors.values())
            if here.reason:
                return here
            if bad is not None:
                found = _look_into(here, model, taps, bad)
                return replace(found, notes=(*found.notes, *_notes(taps)))
        counts = replace(blank.counts, measured=len(taps.errors))
    many = "s" * (len(trials) > 1)
    reason = f"every output is within its tolerance at {len(trials)} set{many} of inputs"
    return replace(here, status="equal", reason=reason, measured=in_order(taps), counts=counts)


def _notes(taps: MarkedTaps) -> Iterator[str]:
    yield (
        f"inner tensors were made outputs of {taps.engines} more engine{'s' * (taps.engines > 1)}: that keeps TensorRT "
        "from fusing across them, and a fault of a fusion may vanish with it"
    )
    if taps.refused:
        yield f"not looked at, since the target takes them for no output: {', '.join(f'`{n}`' for n in taps.refused)}"


class MarkedTaps(Taps):
    """Tensors of floats that depend on an input, measured by marking them.

    Args:
        model: The graph.
        run: The engine.

    Attributes:
        tensors: What can be looked at.
        outputs: The graph's own outputs.
        engines: How many were built with marks.
        refused: Tensors that the target does not take as outputs.
    """

    def __init__(self, model: Model, run: RunMarked) -> None:
        super().__init__(model, model, CommonTensors(model, model))
        self.outputs = [v.name or "" for v in model.ir.graph.outputs if v.producer() is not None]
        self.engines = 0
        self.refused: list[str] = []
        self._run = run
        self._values: Arrays = {}
        live = list(_live(model))
        self._dtypes: dict[str, str] = {}
        if live:
            self._dtypes = ort_worker().call(f"{_CHILD}:floats", graph=self._files[0], names=live)
        self.tensors = self._tensors = CommonTensors(model, model, {*self._dtypes, *self.outputs})

    def feed(self, inputs: Arrays, sizes: Mapping[str, int]) -> None:
        super().feed(inputs, sizes)
        self._values = inputs

    def together(self, names: Sequence[str]) -> dict[str, TensorError]:
        """Errors of some tensors and of every output in one engine that has these marks, whatever is known already.

        Raises: as `measure`.
        """
        wanted = list(dict.fromkeys([*names, *self.outputs]))
        marks = {n: self._dtypes[n] for n in wanted if n not in self.outputs}
        self.engines += bool(marks)
        with TemporaryDirectory(prefix="graphkit-locate-") as folder:
            found = self._run(marks, self._values)
            entries = self._written({n: found[n] for n in wanted}, Path(folder))
            done = ort_worker().call(
                f"{_CHILD}:measure_files", reference=self._files[0], candidate=entries, inputs=self._inputs
            )
        return {n: self._error(n, entry) for n, entry in zip(wanted, done, strict=True) if entry is not None}

    def measure(self, names: Iterable[str]) -> None:
        wanted = [n for n in dict.fromkeys(names) if n not in self.errors and n not in self.refused]
        for chunk in self._chunks(wanted):
            self._measure(chunk)

    def _measure(self, chunk: Sequence[str]) -> None:
        """By halves where the target refuses the chunk: what it refuses alone is left out."""
        try:
            found = self.together(chunk)
        except (TargetUnsupported, BuildFailed):
            if len(self.refused) >= _MOST_REFUSED or set(chunk) <= set(self.outputs):
                raise
            if len(chunk) == 1:
                self.refused.append(chunk[0])
                self.tensors.forget(chunk[0])
                return
            half = len(chunk) // 2
            self._measure(chunk[:half])
            self._measure(chunk[half:])
            return
        self.errors.update({n: found[n] for n in chunk if n in found})

    def _written(self, tensors: Arrays, folder: Path) -> list[dict[str, str]]:
        from graphkit.tensor_files import write_tensors

        return write_tensors(tensors, folder)


def _live(model: Model) -> Iterator[str]:
    """Tensors that depend on an input: TensorRT folds the others."""
    initializers = model.ir.graph.initializers
    live = {v.name for v in model.ir.graph.inputs if v.name not in initializers}
    for node in model.ir.graph:
        if any(v.name in live for v in reads_of(node)):
            made = [v.name for v in node.outputs if v.name]
            live.update(made)
            yield from made


def _look_into(here: Location, model: Model, taps: MarkedTaps, bad: str) -> Location:
    tensors = taps.tensors
    whole = taps.errors[bad]
    target, region = bad, tensors.ordered(tensors.before([bad]))
    if len(region) > WHOLE:
        target, region = narrow(tensors, taps, target, region)
    taps.measure(region)
    for _ in range(_ROUNDS):
        first = first_unexplained(tensors, taps, target)
        before = tensors.nearest(first).tensors
        # The tensors were measured in several engines: what one shows need not hold in another.
        found = taps.together([first, *before])
        if found[first].error <= 1:
            break
        taps.errors.update({n: found[n] for n in (first, *before) if n in found})
        if not any(explains(found.get(n), found[first]) for n in before):
            return described(here, model, model, tensors, taps, first)
    taps.errors[bad] = whole
    return _in_fusion(here, model, taps, bad)


# --- what vanishes -----------------------------------------------------------------------------------------------

_State = Literal["right", "gone", "wrong"]


@dataclass(slots=True)
class _SingleMarks:
    """What the engine with one mark says. `right`: the tensor agrees, and the output still differs; `gone`: both
    agree; `wrong`: the tensor differs."""

    taps: MarkedTaps
    bad: str
    seen: dict[str, tuple[_State, TensorError]]

    def state(self, name: str) -> _State:
        if name not in self.seen:
            found = self.taps.together([name])
            state: _State = "wrong" if found[name].error > 1 else "right" if found[self.bad].error > 1 else "gone"
            self.seen[name] = state, found[name]
        return self.seen[name][0]


def _in_fusion(here: Location, model: Model, taps: MarkedTaps, bad: str) -> Location:
    """Between the last tensor that, marked alone, is right while the output stays wrong, and the first wrong one."""
    tensors = taps.tensors
    marks = _SingleMarks(taps, bad, {})
    end = _first_wrong(tensors, marks, bad)
    before = tensors.before([end]) - {end}
    states = {n: marks.state(n) for n in tensors.ordered(before) if n in marks.seen}
    start = next((n for n in reversed(states) if states[n] == "right"), None)
    nodes = list(_nodes_between(tensors, model, start, end))
    lines = dict.fromkeys(line for node in nodes for line in provenance(node))
    measured = {**taps.errors, **{n: error for n, (_, error) in marks.seen.items()}}
    return replace(
        here,
        status="located",
        reason=_vanishes(start, end, bad, [n for n in states if states[n] == "gone"]),
        divergence=measured[end],
        inputs=(measured[start],) if start is not None else (),
        fused=tuple(map(label_of, nodes)),
        source=tuple(lines),
        measured=tuple(sorted(measured.values(), key=lambda e: (e.depth, e.tensor))),
        counts=replace(here.counts, measured=len(measured)),
    )


def _first_wrong(tensors: CommonTensors, marks: _SingleMarks, bad: str) -> str:
    """By bisection over the graph's order, in which right ones come before those that hide the difference, and these
    before wrong ones; again before each wrong one that has a wrong input: a normalisation can make a wrong tensor
    right again, and a branch go around it."""
    end: str | None = bad
    found = bad
    while end is not None:
        names = [n for n in tensors.ordered(tensors.before([end]) - {end}) if n not in marks.taps.outputs]
        low = _last(names, -1, lambda n: marks.state(n) == "right")
        high = _last(names, low, lambda n: marks.state(n) != "wrong") + 1
        found = names[high] if high < len(names) else end
        inputs = [n for n in tensors.nearest(found).tensors if n not in marks.taps.outputs]
        end = next((n for n in inputs if marks.state(n) == "wrong"), None)
    return found


def _last(names: Sequence[str], low: int, holds: Callable[[str], bool]) -> int:
    """Index of the last name for which something holds, where it holds for all before that one; `low` is known to."""
    high = len(names)
    while high - low > 1:
        middle = (low + high) // 2
        low, high = (middle, high) if holds(names[middle]) else (low, middle)
    return low


def _nodes_between(tensors: CommonTensors, model: Model, start: str | None, end: str) -> Iterator[ir.Node]:
    """Nodes that `end` depends on, behind the one that makes `start`, in order."""
    after = -1 if start is None else tensors.depth[id(tensors.makers[start])]
    needed: set[int] = set()
    pending = [tensors.makers[end]]
    while pending:
        node = pending.pop()
        if id(node) in needed or tensors.depth.get(id(node), -1) <= after:
            continue
        needed.add(id(node))
        pending.extend(n for v in reads_of(node) if (n := v.producer()) is not None)
    yield from (node for node in model.ir.graph if id(node) in needed)


def _vanishes(start: str | None, end: str, bad: str, gone: Sequence[str]) -> str:
    between = f"between {f'`{start}`' if start is not None else 'the inputs'} and `{end}`"
    alone = [f"`{start}` is right and `{bad}` still wrong"] if start is not None else []
    if gone:
        alone.append(f"with `{gone[0]}` marked `{bad}` is right")
    else:
        alone.append("no single mark makes it vanish, several do")
    if end != bad:
        alone.append(f"`{end}` is wrong")
    return (
        f"the difference vanishes when tensors are marked: it arises in a fusion {between}; one by one, "
        + ", ".join(alone)
    )
