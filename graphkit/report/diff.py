"""A `Delta` as text: what breaks callers first, then what was done to the graph, folded, then the weights."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass

from graphkit.delta.folding import Folded, fold, fold_changes
from graphkit.delta.places import place_of
from graphkit.delta.result import Delta, GraphDelta, PortChange, Rewire, WeightChange
from graphkit.report.diff_nodes import listed
from graphkit.report.wording import printable

_SCREEN = 40
"""Lines of the default report."""

_LINES, _FEWEST = 12, 3
"""Lines of one section that it shows, at most, and where there are many sections."""

_WIDTH = 100
"""Characters of a value that are shown."""

_WORST = 5
"""Weights that are shown one by one."""


def to_text(delta: Delta, *, full: bool = False, context: int = 0) -> str:
    """The report.

    Args:
        delta: The differences.
        full: Every node, rewire and weight, instead of folded ones.
        context: With `full`, unchanged nodes to show around each hunk.
    """
    lines = [f"{delta.a} -> {delta.b}", *_notes(delta)]
    if delta.empty:
        return printable("\n".join([*lines, "the same"]))
    sections = [
        _Section("model", [(fact, 1) for fact in _facts(delta, full=full)], "facts"),
        _Section("signature", [(_port(port), 1) for port in delta.signature], "inputs and outputs", "--signature"),
        *(section for graph in delta.graphs for section in _graph(graph, full=full, context=context)),
    ]
    sections = [section for section in sections if section.rows or section.stands_alone]
    lines.extend(_whole(sections) if full else _fitted(sections, _SCREEN - len(lines) - 2))
    return printable("\n".join([*lines, "", _summary(delta)]))


def stat(delta: Delta) -> str:
    """One line a section."""
    count = delta.count()
    rows = [
        ("model", f"{count['facts']} changed"),
        ("signature", f"{count['signature']} changed"),
        (
            "nodes",
            f"{count['matched']} matched, {count['removed']} removed, {count['added']} added, "
            f"{count['changed']} changed, {count['rewired']} inputs rewired",
        ),
        ("weights", f"{count['weights_equal']} equal, {count['weights_changed']} not"),
    ]
    return printable("\n".join([f"{delta.a} -> {delta.b}", *_notes(delta), *(f"  {n:<10} {t}" for n, t in rows)]))


def name_status(delta: Delta) -> str:
    """A line a node: D removed, A added, M changed, R reads something else, W another weight; then its name."""
    lines = []
    for graph in delta.graphs:
        a, b = graph.a, graph.b
        if a is None or b is None:
            lines.append(f"{'A' if a is None else 'D'}\t{graph.path}")
            continue
        for hunk in graph.hunks:
            lines.extend(f"D\t{graph.path}{_name(graph, i)}" for i in hunk.removed)
            lines.extend(f"A\t{graph.path}{_name(graph, j, of_b=True)}" for j in hunk.added)
        lines.extend(f"M\t{graph.path}{_name(graph, c.a)}\t{_name(graph, c.b, of_b=True)}" for c in graph.changes)
        lines.extend(
            f"R\t{graph.path}{_name(graph, r.a)}\t{_name(graph, r.b, of_b=True)}" for r in graph.rewires if r.a >= 0
        )
        lines.extend(f"W\t{graph.path}{_name(graph, w.node)}\t{w.a}\t{w.b}" for w in graph.weights)
    return printable("\n".join(lines))


def signature(delta: Delta) -> str:
    """Changes of inputs and outputs alone."""
    lines = list(map(_port, delta.signature)) or ["the signature is the same"]
    return printable("\n".join(lines))


def weights(delta: Delta) -> str:
    """Every weight that is not the same."""
    lines = [*_notes(delta)]
    for graph in delta.graphs:
        lines.extend(_weight(weight) for weight in graph.weights)
    equal = sum(graph.weights_equal for graph in delta.graphs)
    return printable("\n".join([*lines, f"{equal} weights are equal, {sum(len(g.weights) for g in delta.graphs)} not"]))


def _notes(delta: Delta) -> Iterator[str]:
    if delta.approximate:
        yield "alignment approximate: the graphs differ so much that the search was cut short"
    if delta.unread:
        more = f" and {len(delta.unread) - 1} more" if len(delta.unread) > 1 else ""
        yield f"weights unknown: the values of `{delta.unread[0]}`{more} are missing"


def _facts(delta: Delta, *, full: bool) -> Iterator[str]:
    metadata = []
    for fact in delta.facts:
        if fact.what.startswith("metadata ") and not full:
            metadata.append(fact.what.removeprefix("metadata "))
        else:
            yield f"{fact.what}: {_short(fact.a)} -> {_short(fact.b)}"
    if metadata:
        more = f" and {len(metadata) - 3} more" if len(metadata) > 3 else ""
        yield f"metadata: {', '.join(metadata[:3])}{more}"


def _short(text: str | None) -> str:
    if not text:
        return "none"
    return text if len(text) <= _WIDTH else text[: _WIDTH - 3] + "..."


@dataclass(frozen=True, slots=True)
class _Section:
    """A part of the report.

    Attributes:
        title: Its headline.
        rows: Its lines, and how many differences each of them stands for.
        noun: What the differences are.
        option: What shows all of them.
        stands_alone: Whether the headline says something without any line.
    """

    title: str
    rows: Sequence[tuple[str, int]]
    noun: str
    option: str = "--full"
    stands_alone: bool = False

    def height(self, most: int) -> int:
        """Lines of it, the empty one above among them, where at most so many rows are shown."""
        return 2 + len(self.rows) if len(self.rows) <= most else 3 + most

    def lines(self, most: int) -> Iterator[str]:
        yield ""
        yield self.title
        yield from (f"  {text}" for text, _ in self.rows[:most])
        left = sum(count for _, count in self.rows[most:])
        if left:
            yield f"  ... and {left} more {self.noun}: {self.option}"


def _whole(sections: Sequence[_Section]) -> Iterator[str]:
    return (line for section in sections for line in section.lines(len(section.rows)))


def _fitted(sections: Sequence[_Section], room: int) -> Iterator[str]:
    """The sections in `room` lines: as many rows of each as all have room for, and the last sections left out where
    that is too few."""
    most = next((n for n in range(_LINES, _FEWEST, -1) if sum(s.height(n) for s in sections) <= room), _FEWEST)
    shown = list(sections)
    while len(shown) > 1 and sum(s.height(most) for s in shown) + 2 * (len(shown) < len(sections)) > room:
        shown.pop()
    yield from (line for section in shown for line in section.lines(most))
    left = sections[len(shown) :]
    if left:
        counts: dict[str, int] = {}
        for section in left:
            counts[section.noun] = counts.get(section.noun, 0) + max(1, sum(count for _, count in section.rows))
        said = ", ".join(f"{count} {noun}" for noun, count in counts.items())
        yield ""
        yield f"... and {len(left)} more sections, with {said}: --full"


def _graph(graph: GraphDelta, *, full: bool, context: int) -> Iterator[_Section]:
    where = f" in {graph.path.rstrip(' /')}" if graph.path else ""
    if graph.a is None or graph.b is None:
        title = f"{graph.path} was {'added' if graph.a is None else 'removed'}: {sum(graph.sizes)} nodes"
        yield _Section(title, (), "graphs", stands_alone=True)
        return
    if full:
        yield _Section(f"nodes{where}", [(line, 1) for line in listed(graph, context)], "lines")
    else:
        yield _Section(f"nodes{where}", [(_folded(each), len(each.hunks)) for each in fold(graph)], "hunks of nodes")
    yield _Section(f"changed{where}", list(_changes(graph)), "changed nodes")
    yield _Section(f"rewired{where}", [(_rewire(graph, each), 1) for each in graph.rewires], "rewired inputs")
    if full:
        yield _Section(f"weights{where}", [(_weight(weight), 1) for weight in graph.weights], "weights")
    else:
        rows = [(line, 1) for line in _folded_weights(graph)]
        yield _Section(f"weights{where}", rows, "lines on weights", "--weights")


def _folded(folded: Folded) -> str:
    times = f"x{len(folded.hunks)}  " if len(folded.hunks) > 1 else ""
    parts = [f"{sign}{_ops(ops)}" for sign, ops in (("-", folded.removed), ("+", folded.added)) if ops]
    source = f"  ({folded.source})" if folded.source else ""
    kinds = ", ".join(f"{count} {kind}" for kind, count in folded.hunks[0].weights)
    return f"{times}{'  '.join(parts)}  at {folded.where}{source}" + (f"  [weights: {kinds}]" if kinds else "")


def _ops(ops: Sequence[tuple[str, int]]) -> str:
    shown = [f"{op}×{count}" if count > 1 else op for op, count in ops[:8]]
    left = sum(count for _, count in ops[8:])
    return "{" + ", ".join([*shown, f"{left} more"] if left else shown) + "}"


def _changes(graph: GraphDelta) -> Iterator[tuple[str, int]]:
    for folded in fold_changes(graph):
        times = f"x{len(folded.changes)}  " if len(folded.changes) > 1 else ""
        details = "; ".join(f"{what} {_short(a)} -> {_short(b)}" for what, a, b in folded.details)
        source = f"  ({folded.source})" if folded.source else ""
        yield f"{times}{folded.op}: {details}  at {folded.where}{source}", len(folded.changes)


def _rewire(graph: GraphDelta, rewire: Rewire) -> str:
    if rewire.a < 0:
        return f"output {rewire.slot}: {rewire.before} -> {rewire.after}"
    assert graph.a is not None
    source = place_of(graph.a, rewire.a).source
    where = f"  ({source})" if source else ""
    return f"{_name(graph, rewire.a)} input {rewire.slot}: {rewire.before} -> {rewire.after}{where}"


def _folded_weights(graph: GraphDelta) -> Iterator[str]:
    kinds: dict[str, list[WeightChange]] = {}
    for weight in graph.weights:
        kinds.setdefault(weight.kind, []).append(weight)
    if graph.weights:
        yield f"{graph.weights_equal} equal"
    for kind, found in sorted(kinds.items()):
        figures = [
            _most("max abs", (w.max_abs for w in found)),
            _most("max rel", (w.max_rel for w in found)),
            _least("cosine", (w.cosine for w in found)),
        ]
        said = "".join(f", {figure}" for figure in figures if figure)
        yield f"{len(found)} {kind}{said}"
        if kind == "changed":
            yield from (f"  {line}" for line in _worst(found))


def _worst(found: Sequence[WeightChange]) -> Iterator[str]:
    """The weights that changed most; those of other shapes, for which there is no figure, by their shapes."""
    reshaped: dict[tuple[str, str], list[WeightChange]] = {}
    for weight in found:
        if weight.max_abs is None:
            reshaped.setdefault((weight.type_a, weight.type_b), []).append(weight)
    lines = [
        f"x{len(alike)}  {_weight(alike[0])}" if len(alike) > 1 else _weight(alike[0]) for alike in reshaped.values()
    ]
    measured = sorted(
        (w for w in found if w.max_abs is not None), key=lambda w: -(float("inf") if w.max_rel is None else w.max_rel)
    )
    yield from [*lines, *map(_weight, measured)][:_WORST]


def _most(what: str, values: Iterable[float | None]) -> str:
    known = [value for value in values if value is not None]
    return f"{what} {max(known):.3g}" if known else ""


def _least(what: str, values: Iterable[float | None]) -> str:
    known = [value for value in values if value is not None]
    return f"{what} from {min(known):.6g}" if known else ""


def _weight(weight: WeightChange) -> str:
    names = weight.a if weight.a == weight.b else f"{weight.a or '(constant)'} -> {weight.b or '(constant)'}"
    kinds = weight.type_a if weight.type_a == weight.type_b else f"{weight.type_a} -> {weight.type_b}"
    figures = (("max abs", weight.max_abs), ("max rel", weight.max_rel), ("cosine", weight.cosine))
    said = "".join(f", {what} {value:.6g}" for what, value in figures if value is not None)
    share = f", {weight.share:.0%} of elements" if weight.share is not None else ""
    return f"{weight.kind}: {names} {kinds}{said}{share}"


def _port(port: PortChange) -> str:
    if port.a is None or port.b is None:
        return f"{port.side} {port.kind}: {port.a or port.b}"
    return f"{port.side} {port.kind}: {port.a} -> {port.b}"


def _summary(delta: Delta) -> str:
    count = delta.count()
    parts = [f"{count[key]} {key}" for key in ("removed", "added", "changed", "rewired") if count[key]]
    said = ", ".join(parts) or "none removed, added or changed"
    return f"{count['matched']} nodes matched, {said}"


def _name(graph: GraphDelta, index: int, *, of_b: bool = False) -> str:
    view = graph.b if of_b else graph.a
    assert view is not None
    if index < 0:
        return "output"
    return f"{view.ops[index]} {view.names[index] or f'#{index}'}"
