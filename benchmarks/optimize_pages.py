"""The findings of `benchmarks.optimize` as Markdown tables."""

from __future__ import annotations

import math
import re
from collections import Counter
from collections.abc import Mapping, Sequence
from typing import Any

from benchmarks.optimize_peers import TOOLS
from benchmarks.optimize_runs import GIVEN

HEAD = """# Optimisers

Written by `python -m benchmarks.optimize`; do not edit. Every optimiser ran in a child of its own, with a time limit.

How to read it: `onnxsim` runs without its batched Gemm fusion, which adds nodes. Graphs named `light_` hold their
weights as `ConstantOfShape`: peers with fewer nodes or layers there write them out (10 kB become up to 575 MB), which
graphkit does up to 1 MB, the smallest first. Attention that is fused differs on rows without any key, which these
inputs have none of. Seconds and latencies are indicative: the machine had other work.
"""

_FILE = re.compile(r"/\S+\.onnx")

Found = Mapping[str, Any]


def nodes(found: Mapping[str, Mapping[str, Found]]) -> str:
    """Node counts; `*`: operators of other domains, `!`: computes something else or has another signature."""
    tools = list(next(iter(found.values()), {}))
    lines = ["## Nodes, `Constant` left out", "", "`*`: uses operators of other domains. `!`: wrong. `-`: failed.", ""]
    lines += _table(("graph", *tools), ((name, *(_nodes(row[tool]) for tool in tools)) for name, row in found.items()))
    lines += ["", *_ratios(found, tools, "nodes")]
    lines += ["", "What was wrong or failed:", ""]
    for name, row in found.items():
        lines += [
            f"- {name}, {tool}: {_FILE.sub('a file', said)}"
            for tool in tools
            if (said := _complaint(row[tool])) and tool != GIVEN
        ]
    return "\n".join([*lines, ""])


def layers(found: Mapping[str, Mapping[str, Found]]) -> str:
    """TensorRT-RTX layers after parsing, or what its parser refused."""
    tools = list(next(iter(found.values()), {}))
    lines = ["## TensorRT-RTX layers after parsing", ""]
    lines += _table(("graph", *tools), ((name, *(_layers(row[tool]) for tool in tools)) for name, row in found.items()))
    lines += ["", *_ratios(found, tools, "layers"), ""]
    parsed = {tool: sum("layers" in row[tool] for row in found.values()) for tool in tools}
    lines += ["Parsed: " + ", ".join(f"{tool} {count}/{len(found)}" for tool, count in parsed.items()), ""]
    return "\n".join(lines)


def patterns(found: Mapping[str, Sequence[Found]]) -> str:
    """One row a pattern: yes, contrib (other domains), -, wrong, error."""
    tools = [tool for tool, each in found.items() if each and "missing" not in each[0]]
    missing = [tool for tool in found if tool not in tools]
    lines = ["## Patterns", "", "Rows in italics are spellings beyond the 72 of the first study.", ""]
    verdicts = {tool: {each["name"]: each for each in found[tool]} for tool in tools}
    names = list(next(iter(verdicts.values()), {}))
    rows = []
    for name in names:
        own = any(verdicts[tool].get(name, {}).get("own") for tool in tools)
        cells = (_verdict(verdicts[tool].get(name, {"verdict": "?"})) for tool in tools)
        rows.append((f"*{name}*" if own else name, *cells))
    for title, own in (("of the 72", False), ("of the other spellings", True)):
        totals = []
        for tool in tools:
            counts = Counter(each["verdict"] for each in found[tool] if bool(each.get("own")) is own)
            totals.append(f"{counts['yes']} + {counts['contrib']}")
        rows.append((f"**yes + contrib, {title}**", *totals))
    lines += _table(("pattern", *tools), rows)
    return "\n".join([*lines, "", *_missing(missing), ""])


def semantics(found: Mapping[str, Sequence[Found]]) -> str:
    """Counts of bad results, and each of them."""
    lines = ["## Semantics", ""]
    rows = []
    for tool, each in found.items():
        if not each or "missing" in each[0]:
            rows.append((tool, "not installed", "", "", ""))
            continue
        counts = Counter(one["verdict"] for one in each)
        rows.append((tool, str(len(each)), str(counts["bad"]), str(counts["error"]), str(counts["crash"])))
    lines += _table(("tool", "cases", "bad", "refused", "crashed"), rows)
    lines.append("")
    for tool, each in found.items():
        bad = [one for one in each if _is_bad(one)]
        lines += [f"- {tool}: {one['name']}: {one['verdict']}: {_FILE.sub('a file', one['detail'])}" for one in bad]
    return "\n".join([*lines, ""])


