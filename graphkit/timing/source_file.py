"""The file that a converted model came from, found again."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from graphkit.capture.python_callable import is_callable_spec
from graphkit.errors import BadOption, FileMissing
from graphkit.model import file_sha256
from graphkit.view import read


def source_beside(targets: Sequence[Any]) -> list[Path]:
    """The file that the first ONNX file of the targets was converted from: beside it, with the digest that it names.

    Raises:
        FileMissing: it is not there, or another one. `BadOption`: no target says what it was converted from, or it was
            code, which a file must not choose to run.
    """
    for target in targets:
        if not isinstance(target, str | Path) or Path(target).suffix != ".onnx" or not Path(target).is_file():
            continue
        path = Path(target)
        try:
            origin = json.loads(read(path).metadata.get("graphkit.origin", "{}"))
            name, digest = str(origin.get("name") or ""), origin.get("sha256")
        except (ValueError, AttributeError):
            continue  # the metadata is damaged: it says nothing
        if is_callable_spec(name):
            raise BadOption(
                f"{path.name} was converted from code, {name}, which graphkit runs only where you name it",
                remedy=f"graphkit bench {name} {path.name}",
            )
        if not name or not digest:
            continue
        source = path.with_name(Path(name).name)
        if not source.is_file() or file_sha256(source) != digest:
            raise FileMissing(
                f"{path.name} was converted from {name} (sha256 {digest[:12]}), which is not beside it",
                remedy="name the source itself: graphkit bench SOURCE " + path.name,
            )
        return (
            []
            if any(isinstance(t, str | Path) and Path(t).resolve() == source.resolve() for t in targets)
            else [source]
        )
    raise BadOption("no ONNX file here says what it was converted from", remedy="graphkit bench SOURCE MODEL.onnx")
