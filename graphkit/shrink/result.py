"""What came of a reduction."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from typing import Any, Literal

from graphkit.model import Model, SourceLine, provenance
from graphkit.shapes import TensorSpec

ReductionStatus = Literal["reduced", "stopped", "passes", "flaky", "not anonymous"]
Until = Literal["check", "parity", "build", "ort"]


@dataclass(frozen=True, slots=True)
class KeptNode:
    """A node of the reduced model: its operator (with its domain), its name, and the user's lines it comes from."""

    op: str
    name: str
    source: tuple[SourceLine, ...] = ()

    def to_json(self) -> dict[str, Any]:
        return {"op": self.op, "name": self.name, "source": [asdict(line) for line in self.source]}


@dataclass(frozen=True, slots=True)
class Reduction:
    """The answer of `reduce`.

    Attributes:
        status: `reduced`: a 1-minimal model was written. `stopped`: one that fails was written, but the budget ended
            before it was shown to be minimal. `passes`: the whole model does not fail. `flaky`: it does not fail each
            time, or not in the same way. `not anonymous`: the failure needs the model's own weights. Nothing is
            written in the last three.
        reason: The same in one line.
        model: Name of the whole model.
        until: What had to fail.
        check: The same in words, or the command.
        same: The reason that was kept: failures with another one did not count.
        failure: What the reduced model's failure says.
        nodes_before, nodes_after: Numbers of nodes, those of bodies and functions included.
        nodes: The nodes that are left, without those of bodies.
        inputs, outputs: Of the reduced model.
        samples: Sets of inputs that it fails on.
        trials: Candidates that were checked.
        tolerances: For each set of inputs the atol and rtol of outputs that were compared.
        command: Shows the failure, in the folder.
        folder: Where it was written.
        files: What was written, relative to the folder.
        versions: Of what took part.
        notes: What a reader should know.
        anonymized: Whether weights, inputs and names are not those of the model.
    """

    status: ReductionStatus
    reason: str
    model: str
    until: Until
    check: str
    same: str = ""
    failure: str = ""
    nodes_before: int = 0
    nodes_after: int = 0
    nodes: tuple[KeptNode, ...] = ()
    inputs: tuple[TensorSpec, ...] = ()
    outputs: tuple[TensorSpec, ...] = ()
    samples: int = 0
    trials: int = 0
    tolerances: tuple[Mapping[str, tuple[float, float]], ...] = ()
    command: str = ""
    folder: str | None = None
    files: tuple[str, ...] = ()
    versions: Mapping[str, str] = field(default_factory=dict)
    notes: tuple[str, ...] = ()
    anonymized: bool = False

    def to_json(self) -> dict[str, Any]:
        """Strict JSON values, schema `graphkit.reduce/1`; the same answer gives the same bytes."""
        data: dict[str, Any] = {"schema": "graphkit.reduce/1"}
        data.update({name: getattr(self, name) for name in self.__slots__})
        data["nodes"] = [node.to_json() for node in self.nodes]
        data["inputs"] = [spec.to_json() for spec in self.inputs]
        data["outputs"] = [spec.to_json() for spec in self.outputs]
        data["tolerances"] = [{n: list(pair) for n, pair in each.items()} for each in self.tolerances]
        data["files"], data["notes"], data["versions"] = list(self.files), list(self.notes), dict(self.versions)
        return data


def nodes_of(model: Model) -> tuple[KeptNode, ...]:
    """The nodes of the top graph, in order."""
    return tuple(
        KeptNode(f"{n.domain}.{n.op_type}" if n.domain else n.op_type, n.name or "", provenance(n))
        for n in model.ir.graph
    )
