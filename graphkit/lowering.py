"""What a lowering to another precision did: which nodes stayed in float32 and why, and what share really is low."""

from __future__ import annotations

from dataclasses import asdict, dataclass
from typing import TYPE_CHECKING, Any, Literal

if TYPE_CHECKING:
    from graphkit.model import Finding, Model, SourceLine

Precision = Literal["fp16", "bf16", "int8", "fp8", "int4"]


@dataclass(frozen=True, slots=True)
class Kept:
    """A node that stays in float32.

    Attributes:
        node: Its name, else that of its first output.
        op: Its operator.
        why: The reason, in one line, with the figure that decided.
        where: The lines of the user's code that it comes from.
        figure: The value that decided: the largest |x| of a tensor, a share, a length; None where none did.
    """

    node: str
    op: str
    why: str
    where: tuple[SourceLine, ...] = ()
    figure: float | None = None

    def to_json(self) -> dict[str, Any]:
        return {**asdict(self), "where": [asdict(line) for line in self.where]}


@dataclass(frozen=True, slots=True)
class Lowering:
    """A model in a lower precision, and how far it is.

    Attributes:
        model: The lowered model.
        precision: `fp16`, `bf16`, `int8`, `fp8` or `int4`.
        kept: Nodes that could have been lowered and stay in float32, in the graph's order.
        nodes_low, nodes_total: Nodes that multiply and sum (Conv, Gemm, MatMul, ...; see `share.counted`), in bodies
            of control flow too: those that compute in the low precision, and all.
        flops_low, flops_total: FLOPs of those nodes, twice the MACs; symbolic sizes are evaluated at those of the run
            that was captured, else at 1 for a batch and 128 for others. (0, 0) where the FLOPs of any of them are
            unknown: `share` then speaks of nodes.
        findings: What a reader has to know.
        uncalibrated: Whether scales are guesses, for want of data.
    """

    model: Model
    precision: str
    kept: tuple[Kept, ...]
    nodes_low: int
    nodes_total: int
    flops_low: float
    flops_total: float
    findings: tuple[Finding, ...] = ()
    uncalibrated: bool = False

    @property
    def share(self) -> float:
        """Low-precision share, 0 to 1: of FLOPs where they are known, else of nodes (`share_of` says which)."""
        if self.flops_total:
            return self.flops_low / self.flops_total
        return self.nodes_low / self.nodes_total if self.nodes_total else 0.0

    @property
    def share_of(self) -> Literal["FLOPs", "nodes"]:
        """What `share` is a share of."""
        return "FLOPs" if self.flops_total else "nodes"

    @property
    def summary(self) -> str:
        """`fp16 in 12 of 14 layers, 97 % of FLOPs`."""
        layers = f"{self.precision} in {self.nodes_low} of {self.nodes_total} layers"
        return f"{layers}, {100 * self.share:.3g} % of {self.share_of}"

    def to_json(self) -> dict[str, Any]:
        """Strict JSON values, without the model."""
        return {
            "precision": self.precision,
            "nodes_low": self.nodes_low,
            "nodes_total": self.nodes_total,
            "flops_low": self.flops_low,
            "flops_total": self.flops_total,
            "share": self.share,
            "share_of": self.share_of,
            "uncalibrated": self.uncalibrated,
            "kept": [k.to_json() for k in self.kept],
            "findings": [f.to_json() for f in self.findings],
        }
