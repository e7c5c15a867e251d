"""Where the figures of the page come from: commands, revision, versions, machine, and how to read them."""

from __future__ import annotations

import subprocess
from collections.abc import Sequence
from datetime import date

from benchmarks.optimize_peers import TOOLS
from benchmarks.optimize_runs import GIVEN, ROOT, Bench, revision
from benchmarks.results import machine
from fixtures.corpus_inputs import Entry

COMMANDS = """```
python -m fixtures.corpus CORPUS                # the graphs: torch, transformers, keras, tf2onnx
python -m benchmarks.optimize --corpus CORPUS --python PEERS/bin/python --to benchmarks/OPTIMIZE.md
python -m benchmarks.optimize --corpus CORPUS --python PEERS/bin/python --to benchmarks/OPTIMIZE.md \\
    --again graphkit,graphkit_rtx --only-kept   # ours alone; peers' results are in benchmarks/optimize_results
```

`PEERS` is a virtual environment with onnx, onnxruntime, onnxscript, onnxsim, onnxslim, onnxoptimizer,
onnx-graphsurgeon, polygraphy and sympy."""

READING = """Every optimiser ran in a child of its own, with a time limit ({limit:g} s).

- A weight is no node: `Constant` is left out of every count, and so is `ConstantOfShape` of a constant shape, which is
  a weight in compact form; of every tool, in every graph. Where that makes a difference the count with it stands
  behind in brackets: the `light_` graphs hold their weights so, and peers write them out (10 kB become up to 575 MB).
- `*`: uses operators of other domains than ONNX's, which TensorRT does not take. `!`: wrong. `-`: failed. Blank: not
  measured. `†`: was measured with another revision of graphkit than the one named above.
- A graph is `wrong` where its signature changed, or an output differs by more than 1e-5 of its scale at one of three
  sets of sizes, ONNX Runtime's optimisations off.
- `onnxsim` runs without its batched Gemm fusion, which adds nodes: with it, it would look worse.
- The masks of these inputs leave every row a key; rows without one are measured under "Padding"."""


def head(bench: Bench, tools: Sequence[str], graphs: Sequence[Entry], loads: Sequence[float]) -> str:
    """The top of the page. `loads`: 1-minute loads of the machine as the rooms were entered and left."""
    lines = ["# Optimisers", "", "Written by `python -m benchmarks.optimize`; do not edit.", "", COMMANDS, ""]
    lines += [
        f"Graphs: {len(graphs)}. Page: {date.today()}, graphkit {revision()} (a digest of the code){_commit()}.",
        "",
    ]
    lines += [f"Peers: {'; '.join(_peers(bench, tools, graphs))}.", "", "Machine:", ""]
    lines += [f"- {fact}" for fact in machine(None)]
    busy = f"{min(loads):.1f} to {max(loads):.1f}"
    lines += [f"- processes waiting or running (1-minute load) while this page was made: {busy}", ""]
    return "\n".join([*lines, READING.format(limit=bench.limit), ""])


def _peers(bench: Bench, tools: Sequence[str], graphs: Sequence[Entry]) -> list[str]:
    """Each with its version and the days it was measured on."""
    said = []
    for tool in tools:
        if tool == GIVEN or TOOLS[tool].ours:
            continue
        runs = [run for graph in graphs if "version" in (run := bench.told(tool, graph))]
        versions = ", ".join(sorted({str(run["version"]) for run in runs})) or "no result"
        days = sorted({str(run["on"]) for run in runs if "on" in run})
        when = f" ({days[0]}{f' to {days[-1]}' if len(days) > 1 else ''})" if days else ""
        said.append(f"{tool} {TOOLS[tool].package} {versions}{when}")
    return said


def _commit() -> str:
    try:
        asked = ["git", "describe", "--always", "--dirty"]
        done = subprocess.run(asked, cwd=ROOT, capture_output=True, text=True, check=True)
    except (OSError, subprocess.CalledProcessError):  # no git, or no repository
        return ""
    return f", commit {done.stdout.strip()}"
