"""The third pass: what is known before anything runs is computed, and what is there twice is there once.

The rules of the group `folding`, until none finds anything more; see `graphkit.rewrite.rules.constants`. What the file
may grow by is spent on the smallest constants first: they are the most nodes for it.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

from graphkit.rewrite import driver
from graphkit.rewrite.rules import constants_duplicates
from graphkit.traversal import graphs_of, nodes_of, read_count

if TYPE_CHECKING:
    from graphkit.rewrite.editor import Editor
    from graphkit.rewrite.rule import Rule

_SMALL = 4096
"""Bytes that a constant may add in the first round; each round at least doubles it."""


def fold(editor: Editor, rules: Sequence[Rule]) -> None:
    """Apply those of `rules` that fold, and merge what is there twice."""
    folding = [rule for rule in rules if rule.group == "folding"]
    most = _held(editor) + editor.growth if _has_filled(editor) else 0
    editor.at_once = _SMALL
    driver.run(editor, folding)
    if editor.put_off:  # what is there twice is paid for once
        constants_duplicates.merge(editor, {rule.name for rule in rules})
    while editor.put_off:
        editor.at_once, editor.put_off = max(2 * editor.at_once, editor.put_off), 0
        driver.run(editor, folding)
    constants_duplicates.merge(editor, {rule.name for rule in rules})
    if editor.left_compact:
        editor.most = editor.most or most
        _settle(editor)
    editor.at_once = editor.growth


def write_out(editor: Editor, rules: Sequence[Rule]) -> None:
    """Write out the weights that stayed `ConstantOfShape` while a scale could fold into them, as far as the file may
    still grow: readers that compute nothing beforehand have fewer layers then."""
    if not editor.left_compact:
        return
    _settle(editor)
    driver.run(editor, rules)  # a scale for which there was no room before
    editor.compact = False
    editor.settled.clear()
    fold(editor, rules)


def _settle(editor: Editor) -> None:
    """Count what was folded, and was then merged or went with its node, as no growth."""
    editor.growth = max(editor.growth, editor.most - _held(editor))
    editor.settled.clear()


def _has_filled(editor: Editor) -> bool:
    """Whether a weight may stay one number in a shape."""
    return any(node.op_type == "ConstantOfShape" for node in nodes_of(editor.model.graph))


def _held(editor: Editor) -> int:
    """Bytes of the constants that are read."""
    held = (
        value for graph in graphs_of(editor.model.graph) for value in graph.initializers.values() if read_count(value)
    )
    return sum(value.const_value.nbytes for value in held if value.const_value is not None)
