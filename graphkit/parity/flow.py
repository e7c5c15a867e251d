"""Which value depends on which, in an ONNX graph or in a recorded run of a framework."""

from __future__ import annotations

from collections.abc import Collection, Iterable, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

from graphkit.model import SourceLine, provenance
from graphkit.parity.common_tensors import BLIND, reads_of

if TYPE_CHECKING:
    from graphkit.model import Model

_VIEWS = frozenset({"Reshape", "Transpose", "Flatten", "Squeeze", "Unsqueeze"})
"""Operators that make no new values: what they make from a matched tensor is as good as matched. (Identity is left
out: it is what an activation that was taken for fused becomes.)"""


@dataclass(frozen=True, slots=True)
class Step:
    """One computation.

    Attributes:
        op: Operator: `Gemm`, `aten.addmm`.
        node: Name of the node, or path of the module that runs it.
        reads, makes: Names of the values.
        source: The user's lines that it comes from.
    """

    op: str
    node: str
    reads: tuple[str, ...]
    makes: tuple[str, ...]
    source: tuple[SourceLine, ...] = ()


def steps_of(model: Model) -> tuple[Step, ...]:
    """The nodes of a model's top graph in topological order; the bodies of If and Loop belong to their node."""
    return tuple(
        Step(
            node.op_type,
            node.name or "",
            tuple(dict.fromkeys(v.name for v in reads_of(node) if v.name)),
            tuple(v.name for v in node.outputs if v.name),
            provenance(node),
        )
        for node in model.ir.graph
    )


class Flow:
    """Steps in topological order, and what follows from them.

    Args:
        inputs: Values that are fed: what depends on none of them is a constant, and never suspected.
    """

    def __init__(self, steps: Sequence[Step], inputs: Iterable[str]) -> None:
        self.makers = {name: step for step in steps for name in step.makes}
        self.depth = {name: position for position, step in enumerate(steps) for name in step.makes}
        live = set(inputs)
        for step in steps:
            if live.intersection(step.reads):
                live.update(step.makes)
        self._live = live

    def ordered(self, names: Collection[str]) -> list[str]:
        """Names in the order in which they are made."""
        return sorted((n for n in names if n in self.depth), key=self.depth.__getitem__)

    def suspects(self, matched: Collection[str], judged: Collection[str], target: str) -> list[str]:
        """What may be the first wrong value on the way to `target`, in order; never empty, and `target` comes last.

        A value without an equal on the other side is no suspect where another that was made from it has one: the
        other side just computes it in other steps.

        Args:
            matched: Values that have an equal.
            judged: Values that could have one; of the others nothing is known.
        """
        good = self._proven(matched, judged)
        found = (self._before(target) & set(judged) & self._live) - good - {target}
        return [*self.ordered(found), target]

    def nearest(self, name: str, matched: Collection[str]) -> tuple[list[str], list[Step]]:
        """The nearest matched values that a value is made from, and the steps on the way, its own left out."""
        tensors: dict[str, None] = {}
        between: dict[int, Step] = {}
        pending = list(self.makers[name].reads)
        while pending:
            read = pending.pop()
            step = self.makers.get(read)
            if read in matched:
                tensors.setdefault(read)
            elif step is not None and id(step) not in between and read in self._live:
                between[id(step)] = step
                pending.extend(step.reads)
        steps = sorted(between.values(), key=lambda s: self.depth[s.makes[0]])
        return self.ordered(tensors), steps

    def _proven(self, matched: Collection[str], judged: Collection[str]) -> set[str]:
        good = set(matched)
        pending = list(matched)
        while pending:
            step = self.makers.get(pending.pop())
            if step is None or step.op in BLIND:
                continue
            fresh = [n for n in step.reads if n in judged and n not in good]
            good.update(fresh)
            pending.extend(fresh)
        for name in self.ordered(judged):
            step = self.makers[name]
            if step.op in _VIEWS and step.reads and step.reads[0] in good:
                good.add(name)
        return good

    def _before(self, target: str) -> set[str]:
        found: set[str] = set()
        pending = [target]
        while pending:
            name = pending.pop()
            if name in self.makers and name not in found:
                found.add(name)
                pending.extend(self.makers[name].reads)
        return found
