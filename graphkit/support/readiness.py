"""What the rules say of a model for every target, at a glance; no library is asked."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any, NamedTuple

from graphkit.support.rule import TARGETS, rules
from graphkit.support.scene import Scene

if TYPE_CHECKING:
    from graphkit.analyze.inference import Table
    from graphkit.view import ModelView


class Readiness(NamedTuple):
    """What stands in the way of one target.

    Attributes:
        target: `trt`, `rtx` or `ort`.
        in_the_way: Code of a rule that the target minds -> number of places; empty where no rule does.
    """

    target: str
    in_the_way: Mapping[str, int]

    @property
    def name(self) -> str:
        return TARGETS[self.target]

    def __str__(self) -> str:
        shown = ", ".join(f"{code} x{count}" if count > 1 else code for code, count in self.in_the_way.items())
        return f"{self.name}: {shown or 'no rule stands in the way'}"

    def to_json(self) -> dict[str, Any]:
        return {"target": self.target, "in_the_way": dict(self.in_the_way)}


def readiness(view: ModelView, table: Table) -> tuple[Readiness, ...]:
    """What the rules of `check` say for each target.

    Args:
        view: The model.
        table: Its shapes, inferred already.

    Raises:
        CorruptFile: functions call one another without end.
    """
    scene = Scene(view, "", table=table)
    found = []
    for target in TARGETS:
        aimed = scene.aimed_at(target)
        mine = (rule for rule in rules() if target in rule.targets and rule.severity == "error")
        hits = Counter(rule.code for rule in mine for _ in rule.find(aimed))
        found.append(Readiness(target, dict(sorted(hits.items()))))
    return tuple(found)
