"""The one command that shows the failure in the folder."""

from __future__ import annotations

import shlex
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from graphkit.engine.profiles import POINTS, make_profile
from graphkit.model import Model
from graphkit.shrink.check_build import BuildCheck
from graphkit.shrink.check_command import CommandCheck
from graphkit.shrink.trial import Check

_LARGEST_COPY = 1_000_000


@dataclass(frozen=True, slots=True)
class Shown:
    """How a failure is shown.

    Attributes:
        command: For a shell, in the folder.
        label: What the check does; a command without the places of its files.
        copies: Files that it needs beside it.
    """

    command: str
    label: str
    copies: tuple[Path, ...] = ()


def show(check: Check, model: Model) -> Shown:
    """The command for a check on `model.onnx`."""
    if isinstance(check, CommandCheck):
        words, copies = _beside(check.words)
        spelled = [w.replace("{model}", "model.onnx").replace("{inputs}", "inputs/0") for w in words]
        return Shown(shlex.join(spelled), shlex.join(words), tuple(copies))
    if isinstance(check, BuildCheck):
        return Shown(_polygraphy(check, model), check.label)
    return Shown("python reproduce.py", check.label)


def _beside(words: Sequence[str]) -> tuple[list[str], list[Path]]:
    """A command with its own small files (a script, its settings) named as they lie beside it, and those files."""
    spelled: list[str] = []
    copies: list[Path] = []
    for position, word in enumerate(words):
        path = Path(word)
        copied = path.is_file() and path.stat().st_size <= _LARGEST_COPY and path.name not in _OURS
        if position == 0:
            copied = copied and path.read_bytes()[:2] == b"#!"
        if copied and any(c.name == path.name and c != path for c in copies):
            copied = False
        if copied:
            copies.append(path)
        spelled.append((f"./{path.name}" if copied else path.name) if position == 0 else path.name if copied else word)
    return spelled, copies


_OURS = ("model.onnx", "other.onnx", "README.md", "failure.json", "reproduce.py")


def _polygraphy(check: BuildCheck, model: Model) -> str:
    """NVIDIA's own tool, which those who get the report have."""
    words = ["polygraphy", "convert", "model.onnx", "-o", "model.engine"]
    profile = make_profile(model.signature, model.dims)
    for index, point in enumerate(POINTS if model.dims else ()):
        words.append(f"--trt-{point}-shapes")
        words += [f"{name}:[{','.join(map(str, triple[index]))}]" for name, triple in profile.shapes.items()]
    if check.backend != "rtx":
        return shlex.join([*words, "--strongly-typed"])
    if check.compute_capabilities:
        words += ["--compute-capabilities", *check.compute_capabilities]
    return f"POLYGRAPHY_USE_TENSORRT_RTX=1 {shlex.join(words)}"
