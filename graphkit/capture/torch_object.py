"""PyTorch objects in memory, captured in the process that holds them."""

from __future__ import annotations

from typing import Any

from graphkit.capture.request import Source
from graphkit.capture.torch_module import TorchSource


def recognise(target: Any, name: str) -> Source | None:
    """The source for a module, TorchScript, GraphModule or ExportedProgram.

    Raises:
        NotAModel: another object of torch's.
    """
    return TorchSource(target, name=name)
