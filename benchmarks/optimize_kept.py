"""Peers' results as small files that are committed, so that a new run measures graphkit alone: one JSON a tool.

What is left out is what no page shows: operators and types of layers, details of what went well, names of the node
tests that went well (their number is kept).
"""

from __future__ import annotations

import json
import re
from collections import Counter
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any

STORE = Path(__file__).with_name("optimize_results")

_PATH = re.compile(r"/(?:tmp|work|home|root|usr|var)/[^\s\"':]*")
_UNSHOWN = ("ops", "types")
_WELL = ("good", "yes", "no", "not run")


def pack(work: Path, tools: Iterable[str], store: Path = STORE) -> None:
    """Write what `work` holds of these tools; a tool of which it holds nothing stays as it is in the store."""
    store.mkdir(exist_ok=True)
    for tool in tools:
        held = {
            "graphs": dict(_files(work / tool)),
            "speed": dict(_files(work / "speed" / tool)),
            "streams": dict(_streams(work / "streams", tool)),
        }
        if any(held.values()):
            parts = ",\n".join(f"{json.dumps(part)}: {_lines(each)}" for part, each in held.items())
            (store / f"{tool}.json").write_text(f"{{{parts}}}\n", encoding="utf-8")


def unpack(work: Path, tools: Iterable[str], store: Path = STORE) -> None:
    """Put into `work` what it lacks of these tools."""
    for tool in tools:
        file = store / f"{tool}.json"
        if not file.is_file():
            continue
        held = json.loads(file.read_text(encoding="utf-8"))
        for part, folder in (("graphs", work / tool), ("speed", work / "speed" / tool)):
            for name, found in held[part].items():
                _put(folder / f"{name}.json", json.dumps(found))
        for what, lines in held["streams"].items():
            _put(work / "streams" / f"{what}.{tool}.jsonl", "".join(f"{json.dumps(line)}\n" for line in _spread(lines)))


def _files(folder: Path) -> Iterator[tuple[str, Any]]:
    for file in sorted(folder.glob("*.json")):
        found = json.loads(file.read_text(encoding="utf-8"))
        yield file.stem, {name: value for name, value in found.items() if name not in _UNSHOWN}


def _streams(folder: Path, tool: str) -> Iterator[tuple[str, Any]]:
    for file in sorted(folder.glob(f"*.{tool}.jsonl")):
        lines = [json.loads(line) for line in file.read_text(encoding="utf-8").splitlines()]
        if lines and ("end" in lines[-1] or "missing" in lines[-1]):
            yield file.name.split(".")[0], list(_gathered(lines, named=not file.name.startswith("nodes.")))


def _gathered(lines: list[dict[str, Any]], *, named: bool) -> Iterator[dict[str, Any]]:
    """Outcomes without the details of what went well; of node tests (not `named`) that only by number."""
    counts: Counter[str] = Counter()
    for line in lines:
        if line.get("verdict") not in _WELL:
            yield line
        elif named:
            yield {name: value for name, value in line.items() if name != "detail"}
        else:
            counts[line["verdict"]] += 1
    if counts:
        yield {"counts": counts}


def _spread(lines: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """The reverse, as far as it goes."""
    counts: dict[str, int] = next((line["counts"] for line in lines if "counts" in line), {})
    told = [line for line in lines if "counts" not in line]
    well = [{"name": "", "verdict": verdict} for verdict, count in counts.items() for _ in range(count)]
    return [*well, *told]


def _lines(each: dict[str, Any]) -> str:
    """A JSON object with one line a member, for the sake of differences; without the paths of this machine."""
    return _PATH.sub(
        "a file", "{\n" + ",\n".join(f"{json.dumps(name)}: {json.dumps(value)}" for name, value in each.items()) + "\n}"
    )


def _put(file: Path, text: str) -> None:
    if not file.is_file():
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_text(text, encoding="utf-8")
