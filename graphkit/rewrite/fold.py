"""The third pass: what is known before anything runs is computed, and what is there twice is there once.

The rules of the group `folding`, until none finds anything more; see `graphkit.rewrite.rules.constants`. What the file
may grow by is spent on the smallest constants first: they are the most nodes for it.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

from graphkit.rewrite import driver
from graphkit.rewrite.rules import constants_duplicates

if TYPE_CHECKING:
    from graphkit.rewrite.editor import Editor
    from graphkit.rewrite.rule import Rule

_SMALL = 4096
"""Bytes that a constant may add in the first round; each round at least doubles it."""


def fold(editor: Editor, rules: Sequence[Rule]) -> None:
    """Apply those of `rules` that fold, and merge what is there twice."""
    folding = [rule for rule in rules if rule.group == "folding"]
    editor.at_once = _SMALL
    driver.run(editor, folding)
    if editor.put_off:  # what is there twice is paid for once
        constants_duplicates.merge(editor, {rule.name for rule in rules})
    while editor.put_off:
        editor.at_once, editor.put_off = max(2 * editor.at_once, editor.put_off), 0
        driver.run(editor, folding)
    editor.at_once = editor.growth
    constants_duplicates.merge(editor, {rule.name for rule in rules})
