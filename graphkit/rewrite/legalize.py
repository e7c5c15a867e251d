"""What is elegant ONNX, as what TensorRT's parser and builder take; last of all, for the targets `trt` and `rtx`.

It stays within the standard: ONNX's checker and ONNX Runtime take what it makes. `graphkit.marks` then sets an
attribute that only TensorRT knows, in what is written for it, after both have seen the graph without it. What is taken
was measured (`fixtures/legal_table.py`) with TensorRT-RTX 1.7.1.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from graphkit.rewrite.editor import Editor
    from graphkit.rewrite.passes import Options
    from graphkit.rewrite.rule import Rule

TARGETS = ("trt", "rtx")


def rules() -> tuple[Rule, ...]:
    """The rules of the last step, in the order of trying."""
    from graphkit.rewrite import legalize_attention, legalize_forms

    return (*legalize_forms.RULES, *legalize_attention.RULES)


def run(editor: Editor, options: Options) -> None:
    """Make a graph legal for its target, whatever the level; for `onnx` and `ort` everything is."""
    if editor.target not in TARGETS:
        return
    from graphkit.rewrite import driver

    skipped = set(options.skip)
    driver.run(editor, [rule for rule in rules() if rule.name not in skipped and rule.group not in skipped])
