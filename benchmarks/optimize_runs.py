"""Children with a time limit, and their results kept as JSON: whoever starts again goes on where it was.

`work/TOOL/NAME.onnx` is what a tool made, `NAME.json` how that went, `NAME.<measure>.json` a measure of it; `given` is
the tool that does nothing. `work/streams/WHAT.TOOL.jsonl` holds patterns, semantics and node tests.
"""

from __future__ import annotations

import hashlib
import json
import os
import subprocess
import sys
from collections.abc import Callable
from dataclasses import dataclass
from datetime import date
from functools import lru_cache
from pathlib import Path
from typing import Any, TypeAlias

from benchmarks.optimize_peers import NOT_INSTALLED, TOOLS
from fixtures.corpus_inputs import Entry

ROOT = Path(__file__).resolve().parent.parent
SECONDS = 600.0
GIVEN = "given"

Found: TypeAlias = dict[str, Any]


@dataclass(frozen=True, slots=True)
class Bench:
    """Where things are.

    Attributes:
        corpus: Folder of the graphs.
        work: Folder of the results.
        python: Interpreter that has the peers.
        limit: Seconds that one child may take.
        only_kept: Whether what is not known of a peer is left open.
    """

    corpus: Path
    work: Path
    python: str = sys.executable
    limit: float = SECONDS
    only_kept: bool = False

    def made(self, tool: str, entry: Entry) -> Path:
        """What a tool made of a graph."""
        return self.corpus / entry.file if tool == GIVEN else self.work / tool / f"{entry.name}.onnx"

    def optimised(self, tool: str, entry: Entry) -> dict[str, Any]:
        """`seconds`, `bytes`, `version`; or `missing`; or `error`. The file is `made`, unless results came alone."""
        if tool == GIVEN:
            return {}
        if TOOLS[tool].only_transformers and not (entry.transformer or entry.name.startswith("unetish")):
            return {"error": "not for this"}
        made = self.made(tool, entry)
        return kept(made.with_suffix(".json"), lambda: self._run_tool(tool, self.corpus / entry.file, made))

    def measured(self, tool: str, entry: Entry, what: str) -> dict[str, Any]:
        """A measure of what a tool made; its own error where it made nothing."""
        if self._left_open(tool, self.work / tool / f"{entry.name}.{what}.json"):
            return self.told(tool, entry) if "error" in self.told(tool, entry) else {"error": "not for this"}
        done = self.optimised(tool, entry)
        if "missing" in done or "error" in done:
            return done

        def measure() -> dict[str, Any]:
            self._there(tool, entry)
            return self._measure(what, entry, self.made(tool, entry))

        found = kept(self.work / tool / f"{entry.name}.{what}.json", measure)
        return {**found, "revision": done.get("revision", "unknown")} if tool != GIVEN and TOOLS[tool].ours else found

    def against(self, entry: Entry, other: Entry, what: str) -> dict[str, Any]:
        """A measure of another export in the place of what a tool made."""
        file = self.work / GIVEN / f"{entry.name}.{what}.json"
        return kept(file, lambda: self._measure(what, entry, self.corpus / other.file))

    def told(self, tool: str, entry: Entry) -> dict[str, Any]:
        """What is kept of a run; nothing where it was not made."""
        file = self.made(tool, entry).with_suffix(".json")
        return json.loads(file.read_text(encoding="utf-8")) if file.is_file() else {}

    def paired(self, tools: list[str], entry: Entry) -> dict[str, Any]:
        """Medians of all tools by what they made, and ours against the fastest peer's, run by run.

        `default`: seconds by tool. `peer`: the fastest of those whose result is right, or the graph itself; `ratio`,
        `low`, `high`: graphkit's over it.
        """

        def measure() -> dict[str, Any]:
            right = [tool for tool in tools if not self.measured(tool, entry, "graph").get("wrong", "made nothing")]
            for tool in right:
                self._there(tool, entry)
            found = self._measure("latency", entry, *(self.made(tool, entry) for tool in right))
            if "error" in found:
                return found
            names = {str(self.made(tool, entry)): tool for tool in (GIVEN, *right)}
            named = {kind: {names[file]: taken for file, taken in each.items()} for kind, each in found.items()}
            peers = {tool: taken for tool, taken in named["default"].items() if tool == GIVEN or not TOOLS[tool].ours}
            peer = min(peers, key=lambda tool: peers[tool])
            ours = self._measure("paired", entry, self.made("graphkit", entry), self.made(peer, entry))
            return {**named, "peer": peer, **ours, "revision": revision()}

        return kept(self.work / "latency" / f"{entry.name}.json", measure)

    def speed(self, tool: str, given: Path) -> dict[str, Any]:
        """As `optimised`, of a synthetic graph: the median of three runs of ours, one run of a peer."""
        made = self.work / "speed" / tool / given.name
        if self._left_open(tool, made.with_suffix(".json")):
            return {"error": "not measured"}

        def measure() -> dict[str, Any]:
            runs = [self._run_tool(tool, given, made) for _ in range(3 if TOOLS[tool].ours else 1)]
            for left in made.parent.iterdir():
                if left.suffix != ".json":
                    left.unlink()  # gigabytes, under names of the tools' own
            bad = [run for run in runs if "seconds" not in run]
            return bad[0] if bad else sorted(runs, key=lambda run: float(run["seconds"]))[len(runs) // 2]

        return kept(made.with_suffix(".json"), measure)

    def forget(self, tool: str) -> None:
        """Drop what is kept of a tool."""
        for file in (*(self.work / tool).glob("*"), *(self.work / "speed" / tool).glob("*")):
            file.unlink()
        for file in (self.work / "streams").glob(f"*.{tool}.jsonl"):
            file.unlink()
        for file in (self.work / "latency").glob("*.json"):
            file.unlink()

    def _left_open(self, tool: str, file: Path) -> bool:
        return self.only_kept and tool != GIVEN and not TOOLS[tool].ours and not file.is_file()

    def _there(self, tool: str, entry: Entry) -> None:
        """Make the file again where only the results of it are left."""
        made = self.made(tool, entry)
        if not made.is_file():
            self._run_tool(tool, self.corpus / entry.file, made)

    def _run_tool(self, tool: str, given: Path, made: Path) -> dict[str, Any]:
        made.parent.mkdir(parents=True, exist_ok=True)
        python = sys.executable if TOOLS[tool].ours else self.python
        found = child([python, "-m", "benchmarks.optimize_peers", tool, str(given), str(made)], self.limit)
        found["load"] = round(os.getloadavg()[0], 1)
        return {**found, "revision": revision()} if TOOLS[tool].ours else {**found, "on": str(date.today())}

    def _measure(self, what: str, entry: Entry, *files: Path) -> dict[str, Any]:
        listed = [str(self.corpus), entry.name, *map(str, files)]
        return child([sys.executable, "-m", "benchmarks.optimize_measures", what, *listed], self.limit)


@lru_cache(maxsize=1)
def revision() -> str:
    """Digest of what rewrites: results of another one are stale, whatever commit they were taken at."""
    package = ROOT / "graphkit"
    files = [package / name for name in ("optimization.py", "model.py", "traversal.py", "weights_file.py")]
    files += [file for room in ("rewrite", "view") for file in (package / room).rglob("*.py")]
    read = (f"{file.relative_to(package)}\0".encode() + file.read_bytes() for file in sorted(files))
    return hashlib.sha256(b"\0".join(read)).hexdigest()[:12]


def stream(what: str, tool: str, work: Path, python: str, *, again: bool = False) -> list[dict[str, Any]]:
    """Every outcome of `patterns`, `semantics` or `nodes`; a graph that kills the child is a `crash`."""
    file = work / "streams" / f"{what}.{tool}.jsonl"
    file.parent.mkdir(parents=True, exist_ok=True)
    if again:
        file.unlink(missing_ok=True)
    while True:
        found = [json.loads(line) for line in file.read_text("utf-8").splitlines()] if file.is_file() else []
        if found and (found[-1].get("end") or "missing" in found[-1]):
            return found if "missing" in found[-1] else [{**each, **_origin(found[-1])} for each in found[:-1]]
        interpreter = sys.executable if TOOLS[tool].ours else python
        command = [interpreter, "-m", "benchmarks.optimize_streams", what, tool, str(len(found))]
        new, code = _streamed(command, SECONDS)
        with file.open("a", encoding="utf-8") as held:
            for line in new:
                held.write(f"{json.dumps(line)}\n")
            if code == 0:
                origin = {"revision": revision()} if TOOLS[tool].ours else {"on": str(date.today())}
                held.write(json.dumps({"end": True, **origin}) + "\n")


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


def _origin(end: dict[str, Any]) -> dict[str, Any]:
    return {"revision": end["revision"]} if "revision" in end else {}


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
