"""State of PyTorch modules, refused: what a module changes about itself would be lost in the graph."""

from __future__ import annotations

import contextlib
import warnings
from collections.abc import Iterator
from dataclasses import replace
from typing import Any

from graphkit.capture import torch_program
from graphkit.capture.audit import changed_state, refuse_state
from graphkit.capture.quiet import quiet
from graphkit.capture.torch_script import is_script
from graphkit.capture.torch_script_lines import nodes, users_line
from graphkit.model import SourceLine


def check(target: Any, module: Any, example: dict[str, Any], name: str) -> None:
    """Refuse a module that keeps state between runs.

    Raises:
        StateMutated
    """
    import torch

    if is_script(module):
        if isinstance(module, torch.jit.ScriptModule):
            parts = _stateless_parts(module)
            refuse_state(script_mutations(module), name=name, parts=parts)
        return
    if torch_program.is_program(target):
        return  # its signature declares what it writes; `_by_export` reads it

    def run() -> None:
        with torch.no_grad(), warnings.catch_warnings():
            warnings.simplefilter("ignore")
            module(**example)

    refuse_state(changed_state(module, run), name=name)


@contextlib.contextmanager
def restored(module: Any) -> Iterator[None]:
    """The module as it was, when the block ends: capture runs it, and one that keeps state would be changed."""
    import torch

    if not isinstance(module, torch.nn.Module) or is_script(module):
        yield
        return
    saved = [
        (part, dict(vars(part)), dict(part._buffers), {n: b.clone() for n, b in part._buffers.items() if b is not None})
        for part in module.modules()
        if not is_script(part)
    ]
    try:
        yield
    finally:
        for part, attributes, buffers, values in saved:
            for name in vars(part).keys() - attributes.keys():
                del vars(part)[name]
            vars(part).update(attributes)
            part._buffers.update(buffers)
            with torch.no_grad():
                for name, value in values.items():
                    if not torch.equal(buffers[name], value):
                        buffers[name].copy_(value)


def script_mutations(script: Any) -> list[tuple[str, SourceLine | None]]:
    """Attributes and buffers that a TorchScript module writes when it is evaluated, with the user's line.

    Freezing removes what only training does (BatchNorm counts its batches there); what it leaves is compared by name
    with the graph before, which still has the lines.
    """
    import torch

    written = _written(script.inlined_graph)
    if not written or not isinstance(script, torch.jit.ScriptModule):
        return list(written.items())
    with quiet():
        try:
            frozen = torch.jit.freeze(script.eval(), optimize_numerics=False)
        except RuntimeError:  # freezing refuses some interfaces; then nothing is known to be dead
            return list(written.items())
    left = _written(frozen.inlined_graph)
    return [(name, line) for name, line in written.items() if name in left]


def _written(graph: Any) -> dict[str, SourceLine | None]:
    """Attributes that a graph writes: by `prim::SetAttr`, or an operator in place (a trailing underscore)."""
    found: dict[str, SourceLine | None] = {}
    owners: dict[str, str] = {}
    last: SourceLine | None = None
    for node in nodes(graph):
        line = users_line(node.sourceRange())
        last = replace(line, function=None) if line else last
        kind = node.kind()
        first = next(node.inputs(), None)
        owner = owners.get(first.debugName()) if first is not None else None
        if kind == "prim::GetAttr":
            owners[node.output().debugName()] = f"{owner or ''}.{node.s('name')}".strip(".")
        elif kind == "prim::SetAttr":
            found.setdefault(f"{owner or ''}.{node.s('name')}".strip("."), last)
        elif owner is not None and kind.startswith("aten::") and kind.endswith("_") and not kind.endswith("__"):
            found.setdefault(owner, last)
        elif owner is not None and kind in _VIEWS:
            owners[node.output().debugName()] = owner
    return found


_VIEWS = {"aten::view", "aten::select", "aten::slice", "aten::reshape", "aten::squeeze", "aten::unsqueeze",
          "aten::transpose", "aten::permute", "aten::detach", "aten::expand", "aten::alias", "prim::data"}  # fmt: skip


def _stateless_parts(module: Any) -> list[str]:
    """Direct children of a TorchScript module that keep no state and can be run: what `--submodule` could take."""
    parts = []
    for name, child in module.named_children():
        with contextlib.suppress(RuntimeError, AttributeError):  # no forward, or an interface type
            if not script_mutations(child):
                parts.append(name)
    return parts
