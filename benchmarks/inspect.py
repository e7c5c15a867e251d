"""Looking at a model without loading it, against loading it: a ResNet, a graph of 20,000 nodes, 2 GB of weights.

The peers are `polygraphy inspect model`, which says less than graphkit's commands do, and onnx.load alone.
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

_VIEW = "import sys; from graphkit import view; print(len(view.read(sys.argv[1]).graph))"
_LOAD = "import sys, onnx; print(len(onnx.load(sys.argv[1]).graph.node))"


def claims(folder: Path) -> Iterator[Claim]:
    """The comparisons of this room; the models are written to `folder`, 2.1 GB in all."""
    for title, make, most in (
        ("ResNet-18, 47 MB", resnet, 0.3),
        ("20,000 nodes, 28 MB", transformer, 0.3),
        ("2 GB in one file", big, 0.2),
    ):
        path = folder / f"{make.__name__}.onnx"
        make(path)
        view = Command("graphkit.view.read", (sys.executable, "-c", _VIEW, str(path)))
        inspected = Command("polygraphy inspect model", (program("polygraphy"), "inspect", "model", str(path)))
        loaded = Command("onnx.load", (sys.executable, "-c", _LOAD, str(path)))
        yield Claim(f"the view of {title}", view, inspected, most, note="the view has names, types and attributes")
        yield Claim(f"the view of {title}, against onnx.load", view, loaded, None)
        path.unlink()
