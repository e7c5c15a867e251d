"""The findings of `benchmarks.optimize` as Markdown tables."""

from __future__ import annotations

import math
import re
from collections import Counter
from collections.abc import Mapping, Sequence
from typing import Any

from benchmarks.optimize_peers import TOOLS
from benchmarks.optimize_runs import GIVEN

MOST = 1.02
"""Largest ratio of latencies over the best peer's that is good enough."""

_NOUN = {"computing": "computing layers"}

BUSY = 2.5
"""Load of the machine from which on a time is marked: its own process counts for one."""

_FILE = re.compile(r"/\S+\.onnx")

Found = Mapping[str, Any]


def nodes(found: Mapping[str, Mapping[str, Found]], revision: str) -> str:
    """Node counts; the marks are explained at the head of the page."""
    tools = list(next(iter(found.values()), {}))
    lines = ["## Nodes", ""]
    rows = ((name, *(_nodes(row[tool], revision) for tool in tools)) for name, row in found.items())
    lines += _table(("graph", *tools), rows)
    lines += ["", *_ratios(found, tools, "nodes"), ""]
    lines += _against(found, "nodes", "graphkit", "peers in ONNX's own operators", foreign=False)
    lines += _against(found, "nodes", "graphkit", "peers in any operators", foreign=True)
    lines += ["", "What was wrong or failed:", ""]
    for name, row in found.items():
        lines += [
            f"- {name}, {tool}: {_FILE.sub('a file', said)}"
            for tool in tools
            if (said := _complaint(row[tool])) and tool != GIVEN
        ]
    return "\n".join([*lines, ""])


def layers(found: Mapping[str, Mapping[str, Found]], revision: str) -> str:
    """TensorRT-RTX layers after parsing, or what its parser refused."""
    tools = list(next(iter(found.values()), {}))
    lines = ["## TensorRT-RTX layers after parsing", ""]
    lines += [
        "Of the `light_` graphs in brackets: layers that compute with more than constants. A weight in compact form is "
        "parsed into four layers (two constants, a shuffle, a slice), a written one into none.",
        "",
    ]
    compact = {name: row for name, row in found.items() if name.startswith("light_")}
    rows = ((name, *(_layers(row[tool], revision, name in compact) for tool in tools)) for name, row in found.items())
    lines += _table(("graph", *tools), rows)
    lines += ["", *_ratios(found, tools, "layers"), ""]
    lines += _against(found, "layers", "graphkit_rtx", "peers", foreign=True)
    lines += ["Of the `light_` graphs, computing layers alone:", ""] if compact else []
    lines += _against(compact, "computing", "graphkit_rtx", "peers", foreign=True) if compact else []
    parsed = {tool: sum("layers" in row[tool] for row in found.values()) for tool in tools}
    lines += ["", "Parsed: " + ", ".join(f"{tool} {count}/{len(found)}" for tool, count in parsed.items()), ""]
    return "\n".join(lines)


def builds(found: Mapping[str, Mapping[str, Found]], revision: str) -> str:
    """How many of torch's exports become engines, and what became of those that do not as exported."""
    ways = list(next(iter(found.values()), {}))
    lines = ["## Engines of torch's exports: TensorRT-RTX for SM86, float32", ""]
    lines += ["From the smallest to the largest of the three sets of sizes.", ""]
    lines += [f"- {way}: {sum(bool(row[way].get('built')) for row in found.values())} of {len(found)}" for way in ways]
    failed = {name: row for name, row in found.items() if not all(row[way].get("built") for way in ways)}
    lines += ["", "Those that did not build in one of these ways:", ""]
    rows = ((name, *(_engine(row[way], revision) for way in ways)) for name, row in failed.items())
    return "\n".join([*lines, *_table(("graph", *ways), rows), ""])


def patterns(found: Mapping[str, Sequence[Found]], revision: str) -> str:
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
    heads = (f"{tool}{_stale(verdicts[tool], revision)}" for tool in tools)
    lines += _table(("pattern", *heads), rows)
    return "\n".join([*lines, "", *_missing(missing), ""])


