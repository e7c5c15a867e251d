"""The order of rewriting: normalise, lift the opset, fold, apply rules, make legal for the target, tidy up.

Each pass changes the graph in place through one `Editor`; who needs the old graph keeps it.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING

from graphkit.errors import BadOption
from graphkit.rewrite.editor import Editor
from graphkit.rewrite.facts import Facts
from graphkit.rewrite.rule import TARGETS, Change, Changes, Rule

if TYPE_CHECKING:
    import onnx_ir as ir

    from graphkit.view import ModelView

GROWTH = 1_000_000
"""Bytes that folded constants may add to a model."""


@dataclass(frozen=True, slots=True)
class Options:
    """What rewriting is asked for.

    Attributes:
        level: 0: only what the target needs; 1: every number is computed as before; 2: fusions too, which round
            differently, and the opset is lifted for them.
        target: `onnx` (portable standard operators), `trt`, `rtx` or `ort`.
        opset: The opset to end with; None for the newest that the target takes (level 2), or the model's own.
        only, skip: Names of rules or groups.
        growth: Bytes that folded constants may add.
    """

    level: int = 2
    target: str = "onnx"
    opset: int | None = None
    only: tuple[str, ...] = ()
    skip: tuple[str, ...] = ()
    growth: int = GROWTH

    def __post_init__(self) -> None:
        if self.target not in TARGETS:
            raise BadOption(f"--target {self.target}: unknown target", remedy=f"one of {', '.join(TARGETS)}")
        if self.level not in (0, 1, 2):
            raise BadOption(f"--level {self.level}: there are 0, 1 and 2", remedy="--level 2")


Step = Callable[[Editor, Options], None]


def steps() -> tuple[tuple[str, Step], ...]:
    """The passes in their order, by name."""
    return (
        ("normalise", _normalise),
        ("recurrent", _recurrent),
        ("lift", _lift),
        ("fold", _fold),
        ("rules", _rules),
        ("legal", _legal),
        ("tidy", _tidy),
    )


def rewrite(
    model: ir.Model, view: ModelView | None, options: Options, after: Callable[[str, Editor], None] | None = None
) -> Changes:
    """Rewrite a model in place.

    Args:
        model: The graph.
        view: The view of the same graph, from which symbolic sizes are known; without one, what the graph states.
        options: What is asked for.
        after: Called after each pass, with its name.

    Raises:
        CorruptFile: the graph has a cycle, or functions that call one another without end.
        OpsetNotHonoured: it cannot be written in the opset that is asked for.
        UnknownName: `only` or `skip` names no rule.
    """
    editor = Editor(model, Facts.of(model, view), options.target, options.growth)
    for name, step in steps():
        step(editor, options)
        if after is not None:
            after(name, editor)
    return Changes(tuple(editor.done), tuple(editor.missed.values()))


def _normalise(editor: Editor, options: Options) -> None:
    from graphkit.rewrite.normalise import normalise

    normalise(editor)


def _recurrent(editor: Editor, options: Options) -> None:
    """Loops that are recurrent layers, before anything in their bodies changes."""
    from graphkit.rewrite import recurrent

    wanted = not options.only or "recurrent" in options.only
    if options.level < 2 or not wanted or "recurrent" in options.skip or editor.opset < recurrent.OLDEST:
        return
    made = recurrent.recognise_recurrent(editor.model)
    for op, count in sorted(made.items()):
        editor.done.extend([Change("recurrent", (("", "Loop"),), (("", op),))] * count)
    if made:
        editor.names_changed()


def _lift(editor: Editor, options: Options) -> None:
    """At level 2, or where an opset is asked for; else only what came out of functions is evened out."""
    from graphkit.rewrite import lift

    if options.level == 2 or options.opset is not None:
        lift.lift(editor, options.opset)
    else:
        lift.even_out(editor, editor.opset)


def _fold(editor: Editor, options: Options) -> None:
    from graphkit.rewrite.fold import fold

    fold(editor, _chosen(editor, options))


def _rules(editor: Editor, options: Options) -> None:
    from graphkit.rewrite import driver
    from graphkit.rewrite.fold import write_out

    chosen = _chosen(editor, options)
    driver.run(editor, chosen)
    write_out(editor, chosen)


def _legal(editor: Editor, options: Options) -> None:
    from graphkit.rewrite import legalize

    legalize.run(editor, options)


def _tidy(editor: Editor, options: Options) -> None:
    from graphkit.rewrite.rules import constants_duplicates
    from graphkit.rewrite.tidy import tidy

    constants_duplicates.merge(editor, {rule.name for rule in _chosen(editor, options)})
    tidy(editor)


def _chosen(editor: Editor, options: Options) -> list[Rule]:
    """The rules that were asked for, as far as the level allows them."""
    from graphkit.rewrite import rules

    chosen = rules.chosen(options.target, editor.opset, options.only, options.skip)
    return [rule for rule in chosen if options.level == 2 or (options.level == 1 and rule.exact)]
