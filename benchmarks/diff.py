"""Whether `diff` finds planted edits, how long it takes, and how that grows: `python -m benchmarks.diff`.

The peers compare names and whole messages: onnx-diff and diffonnx, both optional (`pip install onnx-diff`,
`pip install diffonnx`; they cannot be installed together). Neither ends within `PATIENCE` seconds at 10,000 nodes.
"""

from __future__ import annotations

import argparse
import importlib.util
import math
import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

import onnx

from fixtures.planted_edits import KINDS, Planted, decomposed_transformer, plant

EDITS = ("insert", "delete", "op")
"""The speed is taken with ten edits of each of these."""

PATIENCE = 120
"""Seconds that a peer may take."""

LIMITS = {10_000: 2.0, 100_000: 15.0}
"""CPU seconds that a whole process may take."""

MOST_EXPONENT, LEAST_FOUND, LONGEST_SCRIPT = 1.15, 0.999, 1.1

_DIFF = "import sys, graphkit as gk; print(gk.diff(*sys.argv[1:], weights=False).count())"


@dataclass(frozen=True, slots=True)
class Quality:
    """What was found of one planted case.

    Attributes:
        kinds: The edits.
        recall, precision: Of pairs of nodes.
        script: Edits that were reported, over those that were planted (1 where there were none of either).
    """

    kinds: tuple[str, ...]
    recall: float
    precision: float
    script: float

    @property
    def met(self) -> bool:
        return min(self.recall, self.precision) >= LEAST_FOUND and self.script <= LONGEST_SCRIPT


def main() -> int:
    """Print two tables; exit code 1: a target was missed."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.diff", description=__doc__)
    parser.add_argument("--quality", type=int, nargs="*", default=[1000, 10_000, 50_000], metavar="NODES")
    parser.add_argument("--speed", type=int, nargs="*", default=[1000, 10_000, 100_000], metavar="NODES")
    parser.add_argument("--seeds", type=int, default=1)
    options = parser.parse_args()
    met = True
    with tempfile.TemporaryDirectory(prefix="graphkit-bench-") as folder:
        print("| nodes | edits | recall | precision | script | met |\n|---|---|---|---|---|---|")
        for nodes in options.quality:
            for found in qualities(nodes, Path(folder), options.seeds):
                name = "rename, " + ", ".join(found.kinds) if found.kinds else "rename"
                figures = f"{found.recall:.5f} | {found.precision:.5f} | {found.script:.2f}"
                print(f"| {nodes} | {name} | {figures} | {'yes' if found.met else 'NO'} |", flush=True)
                met &= found.met
        met &= _speeds(options.speed, Path(folder))
    return 0 if met else 1


def qualities(nodes: int, folder: Path, seeds: int = 1) -> list[Quality]:
    """Each kind of edit alone, and all of them, on a transformer of so many nodes."""
    model = decomposed_transformer(nodes)
    count = 3 if nodes < 5000 else 10
    cases = [(), *((kind,) for kind in KINDS), KINDS]
    return [
        quality(model, plant(model, kinds, count=count, seed=seed), kinds, folder)
        for kinds in cases
        for seed in range(seeds)
    ]


def quality(model: onnx.ModelProto, planted: Planted, kinds: tuple[str, ...], folder: Path) -> Quality:
    """Compare a model with its edited copy, and what is said with what was done."""
    import graphkit as gk

    before, after = _written(model, planted, folder)
    graph = gk.diff(before, after, weights=False).graphs[0]
    truth = {(origin, index) for index, origin in enumerate(planted.origins) if origin >= 0}
    right = len(truth & set(graph.pairs))
    script = graph.removed + graph.added + len(graph.changes) + len(graph.rewires)
    ratio = script / planted.edits if planted.edits else 1.0 + script
    return Quality(kinds, right / len(truth), right / max(1, len(graph.pairs)), ratio)


def _speeds(sizes: list[int], folder: Path) -> bool:
    """The table of CPU seconds and of the exponent; whether every target was met."""
    taken = {}
    met = True
    print("\n| nodes | graphkit, CPU s | limit | onnx-diff | diffonnx |\n|---|---|---|---|---|")
    for nodes in sizes:
        model = decomposed_transformer(nodes)
        paths = _written(model, plant(model, (*EDITS, "shuffle"), count=10, seed=0), folder)
        command = [sys.executable, "-c", _DIFF, *map(str, paths)]
        bytecode = {"PYTHONDONTWRITEBYTECODE": "", "PYTHONPYCACHEPREFIX": str(folder / "bytecode")}
        if not taken:
            _cpu_seconds(command, bytecode)  # pip leaves bytecode behind: compiling the sources is not the diff's time
        taken[nodes] = _cpu_seconds(command, bytecode)
        limit = LIMITS.get(nodes)
        met &= limit is None or taken[nodes] <= limit
        peers = [_peer(name, command, paths) for name, command in (("onnx_diff", "onnxdiff"), ("diffonnx", "diffonnx"))]
        print(f"| {nodes} | {taken[nodes]:.2f} | {limit or ''} | {' | '.join(peers)} |", flush=True)
    if len(taken) > 1:
        small, large = min(taken), max(taken)
        exponent = math.log(taken[large] / taken[small]) / math.log(large / small)
        met &= exponent <= MOST_EXPONENT
        print(f"\nexponent from {small} to {large} nodes: {exponent:.2f} (at most {MOST_EXPONENT})")
    return met


def _written(model: onnx.ModelProto, planted: Planted, folder: Path) -> tuple[Path, Path]:
    paths = folder / "before.onnx", folder / "after.onnx"
    for path, each in zip(paths, (model, planted.model), strict=True):
        onnx.save(each, path)
    return paths


def _cpu_seconds(command: list[str], env: Mapping[str, str]) -> float:
    """User and system time of a whole process: the wall says more about what else runs on the machine."""
    import resource

    before = resource.getrusage(resource.RUSAGE_CHILDREN)
    subprocess.run(command, check=True, stdout=subprocess.DEVNULL, env={**os.environ, **env})
    after = resource.getrusage(resource.RUSAGE_CHILDREN)
    return after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime


def _peer(module: str, command: str, paths: tuple[Path, Path]) -> str:
    if importlib.util.find_spec(module) is None:
        return "not installed"
    program = Path(sys.executable).with_name(command)
    started = time.perf_counter()
    try:
        subprocess.run([str(program), *map(str, paths)], capture_output=True, check=False, timeout=PATIENCE)
    except subprocess.TimeoutExpired:
        return f"not done after {PATIENCE} s"
    return f"{time.perf_counter() - started:.1f} s"


if __name__ == "__main__":
    sys.exit(main())