def semantics(found: Mapping[str, Sequence[Found]], revision: str) -> str:
    """Counts of bad results, and each of them."""
    lines = ["## Semantics", ""]
    rows = list[tuple[str, ...]]()
    for tool, each in found.items():
        if not each or "missing" in each[0]:
            rows.append((tool, "not installed", "", "", ""))
            continue
        counts = Counter(one["verdict"] for one in each)
        name = f"{tool}{_stale({one['name']: one for one in each}, revision)}"
        rows.append((name, str(len(each)), str(counts["bad"]), str(counts["error"]), str(counts["crash"])))
    lines += _table(("tool", "cases", "bad", "refused", "crashed"), rows)
    lines.append("")
    for tool, each in found.items():
        bad = [one for one in each if _is_bad(one)]
        lines += [f"- {tool}: {one['name']}: {one['verdict']}: {_FILE.sub('a file', one['detail'])}" for one in bad]
    return "\n".join([*lines, ""])


def node_tests(found: Mapping[str, Sequence[Found]], revision: str) -> str:
    """Of onnx's node tests, those that ONNX Runtime passes before: how many does it pass after?"""
    lines = ["## ONNX node tests after optimisation", ""]
    lines += ["`onnx.backend.test`, ONNX Runtime's optimisations off; `python -m benchmarks.optimize_node_tests`.", ""]
    rows = list[tuple[str, ...]]()
    for tool, each in found.items():
        if not each or "missing" in each[0]:
            rows.append((tool, "not installed", "", "", "", "", ""))
            continue
        counts = Counter(one["verdict"] for one in each)
        ran, failed = len(each) - counts["not run"], counts["error"] + counts["crash"]
        share = f"{counts['good'] / ran:.2%}" if ran else "-"
        name = f"{tool}{_stale({str(index): one for index, one in enumerate(each)}, revision)}"
        rows.append((name, *map(str, (len(each), ran, counts["good"], counts["wrong"], failed)), share))
    lines += _table(("tool", "tests", "run before", "good", "wrong", "refused or crashed", "share"), rows)
    return "\n".join([*lines, ""])


def padding(found: Mapping[str, Mapping[str, Found]]) -> str:
    """Differences on rows that see a key, and on rows that see none."""
    lines = ["## Padding", ""]
    lines += [
        "Sequences padded on the left, the first one nothing but padding. Largest difference from the graph as "
        "exported, of the scale of the rows that see a key. Rows that see none have no defined result: there the "
        "exporter's own `Attention` (opset 24) differs from its own nodes (opset 20) as well.",
        "",
    ]
    rows = []
    for name, row in found.items():
        ours, own = row["graphkit"], row.get("dyn24", {})
        counts = ours.get("rows", ["-", "-"])
        cells = (_difference(each, kind) for each in (ours, own) for kind in ("with_key", "without_key"))
        rows.append((name, f"{counts[0]} + {counts[1]}", *cells))
    head = ("graph", "rows with + without a key", "graphkit, with", "graphkit, without", "torch opset 24, with")
    return "\n".join([*lines, *_table((*head, "torch opset 24, without"), rows), ""])


def latency(found: Mapping[str, Found], tools: Sequence[str], revision: str) -> str:
    """Ratios to the graph as exported, and of graphkit to the best peer, paired."""
    lines = ["## ONNX Runtime latency", ""]
    pairs = next((row["pairs"] for row in found.values() if "pairs" in row), 0)
    lines += [
        "CPU, one thread (`intra_op_num_threads = 1`), its default optimisation level, the first of the three sets of "
        "sizes. Columns of tools: medians of a few interleaved runs over the graph as exported, which only say what "
        f"the best peer is. `paired`: graphkit over that peer (which may be the graph itself), {pairs} pairs of runs "
        f"in alternation: median (quartiles). Target: at most {MOST:g}.",
        "",
    ]
    rows, met = [], list[bool]()
    for name, row in found.items():
        taken = row.get("default", {})
        base = taken.get(GIVEN)
        cells = (f"{taken[tool] / base:.2f}" if base and tool in taken else "-" for tool in tools)
        paired = ("-", "-", "-")
        if "ratio" in row:
            met.append(row["ratio"] <= MOST)
            spread = f"{row['ratio']:.3f} ({row['low']:.2f} - {row['high']:.2f})"
            paired = (
                row["peer"],
                spread + ("" if row.get("revision") == revision else "†"),
                "yes" if met[-1] else "no",
            )
        rows.append((name, f"{base * 1e3:.2f}" if base else "-", *cells, *paired))
    lines += _table(("graph", "ms as exported", *tools, "best peer", "paired", "met"), rows)
    return "\n".join([*lines, "", f"Met on {sum(met)} of {len(met)} graphs.", ""])


