"""The longer parts of an inspection: nodes, modules, paths, weights; as rows, which JSON has and text aligns."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from graphkit.analyze import find as patterns
from graphkit.analyze import modules
from graphkit.analyze.cost import output_shape
from graphkit.analyze.inference import show
from graphkit.analyze.polynomial import Size, short
from graphkit.report.inspect import amount
from graphkit.report.wording import bytes_text, printable

if TYPE_CHECKING:
    from graphkit.analyze.inspection import Inspection
    from graphkit.analyze.summary import GraphSummary

KEYS = ("flops", "params", "memory")


@dataclass(frozen=True, slots=True)
class Rows:
    """A part of the report.

    Attributes:
        key: Its name in the JSON.
        title: Its headline.
        columns: Key and headline of each column that text shows.
        rows: What JSON has; a column `shown.KEY` is how text shows `KEY`.
    """

    key: str
    title: str
    columns: tuple[tuple[str, str], ...]
    rows: tuple[dict[str, Any], ...]

    def to_json(self) -> list[dict[str, Any]]:
        return [{name: value for name, value in row.items() if not name.startswith("shown.")} for row in self.rows]

    def to_text(self) -> str:
        """The rows in columns; numbers to the right."""
        cells = [[title for _, title in self.columns]]
        cells += [[str(row.get(f"shown.{key}", row.get(key, ""))) for key, _ in self.columns] for row in self.rows]
        widths = [max(len(line[at]) for line in cells) for at in range(len(self.columns))]
        right = [bool(self.rows) and all(f"shown.{key}" in row for row in self.rows) for key, _ in self.columns]
        lines = [self.title]
        for line in cells:
            parts = [c.rjust(w) if r else c.ljust(w) for c, w, r in zip(line, widths, right, strict=True)]
            lines.append(printable("  " + "  ".join(parts).rstrip()))
        return "\n".join(lines)


def layers(summary: GraphSummary) -> Rows:
    """Every node of the main graph, in the order in which they run."""
    rows = tuple(_nodes(summary))
    return Rows("layers", f"{len(rows)} nodes", _NODE_COLUMNS, rows)


def engine_layers(found: Inspection) -> Rows:
    """Every kernel of an engine, with the ONNX nodes that it computes and their lines."""
    rows = tuple(
        {
            "name": layer.name,
            "kind": layer.kind,
            "dtype": layer.dtype,
            "nodes": list(layer.nodes),
            "sources": list(layer.sources),
            "shown.told": layer.dtype or "?",
            "shown.computes": ", ".join(layer.nodes),
            "shown.lines": "; ".join(layer.sources),
        }
        for layer in found.engine_layers or ()
    )
    columns = (
        ("name", "kernel"),
        ("kind", "kind"),
        ("shown.told", "dtype"),
        ("shown.computes", "ONNX nodes"),
        ("shown.lines", "lines"),
    )
    return Rows("layers", f"{len(rows)} kernels [best effort]", columns, rows)


def top(summary: GraphSummary, key: str, most: int) -> Rows:
    """The nodes that have most of something, at the sizes of the report: `flops`, `params` or `memory`."""
    field = {"flops": "macs_at", "params": "parameters", "memory": "live_bytes"}[key]
    rows = sorted(_nodes(summary), key=lambda row: (-(row[field] or 0), row["index"]))
    rows = [row for row in rows if row[field]][:most]
    what = {"flops": "MACs", "params": "parameters of their own", "memory": "live activations"}[key]
    return Rows("top", f"the {len(rows)} nodes with most {what}", _NODE_COLUMNS, tuple(rows))


_NODE_COLUMNS = (
    ("name", "node"), ("op", "operator"), ("output", "output"), ("macs", "MACs"), ("parameters", "parameters"),
    ("live_bytes", "live"),
)  # fmt: skip


def _nodes(summary: GraphSummary) -> Iterator[dict[str, Any]]:
    table, graph = summary.table, summary.table.graph
    costs = {each.node: each for each in summary.cost.nodes}
    seen: set[int] = set()
    for index in table.order:
        own = [v for v in graph.reads[index] if v in graph.initializers and v not in seen]
        seen.update(own)
        weights = [graph.initializers[v] for v in own]
        parameters = sum(weight.size for weight in weights if modules.is_parameter(weight.dtype))
        cost = costs.get(index)
        macs: Size | None = cost.macs if cost is not None else 0
        makes = graph.makes[index]
        live = summary.memory.by_node[index]
        yield {
            "index": index,
            "name": graph.names[index] or f"node {index}",
            "op": graph.ops[index],
            "module": modules.module_of(graph, index),
            "output": output_shape(cost) if cost is not None else show(table.tensors[makes[0]].shape) if makes else "",
            "macs": macs if isinstance(macs, int | None) else str(macs),
            "shown.macs": amount(macs),
            "macs_at": summary.at(macs),
            "parameters": parameters,
            "shown.parameters": short(parameters),
            "live_bytes": live,
            "shown.live_bytes": bytes_text(live),
        }


# --- modules -----------------------------------------------------------------------------------------------------


def by_module(summary: GraphSummary) -> Rows:
    """The tree of modules; siblings that are alike are one line."""
    root, source = modules.tree(summary.table, summary.cost)
    said = {"graphkit": "as graphkit recorded them", "torch": "as PyTorch's exporter wrote them"}
    title = {"names": "modules, from the names of nodes", "": "no module paths are known"}
    root.name = "(model)"
    rows = tuple(_tree(summary, root, 0, ""))
    columns = (
        ("shown_name", "module"),
        ("nodes", "nodes"),
        ("parameters", "parameters"),
        ("nbytes", "bytes"),
        ("macs", "MACs"),
    )
    return Rows("modules", title.get(source) or f"modules, {said[source]}", columns, rows)


def _tree(summary: GraphSummary, module: modules.Module, depth: int, path: str) -> Iterator[dict[str, Any]]:
    yield _module_row(summary, module, depth, path, module.name)
    parts = list(module.parts.values())
    at = 0
    while at < len(parts):
        alike = 1
        while at + alike < len(parts) and _same(parts[at], parts[at + alike]):
            alike += 1
        below = f"{path}.{parts[at].name}" if path else parts[at].name
        for row in _tree(summary, parts[at], depth + 1, below):
            if alike > 1 and row["path"] == below:
                row["alike"] = [part.name for part in parts[at : at + alike]]
                row["shown_name"] = "  " * (depth + 1) + f"{parts[at].name} to {parts[at + alike - 1].name}, {alike} x"
            yield row
        at += alike


def _module_row(summary: GraphSummary, module: modules.Module, depth: int, path: str, name: str) -> dict[str, Any]:
    macs = module.macs
    return {
        "path": path,
        "shown_name": "  " * depth + name,
        "nodes": module.nodes,
        "shown.nodes": str(module.nodes),
        "parameters": module.parameters,
        "shown.parameters": short(module.parameters),
        "nbytes": module.nbytes,
        "shown.nbytes": bytes_text(module.nbytes),
        "macs": macs if isinstance(macs, int | None) else str(macs),
        "shown.macs": amount(macs),
        "macs_at": summary.at(macs),
    }


def _same(a: modules.Module, b: modules.Module) -> bool:
    """Whether two modules look the same, but for their names."""
    if (a.parameters, a.nbytes, a.macs, a.nodes) != (b.parameters, b.nbytes, b.macs, b.nodes) or not a.name.isdigit():
        return False
    if list(a.parts) != list(b.parts):
        return False
    return all(_alike(left, b.parts[name]) for name, left in a.parts.items())


def _alike(a: modules.Module, b: modules.Module) -> bool:
    return (a.parameters, a.nbytes, a.macs, a.nodes) == (b.parameters, b.nbytes, b.macs, b.nodes)


# --- paths and weights -------------------------------------------------------------------------------------------


def matches(summary: GraphSummary, pattern: str) -> Rows:
    """The paths that match a pattern. Raises: `BadOption`."""
    found, complete = patterns.find(summary.view, pattern)
    rows = []
    for match in found:
        names = [match.graph.names[index] or f"node {index}" for index in match.nodes]
        rows.append(
            {
                "graph": match.graph.name,
                "nodes": names,
                "ops": [match.graph.ops[index] for index in match.nodes],
                "module": modules.module_of(match.graph, match.nodes[0]),
                "path": " > ".join(names),
            }
        )
    many = f"{len(rows)} paths" if complete else f"more than {patterns.MOST_MATCHES} paths, of which the first"
    return Rows("matches", f"{many} match {pattern}", (("path", "nodes"), ("module", "module")), tuple(rows))


def weights(found: Inspection) -> Rows:
    """Every weight: for ONNX files with statistics of its values, which are read once, a megabyte at a time.

    Raises:
        CorruptFile, UnsafePath: a weight is not what its shape says. One that is missing is said to be.
    """
    if found.graph is None:
        rows = [
            {"name": w.name, "dtype": w.dtype, "shape": list(w.dims), "elements": w.elements, "bytes": w.nbytes}
            for w in found.stored
        ]
        columns = (("name", "weight"), ("dtype", "dtype"), ("shape", "shape"), ("elements", "elements"))
        return Rows("weight_statistics", f"{len(rows)} weights; statistics are for ONNX files", columns, tuple(rows))
    rows = list(_statistics(found.graph))
    return Rows("weight_statistics", f"{len(rows)} weights; of the finite values [exact]", _WEIGHT_COLUMNS, tuple(rows))


_NUMBERS = ("minimum", "maximum", "mean", "deviation")
_WEIGHT_COLUMNS = (
    ("name", "weight"), ("dtype", "dtype"), ("shape", "shape"), *((name, name) for name in _NUMBERS),
    ("sparsity", "zeros"), ("bad", "NaN+Inf"),
)  # fmt: skip


def _statistics(summary: GraphSummary) -> Iterator[dict[str, Any]]:
    from graphkit.analyze.weight_stats import stats_of

    for weight in summary.view.weights():
        row: dict[str, Any] = {"name": weight.name or "(attribute)", "dtype": weight.dtype, "shape": list(weight.dims)}
        stats = None if weight.missing else stats_of(weight)
        for name in _NUMBERS:
            value = getattr(stats, name, None)
            row[f"shown.{name}"] = "" if value is None else f"{value:.4g}"
        row["missing"] = weight.missing
        if stats is not None:
            row.update(stats.to_json())
            row["shown.sparsity"] = f"{100 * stats.zeros / max(stats.elements, 1):.3g} %"
            row["shown.bad"] = str(stats.nan + stats.infinite)
        else:
            row["shown.sparsity"], row["shown.bad"] = ("missing" if weight.missing else ""), ""
        yield row
