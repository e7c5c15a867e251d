"""`graphkit optimize` against other optimisers: `python -m benchmarks.optimize --corpus FOLDER --to FILE`.

Rooms: `nodes`, `layers` and `builds` of the corpus (`python -m fixtures.corpus FOLDER`), `patterns`, `semantics`,
`node_tests`, `padding`, `latency`, `speed`. Every optimiser runs in a child with a time limit; what it found is kept
under `--work`, so that a run that was ended goes on. Peers' results are committed too (`benchmarks/optimize_results`):
`--again graphkit,graphkit_rtx` measures ours anew and takes theirs from there.
"""

from __future__ import annotations

import argparse
import fnmatch
import os
import sys
from pathlib import Path

from benchmarks import optimize_kept, optimize_origin
from benchmarks import optimize_pages as pages
from benchmarks.optimize_node_tests import COMPARED
from benchmarks.optimize_peers import TOOLS
from benchmarks.optimize_runs import GIVEN, Bench, Found, revision, stream
from fixtures.corpus_inputs import Entry, entries

ROOMS = ("nodes", "layers", "builds", "patterns", "semantics", "node_tests", "padding", "latency", "speed")
BLOCKS = (48, 476, 2500)
"""Of the synthetic graphs: 1,008, 9,996 and 52,500 nodes."""
EXPORTS = ("*.dyn_opt", "*.dyn_noopt", "*.ts", "*.dyn23", "*.dyn24")
"""Raw exports of torch: these are built."""
TIMED = ("*.dyn_opt", "mobilenetv2_keras.nhwc", "bert_sdpa.ts", "vit.ts", "llama.ts", "gpt2.ts", "vit.dyn24")
PADDED = ("bert_*.dyn_opt", "distilbert.dyn_opt", "llama*.dyn_opt", "gpt2*.dyn_opt", "bert_sdpa.ts", "llama.ts")


def main() -> int:
    """Print the page."""
    options = _parser().parse_args()
    tools = options.tools.split(",") if options.tools else list(TOOLS)
    work = options.work or options.corpus / "optimised"
    bench = Bench(options.corpus, work, options.python, options.limit, options.only_kept)
    for tool in filter(None, options.again.split(",")):
        bench.forget(tool)
    peers = [GIVEN, *(tool for tool in TOOLS if not TOOLS[tool].ours)]
    optimize_kept.unpack(work, peers)
    graphs = [graph for graph in entries(options.corpus) if fnmatch.fnmatch(graph.name, options.only)]
    loads, parts = [os.getloadavg()[0]], list[str]()
    for room in options.rooms.split(","):
        parts.append(_page(room, bench, tools, graphs))
        loads.append(os.getloadavg()[0])
        text = "\n".join([optimize_origin.head(bench, tools, graphs, loads), *parts])
        if options.to is not None:
            options.to.write_text(text, encoding="utf-8")
    optimize_kept.pack(work, peers)
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
    parser.add_argument("--only-kept", action="store_true", help="leave open what is not kept of a peer")
    parser.add_argument("--limit", type=float, default=300.0, help="seconds for one child; default: %(default)s")
    return parser


def _page(room: str, bench: Bench, tools: list[str], graphs: list[Entry]) -> str:
    if room == "nodes":
        return pages.nodes(_table(bench, (GIVEN, *tools), graphs, "graph"), revision())
    if room == "layers":
        return pages.layers(_table(bench, (GIVEN, *tools), graphs, "layers"), revision())
    if room == "builds":
        raw = _like(graphs, EXPORTS)
        given = _table(bench, (GIVEN,), raw, "built")
        marked = _table(bench, ("graphkit_rtx",), raw, "built_marked")
        return pages.builds(
            {
                graph.name: {
                    "as exported": given[graph.name][GIVEN],
                    "optimize --target rtx": marked[graph.name]["graphkit_rtx"],
                }
                for graph in raw
            },
            revision(),
        )
    if room in ("patterns", "semantics"):
        page = pages.patterns if room == "patterns" else pages.semantics
        return page({tool: stream(room, tool, bench.work, bench.python) for tool in tools}, revision())
    if room == "node_tests":
        compared = [tool for tool in tools if tool in COMPARED]
        return pages.node_tests(
            {tool: stream("nodes", tool, bench.work, bench.python) for tool in compared}, revision()
        )
    if room == "padding":
        padded = _like(graphs, PADDED)
        return pages.padding({g.name: _padded(bench, g, graphs) for g in padded})
    if room == "latency":
        timed = [graph for graph in _like(graphs, TIMED) if not graph.bad_as_exported]
        return pages.latency({g.name: bench.paired(tools, g) for g in timed}, tools, revision())
    return _speed(bench, tools)


def _like(graphs: list[Entry], globs: tuple[str, ...]) -> list[Entry]:
    return [graph for graph in graphs if any(fnmatch.fnmatch(graph.name, glob) for glob in globs)]


def _table(bench: Bench, tools: tuple[str, ...], graphs: list[Entry], what: str) -> dict[str, dict[str, Found]]:
    found: dict[str, dict[str, Found]] = {}
    for graph in graphs:
        print(f"{what} {graph.name}", file=sys.stderr, flush=True)
        found[graph.name] = {tool: bench.measured(tool, graph, what) for tool in tools}
    return found


def _padded(bench: Bench, graph: Entry, graphs: list[Entry]) -> dict[str, Found]:
    """Of graphkit; and of the exporter itself, where it writes the same model with `Attention`."""
    found = {"graphkit": bench.measured("graphkit", graph, "padding")}
    newer = next((g for g in graphs if g.name == f"{graph.name.split('.')[0]}.dyn24"), None)
    if newer is not None and graph.name.endswith(".dyn_opt"):
        found["dyn24"] = bench.against(graph, newer, "padding")
    return found


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
    found: dict[str, dict[str, Found]] = {}
    for what, file in files.items():
        found[what] = {}
        for tool in tools:
            print(f"speed {what} {tool}", file=sys.stderr, flush=True)
            found[what][tool] = bench.speed(tool, file)
    return pages.speed(found, tools, revision())


if __name__ == "__main__":
    sys.exit(main())
