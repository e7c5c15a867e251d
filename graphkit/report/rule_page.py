"""The page of all rewrite rules, made from the rules themselves.

python -m graphkit.report.rule_page docs/reference/rules.md
"""

from __future__ import annotations

import sys
from pathlib import Path

from graphkit import atomic
from graphkit.rewrite import legalize, rules
from graphkit.rewrite.rule import GROUPS, Rule

_HEAD = """# Rewrite rules

Written by `make rules`; do not edit. `--only` and `--skip` of `graphkit optimize` take names of rules and of groups.
*Exact* rules leave results bit for bit the same, and are all that `--level 1` applies. *Since* is the lowest opset in
which a rule applies; `--level 2` lifts graphs to a newer one first. Where targets are named, it applies for them alone.
"""

_TABLE = """
## {group}

| rule | looks at | what it does | exact | since | targets |
|---|---|---|---|---|---|
"""


def page() -> str:
    """The page, in Markdown: a table for each group, rules in the order of trying."""
    every = (*rules.every(), *legalize.rules())
    text = _HEAD
    for group in GROUPS:
        mine = [rule for rule in every if rule.group == group]
        if mine:
            text += _TABLE.format(group=group) + "".join(f"{_row(rule)}\n" for rule in mine)
    return text


def _row(rule: Rule) -> str:
    looks = ", ".join(f"`{op}`" for op in rule.ops[:4]) + (" ..." if len(rule.ops) > 4 else "")
    says = rule.says.replace("|", "\\|")
    exact, since, targets = "yes" if rule.exact else "no", rule.since, ", ".join(rule.targets) or "all"
    return f"| `{rule.name}` | {looks} | {says} | {exact} | {since} | {targets} |"


if __name__ == "__main__":
    atomic.write_bytes(Path(sys.argv[1]), page().encode())
