"""An `Optimization` as text and as JSON."""

from __future__ import annotations

import json
from collections.abc import Iterable, Iterator, Mapping
from typing import Any

from graphkit.delta.places import ranges
from graphkit.optimization import Optimization
from graphkit.report.wording import printable
from graphkit.rewrite.rule import Change, Miss, Rule

_MARKED = (
    "Attention is marked with TRT_decomposable, without which TensorRT has no kernel for it in float32: ONNX Runtime "
    "alone refuses the file; every graphkit command takes it"
)
_MOST_ROWS = 30
_MOST_LINES = 3
_MOST_MISSES = 20


def to_json(found: Optimization, source: str, files: Iterable[str]) -> str:
    """The answer as strict JSON (schema graphkit.optimize/1)."""
    answer: dict[str, Any] = {
        "schema": "graphkit.optimize/1",
        "status": "ok",
        "source": source,
        "files": list(files),
        "opset": {"before": found.opset, "after": found.model.opset},
        "nodes": {"before": sum(found.before.values()), "after": sum(found.after.values())},
        "operators": {"before": dict(found.before), "after": dict(found.after)},
        "rules": found.changes.by_rule(),
        "changes": [change.to_json() for change in found.changes.done],
        "missed": [miss.to_json() for miss in found.changes.missed],
        "caveats": list(found.caveats),
        "marked": found.marked,
        "padding": found.padding.to_json() if found.padding is not None else None,
        "rolled_back": [each.to_json() for each in found.rolled_back],
        "parity": {"status": found.proved, "comparisons": [c.to_json() for c in found.comparisons]},
    }
    return json.dumps(answer, indent=2, allow_nan=False)


def to_text(found: Optimization, source: str, files: Iterable[str], *, explain: bool = False) -> str:
    """The answer on one screen.

    Args:
        found: What was done.
        source: What the model is called.
        files: What was written.
        explain: Say of each rule what it does, in which modules and lines it fired, and where it nearly did.
    """
    before, after = sum(found.before.values()), sum(found.after.values())
    raised = f"{found.opset} -> " if found.opset != found.model.opset else ""
    lines = [f"{source}: {before} -> {after} nodes, opset {raised}{found.model.opset}"]
    lines += _story(found) if explain else _rules(found)
    lines += ["", *(f"  {text}" for text in _operators(found.before, found.after))]
    lines += [f"  left out: {each.rule}: {each.reason}" for each in found.rolled_back]
    lines += [f"  note: {text}" for text in found.caveats]
    if found.marked:
        lines.append(f"  note: {_MARKED}")
    lines += ["", _proof(found), *(f"wrote {file}" for file in files)]
    return printable("\n".join(lines))


def rule_table(rules: Iterable[Rule]) -> str:
    """Every rule: its name, group and what it does."""
    rows = list(rules)
    width = max((len(rule.name) for rule in rows), default=0)
    lines, group = list[str](), ""
    for rule in sorted(rows, key=lambda rule: rule.group):
        if rule.group != group:
            group = rule.group
            lines.append(f"{group}:")
        notes = ["rounds differently"] if not rule.exact else []
        notes += [f"for {', '.join(rule.targets)}"] if rule.targets else []
        notes += [f"from opset {rule.since}"] if rule.since > 1 else []
        lines.append(f"  {rule.name:<{width}}  {rule.says}" + (f" ({'; '.join(notes)})" if notes else ""))
    return "\n".join(lines)


def _rules(found: Optimization) -> list[str]:
    grouped = _grouped(found.changes.done)
    rows = [(name, changes, sum(c.saved for c in changes)) for name, changes in grouped.items()]
    width = max((len(name) for name, _, _ in rows), default=0)
    lines = [f"  {name:<{width}}  {len(changes):>5}x  {_signed(-saved):>6} nodes" for name, changes, saved in rows]
    more = len(lines) - _MOST_ROWS
    return [*lines[:_MOST_ROWS], f"  and {more} more rules: --explain"] if more > 0 else lines


