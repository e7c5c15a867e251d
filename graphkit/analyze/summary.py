"""Everything that `graphkit inspect` says of a graph, computed once."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import NamedTuple

from graphkit.analyze.blocks import Block, repeated
from graphkit.analyze.cost import Cost, cost_of
from graphkit.analyze.inference import Table, infer
from graphkit.analyze.memory import Memory, memory_of
from graphkit.analyze.polynomial import Size, evaluate, symbols_in
from graphkit.analyze.precision import Precision, precision_of
from graphkit.errors import UnknownName
from graphkit.view import ModelView

ASSUMED = 128
"""Size at which a dimension is evaluated that nobody gives one, unless it is an input's first: that is 1."""

_CONTROL_FLOW = ("If", "Loop", "Scan", "SequenceMap")


class Figure(NamedTuple):
    """A number of the report.

    Attributes:
        value: The number, or a polynomial in dimensions; None if it is unknown.
        status: `exact`; `symbolic`, exact as a polynomial; `at least`: parts of it are unknown; `estimated`; `unknown`.
        at: Its value at `GraphSummary.point`.
    """

    value: Size | None
    status: str
    at: int | None


@dataclass(frozen=True, slots=True)
class GraphSummary:
    """What a graph is and costs.

    Attributes:
        view, table, cost, memory, precision, blocks: The parts that it is made of.
        dims: Sizes that the caller gave.
        point: Sizes at which symbolic figures are evaluated, of the dimensions that are left.
    """

    view: ModelView
    table: Table
    cost: Cost
    memory: Memory
    precision: Precision
    blocks: tuple[Block, ...]
    dims: Mapping[str, int]
    point: Mapping[str, int]

    @property
    def macs(self) -> Figure:
        return self._figure(self.cost.macs, complete=self.cost.complete)

    @property
    def elementwise(self) -> Figure:
        known = all(node.elementwise is not None for node in self.cost.nodes)
        return self._figure(self.cost.elementwise, complete=self.cost.complete and known)

    @property
    def peak(self) -> Figure:
        """Bytes; the node is where the peak is at `point`."""
        live = self.memory.live
        complete = self.memory.unknown == 0
        fixed = isinstance(live, int) and not self.table.shared.free
        status = "at least" if not complete else "exact" if fixed else "symbolic"
        return Figure(live if live is not None else self.memory.peak, status, self.memory.peak)

    @property
    def intensity(self) -> float | None:
        """FLOPs per byte moved, at `point`, if nothing stays in a cache: an estimate."""
        macs = self.at(self.cost.macs)
        return 2 * macs / self.memory.moved if macs is not None and self.memory.moved else None

    def at(self, size: Size | None) -> int | None:
        """A size at `point`."""
        return None if size is None else evaluate(size, self.point)

    @property
    def control_flow(self) -> dict[str, int]:
        """Operators with bodies, in all graphs, and how many of each."""
        found: dict[str, int] = {}
        for graph in self.view.graphs():
            for op in _CONTROL_FLOW:
                count = graph.ops.count(op)
                if count:
                    found[op] = found.get(op, 0) + count
        return found

    @property
    def data_dependent(self) -> tuple[str, ...]:
        """Values of the main graph whose shape depends on data, as the operators that make them say."""
        graph = self.table.graph
        return tuple(
            graph.values[value]
            for index in self.table.order
            if graph.ops[index] in _BY_DATA and not graph.domains[index]
            for value in graph.makes[index][:1]
        )

    def _figure(self, value: Size, *, complete: bool) -> Figure:
        at = self.at(value)
        if not complete:
            return Figure(value, "at least", at)
        return Figure(value, "exact" if isinstance(value, int) else "symbolic", at)


_BY_DATA = frozenset(("NonZero", "NonMaxSuppression", "Compress", "Unique", "StringSplit"))


def summarise(view: ModelView, dims: Mapping[str, int]) -> GraphSummary:
    """Look at a model's graph; `dims` are sizes for its dimensions.

    Raises:
        UnknownName: the model has no dimension of that name.
        CorruptFile: the graph has a cycle, or functions call one another without end.
    """
    from graphkit.view.reader import collector_paused

    with collector_paused():  # of a million objects none is garbage
        table = infer(view, dims)
        cost = cost_of(table)
        point = _point(table, cost)
        _check(view, table, dims, point)
        memory = memory_of(table, point)
        return GraphSummary(
            view, table, cost, memory, precision_of(cost, table), repeated(view.graph, table.order), dims, point
        )


def _point(table: Table, cost: Cost) -> dict[str, int]:
    """Sizes at which to evaluate: of the ranges or the capture that graphkit recorded, else 1 for a first axis and
    `ASSUMED` for others."""
    recorded = _recorded(table.shared.view)
    first = {
        name
        for value in table.graph.inputs
        if (shape := table.tensors[value].shape)
        for name in (symbols_in(shape[0]) if shape[0] is not None else ())
    }
    names: set[str] = set(symbols_in(cost.macs)) | set(symbols_in(cost.elementwise)) | set(table.shared.free)
    for tensor in table.shared.tensors:
        for size in tensor.shape or ():
            names.update(symbols_in(size) if size is not None else ())
    return {name: recorded.get(name, 1 if name in first else ASSUMED) for name in sorted(names)}


def _recorded(view: ModelView) -> dict[str, int]:
    """Sizes that graphkit wrote into the file: of the run that was captured, and the ones to optimise for."""
    if "graphkit.origin" not in view.metadata and "graphkit.dims" not in view.metadata:
        return {}
    import json

    found: dict[str, int] = {}
    try:
        found.update(json.loads(view.metadata.get("graphkit.origin", "{}")).get("sizes", {}))
        for name, limits in _ranges(json.loads(view.metadata.get("graphkit.dims", "{}"))):
            found[name] = limits
    except (ValueError, TypeError, AttributeError, RecursionError):
        return {}
    return {name: size for name, size in found.items() if isinstance(size, int) and size > 0}


def _ranges(content: object) -> Iterator[tuple[str, int]]:
    rows = content.items() if isinstance(content, dict) else ()
    for name, limits in rows:
        if isinstance(limits, list | tuple) and len(limits) == 3:
            yield str(name), int(limits[1])


def _check(view: ModelView, table: Table, dims: Mapping[str, int], point: Mapping[str, int]) -> None:
    """Refuse a size for a dimension that stands nowhere."""
    if not dims:
        return
    known = set(point)
    for graph in view.graphs():
        for type_ in graph.types.values():
            for size in type_.shape or ():
                if isinstance(size, str):
                    from graphkit.analyze.polynomial import parse

                    known.update(symbols_in(parse(size)))
        known.update(
            f"{graph.values[value]}.{axis}"
            for value in graph.inputs
            for axis, size in enumerate((graph.types[value].shape if value in graph.types else None) or ())
            if not isinstance(size, int)
        )
    for name in dims:
        if name not in known:
            raise UnknownName(
                f"the model has no dimension `{name}`",
                remedy=f"its dimensions are {', '.join(sorted(known))}" if known else "all its sizes are fixed",
                data={"known": sorted(known)},
            )
