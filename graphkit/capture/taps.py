"""What a framework computes on the way to its outputs, one value after the other, with the user's line of each."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Protocol, runtime_checkable

from graphkit.capture.request import Arrays, RunnableSource
from graphkit.model import SourceLine


@dataclass(frozen=True, slots=True)
class Tap:
    """One computation of a run.

    Attributes:
        op: What the framework calls it: `aten.addmm`, `MatMul`.
        reads, makes: Names of the values.
        source: The user's line, and the module that runs it.
        files: `name`, `dtype` and `file` (see `tensor_files`) of each value of floats that it makes anew.
    """

    op: str
    reads: tuple[str, ...]
    makes: tuple[str, ...]
    source: SourceLine | None = None
    files: tuple[Mapping[str, str], ...] = ()


@dataclass(frozen=True, slots=True)
class Tape:
    """A recorded run.

    Attributes:
        taps: In the order in which they ran.
        inputs: Names of the values that were fed.
        outputs: Output -> its value.
    """

    taps: tuple[Tap, ...]
    inputs: tuple[str, ...]
    outputs: Mapping[str, str] = field(default_factory=dict)

    def to_json(self) -> dict[str, Any]:
        """JSON values, for the way out of a child process; `from_json` is the inverse."""
        taps = [
            [t.op, t.reads, t.makes, [t.source.module, t.source.file, t.source.line, t.source.function]
             if t.source else None, [dict(f) for f in t.files]]
            for t in self.taps
        ]  # fmt: skip
        return {"taps": taps, "inputs": list(self.inputs), "outputs": dict(self.outputs)}

    @classmethod
    def from_json(cls, data: Mapping[str, Any]) -> Tape:
        taps = tuple(
            Tap(op, tuple(reads), tuple(makes), SourceLine(*source) if source else None, tuple(files))
            for op, reads, makes, source, files in data["taps"]
        )
        return cls(taps, tuple(data["inputs"]), dict(data["outputs"]))


@runtime_checkable
class TappedSource(RunnableSource, Protocol):
    """A source whose framework shows what it computes on the way."""

    def tap(self, inputs: Arrays, folder: Path) -> Tape | None:
        """Run it as `run` does and write its values into `folder`, one file each, as they come.

        Returns:
            None where this source cannot show them.
        """