def _story(found: Optimization) -> list[str]:
    says = _says()
    lines = []
    for name, changes in _grouped(found.changes.done).items():
        saved = sum(c.saved for c in changes)
        lines += ["", f"  {name}: {says.get(name, 'a pass')} ({len(changes)}x, {_signed(-saved)} nodes)"]
        forms: dict[str, list[Change]] = {}
        for change in changes:
            forms.setdefault(_form(change), []).append(change)
        ordered = sorted(forms.items(), key=lambda item: -len(item[1]))
        for form, alike in ordered[:_MOST_LINES]:
            lines.append(f"    x{len(alike)}  {form}{_places(alike)}")
        if len(ordered) > _MOST_LINES:
            lines.append(f"    and {sum(len(a) for _, a in ordered[_MOST_LINES:])} in other forms")
    return [*lines, *_misses(found.changes.missed)]


def _misses(missed: Iterable[Miss]) -> Iterator[str]:
    grouped: dict[tuple[str, str], list[Miss]] = {}
    for miss in missed:
        grouped.setdefault((miss.rule, miss.why), []).append(miss)
    if grouped:
        yield ""
        yield "  did not fire:"
    for (rule, why), alike in list(grouped.items())[:_MOST_MISSES]:
        first = alike[0]
        where = f", {first.at[0]}" if first.at else ""
        more = f" and {len(alike) - 1} more" if len(alike) > 1 else ""
        yield f"    {rule} at `{first.node}`{more}: {why}{where}"
    if len(grouped) > _MOST_MISSES:
        yield f"    and {len(grouped) - _MOST_MISSES} other reasons: --json"


def _form(change: Change) -> str:
    old, new = (_multiset(op for _, op in part) for part in (change.old, change.new))
    if not change.old and not change.new:
        return "an input or attribute"
    return f"{old or 'nothing'} -> {new or 'nothing'}"


def _multiset(ops: Iterable[str]) -> str:
    counted: dict[str, int] = {}
    for op in ops:
        counted[op] = counted.get(op, 0) + 1
    return ", ".join(f"{count} {op}" if count > 1 else op for op, count in sorted(counted.items()))


def _places(changes: Iterable[Change]) -> str:
    modules = list(dict.fromkeys(line.module for c in changes for line in c.at[:1] if line.module))
    files = list(dict.fromkeys(f"{line.file}:{line.line}" for c in changes for line in c.at[:1] if line.file))
    said = [f"in {ranges(modules)}"] if modules else []
    said += [f"at {files[0]}" + (f" and {len(files) - 1} more lines" if len(files) > 1 else "")] if files else []
    return f"  {' '.join(said)}" if said else ""


def _operators(before: Mapping[str, int], after: Mapping[str, int]) -> list[str]:
    moved = {op: after.get(op, 0) - before.get(op, 0) for op in {*before, *after}}
    less = sorted(((op, n) for op, n in moved.items() if n < 0), key=lambda item: item[1])
    more = sorted(((op, n) for op, n in moved.items() if n > 0), key=lambda item: -item[1])
    texts = []
    for sign, rows in (("-", less), ("+", more)):
        if rows:
            shown = ", ".join(f"{abs(n)} {op}" for op, n in rows[:8])
            texts.append(f"{sign} {shown}" + (f", and {len(rows) - 8} more operators" if len(rows) > 8 else ""))
    return texts


def _proof(found: Optimization) -> str:
    if not found.comparisons:
        return "parity: not run (--verify none)"
    worst = max((o.max_abs or 0.0 for c in found.comparisons for o in c.outputs), default=0.0)
    how = "every rule" if found.verify == "each" else "the result"
    return f"parity: pass, {how}, {len(found.comparisons)} comparisons, largest difference {worst:.2g}"


def _grouped(done: Iterable[Change]) -> dict[str, list[Change]]:
    grouped: dict[str, list[Change]] = {}
    for change in done:
        grouped.setdefault(change.rule, []).append(change)
    return grouped


def _says() -> dict[str, str]:
    from graphkit.rewrite import rules

    return {rule.name: rule.says for rule in rules.every()}


def _signed(number: int) -> str:
    return f"{number:+d}" if number else "0"
