"""Children with a time limit, and their results kept as JSON: whoever starts again goes on where it was.

`work/TOOL/NAME.onnx` is what a tool made, `NAME.json` how that went, `NAME.<measure>.json` a measure of it; `given` is
the tool that does nothing. `work/streams/WHAT.TOOL.jsonl` holds patterns, semantics and node tests.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from benchmarks.optimize_peers import NOT_INSTALLED, TOOLS
from fixtures.corpus_inputs import Entry

ROOT = Path(__file__).resolve().parent.parent
SECONDS = 600.0
GIVEN = "given"


@dataclass(frozen=True, slots=True)
class Bench:
    """Where things are.

    Attributes:
        corpus: Folder of the graphs.
        work: Folder of the results.
        python: Interpreter that has the peers.
        limit: Seconds that one child may take.
    """

    corpus: Path
    work: Path
    python: str = sys.executable
    limit: float = SECONDS

    def made(self, tool: str, entry: Entry) -> Path:
        """What a tool made of a graph."""
        return self.corpus / entry.file if tool == GIVEN else self.work / tool / f"{entry.name}.onnx"

    def optimised(self, tool: str, entry: Entry) -> dict[str, Any]:
        """`seconds`, `bytes`, `version`; or `missing`; or `error`. The file is `made`."""
        if tool == GIVEN:
            return {}
        if TOOLS[tool].only_transformers and not (entry.transformer or entry.name.startswith("unetish")):
            return {"error": "not for this"}
        made = self.made(tool, entry)
        return kept(made.with_suffix(".json"), lambda: self._run_tool(tool, self.corpus / entry.file, made))

    def measured(self, tool: str, entry: Entry, what: str, *options: str) -> dict[str, Any]:
        """`graph` or `layers` of what a tool made; its own error where it made nothing."""
        done = self.optimised(tool, entry)
        if "missing" in done or "error" in done:
            return done
        given, made = self.corpus / entry.file, self.made(tool, entry)
        arguments = [str(given), str(made), str(self.corpus), entry.name] if what == "graph" else [str(made), *options]
        file = self.work / tool / f"{entry.name}.{what}.json"
        return kept(file, lambda: self._measure(what, *arguments))

    def latencies(self, tools: list[str], entry: Entry) -> dict[str, Any]:
        """Medians by tool, `off` and `default`; the graph itself is `given`. Ours and the peers' run interleaved."""
        files = {tool: self.made(tool, entry) for tool in tools if "seconds" in self.optimised(tool, entry)}

        def measure() -> dict[str, Any]:
            listed = [str(file) for file in files.values()]
            found = self._measure("latency", str(self.corpus / entry.file), str(self.corpus), entry.name, *listed)
            if "error" in found:
                return found
            names = {str(file): tool for tool, file in files.items()} | {str(self.corpus / entry.file): GIVEN}
            return {kind: {names[file]: taken for file, taken in each.items()} for kind, each in found.items()}

        return kept(self.work / "latency" / f"{entry.name}.json", measure)

    def _run_tool(self, tool: str, given: Path, made: Path) -> dict[str, Any]:
        made.parent.mkdir(parents=True, exist_ok=True)
        python = sys.executable if TOOLS[tool].ours else self.python
        return child([python, "-m", "benchmarks.optimize_peers", tool, str(given), str(made)], self.limit)

    def _measure(self, what: str, *arguments: str) -> dict[str, Any]:
        return child([sys.executable, "-m", "benchmarks.optimize_measures", what, *arguments], self.limit)

    def speed(self, tool: str, given: Path) -> dict[str, Any]:
        """As `optimised`, of a synthetic graph."""
        made = self.work / "speed" / tool / given.name
        return kept(made.with_suffix(".json"), lambda: self._run_tool(tool, given, made))

    def forget(self, tool: str) -> None:
        """Drop what is kept of a tool."""
        for file in (*(self.work / tool).glob("*"), *(self.work / "speed" / tool).glob("*")):
            file.unlink()
        for file in (self.work / "streams").glob(f"*.{tool}.jsonl"):
            file.unlink()
        for file in (self.work / "latency").glob("*.json"):
            file.unlink()


def stream(what: str, tool: str, work: Path, python: str, *, again: bool = False) -> list[dict[str, Any]]:
    """Every outcome of `patterns`, `semantics` or `nodes`; a graph that kills the child is a `crash`."""
    file = work / "streams" / f"{what}.{tool}.jsonl"
    file.parent.mkdir(parents=True, exist_ok=True)
    if again:
        file.unlink(missing_ok=True)
    while True:
        found = [json.loads(line) for line in file.read_text("utf-8").splitlines()] if file.is_file() else []
        if found and (found[-1].get("end") or "missing" in found[-1]):
            return found if "missing" in found[-1] else found[:-1]
        interpreter = sys.executable if TOOLS[tool].ours else python
        command = [interpreter, "-m", "benchmarks.optimize_streams", what, tool, str(len(found))]
        new, code = _streamed(command, SECONDS)
        with file.open("a", encoding="utf-8") as held:
            for line in new:
                held.write(f"{json.dumps(line)}\n")
            if code == 0:
                held.write('{"end": true}\n')


def child(command: list[str], limit: float) -> dict[str, Any]:
    """The last line of its output, as JSON; `error` where it ended otherwise."""
    environment = {**os.environ, "PYTHONPATH": str(ROOT), "TF_CPP_MIN_LOG_LEVEL": "3"}
    try:
        done = subprocess.run(
            command, cwd=ROOT, env=environment, capture_output=True, text=True, timeout=limit, check=False
        )
    except subprocess.TimeoutExpired:
        return {"error": f"took longer than {limit:g} s"}
    lines = done.stdout.strip().splitlines()
    if done.returncode in (0, NOT_INSTALLED) and lines:
        found: dict[str, Any] = json.loads(lines[-1])
        return found
    said = done.stderr.strip().splitlines()
    return {"error": said[-1][:240] if said and done.returncode > 0 else f"died with {done.returncode}"}


def kept(file: Path, make: Callable[[], dict[str, Any]]) -> dict[str, Any]:
    """What the file holds; or what `make` finds, kept there."""
    if not file.is_file():
        found = make()
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_text(json.dumps(found), encoding="utf-8")
    held: dict[str, Any] = json.loads(file.read_text(encoding="utf-8"))
    return held


def _streamed(command: list[str], limit: float) -> tuple[list[dict[str, Any]], int]:
    """The finished lines, a crash at the begun one, and the exit code; -1 where it ended early."""
    environment = {**os.environ, "PYTHONPATH": str(ROOT)}
    process = subprocess.Popen(
        command, cwd=ROOT, env=environment, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True
    )
    try:
        output, _ = process.communicate(timeout=limit)
    except subprocess.TimeoutExpired:
        process.kill()
        output, _ = process.communicate()
    lines = [json.loads(line) for line in output.splitlines() if line.startswith("{")]
    done = [line for line in lines if "begun" not in line]
    if process.returncode in (0, NOT_INSTALLED):
        return done, 0
    begun = lines[-1].get("begun") if lines else None
    if begun is None and not done:
        return [{"missing": f"exit code {process.returncode} before the first graph"}], -1
    crash = [{"name": begun, "verdict": "crash", "detail": f"exit code {process.returncode}"}] if begun else []
    return done + crash, -1
