"""What a rewrite rule is, and what is said about its work."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from graphkit.model import SourceLine

if TYPE_CHECKING:
    import onnx_ir as ir

    from graphkit.rewrite.editor import Editor

TARGETS = ("onnx", "trt", "rtx", "ort")
GROUPS = ("structure", "folding", "convolution", "transpose", "transformer", "recurrent", "target")


@dataclass(frozen=True, slots=True)
class Rule:
    """One rewriting: where it starts to look, and what it does there.

    Attributes:
        name: What `--only`, `--skip` and `--explain` call it: `conv-batchnorm`.
        group: One of `GROUPS`.
        ops: Operators of the default domain at which it looks.
        apply: Looks at one node, and rewrites what is around it; whether it did. It changes the graph through the
            editor alone. What it says to `Editor.miss` is shown as a near miss.
        says: What it does, in a line, for people.
        exact: Whether every number is computed by the same operations in the same order; else results differ by
            rounding.
        targets: Targets for which it is right; () for all.
        since: Lowest opset in which what it makes exists.
        late: Whether it waits until no early rule finds anything more.
    """

    name: str
    group: str
    ops: tuple[str, ...]
    apply: Callable[[Editor, ir.Node], bool]
    says: str
    exact: bool = True
    targets: tuple[str, ...] = ()
    since: int = 1
    late: bool = False


@dataclass(frozen=True, slots=True)
class Change:
    """One application of a rule: the nodes that went, and those that came in their place (n:m).

    Attributes:
        rule: Name of the rule.
        old: Name and operator of each node that was removed; () where only an attribute or an input changed.
        new: The same of each node that was made.
        at: Where in the user's code the old nodes came from.
    """

    rule: str
    old: tuple[tuple[str, str], ...]
    new: tuple[tuple[str, str], ...]
    at: tuple[SourceLine, ...] = ()

    @property
    def saved(self) -> int:
        """Nodes fewer than before."""
        return len(self.old) - len(self.new)

    def to_json(self) -> dict[str, Any]:
        return {"rule": self.rule, "old": list(self.old), "new": list(self.new), "at": [str(line) for line in self.at]}


@dataclass(frozen=True, slots=True)
class Miss:
    """A place that looked like a rule's and was not: what `--explain` says about it."""

    rule: str
    node: str
    why: str
    at: tuple[SourceLine, ...] = ()

    def to_json(self) -> dict[str, Any]:
        return {"rule": self.rule, "node": self.node, "why": self.why, "at": [str(line) for line in self.at]}


@dataclass(frozen=True, slots=True)
class Changes:
    """What became of a graph.

    Attributes:
        done: Every application, in order.
        missed: Near misses that were still there in the end.
    """

    done: tuple[Change, ...] = ()
    missed: tuple[Miss, ...] = ()

    def by_rule(self) -> dict[str, int]:
        """How often each rule was applied, in the order of their first application."""
        found: dict[str, int] = {}
        for change in self.done:
            found[change.rule] = found.get(change.rule, 0) + 1
        return found
