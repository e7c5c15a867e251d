"""The door to NVIDIA's own parser and builder, in the engine room's child processes."""

from __future__ import annotations

import re
import tempfile
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from graphkit.engine import refusal, rtx, tensorrt
from graphkit.engine.builder import Builder, BuildRequest, Library
from graphkit.engine.profiles import prove
from graphkit.errors import GraphkitError, Lacking, NativeCrash, Refused
from graphkit.model import Model
from graphkit.shapes import DimRange


@dataclass(frozen=True, slots=True)
class Refusal:
    """A node that the parser refuses, in its own terms: name, operator, position in its graph, and why."""

    name: str
    operator: str
    index: int
    reason: str


@dataclass(frozen=True, slots=True)
class Parsed:
    """What the parser said.

    Attributes:
        version: Of the library.
        taken: Whether it takes the model.
        refusals: What it refuses; those without an operator are about the model.
        shapes: Inputs whose values are shapes, which the builder refuses.
    """

    version: str
    taken: bool
    refusals: tuple[Refusal, ...] = ()
    shapes: tuple[str, ...] = ()


def lack(target: str) -> Lacking | None:
    """None, or why the library of `trt` or `rtx` cannot be asked here."""
    return _builder(target).available()


def warm_up(target: str) -> None:
    """Start the child and its imports now, while something else is done."""
    _builder(target).warm_up()


def parse(target: str, path: Path) -> Parsed:
    """Ask the parser about a file that only graphkit writes to.

    Raises:
        NativeCrash, OutOfMemory: the child died.
    """
    library = library_of(target)
    reply: dict[str, Any] = library.worker.call(
        "graphkit.support.parser_child:parse", model_path=str(path), rtx=library.rtx
    )
    errors = [_refusal(error, library.title) for error in reply["errors"]]
    if not reply["taken"] and not errors:
        errors = [Refusal("", "", -1, reply["reason"])]
    return Parsed(reply["version"], reply["taken"], tuple(dict.fromkeys(errors)), tuple(reply["shapes"]))


def build(
    target: str, model: Model, path: Path, dims: tuple[DimRange, ...], capabilities: tuple[str, ...]
) -> GraphkitError | None:
    """Build an engine and throw it away; returns what the builder has against it.

    Raises:
        BadRequest: a range is missing, or the graph does not hold at the sizes that were given.
        Lacking, OutOfMemory, TimedOut: what they say.
    """
    asked = BuildRequest(model, dims, capabilities, file=path)
    try:
        with tempfile.TemporaryDirectory(prefix="graphkit-") as folder:
            _builder(target).build(asked, Path(folder, "model.engine"), durable=False)
    except (Refused, NativeCrash) as error:
        return error
    return None


def contradiction(model: Model, dims: tuple[DimRange, ...]) -> GraphkitError | None:
    """What ONNX's strict shape inference has against the graph at its smallest, usual and largest sizes.

    Raises:
        BadRequest: the graph does not hold at some of the sizes that were given.
        TimedOut: inference did not end.
    """
    try:
        prove(model, dims)
    except Refused as error:
        return error
    return None


def check_capabilities(target: str, capabilities: tuple[str, ...]) -> None:
    """Raises: `UnknownTarget`: the library does not build for one of them."""
    if target == "rtx" and capabilities and lack(target) is None:
        rtx.check_capabilities(capabilities, rtx.library())


def _builder(target: str) -> Builder:
    return rtx.RtxBuilder() if target == "rtx" else tensorrt.TensorRTBuilder()


def library_of(target: str) -> Library:
    return rtx.library() if target == "rtx" else tensorrt.library()


_SOURCE = re.compile(r"\s*\(?\bIn \S+ at /_src/\S+\s*$")


def _refusal(error: dict[str, Any], title: str) -> Refusal:
    """The parser's words in one line, without places in NVIDIA's own code."""
    lines = refusal.reason_of(error, title).splitlines()
    own = next((line for line in lines if not line.startswith(("Invalid Node - ", "["))), lines[0] if lines else "")
    own = _SOURCE.sub("", re.sub(r"^\w+::\w+: (?=Error Code)", "", own))
    return Refusal(error["name"], error["operator"], error["index"], own)
