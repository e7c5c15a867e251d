"""A TorchScript module with dicts, lists or nested tuples at its door, given a flat one: the exporter refuses them."""

from __future__ import annotations

from typing import Any

from graphkit.capture.quiet import quiet
from graphkit.capture.torch_example import Leaf
from graphkit.capture.torch_load import last_sentence
from graphkit.capture.torch_script_lines import SHELL
from graphkit.errors import CaptureFailed


def is_nested(result: Any) -> bool:
    import torch

    if isinstance(result, torch.Tensor | int | float | bool):
        return False
    items = result if isinstance(result, tuple) and not hasattr(result, "_fields") else None
    return items is None or not all(isinstance(i, torch.Tensor) for i in items)


def flattened(script: Any, leaves: tuple[Leaf, ...], result: Any) -> Any:
    """A scripted shell around the module that takes and returns flat tuples: the exporter refuses dicts."""
    import torch

    types = {True: "int", False: "Tensor"}
    parameters = []
    for position, leaf in enumerate(leaves):
        kind = leaf.spec.dtype if leaf.scalar else types[False]
        parameters.append(f"i{position}: {kind}")
    by_param: dict[str, list[tuple[Leaf, str]]] = {}
    for position, leaf in enumerate(leaves):
        by_param.setdefault(leaf.param, []).append((leaf, f"i{position}"))
    passed = ", ".join(f"{param}={_literal(items)}" for param, items in by_param.items())
    returned = ", ".join(_paths(result, "out"))
    code = f"def forward(self, {', '.join(parameters)}):\n  out = self.{SHELL}({passed})\n  return ({returned},)\n"

    class Shell(torch.jit.ScriptModule):  # type: ignore[misc, unused-ignore]
        def __init__(self) -> None:
            super().__init__()
            setattr(self, SHELL, script)
            self.define(code)

    try:
        with quiet():
            return Shell().eval()
    except Exception as error:
        raise CaptureFailed(
            f"TorchScript cannot flatten the model's inputs and outputs: {last_sentence(error)}"
        ) from error


def _literal(items: list[tuple[Leaf, str]]) -> str:
    if len(items) == 1 and not items[0][0].path:
        return items[0][1]
    inner: dict[str, list[tuple[Leaf, str]]] = {}
    for leaf, name in items:
        rest = Leaf(leaf.param, leaf.path[1:], leaf.spec, leaf.value, leaf.scalar)
        inner.setdefault(leaf.path[0], []).append((rest, name))
    if all(k.isdecimal() for k in inner):
        return "[" + ", ".join(_literal(inner[k]) for k in sorted(inner, key=int)) + "]"
    return "{" + ", ".join(f'"{k}": {_literal(v)}' for k, v in inner.items()) + "}"


def _paths(value: Any, path: str) -> list[str]:
    """TorchScript expressions that reach every tensor of a nested result, in the order of `named_outputs`."""
    import torch

    if isinstance(value, torch.Tensor):
        return [path]
    if isinstance(value, dict):
        return [p for k, v in value.items() for p in _paths(v, f"{path}[{_quoted(k)}]")]
    if hasattr(value, "_fields"):
        return [p for f in value._fields for p in _paths(getattr(value, f), f"{path}.{f}")]
    if isinstance(value, tuple | list):
        return [p for i, v in enumerate(value) for p in _paths(v, f"{path}[{i}]")]
    raise CaptureFailed(
        f"the scripted model returns a {type(value).__name__} inside its result", remedy="return tensors"
    )


def _quoted(key: Any) -> str:
    return f'"{key}"' if isinstance(key, str) else repr(key)


def value_at(value: Any, path: tuple[str, ...]) -> Any:
    for key in path:
        value = value[int(key)] if isinstance(value, list) else value[key]
    return value
