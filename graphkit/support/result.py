"""What a check found, as values."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from typing import Any, Literal

from graphkit.support.rule import TARGETS, Severity

Answer = Literal["yes", "no"]


@dataclass(frozen=True, slots=True)
class Read:
    """What a node reads: its name, what is known of it, and the node that makes it ("" for an input or weight)."""

    name: str
    type: str
    made_by: str


@dataclass(frozen=True, slots=True)
class NodeFacts:
    """A node, for people.

    Attributes:
        name: As in the file; may be "".
        op: Operator, with its domain unless it is ONNX's own.
        label: `conv_1 (Conv)`, or what it makes where it has no name.
        path: The nodes whose branches or bodies it is in, outermost first: `If_0.then_branch`.
        module: Path of the module in the author's model, "" where nobody recorded it.
        source: The author's lines: `net.py:12 in Net.forward (module head)`.
        file, line: The first of them, for annotations.
        reads: What it reads.
    """

    name: str
    op: str
    label: str
    path: tuple[str, ...] = ()
    module: str = ""
    source: str | None = None
    file: str | None = None
    line: int | None = None
    reads: tuple[Read, ...] = ()


@dataclass(frozen=True, slots=True)
class Finding:
    """One thing that a rule, or a library, has to say.

    Attributes:
        code, title: Of the rule.
        severity: Of the rule; `warning` where a library that was asked took what the rule calls an error.
        message: What is wrong, with the value.
        fix: What to do.
        node: Where; None where it is about the model or a value.
        value: Name of the input, output or weight that it is about.
        capabilities: Compute capabilities that it is about; () for all.
        said: The library's own words.
        top: Position in the main graph of the node, or of the one that it is in; None without a node.
    """

    code: str
    title: str
    severity: Severity
    message: str
    fix: str
    node: NodeFacts | None = None
    value: str | None = None
    capabilities: tuple[str, ...] = ()
    said: tuple[str, ...] = ()
    top: int | None = field(default=None, repr=False)

    def to_json(self) -> dict[str, Any]:
        data = asdict(self)
        del data["top"]
        return data


@dataclass(frozen=True, slots=True)
class Asked:
    """Who was asked: `rules`, `parser`, `builder`, `onnxruntime`; whether it ran, on what release; or "
    "why it did not."""

    who: str
    ran: bool
    detail: str = ""


@dataclass(frozen=True, slots=True)
class Partition:
    """A part of the model that the target takes, as a model of its own.

    Attributes:
        file: Name of the `.onnx` file in the folder that was given; None where it could not be cut out.
        nodes: Number of its nodes.
        inputs, outputs: Its tensors.
        problem: Why there is no file, or what onnx.checker or ONNX Runtime say against it; None where all is well.
    """

    file: str | None
    nodes: int
    inputs: tuple[str, ...]
    outputs: tuple[str, ...]
    problem: str | None = None


@dataclass(frozen=True, slots=True)
class CheckResult:
    """Whether a target will take a model.

    Attributes:
        source: What was checked.
        target: `trt`, `rtx` or `ort`.
        answer: `yes` or `no`.
        static: Whether only the rules gave it, because the target's library is not here.
        findings: Everything found: errors first, then in the order of the graph.
        hidden: Findings that --select and --ignore keep from being shown; they count for the answer all the same.
        asked: Who was asked.
        capabilities: For each compute capability that was named, whether it will build for it.
        nodes: Nodes of the model; `refused` of them have errors.
        producer: The program that wrote the file.
        partitions: The parts that the target takes, if they were asked for.
    """

    source: str
    target: str
    answer: Answer
    static: bool
    findings: tuple[Finding, ...]
    hidden: int
    asked: tuple[Asked, ...]
    capabilities: Mapping[str, bool]
    nodes: int
    refused: int
    producer: str = ""
    partitions: tuple[Partition, ...] = ()

    @property
    def title(self) -> str:
        """The target as people call it."""
        return TARGETS[self.target]

    @property
    def errors(self) -> tuple[Finding, ...]:
        return tuple(f for f in self.findings if f.severity == "error")

    @property
    def exit_code(self) -> int:
        """0 it will build, 1 it will not, 3 the library that could say so is not here though it can be installed."""
        if self.static and self.target == "rtx":
            return 3
        return 0 if self.answer == "yes" else 1

    def to_json(self) -> dict[str, Any]:
        """The result as strict JSON values."""
        return {
            "schema": "graphkit.check/1",
            "source": self.source,
            "target": self.target,
            "answer": self.answer,
            "static": self.static,
            "asked": [asdict(a) for a in self.asked],
            "capabilities": dict(self.capabilities),
            "nodes": self.nodes,
            "refused": self.refused,
            "producer": self.producer,
            "hidden": self.hidden,
            "findings": [f.to_json() for f in self.findings],
            "partitions": [asdict(p) for p in self.partitions],
        }
