"""An `Inspection` as text on one screen, and as JSON."""

from __future__ import annotations

import textwrap
from collections.abc import Iterable, Iterator, Mapping
from typing import TYPE_CHECKING, Any

from graphkit.analyze.polynomial import short, terms_of, text
from graphkit.report.wording import bytes_text, printable

if TYPE_CHECKING:
    from graphkit.analyze.inspection import Inspection
    from graphkit.analyze.polynomial import Size
    from graphkit.analyze.summary import Figure, GraphSummary
    from graphkit.shapes import TensorSpec
    from graphkit.support.readiness import Readiness

SCHEMA = "graphkit.inspect/1"

_MOST_SIGNATURE = 12
_MOST_BLOCKS = 3
_LONG = 130
"""Characters of a polynomial that is shown; a longer one stands in the JSON."""


def to_text(found: Inspection, width: int = 100, ready: Iterable[Readiness] = ()) -> str:
    """The inspection on one screen: a name a line, and what is known. Each figure says how it is known."""
    lines = [f"{found.file}  {found.kind}, {bytes_text(found.size)}"]
    rows = [*_rows(found), *_readiness(ready)]
    indent = 4 + max(len(name) for name, _ in rows)
    for name, value in rows:
        head = f"  {name}".ljust(indent)
        wrapped = textwrap.wrap(
            value, max(width, 40), initial_indent=head, subsequent_indent=" " * indent, break_on_hyphens=False
        )
        lines.extend(wrapped or [head.rstrip()])
    return "\n".join(map(printable, lines))


def to_json(found: Inspection, sections: Mapping[str, Any], ready: Iterable[Readiness] = ()) -> str:
    """The inspection as strict JSON; the same file gives the same bytes."""
    import json

    content = {"schema": SCHEMA, **_content(found), "readiness": [each.to_json() for each in ready], **sections}
    return json.dumps(content, indent=2, ensure_ascii=False, allow_nan=False)


def amount(size: Size | None) -> str:
    """A size, short: `38.8M*batch`, or how many terms it has where that would be too long."""
    if size is None:
        return "unknown"
    said = text(size, short)
    return said if len(said) <= _LONG else f"a polynomial of {len(terms_of(size))} term(s)"


# --- text --------------------------------------------------------------------------------------------------------


def _rows(found: Inspection) -> Iterator[tuple[str, str]]:
    yield from found.facts
    yield from _side("inputs", found.inputs)
    yield from _side("outputs", found.outputs)
    summary = found.graph
    if summary is not None:
        yield "graph", _graph(summary)
    if found.operators is not None:
        yield "operators", _operators(found.operators)
    yield from _weights(found)
    if summary is not None:
        yield from _compute(summary)
        yield from _structure(summary)
    for note in found.notes:
        yield "note", note


def _readiness(ready: Iterable[Readiness]) -> Iterator[tuple[str, str]]:
    each = list(ready)
    free = [r.name for r in each if not r.in_the_way]
    said = [str(r) for r in each if r.in_the_way]
    if free:
        said.append(f"{', '.join(free)}: no rule stands in the way")
    if said:
        yield "readiness", f"{'; '.join(said)} [by rules; graphkit check asks the library]"


def _side(name: str, specs: tuple[TensorSpec, ...] | None) -> Iterator[tuple[str, str]]:
    if specs is None:
        yield name, "unknown"
        return
    if not specs:
        yield name, "none"
    for at, spec in enumerate(specs[:_MOST_SIGNATURE]):
        yield (name if at == 0 else ""), spec.name if spec.dtype is None and spec.shape is None else str(spec)
    if len(specs) > _MOST_SIGNATURE:
        yield "", f"and {len(specs) - _MOST_SIGNATURE} more (--json has all)"


def _graph(summary: GraphSummary) -> str:
    view = summary.view
    graphs = list(view.graphs())
    parts = ["1 node" if len(view.graph) == 1 else f"{len(view.graph)} nodes"]
    if len(graphs) > 1:
        parts.append(f"{sum(map(len, graphs))} with subgraphs and functions")
    if view.functions:
        parts.append(f"{len(view.functions)} functions")
    flow = ", ".join(f"{count} {op}" for op, count in summary.control_flow.items())
    parts.append(f"control flow: {flow or 'none'}")
    return ", ".join(parts)


