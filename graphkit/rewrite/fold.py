"""The third pass: what is known before anything runs is computed, and what is there twice is there once.

The rules of the group `folding`, until none finds anything more; see `graphkit.rewrite.rules.constants`.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

from graphkit.rewrite import driver
from graphkit.rewrite.rules import constants_duplicates

if TYPE_CHECKING:
    from graphkit.rewrite.editor import Editor
    from graphkit.rewrite.rule import Rule


def fold(editor: Editor, rules: Sequence[Rule]) -> None:
    """Apply those of `rules` that fold, and merge what is there twice."""
    driver.run(editor, [rule for rule in rules if rule.group == "folding"])
    constants_duplicates.merge(editor, {rule.name for rule in rules})
