"""What a conversion answers: its stages, its files, its verdict."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

if TYPE_CHECKING:
    from graphkit.errors import GraphkitError
    from graphkit.lowering import Lowering
    from graphkit.model import Finding, Model
    from graphkit.parity.verdict import ParityReport


@dataclass(frozen=True, slots=True)
class Stage:
    """One step of a conversion.

    Attributes:
        name: `capture`, `optimise`, `build`, `validate`.
        status: `done`, `skipped` (with the reason in `detail`) or `failed`.
        seconds: Wall time.
        detail: What it did, in a few words: `torch.export, opset 20`, `onnxsim: 142 -> 98 nodes`.
        nodes: Number of ONNX nodes after it, where it made a graph.
        size: Bytes of what it made: of the weights for a graph, of the file for an engine.
    """

    name: str
    status: Literal["done", "skipped", "failed"]
    seconds: float
    detail: str = ""
    nodes: int | None = None
    size: int | None = None

    def to_json(self) -> dict[str, Any]:
        return {
            "name": self.name,
            "status": self.status,
            "seconds": round(self.seconds, 3),
            "detail": self.detail,
            "nodes": self.nodes,
            "size": self.size,
        }


@dataclass(frozen=True, slots=True)
class ConvertResult:
    """The outcome of `convert`.

    Attributes:
        source: Name of what was converted.
        target: `onnx` or `trt`.
        output: The file that was asked for; None if it was not made.
        files: Every file that was written, `output` first.
        stages: In the order they ran.
        warnings: What the user should know: findings of capture, of the build.
        parity: The verdict; None if the conversion ended before it.
        lowering: What was brought to a lower precision, and what was not; None where none was asked for.
        model: The ONNX model that was made; None if capture failed.
        error: What ended the conversion; None when all went well.
    """

    source: str
    target: str
    output: Path | None = None
    files: tuple[Path, ...] = ()
    stages: tuple[Stage, ...] = ()
    warnings: tuple[Finding, ...] = ()
    parity: ParityReport | None = None
    lowering: Lowering | None = None
    model: Model | None = None
    error: GraphkitError | None = None

    @property
    def status(self) -> Literal["ok", "no", "error"]:
        """`ok`; `no` where the answer is no (exit code 1); `error` for everything else."""
        if self.error is None:
            return "ok"
        return "no" if self.error.exit_code == 1 else "error"

    def to_json(self) -> dict[str, Any]:
        """Strict JSON values, schema `graphkit.convert/1`."""
        return {
            "schema": "graphkit.convert/1",
            "status": self.status,
            "source": self.source,
            "target": self.target,
            "output": str(self.output) if self.output else None,
            "files": [str(f) for f in self.files],
            "signature": self.model.signature.to_json() if self.model else None,
            "stages": [s.to_json() for s in self.stages],
            "precision": self.lowering.to_json() if self.lowering else None,
            "parity": self.parity.to_json() if self.parity else None,
            "warnings": [w.to_json() for w in self.warnings],
            "error": self.error.to_json() if self.error else None,
        }