def latency(found: Mapping[str, Found], tools: list[str]) -> str:
    """Ratios to the graph as exported, ONNX Runtime on one CPU thread, interleaved."""
    lines = []
    for kind, title in (("off", "its optimisations off"), ("default", "its default level")):
        lines += [f"## ONNX Runtime latency over the graph as exported, {title}", ""]
        rows = []
        for name, row in found.items():
            taken = row.get(kind, {})
            base = taken.get(GIVEN)
            cells = (f"{taken[tool] / base:.2f}" if base and tool in taken else "-" for tool in tools)
            rows.append((name, f"{base * 1e3:.2f}" if base else "-", *cells))
        lines += [*_table(("graph", "ms", *tools), rows), ""]
    return "\n".join(lines)


def speed(found: Mapping[str, Mapping[str, Found]], tools: list[str]) -> str:
    """Seconds to load, optimise and save, and MB beyond the imports."""
    lines = ["## Speed: seconds to load, optimise and save / MB beyond the imports", ""]
    lines += _table(("tool", *found), ((tool, *(_speed(row[tool]) for row in found.values())) for tool in tools))
    lines.append("")
    sizes = [int(what.split()[0]) for what in found if what.endswith("nodes")]
    for tool in tools:
        taken = [found[f"{size} nodes"][tool].get("seconds") for size in sizes]
        if len(taken) > 1 and taken[0] and taken[-1]:
            exponent = math.log(taken[-1] / taken[0]) / math.log(sizes[-1] / sizes[0])
            lines.append(f"- {tool}: time grows with the nodes to the power of {exponent:.2f}")
    return "\n".join([*lines, ""])


def _table(head: tuple[str, ...], rows: Any) -> list[str]:
    lines = [f"| {' | '.join(head)} |", "|" + "---|" * len(head)]
    return [*lines, *(f"| {' | '.join(row)} |" for row in rows)]


def _nodes(found: Found) -> str:
    if "nodes" not in found:
        return _short(found)
    return f"{found['nodes']}{'*' if found['foreign'] else ''}{'!' if found['wrong'] else ''}"


def _layers(found: Found) -> str:
    if "layers" in found:
        return str(found["layers"]) + ("" if found.get("built", True) else " BUILD-FAIL")
    return _short(found)


def _short(found: Found) -> str:
    if "missing" in found:
        return "not installed"
    error = str(found.get("error", ""))
    return error[:40] if error.startswith("PARSE") else ("" if error == "not for this" else "-")


def _complaint(found: Found) -> str:
    if found.get("error", "not for this") != "not for this":
        return str(found["error"])
    return str(found.get("wrong", ""))


def _ratios(found: Mapping[str, Mapping[str, Found]], tools: list[str], key: str) -> list[str]:
    """Geometric mean over the graphs that every side has, without operators of other domains."""
    lines = []
    for tool in tools:
        pairs = [
            (row[tool][key], row[GIVEN][key])
            for row in found.values()
            if row[tool].get(key)
            and row[GIVEN].get(key)
            and not row[tool].get("foreign")
            and not row[tool].get("wrong")
        ]
        if pairs and tool != GIVEN:
            mean = math.exp(sum(math.log(a / b) for a, b in pairs) / len(pairs))
            kind = "ours" if TOOLS[tool].ours else "peer"
            lines.append(f"- {tool} ({kind}): {mean:.2f} of the exported {key}, over {len(pairs)} graphs")
    return lines


def _verdict(found: Found) -> str:
    verdict = str(found["verdict"])
    return {"no": "-", "crash": "**crash**", "wrong": "**wrong**"}.get(verdict, verdict)


def _is_bad(found: Found) -> bool:
    return found.get("verdict") in ("bad", "error", "crash")


def _missing(tools: list[str]) -> list[str]:
    return [f"Not installed: {', '.join(tools)}."] if tools else []


def _speed(found: Found) -> str:
    if "seconds" in found:
        return f"{found['seconds']:.2f} / {found['bytes'] / 2**20:.0f}"
    return "not installed" if "missing" in found else str(found["error"])[:60]
