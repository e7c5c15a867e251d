"""`graphkit convert --to onnx` against a script that does the same by hand, and proves nothing."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from benchmarks.measure import Command
from benchmarks.results import Claim
from benchmarks.startup import program

REPEATED = 1
ROOT = Path(__file__).resolve().parent.parent
MOST = 1.25


@dataclass(frozen=True, slots=True)
class Case:
    """A model that both sides convert.

    Attributes:
        title: What it is.
        source: What graphkit is given.
        options: Shapes and ranges.
        script: Module that converts it by hand, with the same shapes and ranges.
    """

    title: str
    source: str
    options: tuple[str, ...]
    script: str

    def to_onnx(self, output: Path) -> Command:
        """graphkit, converting it to ONNX."""
        argv = (program("graphkit"), "convert", self.source, "--to", "onnx", *self.options, "--quiet")
        return Command("graphkit convert", (*argv, "-o", str(output)), cwd=ROOT)


RESIDUAL_CNN = Case(
    "residual CNN",
    "fixtures.torch_models:residual_cnn",
    ("--shape", "input=batch,3,64,64", "--dim", "batch=1:4:8"),
    "benchmarks.bare.residual_cnn_to_onnx",
)
MINILM = Case(
    "MiniLM",
    "fixtures.minilm:minilm",
    (
        *("--shape", "input_ids=batch,sequence:int64", "--shape", "attention_mask=batch,sequence:int64"),
        *("--dim", "batch=1:2:8", "--dim", "sequence=2:16:128"),
    ),
    "benchmarks.bare.minilm_to_onnx",
)


def claims(folder: Path) -> Iterator[Claim]:
    """The comparisons of this room; converted models go to `folder`."""
    fetch_minilm()
    for case in (RESIDUAL_CNN, MINILM):
        bare = (sys.executable, "-m", case.script, str(folder / "bare.onnx"))
        yield Claim(
            f"{case.title} to ONNX, the whole command",
            case.to_onnx(folder / "ours.onnx"),
            Command(f"python -m {case.script}", bare, cwd=ROOT),
            MOST,
            note="ours also compares the result with the module at several shapes, isolates three libraries in child "
            "processes and keeps source lines; the script runs ONNX Runtime once and compares nothing",
        )


def fetch_minilm() -> None:
    """Bring MiniLM's weights into the cache, so that no download is timed."""
    from fixtures.fetch import fetch

    fetch("minilm")
