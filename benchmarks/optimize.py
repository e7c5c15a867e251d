"""`graphkit optimize` against other optimisers: `python -m benchmarks.optimize --corpus FOLDER --to FILE`.

Rooms: `nodes` and `layers` of the corpus (`python -m fixtures.corpus FOLDER`), `patterns`, `semantics`, `latency`,
`speed`. Every optimiser runs in a child with a time limit; what it found is kept under `--work`, so that a run that
was ended goes on. Node tests: `python -m benchmarks.optimize_node_tests`.
"""

from __future__ import annotations

import argparse
import fnmatch
import sys
from pathlib import Path

from benchmarks import optimize_pages as pages
from benchmarks.optimize_peers import TOOLS
from benchmarks.optimize_runs import GIVEN, Bench, stream
from fixtures.corpus_inputs import Entry, entries

ROOMS = ("nodes", "layers", "patterns", "semantics", "latency", "speed")
BLOCKS = (48, 476, 2500)
"""Of the synthetic graphs: 1,008, 9,996 and 52,500 nodes."""


def main() -> int:
    """Print the page."""
    options = _parser().parse_args()
    tools = options.tools.split(",") if options.tools else list(TOOLS)
    work = options.work or options.corpus / "optimised"
    bench = Bench(options.corpus, work, options.python, options.limit)
    for tool in filter(None, options.again.split(",")):
        bench.forget(tool)
    graphs = [graph for graph in entries(options.corpus) if fnmatch.fnmatch(graph.name, options.only)]
    parts = [pages.HEAD]
    for room in options.rooms.split(","):
        parts.append(_page(room, bench, tools, graphs))
        text = "\n".join(parts)
        if options.to is not None:
            options.to.write_text(text, encoding="utf-8")
    print(text)
    return 0


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="python -m benchmarks.optimize", description=__doc__)
    parser.add_argument("--corpus", type=Path, required=True, help="what `python -m fixtures.corpus` wrote")
    parser.add_argument("--to", type=Path, metavar="FILE", help="write the page to FILE")
    parser.add_argument("--only", default="*", metavar="GLOB", help="graphs of the corpus")
    parser.add_argument("--rooms", default=",".join(ROOMS), help="default: %(default)s")
    parser.add_argument("--tools", default="", help=f"of {','.join(TOOLS)}; all, if none is named")
    parser.add_argument("--again", default="", metavar="TOOLS", help="drop what is kept of these")
    parser.add_argument("--work", type=Path, help="where results are kept; default: `optimised` in the corpus")
    parser.add_argument("--python", default=sys.executable, help="the interpreter that has the peers")
    parser.add_argument("--limit", type=float, default=600.0, help="seconds for one child")
    return parser


def _page(room: str, bench: Bench, tools: list[str], graphs: list[Entry]) -> str:
    if room == "nodes":
        return pages.nodes({g.name: {t: _said(bench, t, g, "graph") for t in (GIVEN, *tools)} for g in graphs})
    if room == "layers":
        return pages.layers({g.name: {t: _said(bench, t, g, "layers") for t in (GIVEN, *tools)} for g in graphs})
    if room == "patterns":
        return pages.patterns({tool: stream("patterns", tool, bench.work, bench.python) for tool in tools})
    if room == "semantics":
        return pages.semantics({tool: stream("semantics", tool, bench.work, bench.python) for tool in tools})
    if room == "latency":
        running = [g for g in graphs if not g.bad_as_exported and not g.name.startswith("light_")]
        return pages.latency({g.name: bench.latencies(tools, g) for g in running}, tools)
    return _speed(bench, tools)


def _said(bench: Bench, tool: str, graph: Entry, what: str) -> dict[str, object]:
    print(f"{what} {graph.name} {tool}", file=sys.stderr, flush=True)
    return bench.measured(tool, graph, what)


def _speed(bench: Bench, tools: list[str]) -> str:
    from fixtures.corpus_synthetic import long_graph, write_large

    files = {}
    (bench.work / "speed").mkdir(parents=True, exist_ok=True)
    for blocks in BLOCKS:
        file = bench.work / "speed" / f"long_{blocks}.onnx"
        if not file.is_file():
            file.write_bytes(long_graph(blocks).SerializeToString())
        files[f"{blocks * 21} nodes"] = file
    large = bench.work / "speed" / "large.onnx"
    if not large.is_file():
        write_large(large)
    files["2.8 GB"] = large
    return pages.speed({what: {tool: bench.speed(tool, file) for tool in tools} for what, file in files.items()}, tools)


if __name__ == "__main__":
    sys.exit(main())
