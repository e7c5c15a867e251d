"""The page of rewrite rules is made from the rules, and current."""

from __future__ import annotations

from pathlib import Path

from graphkit.report.rule_page import page
from graphkit.rewrite import legalize, rules

PAGE = Path(__file__).resolve().parents[2] / "docs" / "reference" / "rules.md"


def test_the_page_is_current() -> None:
    assert PAGE.read_text(encoding="utf-8") == page(), "run: make rules"


def test_every_rule_has_a_row() -> None:
    rows = [line for line in page().splitlines() if line.startswith("| `")]
    names = [rule.name for rule in (*rules.every(), *legalize.rules())]
    assert sorted(row.split("`")[1] for row in rows) == sorted(names)
    assert all(row.replace("\\|", "").count("|") == 7 for row in rows)
