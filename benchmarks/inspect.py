"""Looking at a model without loading it, against loading it: a ResNet, a graph of 20,000 nodes, 2 GB of weights.

The peers are `polygraphy inspect model`, which says less, and onnx.load alone.
"""

from __future__ import annotations

import sys
from collections.abc import Iterator
from pathlib import Path

from benchmarks.made_models import big, resnet, transformer
from benchmarks.measure import Command
from benchmarks.results import Claim
from benchmarks.startup import program

REPEATED = 1

_LOAD = "import sys, onnx; print(len(onnx.load(sys.argv[1]).graph.node))"
_NOTE = "graphkit says what it costs too; its bytecode is cached, as pip leaves that of the peer"


def claims(folder: Path) -> Iterator[Claim]:
    """The comparisons of this room; the models are written to `folder`, 2.1 GB in all."""
    bytecode = {"PYTHONDONTWRITEBYTECODE": "", "PYTHONPYCACHEPREFIX": str(folder / "bytecode")}
    for title, make, most, memory in (
        ("ResNet-18, 47 MB", resnet, 0.3, None),
        ("20,000 nodes, 28 MB", transformer, 0.3, None),
        ("2 GB in one file", big, 0.2, 0.05),
    ):
        path = folder / f"{make.__name__}.onnx"
        make(path)
        ours = Command("graphkit inspect", (program("graphkit"), "inspect", str(path)), bytecode)
        peer = Command("polygraphy inspect model", (program("polygraphy"), "inspect", "model", str(path)))
        loaded = Command("onnx.load", (sys.executable, "-c", _LOAD, str(path)))
        yield Claim(f"inspect {title}", ours, peer, most, most_memory=memory, note=_NOTE)
        yield Claim(f"inspect {title}, against onnx.load", ours, loaded, None)
        path.unlink()
