"""A Keras MobileNetV2 to ONNX, as .keras, SavedModel and frozen GraphDef, against `python -m tf2onnx.convert`.

tf2onnx compares nothing; so its peer is graphkit's capture alone, and the price of validation stands in claims of its
own. Both write opset 18. The node counts are in the notes.
"""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from benchmarks.measure import Command, CommandFailed
from benchmarks.results import Claim
from benchmarks.startup import program

REPEATED = 1
ROOT = Path(__file__).resolve().parent.parent
MOST = 1.1
_QUIET = {"TF_CPP_MIN_LOG_LEVEL": "3"}


@dataclass(frozen=True, slots=True)
class _Source:
    """One of the files.

    Attributes:
        title: What it is.
        path: Where it is.
        flags: How tf2onnx's command line is given it.
    """

    title: str
    path: Path
    flags: tuple[str, ...]


def claims(folder: Path) -> Iterator[Claim]:
    """The comparisons of this room; the model and what it becomes go to `folder`."""
    for source in _sources(folder / "mobilenet"):
        ours, theirs = folder / "captured.onnx", folder / "tf2onnx.onnx"
        capture = _python("benchmarks.bare.captured", str(source.path), str(ours))
        peer = _python("tf2onnx.convert", *source.flags, "--opset", "18", "--output", str(theirs))
        yield Claim(f"MobileNetV2 as {source.title} to ONNX, validation off", capture, peer, MOST, note=_OFF)
        whole = (program("graphkit"), "convert", str(source.path), "--to", "onnx", "--quiet")
        convert = Command("graphkit convert", (*whole, "-o", str(folder / "proved.onnx")), _QUIET, ROOT)
        note = f"the price of validation and onnxsim; {_node_counts(ours, theirs)}"
        yield Claim(f"MobileNetV2 as {source.title} to ONNX, with validation", convert, capture, None, note=note)


_OFF = "ours is gk.capture_model and save; it names layers and checks the model, and runs it nowhere"


def _sources(folder: Path) -> tuple[_Source, ...]:
    made = _python("benchmarks.bare.mobilenet_v2", str(folder))
    done = subprocess.run(made.argv, cwd=ROOT, capture_output=True, text=True, check=False)
    if done.returncode != 0:
        raise CommandFailed(f"`{made.label}` ended with exit code {done.returncode}:\n{done.stderr[-2000:]}")
    output = (folder / "outputs.txt").read_text(encoding="utf-8")
    keras, saved, frozen = folder / "model.keras", folder / "saved_model", folder / "frozen.pb"
    return (
        _Source(".keras", keras, ("--keras", str(keras))),
        _Source("SavedModel", saved, ("--saved-model", str(saved))),
        _Source("GraphDef", frozen, ("--graphdef", str(frozen), "--inputs", "image:0", "--outputs", output)),
    )


def _python(module: str, *arguments: str) -> Command:
    return Command(f"python -m {module}", (sys.executable, "-m", module, *arguments), _QUIET, ROOT)


def _node_counts(ours: Path, theirs: Path) -> str:
    """How many nodes each side wrote.

    Raises:
        CommandFailed: ours has more.
    """
    import onnx

    if not ours.is_file() or not theirs.is_file():
        return "nodes not counted"
    mine, other = (len(onnx.load(str(path), load_external_data=False).graph.node) for path in (ours, theirs))
    if mine > other:
        raise CommandFailed(f"graphkit wrote {mine} nodes, tf2onnx {other}")
    return f"{mine} nodes, tf2onnx's own {other}"