def _operators(operators: tuple[tuple[str, int], ...], most: int = 24) -> str:
    shown = ", ".join(f"{count} {op}" for op, count in operators[:most])
    return (shown + (f", {len(operators) - most} more kinds" if len(operators) > most else "")) or "none"


def _weights(found: Inspection) -> Iterator[tuple[str, str]]:
    weights = found.weights
    if weights is None:
        if found.graph is None:
            yield "weights", "unknown"
        return
    kinds = ", ".join(f"{dtype} {bytes_text(size)} in {count}" for dtype, (count, _, size) in weights.by_dtype.items())
    yield "weights", f"{short(weights.parameters)} parameters, {bytes_text(weights.nbytes)}: {kinds or 'none'} [exact]"
    if weights.external:
        files = ", ".join(f"{name} ({'there' if there else 'MISSING'})" for name, there in weights.external.items())
        yield "", f"external: {files}"


def _compute(summary: GraphSummary) -> Iterator[tuple[str, str]]:
    macs = summary.macs
    doubled = None if macs.value is None else macs.value * 2
    yield "compute", f"{amount(macs.value)} MACs, {amount(doubled)} FLOPs [{macs.status}]{_at(summary, macs)}"
    for reason in _reasons(summary):
        yield "", reason
    other = summary.elementwise
    yield "", f"elementwise: {amount(other.value)} [{other.status}]{_at(summary, other)}"
    yield "", "MACs of Conv, Gemm, MatMul, Einsum, Attention and recurrent layers; FLOPs = 2 x MACs"
    peak, node = summary.peak, summary.memory.node
    if node is not None:
        name = summary.table.graph.names[node] or f"node {node}"
        yield (
            "memory",
            f"peak {bytes_text(summary.memory.peak)} of activations at `{name}` ({summary.table.graph.ops[node]})",
        )
        shown = f"{amount(peak.value)} bytes [{peak.status}]"
        yield "", shown + (f", {summary.memory.unknown} values of unknown size" if summary.memory.unknown else "")
    if summary.intensity is not None:
        moved = bytes_text(summary.memory.moved)
        yield "intensity", f"{summary.intensity:.3g} FLOPs a byte, {moved} moved without a cache [estimated]"
    if summary.point:
        sizes = ", ".join(f"{name}={size}" for name, size in _used(summary).items())
        if sizes:
            yield "evaluated", f"at {sizes}; --dim NAME=N sets a size"
    yield "precision", _precision(summary)


def _at(summary: GraphSummary, figure: Figure) -> str:
    if figure.at is None or isinstance(figure.value, int):
        return ""
    return f" = {short(figure.at)}"


def _used(summary: GraphSummary) -> dict[str, int]:
    """The dimensions that the figures of the report depend on."""
    from graphkit.analyze.polynomial import symbols_in

    names = {*symbols_in(summary.cost.macs), *symbols_in(summary.cost.elementwise), *summary.table.shared.free}
    if summary.memory.live is not None:
        names.update(symbols_in(summary.memory.live))
    return {name: size for name, size in summary.point.items() if name in names}


def _reasons(summary: GraphSummary) -> Iterator[str]:
    if summary.cost.unknown:
        kinds = ", ".join(f"{count} {op}" for op, count in sorted(summary.cost.unknown.items()))
        yield f"not counted, their shapes or costs are unknown: {kinds}"
    yield from summary.cost.notes[:3]


def _precision(summary: GraphSummary) -> str:
    found = summary.precision
    sizes = {label: summary.at(size) or 0 for label, size in found.macs.items()}
    total = sum(sizes.values())
    ranked = sorted(sizes.items(), key=lambda row: (-row[1], row[0]))
    parts = [f"{label} {100 * size / total:.3g} % of MACs" for label, size in ranked] if total else ["no MACs counted"]
    if found.quantize or found.dequantize:
        parts.append(f"{found.quantize} QuantizeLinear, {found.dequantize} DequantizeLinear")
        channels, weights = found.per_channel
        if weights:
            parts.append(f"{channels} of {weights} quantised weights per channel")
    else:
        parts.append("no Q/DQ")
    return ", ".join(parts)


