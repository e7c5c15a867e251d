"""LSTM, GRU and RNN start from zeros where no initial state is given (ONNX operators, `initial_h`, `initial_c`): zeros
that were made for them, and the arithmetic of their shape, can go."""

from __future__ import annotations

from typing import TYPE_CHECKING

from graphkit.rewrite.rule import Rule

if TYPE_CHECKING:
    import onnx_ir as ir

    from graphkit.rewrite.editor import Editor

_STATES = (5, 6)
_MOVING = ("Expand", "Identity", "Reshape", "Slice", "Squeeze", "Tile", "Transpose", "Unsqueeze")
_MOST_MOVES = 8


def _zero_state(editor: Editor, node: ir.Node) -> bool:
    found = [index for index in _STATES if _is_zero(editor, editor.input(node, index))]
    for index in found:
        editor.set_input(node, index, None)
    return bool(found)


def _is_zero(editor: Editor, value: ir.Value | None) -> bool:
    """Whether every element is zero, whatever its shape is."""
    for _ in range(_MOST_MOVES):
        if value is None:
            return False
        if editor.uniform(value) == 0:
            return True
        made = editor.producer(value, "ConstantOfShape")
        if made is not None:
            filled = made.attributes.get("value")  # absent: float zeros
            return filled is None or not filled.as_tensor().numpy().any()
        moved = editor.producer(value, *_MOVING)
        value = editor.input(moved, 0) if moved is not None else None
    return False


RULES = (
    Rule(
        "zero-state",
        "recurrent",
        ("LSTM", "GRU", "RNN"),
        _zero_state,
        "initial states that are zero are left out: recurrent layers start from zeros by themselves",
    ),
)
