"""Several compute capabilities: what some of them refuse does not keep an engine from the others."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

from graphkit.engine.builder import Builder, BuildRequest, Engine
from graphkit.engine.preflight import Verdict, preflight
from graphkit.errors import BuildFailed, TargetsLeftOut, TargetUnsupported

ALL = "all"
"""`--cc all`: every compute capability that the builder knows."""

_TITLES = {"rtx": "TensorRT-RTX", "tensorrt": "TensorRT"}
_MOST_NODES = 8


@dataclass(frozen=True, slots=True)
class LeftOut:
    """A compute capability that was asked for and has no engine.

    Attributes:
        target: `7.5`.
        code: Rule of `graphkit check` that says so, or `builder` where only the build showed it.
        reason: In one line.
        nodes: The nodes that are why, where they are known.
        where: The first one's place in the user's code.
        remedy: What to do.
    """

    target: str
    code: str
    reason: str
    nodes: tuple[str, ...] = ()
    where: str | None = None
    remedy: str | None = None

    def __str__(self) -> str:
        few = ", ".join(self.nodes[:_MOST_NODES]) + (", ..." if len(self.nodes) > _MOST_NODES else "")
        return f"{self.target}: {self.reason}" + (f": {few}" if few else "")

    def to_json(self) -> dict[str, Any]:
        return {**asdict(self), "nodes": list(self.nodes)}

    @classmethod
    def from_json(cls, data: Mapping[str, Any]) -> LeftOut:
        """The inverse of `to_json`. Raises: KeyError, TypeError: it is of another form."""
        return cls(**{**data, "nodes": tuple(data["nodes"])})


@dataclass(frozen=True, slots=True)
class Built:
    """An engine, and the targets that it was asked to have and has not."""

    engine: Engine
    left_out: tuple[LeftOut, ...] = ()

    def complaint(self) -> TargetsLeftOut | None:
        """The error with which a command ends that has written such an engine; None if it has every target."""
        if not self.left_out:
            return None
        bad, made = ", ".join(each.target for each in self.left_out), ",".join(self.engine.targets)
        return TargetsLeftOut(
            f"the engine was built for {made.replace(',', ', ')}, and not for {bad}: {self.left_out[0].reason}",
            where=self.left_out[0].where,
            details=tuple(map(str, self.left_out)),
            remedy=f"--cc {made} asks for what there is; or: {self.left_out[0].remedy}",
            data={"built": list(self.engine.targets), "left_out": [each.to_json() for each in self.left_out]},
        )


def expand(builder: Builder, asked: Sequence[str]) -> tuple[str, ...]:
    """The compute capabilities that are meant: `all` is every one that the builder knows.

    Raises:
        ExtraMissing, GpuRequired: it cannot be asked here.
    """
    return builder.known() if tuple(asked) == (ALL,) else tuple(asked)


def build(builder: Builder, request: BuildRequest, output: Path, *, durable: bool = True) -> Built:
    """Build for those of the targets that the model can be built for.

    What the graph shows to be impossible is left out before the build; where the builder then refuses, each target is
    tried alone, and the engine is built for those that went well.

    Raises:
        TargetUnsupported: every target lacks something that the model needs.
        BuildFailed: the build fails for every target, or for another reason than a target.
        GraphkitError: as `Builder.build`.
    """
    builder.check(request)
    verdicts = preflight(request.model, request.compute_capabilities, rtx=builder.name == "rtx")
    left_out = [_left_out(verdict) for verdict in verdicts if not verdict.fits]
    if left_out and len(left_out) == len(verdicts):
        raise _nothing_left(left_out, _TITLES.get(builder.name, builder.name))
    fitting = replace(request, compute_capabilities=tuple(verdict.target for verdict in verdicts if verdict.fits))
    try:
        return Built(builder.build(fitting, output, durable=durable), tuple(left_out))
    except BuildFailed as error:
        alone: Mapping[str, bool] = error.data.get("targets", {})
        good = tuple(target for target in fitting.compute_capabilities if alone.get(target))
        if not good:
            error.details = (*error.details, *map(str, left_out))
            raise
        remedy = error.remedy
        left_out += [
            LeftOut(target, "builder", error.data["reasons"][target], (), error.where, remedy)
            for target in fitting.compute_capabilities
            if target not in good
        ]
    order = {target: number for number, target in enumerate(request.compute_capabilities)}
    engine = builder.build(replace(fitting, compute_capabilities=good), output, durable=durable)
    return Built(engine, tuple(sorted(left_out, key=lambda each: order[each.target])))


def _left_out(verdict: Verdict) -> LeftOut:
    first = verdict.obstacles[0]
    return LeftOut(
        verdict.target,
        first.code,
        "; ".join(each.reason for each in verdict.obstacles),
        tuple(dict.fromkeys(node for each in verdict.obstacles for node in each.nodes)),
        next((source for each in verdict.obstacles for source in each.sources), None),
        first.remedy,
    )


def _nothing_left(left_out: Sequence[LeftOut], title: str) -> TargetUnsupported:
    first = left_out[0]
    targets = ", ".join(each.target for each in left_out)
    return TargetUnsupported(
        f"{title} cannot build the model for {targets}: {first.reason}",
        where=first.where,
        details=tuple(map(str, left_out)),
        remedy=first.remedy,
        data={"left_out": [each.to_json() for each in left_out]},
    )