def speed(found: Mapping[str, Mapping[str, Found]], tools: Sequence[str], revision: str) -> str:
    """Seconds to load, optimise and save, and MB beyond the imports."""
    lines = ["## Speed: seconds to load, optimise and save / MB beyond the imports", ""]
    lines += ['Without proof (`verify="none"`). Ours: the median of three runs; a peer\'s: one run, on the day that ']
    lines[-1] += (
        "is given at the head; `load`: the machine had that much other work. The graph of 2.8 GB keeps its weights "
    )
    lines[-1] += "beside it, and is saved with them."
    lines += [""]
    rows = ((tool, *(_speed(row[tool], revision) for row in found.values())) for tool in tools)
    lines += [*_table(("tool", *found), rows), ""]
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


def _nodes(found: Found, revision: str) -> str:
    if "nodes" not in found:
        return _short(found)
    counted = found.get("counted", found["nodes"])
    behind = f" ({counted})" if counted != found["nodes"] else ""
    marks = f"{'*' if found['foreign'] else ''}{'!' if found['wrong'] else ''}"
    return f"{found['nodes']}{marks}{_old(found, revision)}{behind}"


def _layers(found: Found, revision: str, compact: bool) -> str:
    if "layers" not in found:
        return _short(found)
    behind = f" ({found['computing']})" if compact and "computing" in found else ""
    return f"{found['layers']}{_old(found, revision)}{behind}"


def _engine(found: Found, revision: str) -> str:
    if found.get("built"):
        return f"yes{_old(found, revision)}"
    said = str(found.get("said") or found.get("error", "no")).replace("|", "/")
    return f"{said.rpartition('Exception: ')[2][:110]}{_old(found, revision)}"


def _difference(found: Found, kind: str) -> str:
    value = found.get(kind, found.get("error", "-"))
    return f"{value:.1e}" if isinstance(value, float) else str(value)


def _old(found: Found, revision: str) -> str:
    """A mark, where graphkit was another one then; peers' results have no revision."""
    return "†" if found.get("revision") not in (None, revision) else ""


def _stale(found: Mapping[str, Found], revision: str) -> str:
    return next(("†" for each in found.values() if _old(each, revision)), "")


def _against(found: Mapping[str, Mapping[str, Found]], key: str, ours: str, whom: str, *, foreign: bool) -> list[str]:
    """On how many graphs ours has the fewest; where not, the best peer that is right."""
    fewer, same, more = 0, 0, list[str]()
    for name, row in found.items():
        peers = {
            tool: int(each[key])
            for tool, each in row.items()
            if tool != GIVEN and not TOOLS[tool].ours and key in each and not each.get("wrong")
            if foreign or not each.get("foreign")
        }
        if not peers or key not in row.get(ours, {}):
            continue
        best = min(peers, key=lambda tool: peers[tool])
        own = int(row[ours][key])
        fewer, same = fewer + (own < peers[best]), same + (own == peers[best])
        if own > peers[best]:
            more.append(f"{name} {own} against {peers[best]} ({best})")
    behind = f": {', '.join(more)}" if more else ""
    counts = f"fewer {_NOUN.get(key, key)} on {fewer}, as many on {same}, more on {len(more)}"
    return [f"{ours} against the best of the {whom}: {counts}{behind}", ""]


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


def _speed(found: Found, revision: str) -> str:
    if "seconds" in found:
        busy = f" (load {found['load']:.0f})" if found.get("load", 0) >= BUSY else ""
        return f"{found['seconds']:.2f} / {found['bytes'] / 2**20:.0f}{_old(found, revision)}{busy}"
    return "not installed" if "missing" in found else str(found["error"])[:60]