def _structure(summary: GraphSummary) -> Iterator[tuple[str, str]]:
    dynamic = ", ".join(sorted(summary.table.shared.free)) or "none"
    data = summary.data_dependent
    shown = f"{', '.join(data[:3])}{f' and {len(data) - 3} more' if len(data) > 3 else ''}" if data else "none"
    yield "dynamic", f"dimensions: {dynamic}; shapes that depend on data: {shown}"
    for at, block in enumerate(summary.blocks[:_MOST_BLOCKS]):
        operators = ", ".join(f"{count} {op}" if count > 1 else op for op, count in block.operators[:8])
        more = f" and {len(block.operators) - 8} more" if len(block.operators) > 8 else ""
        where = _place(summary, block.nodes)
        yield (
            ("blocks" if at == 0 else ""),
            f"{block.count} x block of {len(block.nodes)} nodes: {operators}{more}{where}",
        )


def _place(summary: GraphSummary, nodes: Iterable[int]) -> str:
    """Where the first of the blocks is: the module path that most of its nodes share."""
    from graphkit.analyze.modules import module_of

    paths = [path for index in nodes if (path := module_of(summary.table.graph, index))]
    common = paths[0].split(".") if paths else []
    for path in paths[1:]:
        parts = path.split(".")
        while common != parts[: len(common)]:
            common = common[:-1]
    return f"; the first in {'.'.join(common)}" if common else ""


# --- JSON --------------------------------------------------------------------------------------------------------


def _content(found: Inspection) -> dict[str, Any]:
    return {
        "file": found.file,
        "kind": found.kind,
        "size": found.size,
        "facts": [{"name": name, "value": value} for name, value in found.facts],
        "inputs": None if found.inputs is None else [spec.to_json() for spec in found.inputs],
        "outputs": None if found.outputs is None else [spec.to_json() for spec in found.outputs],
        "operators": None if found.operators is None else dict(found.operators),
        "weights": _weights_json(found),
        "graph": None if found.graph is None else _graph_json(found.graph),
        "notes": list(found.notes),
    }


def _weights_json(found: Inspection) -> dict[str, Any] | None:
    weights = found.weights
    if weights is None:
        return None
    return {
        "parameters": weights.parameters,
        "bytes": weights.nbytes,
        "status": "exact",
        "dtypes": [
            {"dtype": dtype, "tensors": count, "elements": elements, "bytes": size}
            for dtype, (count, elements, size) in weights.by_dtype.items()
        ],
        "external": [{"file": name, "present": there} for name, there in weights.external.items()],
    }


def figure_json(figure: Figure) -> dict[str, Any]:
    value = figure.value
    return {"value": value if isinstance(value, int | None) else str(value), "status": figure.status, "at": figure.at}


def _graph_json(summary: GraphSummary) -> dict[str, Any]:
    from graphkit.analyze import cost, memory

    table, node = summary.table, summary.memory.node
    intensity = summary.intensity
    return {
        "nodes": len(summary.view.graph),
        "nodes_in_all_graphs": sum(map(len, summary.view.graphs())),
        "functions": len(summary.view.functions),
        "control_flow": summary.control_flow,
        "dims": dict(summary.dims),
        "evaluated_at": _used(summary),
        "macs": figure_json(summary.macs),
        "elementwise": figure_json(summary.elementwise),
        "not_counted": dict(sorted(summary.cost.unknown.items())),
        "cost_notes": list(summary.cost.notes),
        "cost_definition": cost.DEFINITION,
        "peak_memory": {
            **figure_json(summary.peak),
            "node": None if node is None else table.graph.names[node],
            "op": None if node is None else table.graph.ops[node],
            "unknown_values": summary.memory.unknown,
            "definition": memory.DEFINITION,
        },
        "intensity": {"value": None if intensity is None else round(intensity, 4), "status": "estimated"},
        "bytes_moved": {"at": summary.memory.moved, "status": "estimated"},
        "precision": [
            {"precision": label, "macs": size if isinstance(size, int) else str(size), "at": summary.at(size)}
            for label, size in sorted(summary.precision.macs.items())
        ],
        "quantize_nodes": summary.precision.quantize,
        "dequantize_nodes": summary.precision.dequantize,
        "dynamic_dims": sorted(table.shared.free),
        "data_dependent": list(summary.data_dependent),
        "blocks": [
            {
                "count": block.count,
                "nodes": len(block.nodes),
                "operators": dict(block.operators),
                "first": [table.graph.names[index] for index in block.nodes],
            }
            for block in summary.blocks
        ],
    }
