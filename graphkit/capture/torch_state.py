"""State of PyTorch modules, refused: what a module changes about itself would be lost in the graph."""

from __future__ import annotations

import contextlib
import warnings
from typing import Any

from graphkit.capture import torch_program, torch_script
from graphkit.capture.audit import changed_state, refuse_state


def check(target: Any, module: Any, example: dict[str, Any], name: str) -> None:
    """Refuse a module that keeps state between runs.

    Raises:
        StateMutated
    """
    import torch

    if torch_script.is_script(module):
        if isinstance(module, torch.jit.ScriptModule):
            parts = _stateless_parts(module)
            refuse_state(torch_script.mutated_state(module), name=name, parts=parts)
        return
    if torch_program.is_program(target):
        return  # its signature declares what it writes; `_by_export` reads it

    def run() -> None:
        with torch.no_grad(), warnings.catch_warnings():
            warnings.simplefilter("ignore")
            module(**example)

    refuse_state(changed_state(module, run), name=name)


def _stateless_parts(module: Any) -> list[str]:
    """Direct children of a TorchScript module that keep no state and can be run: what `--submodule` could take."""
    parts = []
    for name, child in module.named_children():
        with contextlib.suppress(RuntimeError, AttributeError):  # no forward, or an interface type
            if not torch_script.mutated_state(child):
                parts.append(name)
    return parts
